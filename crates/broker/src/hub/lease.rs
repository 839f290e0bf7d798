//! What a broken connection is known by when it comes back.

use claudemesh_proto::hello::Place;
use claudemesh_proto::presence::PeerRole;
use claudemesh_proto::{PresenceId, PublicKey};
use claudemesh_store::Admission;

use crate::hub::presence::name;
use crate::session::handshake::Greeting;

/// What makes two connections the same presence, one after the other. A `hello` never shares a key with a `session_hello`, and
/// no key is shared between members: nobody can displace anybody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum LeaseKey {
    /// A session that proved its key.
    Session(PublicKey),
    /// A member's connection that names a session key.
    MemberSession(PublicKey, PublicKey),
    /// A member's connection without one, by its session id and host.
    Member(PublicKey, String, Option<String>),
    /// A connection that names nothing to be known by.
    Anonymous(PresenceId),
}

impl LeaseKey {
    /// That of an admitted connection.
    pub(super) fn of(presence_id: &PresenceId, admission: &Admission, (place, peer_role): (&Place, PeerRole)) -> Self {
        match (peer_role, admission.session) {
            (PeerRole::Session, Some(session)) => Self::Session(session.pubkey),
            (PeerRole::ControlPlane, Some(session)) => Self::MemberSession(admission.member_pubkey, session.pubkey),
            (_, None) if place.session_id.is_empty() => Self::Anonymous(presence_id.clone()),
            (_, None) => {
                Self::Member(admission.member_pubkey, name(&place.session_id), place.hostname.as_deref().map(name))
            }
        }
    }

    /// The lease that a handshake would take up if it is true; nothing of it is proven yet.
    pub(crate) fn named_in(greeting: &Greeting) -> Option<Self> {
        match greeting {
            Greeting::Session(hello) => hello.session_pubkey.parse().ok().map(Self::Session),
            Greeting::Member(hello) => {
                let member = hello.pubkey.parse().ok()?;
                let place = &hello.place;
                match hello.session_pubkey.as_deref().filter(|key| !key.is_empty()) {
                    Some(session) => session.parse().ok().map(|session| Self::MemberSession(member, session)),
                    None => Some(Self::Member(member, name(&place.session_id), place.hostname.as_deref().map(name))),
                }
            }
        }
    }
}
