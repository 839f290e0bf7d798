//! What a refusal is called on the wire.

use serde::{Deserialize, Serialize};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $code:ident = $word:literal,)*) => {
        /// The `code` of an `error` frame. Clients switch on these words: they never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $word)] $code,)*
        }

        impl ErrorCode {
            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => $word,)*
                }
            }
        }
    };
}

error_codes! {
    /// The frame is not JSON, or a key or signature of a handshake has the wrong shape.
    Malformed = "malformed",
    /// A field is missing, of the wrong type, or out of range; the message names it.
    InvalidArgument = "invalid_argument",
    /// What is asked for is incomplete or cannot be; of requests whose refusal is so called in the existing protocol.
    InvalidArgs = "invalid_args",
    /// The message type is unknown to this broker.
    NotSupported = "not_supported",
    /// Something was asked before `hello`.
    NoHello = "no_hello",
    /// The session key has the wrong shape or belongs to another member.
    BadSessionPubkey = "bad_session_pubkey",
    /// The parent member key has the wrong shape.
    BadParentPubkey = "bad_parent_pubkey",
    /// The attestation binds other keys than the handshake names.
    AttestationMismatch = "attestation_mismatch",
    /// The mesh, member or node has as many connections as it may.
    Capacity = "capacity",
    /// The signed time is too far from the broker's.
    TimestampSkew = "timestamp_skew",
    /// The attestation is past its end.
    Expired = "expired",
    /// The attestation lasts longer than a day.
    TtlTooLong = "ttl_too_long",
    /// The signature does not verify.
    BadSignature = "bad_signature",
    /// This very signature was accepted before.
    Replayed = "replayed",
    /// The member was removed from the mesh.
    Revoked = "revoked",
    /// The key is no member of the mesh.
    Unauthorized = "unauthorized",
    /// `parentMemberId` is another member than `parentMemberPubkey`.
    ParentMemberIdMismatch = "parent_member_id_mismatch",
    /// The caller may not do this.
    Forbidden = "forbidden",
    /// There is no such thing, or not for this caller.
    NotFound = "not_found",
    /// There is no such topic, or not for this caller.
    TopicNotFound = "topic_not_found",
    /// The target is missing, or one that may not be named here.
    Invalid = "invalid",
    /// The audit log cannot be read just now.
    AuditQueryError = "audit_query_error",
    /// The audit log cannot be checked just now.
    AuditVerifyError = "audit_verify_error",
    /// Too much in too little time.
    RateLimit = "rate_limit",
    /// The invite token cannot be accepted; the message says why.
    InvalidInvite = "invalid_invite",
    /// The store cannot answer just now; asking again later may work.
    Unavailable = "unavailable",
}
