//! From a stranger to a member: the checks of both handshakes, in their order, without waiting for anything.
//!
//! The order, the words and the close codes are those of the protocol: clients tell by them whether to try again. What needs
//! the store (membership, replay, who owns the session key) comes after, in [`welcome`].

use std::time::Duration;

use claudemesh_keys::VerifyingKey;
use claudemesh_proto::frame::BadField;
use claudemesh_proto::group::TooManyGroups;
use claudemesh_proto::hello::{Attestation, Hello, Place, SessionHello};
use claudemesh_proto::limits::{MAX_ATTESTATION_LIFE, MAX_CLOCK_SKEW};
use claudemesh_proto::presence::PeerRole;
use claudemesh_proto::{ErrorCode, GroupSet, MeshId, PublicKey, Signature, Timestamp, canonical};
use claudemesh_store::{Admission, Admitted, SaidGroups, SessionClaim, Welcome};

use crate::close::Close;
use crate::metrics::Reason;

/// A handshake as it arrived.
#[derive(Debug)]
pub(crate) enum Greeting {
    Member(Box<Hello>),
    Session(Box<SessionHello>),
}

/// A handshake whose shape, time and signatures are in order.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) admission: Admission,
    pub(crate) place: Place,
    pub(crate) peer_role: PeerRole,
}

/// Why a handshake is refused: the error frame, and the Close after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) close: Close,
}

impl Reason {
    /// What it is called on the wire.
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            Self::AttestationBadSignature | Self::BadSignature | Self::SessionBadSignature => ErrorCode::BadSignature,
            Self::AttestationExpired => ErrorCode::Expired,
            Self::AttestationMalformed | Self::Malformed | Self::SessionMalformed => ErrorCode::Malformed,
            Self::AttestationMismatch => ErrorCode::AttestationMismatch,
            Self::AttestationTtlTooLong => ErrorCode::TtlTooLong,
            Self::BadParentPubkey => ErrorCode::BadParentPubkey,
            Self::BadSessionPubkey => ErrorCode::BadSessionPubkey,
            Self::Capacity => ErrorCode::Capacity,
            Self::InvalidArgument => ErrorCode::InvalidArgument,
            Self::Kicked => ErrorCode::Forbidden,
            Self::ParentMemberIdMismatch => ErrorCode::ParentMemberIdMismatch,
            Self::RateLimit => ErrorCode::RateLimit,
            Self::Replayed => ErrorCode::Replayed,
            Self::Revoked => ErrorCode::Revoked,
            Self::SessionTimestampSkew | Self::TimestampSkew => ErrorCode::TimestampSkew,
            Self::Unauthorized => ErrorCode::Unauthorized,
        }
    }
}

impl Rejection {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), close: Close::policy_violation(reason.code().as_str()) }
    }

    pub(crate) fn capacity() -> Self {
        Self::new(Reason::Capacity, "mesh at connection capacity")
    }

    /// An admin sent the session away, not long ago.
    pub(crate) fn kicked(left: Duration) -> Self {
        let seconds = left.as_millis().div_ceil(1000);
        let message = format!("kicked: try again in {seconds} s");
        Self { close: Close::KICKED, ..Self::new(Reason::Kicked, message) }
    }

    /// Whether it counts against the address that it came from. Who was sent away said nothing wrong, and others may be behind the
    /// same address.
    pub(crate) fn is_a_failure(&self) -> bool {
        self.close != Close::KICKED
    }

    pub(crate) fn too_often() -> Self {
        Self::new(Reason::RateLimit, "too many connections in a minute, slow down")
    }
}

impl Greeting {
    /// The mesh that it names; nothing of it is proven yet.
    pub(crate) fn mesh_id(&self) -> &str {
        match self {
            Self::Member(hello) => &hello.mesh_id,
            Self::Session(hello) => &hello.mesh_id,
        }
    }

    /// What it says of groups: a member's connection that names none says nothing, a session's that it is in none.
    ///
    /// # Errors
    /// [`BadField`] names the first one that is no group's name, or says that there are too many.
    pub(crate) fn said_groups(&self) -> Result<SaidGroups, BadField> {
        let named = |place: &Place| place.groups.clone().map(GroupSet::read).transpose();
        Ok(match self {
            Self::Member(hello) => {
                named(&hello.place)?.filter(|groups| !groups.is_empty()).map_or(SaidGroups::Nothing, SaidGroups::Own)
            }
            Self::Session(hello) => named(&hello.place)?.map_or(SaidGroups::Nothing, SaidGroups::Also),
        })
    }

