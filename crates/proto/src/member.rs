//! Members: the lasting identities of a mesh.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::MemberId;
use crate::key::PublicKey;
use crate::text::DisplayName;
use crate::time::Timestamp;

/// What a member may do in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Also invites, bans and configures.
    Admin,
    /// Sends, reads and joins.
    #[default]
    Member,
}

impl MemberRole {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }
}

/// The role is neither `admin` nor `member`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be admin or member")]
pub struct BadRole;

impl FromStr for MemberRole {
    type Err = BadRole;

    fn from_str(text: &str) -> Result<Self, BadRole> {
        match text {
            "admin" => Ok(Self::Admin),
            "member" => Ok(Self::Member),
            _ => Err(BadRole),
        }
    }
}

/// Everybody who belongs to the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberListResponse {
    /// By the time they joined; the banned are left out.
    pub members: Vec<Member>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The member.
    pub member_id: MemberId,
    /// The member's key.
    pub pubkey: PublicKey,
    /// The member's name.
    pub display_name: DisplayName,
    /// What it may do.
    pub role: MemberRole,
    /// Since when.
    pub joined_at: Timestamp,
    /// Whether a connection of it is open.
    pub online: bool,
}
