//! The two handshakes and their answer.
//!
//! Fields that a handshake check has a code of its own for stay text here: the broker must be able to refuse them in the
//! documented order, with the documented word. Everything else is refused while reading.

use serde::{Deserialize, Deserializer, Serialize};

use crate::id::PresenceId;
use crate::text::DisplayName;
use crate::time::Timestamp;

/// The word for [`Place::capabilities`] of a connection that keeps mail: it acknowledges what it is handed, `ext` included.
pub const MAIL: &str = "mail";

/// The word for [`Place::capabilities`] of a connection that wants no mail: it only asks and sends.
pub const QUIET: &str = "quiet";
/// The word for [`Place::capabilities`] of a connection that can open messages of encrypted topics, and is told of mentions.
pub const TOPICS: &str = "topics";

/// What both handshakes say about the connection itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Name to show instead of the member's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The client's own name for this session; a new connection with the same one replaces the old.
    #[serde(default)]
    pub session_id: String,
    /// Process id of the client.
    #[serde(default)]
    pub pid: i64,
    /// Working directory.
    #[serde(default)]
    pub cwd: String,
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `ai`, `human`, `bridge`, `connector`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<String>,
    /// What kind of client it is, such as `claudemesh-daemon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The language model behind the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Groups; absent and empty differ for sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
    /// What the client can do beyond the base protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
}

/// Membership of a group, with the role in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Name without `@`; `/` makes a hierarchy.
    pub name: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// A member opens a connection, signing with the member key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The mesh.
    #[serde(default)]
    pub mesh_id: String,
    /// The member, covered by the signature only.
    #[serde(default)]
    pub member_id: String,
    /// The member's public key, 64 lower-case hex characters.
    #[serde(default)]
    pub pubkey: String,
    /// A session key this connection also speaks for; not proven by this handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_pubkey: Option<String>,
    /// When it was signed, unix milliseconds.
    pub timestamp: i64,
    /// Over [`crate::canonical::hello`], 128 hex characters.
    #[serde(default)]
    pub signature: String,
    /// The connection.
    #[serde(flatten)]
    pub place: Place,
}

/// A session opens a connection, signing with its own key, with the member's attestation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionHello {
    /// The mesh.
    #[serde(default)]
    pub mesh_id: String,
    /// The member, when the client wants it checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_member_id: Option<String>,
    /// The member's public key, 64 lower-case hex characters.
    #[serde(default)]
    pub parent_member_pubkey: String,
    /// The session's public key, 64 lower-case hex characters.
    #[serde(default)]
    pub session_pubkey: String,
    /// The member vouches for the session key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_attestation: Option<Attestation>,
    /// When it was signed, unix milliseconds.
    pub timestamp: i64,
    /// By the session key over [`crate::canonical::session_hello`], 128 hex characters.
    #[serde(default)]
    pub signature: String,
    /// The connection.
    #[serde(flatten)]
    pub place: Place,
}

/// A member's word that a session key speaks for it until a time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    /// The session's public key.
    #[serde(default)]
    pub session_pubkey: String,
    /// The member's public key.
    #[serde(default)]
    pub parent_member_pubkey: String,
    /// Last moment it holds, unix milliseconds; `None` when the client sent none or not a whole number.
    #[serde(default, deserialize_with = "whole_number")]
    pub expires_at: Option<i64>,
    /// By the member key over [`crate::canonical::attestation`], 128 hex characters.
    #[serde(default)]
    pub signature: String,
}

/// The number, and nothing when it is something else: the broker has its own word for that, in its place among the checks.
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    serde_json::Value::deserialize(deserializer).map(|value| value.as_i64())
}

/// The connection is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelloAck {
    /// Name of this connection.
    pub presence_id: PresenceId,
    /// The name others see.
    pub member_display_name: DisplayName,
    /// Absent when a session took up its lease again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_profile: Option<MemberProfile>,
    /// What members may change about themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_policy: Option<MeshPolicy>,
    /// Whether something of an earlier connection was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<bool>,
    /// When the member was last seen, with `restored`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<Timestamp>,
    /// What the member worked on when it was last seen, with `restored`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_summary: Option<String>,
    /// The groups it was in, with `restored`, when the handshake named none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_groups: Option<Vec<Group>>,
    /// What its clients have done in all, with `restored`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_stats: Option<RestoredStats>,
    /// What lets a hook of this session report its status: `Authorization: Bearer` of `POST /hook/set-status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_token: Option<String>,
    /// Deployed services; existing clients want the array on `hello`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<serde_json::Value>>,
    /// Which of the announced capabilities the broker honours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

/// Totals over all connections of a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoredStats {
    /// Messages received.
    pub messages_in: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// Tools called.
    pub tool_calls: u64,
    /// Errors met.
    pub errors: u64,
}

/// How a member is set up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberProfile {
    /// Free text shown beside the name.
    pub role_tag: Option<String>,
    /// Groups a new connection starts with.
    pub groups: Vec<Group>,
    /// `push`, `inbox` or `off`.
    pub message_mode: String,
}

/// What members may change about themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshPolicy {
    /// Field by field.
    pub self_editable: SelfEditable,
}

/// The fields of [`MeshPolicy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "the shape of the wire")]
pub struct SelfEditable {
    /// The display name.
    pub display_name: bool,
    /// The role tag.
    pub role_tag: bool,
    /// The groups.
    pub groups: bool,
    /// The message mode.
    pub message_mode: bool,
}

impl Default for SelfEditable {
    fn default() -> Self {
        Self { display_name: true, role_tag: true, groups: true, message_mode: true }
    }
}
