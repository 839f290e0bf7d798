//! What others see of a connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_proto::hello::{Place, QUIET, RestoredStats, TOPICS};
use claudemesh_proto::limits::{MAX_NAME_CHARS, MAX_PATH_BYTES};
use claudemesh_proto::presence::{Peer, PeerRole, Profile, Stats};
use claudemesh_proto::text::one_line;
use claudemesh_proto::{DisplayName, GroupSet, MemberId, MeshId, PresenceId, Status, Timestamp};
use claudemesh_store::{Admission, SaidGroups, SessionClaim, Welcome};

use crate::hub::status::Reported;
use crate::hub::{LeaseKey, TokenHash};

/// A connection that was admitted.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    pub(crate) id: PresenceId,
    pub(crate) mesh_id: MeshId,
    pub(crate) member_id: MemberId,
    /// The member's own name; what the connection calls itself is in `peer`.
    pub(crate) member_name: DisplayName,
    pub(crate) lease: LeaseKey,
    pub(crate) session: Option<SessionClaim>,
    /// Whether it may take mail for that key: it proved it, or nobody ever did.
    pub(crate) speaks_for_session: bool,
    /// It wants no mail.
    pub(crate) is_quiet: bool,
    /// It can open messages of encrypted topics, and is told of mentions.
    pub(crate) knows_topics: bool,
    /// Where it connects from; none for this machine with nothing in between.
    pub(crate) address: Option<IpAddr>,
    pub(crate) pid: i64,
    /// What lets a hook speak for it.
    pub(crate) hook_token: TokenHash,
    /// What was known of its member before, when that comes back.
    pub(crate) returns: Option<Returns>,
    /// Kept in step with `peer.status`.
    reported: Reported,
    /// Where the groups come from that it shows.
    groups_from: GroupsFrom,
    /// What was already added to what its member did.
    summed_up: RestoredStats,
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

/// Where the groups come from that a presence shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupsFrom {
    /// Its handshake named them, or said that there are none.
    Handshake,
    /// The member said so, now or earlier.
    Member,
    /// They are those that the member starts with, whatever they are.
    Default,
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
        let named = named.and_then(|name| name.chosen().ok());
        let (groups, groups_from) = groups(&admission.groups, welcome, peer_role);
        // A session is a new thing each time.
        let remembered = welcome.remembered.as_ref().filter(|_| peer_role == PeerRole::ControlPlane);
        let peer = Peer {
            pubkey: session.map_or(admission.member_pubkey, |session| session.pubkey),
            member_pubkey: admission.member_pubkey,
            display_name: named.unwrap_or_else(|| welcome.display_name.clone()),
            status: Status::Idle,
            summary: None,
            groups: groups.into_vec(),
            session_id: name(&place.session_id),
            connected_at: now,
            cwd: directory(&place.cwd),
            peer_role,
            hostname: place.hostname.as_deref().map(name),
            peer_type: place.peer_type.as_deref().map(name),
            channel: place.channel.as_deref().map(name),
            model: place.model.as_deref().map(name),
            stats: None,
            visible: Some(remembered.is_none_or(|remembered| remembered.visible)),
            profile: remembered.map(|remembered| remembered.profile.clone()).filter(|it| *it != Profile::default()),
        };
        let summary = remembered.map(|remembered| remembered.last_summary.clone());
        let returns =
            welcome.last_seen_at.zip(summary).map(|(last_seen_at, summary)| Returns { last_seen_at, summary });
        Self {
            id,
            mesh_id: admission.mesh_id.clone(),
            member_id: welcome.member_id.clone(),
            member_name: welcome.display_name.clone(),
            lease,
            session,
            speaks_for_session: session.is_some_and(|session| session.proven || !welcome.session_was_proven),
            is_quiet: capabilities.iter().any(|word| word == QUIET),
            knows_topics: capabilities.iter().any(|word| word == TOPICS),
            address,
            pid: place.pid,
            hook_token,
            returns,
            reported: Reported::new(now),
            groups_from,
            summed_up: RestoredStats::default(),
            peer: Arc::new(peer),
        }
    }

    /// Goes on where the same presence was when its line broke: what it said since it connected is still so.
    pub(super) fn take_up(&mut self, old: Self) {
        self.id = old.id;
        self.know(old.reported);
        self.summed_up = old.summed_up;
        let says_groups = self.groups_from == GroupsFrom::Handshake;
        let groups_from = old.groups_from;
        let (peer, old) = (Arc::make_mut(&mut self.peer), Arc::unwrap_or_clone(old.peer));
        peer.connected_at = old.connected_at;
        peer.summary = old.summary;
        peer.stats = old.stats;
        peer.visible = old.visible;
        peer.profile = old.profile;
        if !says_groups {
            peer.groups = old.groups;
            self.groups_from = groups_from;
        }
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

    /// The groups that it shows.
    pub(crate) fn groups(&self) -> GroupSet {
        GroupSet::read(self.peer.groups.clone()).unwrap_or_default()
    }

    /// Shows groups of its own.
    pub(crate) fn show_groups(&mut self, groups: GroupSet) {
        Arc::make_mut(&mut self.peer).groups = groups.into_vec();
        self.groups_from = GroupsFrom::Member;
    }

    /// Shows the groups that its member starts with, if it did so before.
    pub(crate) fn show_default_groups(&mut self, groups: &GroupSet) {
        if self.groups_from == GroupsFrom::Default {
            Arc::make_mut(&mut self.peer).groups = groups.clone().into_vec();
        }
    }

    /// What it did since this was last asked.
    pub(super) fn sum_up(&mut self) -> RestoredStats {
        let Stats { messages_in, messages_out, tool_calls, errors, .. } = self.peer.stats.unwrap_or_default();
        let now = RestoredStats {
            messages_in: messages_in.unwrap_or_default(),
            messages_out: messages_out.unwrap_or_default(),
            tool_calls: tool_calls.unwrap_or_default(),
            errors: errors.unwrap_or_default(),
        };
        let before = std::mem::replace(&mut self.summed_up, now);
        RestoredStats {
            messages_in: since(before.messages_in, now.messages_in),
            messages_out: since(before.messages_out, now.messages_out),
            tool_calls: since(before.tool_calls, now.tool_calls),
            errors: since(before.errors, now.errors),
        }
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

/// The groups that a presence shows: those that its handshake names, else those that hold for its member, but for a session those
/// that its member starts with.
fn groups(said: &SaidGroups, welcome: &Welcome, peer_role: PeerRole) -> (GroupSet, GroupsFrom) {
    let member_said = welcome.remembered.as_ref().is_some_and(|remembered| !remembered.groups.is_empty());
    match (said, peer_role) {
        (SaidGroups::Own(groups) | SaidGroups::Also(groups), _) => (groups.clone(), GroupsFrom::Handshake),
        (SaidGroups::Nothing, PeerRole::ControlPlane) if member_said => (welcome.groups.clone(), GroupsFrom::Member),
        (SaidGroups::Nothing, _) => (welcome.default_groups.clone(), GroupsFrom::Default),
    }
}

/// What was counted since `before`. A client that counts from nothing again has done all that it says.
fn since(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}
