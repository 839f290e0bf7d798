//! What a refusal is called on the wire.

use serde::{Deserialize, Serialize};

/// The `code` of an `error` frame. Clients switch on these words: they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The frame is not JSON, or a key or signature of a handshake has the wrong shape.
    Malformed,
    /// A field is missing, of the wrong type, or out of range; the message names it.
    InvalidArgument,
    /// The message type is unknown to this broker.
    NotSupported,
    /// Something was asked before `hello`.
    NoHello,
    /// The session key has the wrong shape or belongs to another member.
    BadSessionPubkey,
    /// The parent member key has the wrong shape.
    BadParentPubkey,
    /// The attestation binds other keys than the handshake names.
    AttestationMismatch,
    /// The mesh, member or node has as many connections as it may.
    Capacity,
    /// The signed time is too far from the broker's.
    TimestampSkew,
    /// The attestation is past its end.
    Expired,
    /// The attestation lasts longer than a day.
    TtlTooLong,
    /// The signature does not verify.
    BadSignature,
    /// This very signature was accepted before.
    Replayed,
    /// The member was removed from the mesh.
    Revoked,
    /// The key is no member of the mesh.
    Unauthorized,
    /// `parentMemberId` is another member than `parentMemberPubkey`.
    ParentMemberIdMismatch,
    /// The caller may not do this.
    Forbidden,
    /// There is no such thing, or not for this caller.
    NotFound,
    /// Too much in too little time.
    RateLimit,
    /// The invite token cannot be accepted; the message says why.
    InvalidInvite,
    /// The store cannot answer just now; asking again later may work.
    Unavailable,
}

impl ErrorCode {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::InvalidArgument => "invalid_argument",
            Self::NotSupported => "not_supported",
            Self::NoHello => "no_hello",
            Self::BadSessionPubkey => "bad_session_pubkey",
            Self::BadParentPubkey => "bad_parent_pubkey",
            Self::AttestationMismatch => "attestation_mismatch",
            Self::Capacity => "capacity",
            Self::TimestampSkew => "timestamp_skew",
            Self::Expired => "expired",
            Self::TtlTooLong => "ttl_too_long",
            Self::BadSignature => "bad_signature",
            Self::Replayed => "replayed",
            Self::Revoked => "revoked",
            Self::Unauthorized => "unauthorized",
            Self::ParentMemberIdMismatch => "parent_member_id_mismatch",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::RateLimit => "rate_limit",
            Self::InvalidInvite => "invalid_invite",
            Self::Unavailable => "unavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_what_serde_writes() {
        for code in
            [ErrorCode::Malformed, ErrorCode::TtlTooLong, ErrorCode::ParentMemberIdMismatch, ErrorCode::Unavailable]
        {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
