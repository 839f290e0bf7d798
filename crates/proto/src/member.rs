//! Members: the lasting identities of a mesh.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hello::Group;
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

/// What becomes of a member's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageMode {
    /// They interrupt.
    #[default]
    Push,
    /// They wait in the inbox.
    Inbox,
    /// They are not shown.
    Off,
}

impl MessageMode {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Inbox => "inbox",
            Self::Off => "off",
        }
    }
}

/// The mode is none of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be push, inbox or off")]
pub struct BadMessageMode;

impl FromStr for MessageMode {
    type Err = BadMessageMode;

    fn from_str(text: &str) -> Result<Self, BadMessageMode> {
        match text {
            "push" => Ok(Self::Push),
            "inbox" => Ok(Self::Inbox),
            "off" => Ok(Self::Off),
            _ => Err(BadMessageMode),
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
    /// Free text beside the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_tag: Option<String>,
    /// Groups that a new connection starts with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// `push`, `inbox` or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_mode: Option<String>,
    /// When it was last here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Timestamp>,
}

/// Changes what is known of a member: oneself, as far as the mesh lets members, or anybody, by an admin. What is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberUpdate {
    /// Whom; absent means oneself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// The name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Free text beside the name; empty takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_tag: Option<String>,
    /// Groups that a new connection starts with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
    /// `push`, `inbox` or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_mode: Option<String>,
    /// `admin` or `member`; by admins only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// Answers `member_update`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberUpdated {
    /// The member as it is now.
    pub member: Member,
}
