//! The audit log, as admins read and verify it.

use serde::{Deserialize, Serialize};

use crate::id::MemberId;
use crate::key::{PublicKey, Signature};
use crate::time::Timestamp;

/// Asks for entries, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditQuery {
    /// At most so many; absent means 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// How many to leave out before them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u32>,
    /// Only entries of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
}

/// Entries of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditResult {
    /// Newest first.
    pub entries: Vec<AuditEntry>,
    /// How many there are in all of that type.
    pub total: i64,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Its number in the mesh, from 1, without gaps.
    pub id: i64,
    /// What happened.
    pub event_type: String,
    /// Who did it: the member's name at the time, else its id, else `system`.
    pub actor: String,
    /// Which member that is: names are not unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_member_id: Option<MemberId>,
    /// Metadata about it.
    pub payload: serde_json::Value,
    /// SHA-256 over it and the hash before it, in hex.
    pub hash: String,
    /// When.
    pub created_at: Timestamp,
}

/// What became of checking the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditVerifyResult {
    /// Whether every entry, the head and every checkpoint agree.
    pub valid: bool,
    /// How many entries there are.
    pub entries: i64,
    /// The number of the first entry that does not fit, or that is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_at: Option<i64>,
    /// In what way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The newest checkpoint, for admins to keep somewhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

/// The broker's signature under where a mesh's log stood at some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// The last entry it covers.
    pub seq: i64,
    /// That entry's `hash`.
    pub hash: String,
    /// That entry's `hash2`.
    pub hash2: String,
    /// When it was signed.
    pub signed_at: Timestamp,
    /// The broker's audit key.
    pub pubkey: PublicKey,
    /// By that key, over the signing encoding with purpose `audit-checkpoint`: mesh, seq, hash, hash2, `signed_at`.
    pub signature: Signature,
}
