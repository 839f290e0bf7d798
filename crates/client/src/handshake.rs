//! Proving who we are to a broker.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use claudemesh_keys::Identity;
use claudemesh_proto::hello::{Attestation, Hello, Place, SessionHello};
use claudemesh_proto::{ClientFrame, MemberId, MeshId, PublicKey, Timestamp, canonical};

/// As whom a connection is opened. One value serves any number of connections.
#[derive(Clone)]
pub enum Handshake {
    /// As a member, signing with the member's key. Mail for the member comes here.
    Member {
        /// The mesh.
        mesh: MeshId,
        /// The member.
        member: MemberId,
        /// The member's key.
        identity: Arc<Identity>,
    },
    /// As a session, signing with the session's key, vouched for by the member. Mail for the session comes here.
    Session {
        /// The mesh.
        mesh: MeshId,
        /// The session's key.
        session: Arc<Identity>,
        /// The member's word for it, see [`attest`].
        attestation: Attestation,
    },
}

/// The member's word that a session key speaks for it until `expires_at`, at most a day ahead.
pub fn attest(member: &Identity, session: &PublicKey, expires_at: Timestamp) -> Attestation {
    let (parent, session, expires_at) = (member.public().to_string(), session.to_string(), expires_at.as_millis());
    let signed = canonical::attestation(&parent, &session, expires_at);
    Attestation {
        signature: member.sign(signed.as_bytes()).to_string(),
        session_pubkey: session,
        parent_member_pubkey: parent,
        expires_at: Some(expires_at),
    }
}

impl Handshake {
    /// The key that messages sent over such a connection come from.
    pub fn sender(&self) -> &Arc<Identity> {
        match self {
            Self::Member { identity, .. } => identity,
            Self::Session { session, .. } => session,
        }
    }

    /// The first frame, signed now.
    pub(crate) fn frame(&self, place: Place, now: Timestamp) -> ClientFrame {
        let timestamp = unused_millisecond(&self.sender().public(), now);
        match self {
            Self::Member { mesh, member, identity } => {
                let pubkey = identity.public().to_string();
                let signed = canonical::hello(mesh.as_str(), member.as_str(), &pubkey, timestamp);
                ClientFrame::Hello(Box::new(Hello {
                    mesh_id: mesh.to_string(),
                    member_id: member.to_string(),
                    pubkey,
                    session_pubkey: None,
                    timestamp,
                    signature: identity.sign(signed.as_bytes()).to_string(),
                    place,
                }))
            }
            Self::Session { mesh, session, attestation } => {
                let (parent, pubkey) = (attestation.parent_member_pubkey.clone(), session.public().to_string());
                let signed = canonical::session_hello(mesh.as_str(), &parent, &pubkey, timestamp);
                ClientFrame::SessionHello(Box::new(SessionHello {
                    mesh_id: mesh.to_string(),
                    parent_member_id: None,
                    parent_member_pubkey: parent,
                    session_pubkey: pubkey,
                    parent_attestation: Some(attestation.clone()),
                    timestamp,
                    signature: session.sign(signed.as_bytes()).to_string(),
                    place,
                }))
            }
        }
    }
}

/// Without the keys.
impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, mesh) = match self {
            Self::Member { mesh, .. } => ("Member", mesh),
            Self::Session { mesh, .. } => ("Session", mesh),
        };
        f.debug_struct(kind).field("mesh", mesh).field("key", &self.sender().public()).finish_non_exhaustive()
    }
}

/// A millisecond that this process has not signed with this key: the same key and millisecond make the same signature, and
/// a broker accepts each only once. A key opening more than one connection per millisecond runs ahead of the clock.
///
/// The memory is process-wide because the rule is; it has a slot per first byte of the key, so that a load generator with
/// thousands of keys does not run ahead by their sum.
fn unused_millisecond(key: &PublicKey, now: Timestamp) -> i64 {
    static LAST: [AtomicI64; 256] = [const { AtomicI64::new(0) }; 256];
    let now = now.as_millis();
    let next = |last: i64| now.max(last.saturating_add(1));
    let slot = key.as_bytes().first().and_then(|byte| LAST.get(usize::from(*byte)));
    let signed = |slot: &AtomicI64| slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    slot.map_or(now, |slot| signed(slot).map_or(now, next))
}

#[cfg(test)]
mod tests {
    use claudemesh_keys::verify;

    use super::*;

    #[test]
    fn no_millisecond_is_signed_twice_with_one_key() {
        let key = Identity::from_seed([77; 32]).public();
        let now = Timestamp::from_millis(1_700_000_000_000);
        let mut times: Vec<_> = (0..1000).map(|_| unused_millisecond(&key, now)).collect();
        times.dedup();
        assert_eq!(times.len(), 1000);
        assert!(times.is_sorted());
    }

    #[test]
    fn both_handshakes_carry_signatures_that_verify() {
        let (member, session) = (Arc::new(Identity::from_seed([1; 32])), Arc::new(Identity::from_seed([2; 32])));
        let (mesh, now) = (MeshId::from_random([3; 32]), Timestamp::from_millis(1_700_000_000_000));
        let attestation = attest(&member, &session.public(), now);
        let handshake =
            Handshake::Member { mesh: mesh.clone(), member: MemberId::from_random([4; 32]), identity: member.clone() };
        let ClientFrame::Hello(hello) = handshake.frame(Place::default(), now) else { panic!("not a hello") };
        let signed = canonical::hello(&hello.mesh_id, &hello.member_id, &hello.pubkey, hello.timestamp);
        verify(&member.public(), signed.as_bytes(), &hello.signature.parse().unwrap()).unwrap();
        let handshake = Handshake::Session { mesh, session: session.clone(), attestation };
        let ClientFrame::SessionHello(hello) = handshake.frame(Place::default(), now) else { panic!("not a hello") };
        let (parent, key) = (&hello.parent_member_pubkey, &hello.session_pubkey);
        let signed = canonical::session_hello(&hello.mesh_id, parent, key, hello.timestamp);
        verify(&session.public(), signed.as_bytes(), &hello.signature.parse().unwrap()).unwrap();
        let word = hello.parent_attestation.unwrap();
        let signed = canonical::attestation(parent, key, word.expires_at.unwrap());
        verify(&member.public(), signed.as_bytes(), &word.signature.parse().unwrap()).unwrap();
    }
}
