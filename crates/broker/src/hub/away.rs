//! Sending connections away: whom a request means, and what becomes of them.

use std::collections::{BTreeSet, HashSet};
use std::sync::PoisonError;
use std::time::Duration;

use claudemesh_proto::ban::Sought;
use claudemesh_proto::presence::PeerRole;
use claudemesh_proto::{DisplayName, MemberId, MeshId, PresenceId, PublicKey, Timestamp};
use claudemesh_store::SessionClaim;

use crate::close::Close;
use crate::hub::room::Room;
use crate::hub::{Hub, Presence};

/// Whom to send away.
#[derive(Debug)]
pub(crate) enum Whom {
    /// Everybody but the caller.
    All,
    /// Whoever gave no sign of life since, but for the caller.
    Silent(Timestamp),
    /// Whom a text means, and the members that it is the name of.
    Meant(Sought, Vec<MemberId>),
}

/// A request to send connections away.
#[derive(Debug)]
pub(crate) struct Away<'a> {
    pub(crate) whom: Whom,
    /// The connection that asks.
    pub(crate) by: &'a PresenceId,
    /// A member whose connections stay.
    pub(crate) spared: Option<&'a MemberId>,
    pub(crate) close: Close,
    /// For so long, sessions that are sent away may not come back; connections of daemons and commands are left alone.
    pub(crate) block: Option<Duration>,
}

/// Who was sent away, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SentAway {
    pub(crate) names: Vec<DisplayName>,
    /// The members that they were of, each once.
    pub(crate) members: BTreeSet<MemberId>,
    /// Who was meant and left alone.
    pub(crate) skipped: Vec<DisplayName>,
}

/// Why nobody was sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotSentAway {
    /// The text means more than one.
    Ambiguous,
    /// It means whoever is spared.
    Spared,
}

impl Hub {
    /// Ends presences and closes their connections, as an admin asks for.
    pub(crate) fn send_away(&self, mesh: &MeshId, away: &Away<'_>) -> Result<SentAway, NotSentAway> {
        let now = self.clock.now();
        let mut rooms = self.rooms();
        self.end_leases_of(&mut rooms, mesh);
        let Some(room) = rooms.get_mut(mesh) else { return Ok(SentAway::default()) };
        let meant = meant(room, away)?;
        let (leaving, skipped): (Vec<_>, Vec<_>) = meant
            .into_iter()
            .partition(|presence| away.block.is_none() || presence.peer.peer_role != PeerRole::ControlPlane);
        let name = |presence: Presence| presence.peer.display_name.clone();
        let ids: Vec<PresenceId> = leaving.iter().map(|presence| presence.id.clone()).collect();
        let expelled = room.expel(&ids, away.close, now);
        if room.is_empty() {
            rooms.remove(mesh);
        }
        if let Some(duration) = away.block {
            let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
            for session in expelled.iter().filter_map(|presence| presence.session) {
                blocks.add((mesh.clone(), session.pubkey), now, now.plus(duration));
            }
        }
        let members = expelled.iter().map(|presence| presence.member_id.clone()).collect();
        let (mut names, mut skipped): (Vec<_>, Vec<_>) =
            (expelled.into_iter().map(name).collect(), skipped.into_iter().map(name).collect());
        names.sort_unstable();
        skipped.sort_unstable();
        Ok(SentAway { names, members, skipped })
    }

    /// Ends everything that is here of a member who was removed; whether there was anything.
    pub(crate) fn expel(&self, mesh: &MeshId, member: &MemberId) -> bool {
        self.end_all_of(mesh, member, Close::BANNED)
    }

    /// Ends everything that is here of a member; whether there was anything.
    pub(crate) fn end_all_of(&self, mesh: &MeshId, member: &MemberId, close: Close) -> bool {
        self.streams.end_of_member(mesh, member, None);
        let mut rooms = self.rooms();
        let Some(room) = rooms.get_mut(mesh) else { return false };
        let presences = room.presences_of(member);
        let expelled = room.expel(&presences, close, self.clock.now());
        if room.is_empty() {
            rooms.remove(mesh);
        }
        !expelled.is_empty()
    }

    /// For how long a session has to stay away, if an admin sent it away. Who only names its key is not held to it.
    pub(super) fn blocked_for(&self, mesh: &MeshId, session: Option<SessionClaim>, now: Timestamp) -> Option<Duration> {
        let session = session.filter(|session| session.proven)?;
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.is_empty() {
            return None;
        }
        blocks.left(&(mesh.clone(), session.pubkey), now)
    }
}

/// The presences that are meant, without those that are spared.
fn meant(room: &Room, away: &Away<'_>) -> Result<Vec<Presence>, NotSentAway> {
    let is_spared = |presence: &Presence| away.spared.is_some_and(|member| presence.member_id == *member);
    let others = |presence: &Presence| presence.id != *away.by && !is_spared(presence);
    match &away.whom {
        Whom::All => Ok(room.heard().map(|(presence, _)| presence).filter(|it| others(it)).cloned().collect()),
        Whom::Silent(since) => {
            let is_silent = |(presence, heard): &(&Presence, Timestamp)| *heard <= *since && others(presence);
            Ok(room.heard().filter(is_silent).map(|(presence, _)| presence.clone()).collect())
        }
        Whom::Meant(target, called) => {
            let meant = by_target(room, target, called)?;
            if meant.iter().any(is_spared) { Err(NotSentAway::Spared) } else { Ok(meant) }
        }
    }
}

/// One member or one session that a text may mean.
#[derive(PartialEq, Eq, Hash)]
enum Named {
    Member(MemberId),
    Session(PublicKey),
}

fn by_target(room: &Room, target: &Sought, called: &[MemberId]) -> Result<Vec<Presence>, NotSentAway> {
    let mut named: HashSet<Named> = called.iter().cloned().map(Named::Member).collect();
    let mut meant = Vec::new();
    for (presence, _) in room.heard() {
        let is_member = called.contains(&presence.member_id)
            || target.means_name(&presence.peer.display_name)
            || target.means_key(&presence.peer.member_pubkey);
        let session = presence.session.filter(|session| target.means_key(&session.pubkey));
        match session {
            _ if is_member => named.insert(Named::Member(presence.member_id.clone())),
            Some(session) => named.insert(Named::Session(session.pubkey)),
            None => continue,
        };
        meant.push(presence.clone());
    }
    if named.len() > 1 { Err(NotSentAway::Ambiguous) } else { Ok(meant) }
}