    /// Makes every check that needs neither the store nor anybody else. While there is no room, capacity has its place in the order
    /// for whoever proves nothing. Whether a connection takes a new place is asked once it is proven: a stranger does not learn by
    /// the answer who is here.
    pub(crate) fn verify(self, now: Timestamp, has_room: bool) -> Result<Verified, Rejection> {
        let or_capacity = |rejection| if has_room { rejection } else { Rejection::capacity() };
        match self {
            Self::Member(hello) => {
                let session = session_key(hello.session_pubkey.as_deref())?;
                let (pubkey, signature) = check_hello(&hello, now).map_err(or_capacity)?;
                let session = session.map(|pubkey| SessionClaim { pubkey, proven: false });
                let admission = admission(&hello.mesh_id, pubkey, signature, "pubkey not found in mesh")?;
                let admission = Admission { session, ..admission };
                Ok(Verified { admission, place: hello.place, peer_role: PeerRole::ControlPlane })
            }
            Self::Session(hello) => {
                let (session, parent, attestation) = session_shapes(&hello)?;
                check_attestation(&attestation, &parent, now).map_err(or_capacity)?;
                let signature = check_session_hello(&hello, &session, now).map_err(or_capacity)?;
                let admission = admission(&hello.mesh_id, parent, signature, "parent pubkey not found in mesh")?;
                let session = Some(SessionClaim { pubkey: session, proven: true });
                let admission = Admission { session, expected_member_id: hello.parent_member_id, ..admission };
                Ok(Verified { admission, place: hello.place, peer_role: PeerRole::Session })
            }
        }
    }
}

/// The store's welcome, or how what it said instead is told to the client.
pub(crate) fn welcome(admitted: Admitted, peer_role: PeerRole) -> Result<Box<Welcome>, Rejection> {
    let session = peer_role == PeerRole::Session;
    Err(match admitted {
        Admitted::Welcome(welcome) => return Ok(welcome),
        Admitted::Replayed => {
            let handshake = if session { "session_hello" } else { "hello" };
            Rejection::new(Reason::Replayed, format!("{handshake} rejected: replayed"))
        }
        Admitted::Revoked { mesh_name } => {
            let message = format!("You've been removed from \"{mesh_name}\". Contact the mesh owner to rejoin.");
            Rejection { close: Close::BANNED, ..Rejection::new(Reason::Revoked, message) }
        }
        Admitted::Unknown => {
            let message = if session { "parent pubkey not found in mesh" } else { "pubkey not found in mesh" };
            Rejection::new(Reason::Unauthorized, message)
        }
        Admitted::OtherMember => {
            Rejection::new(Reason::ParentMemberIdMismatch, "parentMemberId does not match parentMemberPubkey")
        }
        Admitted::SessionKeyTaken => {
            Rejection::new(Reason::BadSessionPubkey, "sessionPubkey belongs to another member")
        }
        Admitted::TooManyGroups => {
            let message = format!("groups {TooManyGroups}, with those that the member is in");
            Rejection::new(Reason::InvalidArgument, message)
        }
    })
}

fn admission(
    mesh_id: &str,
    member_pubkey: PublicKey,
    signature: Signature,
    unknown: &'static str,
) -> Result<Admission, Rejection> {
    // A mesh id of another shape names no mesh: the answer is the same as for one that nobody made.
    let mesh_id: MeshId = mesh_id.parse().map_err(|_| Rejection::new(Reason::Unauthorized, unknown))?;
    Ok(Admission {
        mesh_id,
        member_pubkey,
        expected_member_id: None,
        signature,
        session: None,
        groups: SaidGroups::Nothing,
        is_arrival: true,
    })
}

fn session_key(text: Option<&str>) -> Result<Option<PublicKey>, Rejection> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => key(text, Reason::BadSessionPubkey, "sessionPubkey").map(Some),
    }
}

