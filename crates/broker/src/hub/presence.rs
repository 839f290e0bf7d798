//! What others see of a connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_proto::hello::{Group, Place, QUIET};
use claudemesh_proto::limits::{MAX_GROUPS, MAX_NAME_CHARS, MAX_PATH_BYTES};
use claudemesh_proto::presence::{Peer, PeerRole};
use claudemesh_proto::text::one_line;
use claudemesh_proto::{DisplayName, GroupName, MemberId, MeshId, PresenceId, Status, Timestamp};
use claudemesh_store::{Admission, SessionClaim, Welcome};

use crate::hub::status::Reported;
use crate::hub::{LeaseKey, TokenHash};

/// A connection that was admitted.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    pub(crate) id: PresenceId,
    pub(crate) mesh_id: MeshId,
    pub(crate) member_id: MemberId,
    pub(crate) lease: LeaseKey,
    pub(crate) session: Option<SessionClaim>,
    /// Whether it may take mail for that key: it proved it, or nobody ever did.
    pub(crate) speaks_for_session: bool,
    /// It wants no mail.
    pub(crate) is_quiet: bool,
    /// Where it connects from; none for this machine with nothing in between.
    pub(crate) address: Option<IpAddr>,
    pub(crate) pid: i64,
    /// What lets a hook speak for it.
    pub(crate) hook_token: TokenHash,
    /// What was known of its member before, when that comes back.
    pub(crate) returns: Option<Returns>,
    /// Kept in step with `peer.status`.
    reported: Reported,
    /// What others see of it.
    pub(crate) peer: Arc<Peer>,
}

/// What was known of a member that comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Returns {
    pub(crate) last_seen_at: Timestamp,
    pub(crate) summary: Option<String>,
}

/// A connection that is about to be a presence.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) id: PresenceId,
    pub(crate) now: Timestamp,
    pub(crate) address: Option<IpAddr>,
    pub(crate) hook_token: TokenHash,
}

impl Presence {
    /// Everything that the client says about itself is cut to its limit and cleaned here: it ends up in other people's terminals.
    pub(crate) fn new(
        Arrival { id, now, address, hook_token }: Arrival,
        admission: &Admission,
        welcome: &Welcome,
        (place, peer_role): (Place, PeerRole),
    ) -> Self {
        let session = admission.session;
        let lease = LeaseKey::of(&id, admission, (&place, peer_role));
        let capabilities = place.capabilities.unwrap_or_default();
        let named = place.display_name.as_deref().and_then(DisplayName::clipped);
        // A member's connection that names no groups says nothing of them; a session's says that it is in none.
        let said = place.groups.filter(|groups| peer_role == PeerRole::Session || !groups.is_empty());
        let groups = said.map_or_else(|| welcome.default_groups.clone(), clean_groups);
        let peer = Peer {
            pubkey: session.map_or(admission.member_pubkey, |session| session.pubkey),
            member_pubkey: admission.member_pubkey,
            display_name: named.unwrap_or_else(|| welcome.display_name.clone()),
            status: Status::Idle,
            summary: None,
            groups,
            session_id: name(&place.session_id),
            connected_at: now,
            cwd: directory(&place.cwd),
            peer_role,
            hostname: place.hostname.as_deref().map(name),
            peer_type: place.peer_type.as_deref().map(name),
            channel: place.channel.as_deref().map(name),
            model: place.model.as_deref().map(name),
            stats: None,
            visible: Some(true),
            profile: None,
        };
        let returns = welcome.last_seen_at.filter(|_| peer_role == PeerRole::ControlPlane);
        let returns = returns.map(|last_seen_at| Returns { last_seen_at, summary: None });
        Self {
            id,
            mesh_id: admission.mesh_id.clone(),
            member_id: welcome.member_id.clone(),
            lease,
            session,
            speaks_for_session: session.is_some_and(|session| session.proven || !welcome.session_was_proven),
            is_quiet: capabilities.iter().any(|word| word == QUIET),
            address,
            pid: place.pid,
            hook_token,
            returns,
            reported: Reported::new(now),
            peer: Arc::new(peer),
        }
    }

    /// Goes on where the same presence was when its line broke: what it said since it connected is still so.
    pub(super) fn take_up(&mut self, old: Self) {
        self.id = old.id;
        self.know(old.reported);
        let (peer, old) = (Arc::make_mut(&mut self.peer), Arc::unwrap_or_clone(old.peer));
        peer.connected_at = old.connected_at;
        peer.summary = old.summary;
        peer.stats = old.stats;
        peer.visible = old.visible;
        peer.profile = old.profile;
    }

    /// Takes in what somebody says about how busy it is; what a hook said before counts as fresh for `fresh_for`.
    pub(crate) fn report(&mut self, said: Reported, fresh_for: Duration) {
        self.know(self.reported.after(said, fresh_for));
    }

    /// It is idle when it was working and nothing has said so for `ttl`.
    pub(super) fn rest(&mut self, now: Timestamp, ttl: Duration) -> bool {
        let before = self.reported;
        self.know(before.at_rest(now, ttl));
        self.reported != before
    }

    fn know(&mut self, reported: Reported) {
        self.reported = reported;
        if self.peer.status != reported.status {
            Arc::make_mut(&mut self.peer).status = reported.status;
        }
    }

    /// Whether only what is urgent may be handed over.
    pub(super) fn is_busy(&self) -> bool {
        self.reported.status != Status::Idle
    }

    /// Whether others may not see it.
    pub(crate) fn is_hidden(&self) -> bool {
        self.peer.visible == Some(false)
    }

    /// Whether others hear that it comes and goes.
    pub(super) fn is_announced(&self) -> bool {
        !self.is_quiet && !self.is_hidden()
    }

    /// A command that runs for a moment.
    pub(super) fn is_cold(&self) -> bool {
        self.peer.peer_role == PeerRole::ControlPlane && (self.session.is_some() || self.is_quiet)
    }
}

/// A working directory, cleaned and cut.
pub(crate) fn directory(text: &str) -> String {
    cut(one_line(text), MAX_PATH_BYTES)
}

/// One line of at most 128 bytes: session ids and host names are longer than people's names.
pub(crate) fn name(text: &str) -> String {
    cut(one_line(text), 2 * MAX_NAME_CHARS)
}

fn cut(mut text: String, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.truncate(end);
    text
}

fn clean_groups(groups: Vec<Group>) -> Vec<Group> {
    let clean = groups.into_iter().filter_map(|Group { name, role }| {
        let (name, role) = (one_line(&name), role.map(|role| cut(one_line(&role), MAX_NAME_CHARS)));
        name.parse::<GroupName>().is_ok().then_some(Group { name, role })
    });
    clean.take(MAX_GROUPS).collect()
}
