//! Grants: what a member lets others do to it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Something that a member may let another do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// See it.
    Read,
    /// Send it direct messages.
    Dm,
    /// Reach it by group and broadcast.
    Broadcast,
    /// Read its state.
    StateRead,
    /// Write its state.
    StateWrite,
    /// Read its files.
    FileRead,
}

impl Capability {
    /// Every capability, in the order of their words.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Dm, Self::Broadcast, Self::StateRead, Self::StateWrite, Self::FileRead];

    /// What somebody may do about whom nothing was said.
    pub const DEFAULT: [Self; 4] = [Self::Read, Self::Dm, Self::Broadcast, Self::StateRead];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Dm => "dm",
            Self::Broadcast => "broadcast",
            Self::StateRead => "state-read",
            Self::StateWrite => "state-write",
            Self::FileRead => "file-read",
        }
    }
}

/// The capability has none of the known names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be read, dm, broadcast, state-read, state-write or file-read")]
pub struct BadCapability;

impl std::str::FromStr for Capability {
    type Err = BadCapability;

    fn from_str(text: &str) -> Result<Self, BadCapability> {
        Self::ALL.into_iter().find(|capability| capability.as_str() == text).ok_or(BadCapability)
    }
}

/// Sets grants of the caller's own. The keys are members' or sessions' public keys; what they are is checked by the broker, which
/// names the bad one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantSet {
    /// By the sender's key: all that it may do, an empty list to block it, null to go back to the default.
    #[serde(default)]
    pub grants: BTreeMap<String, Option<Vec<String>>>,
}

/// The caller's grants, after a change or when asked: by the sender's key, and without those that have the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// By the sender's key.
    pub grants: BTreeMap<String, BTreeSet<Capability>>,
}
