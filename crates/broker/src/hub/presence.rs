//! What others see of a connection.

use std::sync::Arc;

use claudemesh_proto::hello::{Group, Place, QUIET};
use claudemesh_proto::limits::{MAX_GROUPS, MAX_NAME_CHARS, MAX_PATH_BYTES};
use claudemesh_proto::presence::{Peer, PeerRole};
use claudemesh_proto::text::one_line;
use claudemesh_proto::{DisplayName, GroupName, MemberId, MeshId, PresenceId, Status, Timestamp};
use claudemesh_store::{Admission, SessionClaim, Welcome};

use crate::hub::LeaseKey;

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
    pub(crate) peer: Arc<Peer>,
}

impl Presence {
    /// Everything that the client says about itself is cut to its limit and cleaned here: it ends up in other people's terminals.
    pub(crate) fn new(
        (id, now): (PresenceId, Timestamp),
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
            cwd: cut(one_line(&place.cwd), MAX_PATH_BYTES),
            peer_role,
            hostname: place.hostname.as_deref().map(name),
            peer_type: place.peer_type.as_deref().map(name),
            channel: place.channel.as_deref().map(name),
            model: place.model.as_deref().map(name),
            stats: None,
            visible: None,
            profile: None,
        };
        Self {
            id,
            mesh_id: admission.mesh_id.clone(),
            member_id: welcome.member_id.clone(),
            lease,
            session,
            speaks_for_session: session.is_some_and(|session| session.proven || !welcome.session_was_proven),
            is_quiet: capabilities.iter().any(|word| word == QUIET),
            peer: Arc::new(peer),
        }
    }
}

/// One line of at most 128 bytes: session ids and host names are longer than people's names.
pub(super) fn name(text: &str) -> String {
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