fn key(text: &str, reason: Reason, field: &str) -> Result<PublicKey, Rejection> {
    text.parse().map_err(|_| Rejection::new(reason, format!("{field} must be 64 lowercase hex chars")))
}

fn is_skewed(timestamp: i64, now: Timestamp) -> bool {
    Timestamp::from_millis(timestamp).distance(now) > MAX_CLOCK_SKEW
}

fn check_hello(hello: &Hello, now: Timestamp) -> Result<(PublicKey, Signature), Rejection> {
    let reject = |reason: Reason| Rejection::new(reason, format!("hello rejected: {}", reason.code().as_str()));
    if is_skewed(hello.timestamp, now) {
        return Err(reject(Reason::TimestampSkew));
    }
    let pubkey: PublicKey = hello.pubkey.parse().map_err(|_| reject(Reason::Malformed))?;
    let signature = Signature::parse_any_case(&hello.signature).map_err(|_| reject(Reason::Malformed))?;
    let signed = canonical::hello(&hello.mesh_id, &hello.member_id, &hello.pubkey, hello.timestamp);
    verify(&pubkey, signed.as_bytes(), &signature).map_err(|()| reject(Reason::BadSignature))?;
    Ok((pubkey, signature))
}

/// The session key, the parent key, and the attestation that binds just these two.
fn session_shapes(hello: &SessionHello) -> Result<(PublicKey, PublicKey, Attestation), Rejection> {
    let session = key(&hello.session_pubkey, Reason::BadSessionPubkey, "sessionPubkey")?;
    let parent = key(&hello.parent_member_pubkey, Reason::BadParentPubkey, "parentMemberPubkey")?;
    let binds = |attestation: &&Attestation| {
        attestation.session_pubkey == hello.session_pubkey
            && attestation.parent_member_pubkey == hello.parent_member_pubkey
    };
    let attestation = hello.parent_attestation.as_ref().filter(binds).ok_or_else(|| {
        let message = "parentAttestation does not bind the claimed session+parent pubkeys";
        Rejection::new(Reason::AttestationMismatch, message)
    })?;
    Ok((session, parent, attestation.clone()))
}

fn check_attestation(attestation: &Attestation, parent: &PublicKey, now: Timestamp) -> Result<(), Rejection> {
    let reject =
        |reason: Reason| Err(Rejection::new(reason, format!("attestation rejected: {}", reason.code().as_str())));
    let Some(expires_at) = attestation.expires_at else {
        return reject(Reason::AttestationMalformed);
    };
    let Ok(signature) = Signature::parse_any_case(&attestation.signature) else {
        return reject(Reason::AttestationMalformed);
    };
    if expires_at <= now.as_millis() {
        return reject(Reason::AttestationExpired);
    }
    if expires_at > now.plus(MAX_ATTESTATION_LIFE).as_millis() {
        return reject(Reason::AttestationTtlTooLong);
    }
    let Attestation { parent_member_pubkey, session_pubkey, .. } = attestation;
    let signed = canonical::attestation(parent_member_pubkey, session_pubkey, expires_at);
    match verify(parent, signed.as_bytes(), &signature) {
        Ok(()) => Ok(()),
        Err(()) => reject(Reason::AttestationBadSignature),
    }
}

fn check_session_hello(hello: &SessionHello, session: &PublicKey, now: Timestamp) -> Result<Signature, Rejection> {
    let reject = |reason: Reason| Rejection::new(reason, format!("session_hello rejected: {}", reason.code().as_str()));
    if is_skewed(hello.timestamp, now) {
        return Err(reject(Reason::SessionTimestampSkew));
    }
    let signature = Signature::parse_any_case(&hello.signature).map_err(|_| reject(Reason::SessionMalformed))?;
    let SessionHello { mesh_id, parent_member_pubkey, session_pubkey, timestamp, .. } = hello;
    let signed = canonical::session_hello(mesh_id, parent_member_pubkey, session_pubkey, *timestamp);
    verify(session, signed.as_bytes(), &signature).map_err(|()| reject(Reason::SessionBadSignature))?;
    Ok(signature)
}

fn verify(key: &PublicKey, message: &[u8], signature: &Signature) -> Result<(), ()> {
    VerifyingKey::decode(key).map_err(drop)?.verify(message, signature).map_err(drop)
}
