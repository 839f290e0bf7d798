//! Sending members and connections away.

use serde::{Deserialize, Serialize};

use crate::key::PublicKey;
use crate::text::DisplayName;
use crate::time::Timestamp;

/// `kick` and `disconnect`: which connections to close. `all` counts before `stale`, and that before `target`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendAway {
    /// A name, a member's or session's key, or at least the first 12 characters of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Those that were silent for so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<i64>,
    /// Everybody but the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

/// Answers `kick` and `disconnect`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentAway {
    /// The names of the presences whose connections were closed.
    pub kicked: Vec<String>,
    /// The same.
    pub affected: Vec<String>,
    /// By `kick`: presences that were left alone, because their clients come back at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_control_plane: Option<Vec<String>>,
}

/// `ban` and `unban`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanTarget {
    /// A name, a member's key, or at least the first 12 characters of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answers `ban`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanAck {
    /// The member's name.
    pub banned: DisplayName,
}

/// Answers `unban`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnbanAck {
    /// The member's name.
    pub unbanned: DisplayName,
}

/// Answers `list_bans`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListBansResult {
    /// By the time of the ban.
    pub bans: Vec<Ban>,
}

/// One banned member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ban {
    /// The member's name.
    pub name: DisplayName,
    /// The member's key.
    pub pubkey: PublicKey,
    /// Since when.
    pub revoked_at: Timestamp,
}
