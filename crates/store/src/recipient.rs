//! Whom a delivery is for.

use std::fmt;
use std::str::FromStr;

use claudemesh_proto::id::BadId;
use claudemesh_proto::{MemberId, PublicKey};

/// A member, through whichever of its connections takes mail; or one session, through the connection that holds its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Recipient {
    /// Any connection of the member, chosen by the broker.
    Member(MemberId),
    /// The session with this key.
    Session(PublicKey),
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(member) => member.fmt(f),
            Self::Session(key) => key.fmt(f),
        }
    }
}

impl FromStr for Recipient {
    type Err = BadId;

    /// 64 hex characters are a session's key; a member's id is shorter.
    fn from_str(text: &str) -> Result<Self, BadId> {
        text.parse().map(Self::Session).or_else(|_| text.parse().map(Self::Member))
    }
}
