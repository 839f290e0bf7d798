//! Who is here.

use serde::{Deserialize, Serialize};

use crate::hello::Group;
use crate::key::PublicKey;
use crate::text::DisplayName;
use crate::time::Timestamp;

/// How a connection was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerRole {
    /// By `hello`: a daemon, or a command that runs for a moment.
    ControlPlane,
    /// By `session_hello`: a session of an agent.
    Session,
}

/// Every presence of the mesh that the caller may see.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeersList {
    /// Sessions before control planes, each by the time it connected.
    pub peers: Vec<Peer>,
}

/// One presence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// The key to send to: the session's, else the member's.
    pub pubkey: PublicKey,
    /// The member's key.
    pub member_pubkey: PublicKey,
    /// The name shown.
    pub display_name: DisplayName,
    /// `idle`, `working` or `dnd`.
    pub status: String,
    /// What the session works on.
    pub summary: Option<String>,
    /// Its groups.
    pub groups: Vec<Group>,
    /// The client's own name of the session.
    pub session_id: String,
    /// When it connected.
    pub connected_at: Timestamp,
    /// Its working directory.
    pub cwd: String,
    /// How it connected.
    pub peer_role: PeerRole,
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Kind of peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<String>,
    /// Kind of client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Language model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}
