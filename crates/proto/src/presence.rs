//! Who is here.

use std::str::FromStr;

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
    /// How busy it is.
    pub status: Status,
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
    /// What it has done so far, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<Stats>,
    /// Whether others see it, and whether broadcasts reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<bool>,
    /// Who it is, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// How busy somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Takes every message.
    #[default]
    Idle,
    /// Takes what is urgent.
    Working,
    /// Takes what is urgent, until it says otherwise itself.
    Dnd,
}

impl Status {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Dnd => "dnd",
        }
    }
}

/// The status is none of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be idle, working or dnd")]
pub struct BadStatus;

impl FromStr for Status {
    type Err = BadStatus;

    fn from_str(text: &str) -> Result<Self, BadStatus> {
        match text {
            "idle" => Ok(Self::Idle),
            "working" => Ok(Self::Working),
            "dnd" => Ok(Self::Dnd),
            _ => Err(BadStatus),
        }
    }
}

/// Who says what a status is; later ones outrank earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatusSource {
    /// Inferred from a transcript.
    #[default]
    Jsonl,
    /// Somebody said so.
    Manual,
    /// The agent's own hook.
    Hook,
}

/// Says how busy the client is. No answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetStatus {
    /// `idle`, `working` or `dnd`.
    #[serde(default)]
    pub status: String,
    /// `jsonl` when it was inferred from a transcript; absent or `manual` otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Says what the client works on. No answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSummary {
    /// One line.
    #[serde(default)]
    pub summary: String,
}

/// Shows or hides the client. Answered by an `ack`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetVisible {
    /// Whether others see it.
    pub visible: bool,
}

/// Who somebody is. In `set_profile`, what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// An emoji or a link to a picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bio: Option<String>,
    /// What it is good at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
}

/// Says who the client is. Answered by an `ack`.
pub type SetProfile = Profile;

/// What a client has done, as it counts itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Messages received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_in: Option<u64>,
    /// Messages sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_out: Option<u64>,
    /// Tools called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<u64>,
    /// For how long, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime: Option<f64>,
    /// Errors met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<u64>,
}

/// Says what the client has done. No answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SetStats {
    /// Since it connected.
    #[serde(default)]
    pub stats: Stats,
}
