//! API keys: secrets by which programs use the REST interface in the name of a member.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{ApiKeyId, MemberId};
use crate::limits::{MAX_NAME_CHARS, MAX_SCOPES};
use crate::text::one_line;
use crate::time::Timestamp;
use crate::topic::TopicName;

/// What a key lets do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Read topics, their messages, and who belongs to the mesh.
    Read,
    /// Write messages, and store keys of topics for others.
    Send,
    /// Write the mesh's state.
    StateWrite,
    /// Everything. Counts while the member that issued the key is an admin.
    Admin,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Self; 4] = [Self::Read, Self::Send, Self::StateWrite, Self::Admin];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Send => "send",
            Self::StateWrite => "state_write",
            Self::Admin => "admin",
        }
    }
}

/// The capability has none of the known names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be send, read, state_write or admin")]
pub struct BadCapability;

impl std::str::FromStr for Capability {
    type Err = BadCapability;

    fn from_str(text: &str) -> Result<Self, BadCapability> {
        Self::ALL.into_iter().find(|capability| capability.as_str() == text).ok_or(BadCapability)
    }
}

/// Asks for a key. What the fields hold is checked by [`ApiKeyCreate::read`], whose refusals have words of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyCreate {
    /// What its owner calls it.
    #[serde(default)]
    pub label: String,
    /// At least one.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Names of topics without `#`; absent or null for all, empty for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_scopes: Option<Vec<String>>,
    /// Until when it is valid; absent or null for as long as nobody revokes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// What a key that is asked for may do, read and in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// One line of 1 to 64 characters.
    pub label: String,
    /// At least one.
    pub capabilities: BTreeSet<Capability>,
    /// Names of topics; none for all.
    pub topic_scopes: Option<BTreeSet<TopicName>>,
    /// Until when.
    pub expires_at: Option<Timestamp>,
}

/// Why a key that is asked for cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadApiKey {
    /// Words of the existing protocol.
    #[error("label and at least one capability required")]
    Incomplete,
    /// The label is too long.
    #[error("label must be at most 64 characters")]
    Label,
    /// A capability has none of the known names.
    #[error("capabilities {0}")]
    Capability(#[from] BadCapability),
    /// There are too many scopes.
    #[error("topicScopes must be 64 topics at most")]
    Scopes,
    /// A scope cannot be the name of a topic.
    #[error("topicScopes must be names of topics without #, each 1-64 of a-z, 0-9, _ and -")]
    Scope,
    /// The end is no time.
    #[error("expiresAt must be an ISO-8601 UTC time such as 2026-01-02T03:04:05.678Z")]
    Expiry,
    /// The end is over.
    #[error("expiresAt must be in the future")]
    Expired,
}

impl ApiKeyCreate {
    /// Reads it.
    ///
    /// # Errors
    /// [`BadApiKey`] says what is wrong.
    pub fn read(self, now: Timestamp) -> Result<Wanted, BadApiKey> {
        let label = one_line(&self.label);
        if label.is_empty() || self.capabilities.is_empty() {
            return Err(BadApiKey::Incomplete);
        }
        if label.chars().count() > MAX_NAME_CHARS {
            return Err(BadApiKey::Label);
        }
        let capabilities = self.capabilities.iter().map(|word| word.parse()).collect::<Result<_, BadCapability>>()?;
        if self.topic_scopes.as_ref().is_some_and(|scopes| scopes.len() > MAX_SCOPES) {
            return Err(BadApiKey::Scopes);
        }
        let scope = |text: String| text.parse().map_err(|_| BadApiKey::Scope);
        let topic_scopes = self.topic_scopes.map(|scopes| scopes.into_iter().map(scope).collect::<Result<_, _>>());
        let expires_at: Option<Timestamp> =
            self.expires_at.map(|text| text.parse()).transpose().map_err(|_| BadApiKey::Expiry)?;
        if expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(BadApiKey::Expired);
        }
        Ok(Wanted { label, capabilities, topic_scopes: topic_scopes.transpose()?, expires_at })
    }
}

/// A secret on its way to its owner, in the one answer that shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownSecret(pub String);

impl fmt::Debug for ShownSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShownSecret")
    }
}

/// Answers `apikey_create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyCreated {
    /// The key.
    pub id: ApiKeyId,
    /// What goes into `Authorization: Bearer`. The broker keeps its hash alone.
    pub secret: ShownSecret,
    /// What its owner calls it.
    pub label: String,
    /// The secret's first 11 characters, by which it is found.
    pub prefix: String,
    /// What it lets do.
    pub capabilities: BTreeSet<Capability>,
    /// Names of topics; null for all.
    pub topic_scopes: Option<BTreeSet<TopicName>>,
    /// Since when.
    pub created_at: Timestamp,
}

/// Answers `apikey_list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyListResponse {
    /// Newest first, the revoked and expired included.
    pub keys: Vec<ApiKey>,
}

/// One key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// The key.
    pub id: ApiKeyId,
    /// What its owner calls it.
    pub label: String,
    /// The secret's first 11 characters.
    pub prefix: String,
    /// What it was made for.
    pub capabilities: BTreeSet<Capability>,
    /// Names of topics; null for all.
    pub topic_scopes: Option<BTreeSet<TopicName>>,
    /// Since when.
    pub created_at: Timestamp,
    /// When it was last used, to within a minute.
    pub last_used_at: Option<Timestamp>,
    /// Since when it is no key any more.
    pub revoked_at: Option<Timestamp>,
    /// Until when it is one.
    pub expires_at: Option<Timestamp>,
    /// The member in whose name it acts.
    pub issued_by_member_id: MemberId,
}

/// Ends a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyRevoke {
    /// Its id, or the beginning of it that no other key of the caller's has.
    #[serde(default)]
    pub id: String,
}

/// Answers `apikey_revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ApiKeyRevokeResponse {
    /// The key is no key any more.
    Revoked {
        /// Its whole id.
        id: ApiKeyId,
    },
    /// The caller has no such key.
    NotFound,
    /// The ids of several keys begin so; all of them stay.
    NotUnique {
        /// How many.
        matches: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn asked() -> ApiKeyCreate {
        ApiKeyCreate { label: " ci\n".into(), capabilities: vec!["read".into(), "send".into()], ..Default::default() }
    }

    #[test]
    fn a_key_is_read_as_it_was_asked_for() {
        let wanted = asked().read(NOW).unwrap();
        assert_eq!((wanted.label.as_str(), wanted.topic_scopes, wanted.expires_at), ("ci", None, None));
        assert_eq!(wanted.capabilities, [Capability::Read, Capability::Send].into());
        let none = ApiKeyCreate { topic_scopes: Some(vec![]), ..asked() };
        assert_eq!(none.read(NOW).unwrap().topic_scopes, Some(BTreeSet::new()));
        let some = ApiKeyCreate { topic_scopes: Some(vec!["General".into()]), ..asked() };
        assert_eq!(some.read(NOW).unwrap().topic_scopes, Some(["general".parse().unwrap()].into()));
        let later = ApiKeyCreate { expires_at: Some("2026-09-21T14:13:20.001Z".into()), ..asked() };
        assert_eq!(later.read(NOW).unwrap().expires_at, Some(Timestamp::from_millis(NOW.as_millis() + 1)));
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        let scopes = |scopes: Vec<String>| ApiKeyCreate { topic_scopes: Some(scopes), ..asked() }.read(NOW);
        let until = |text: &str| ApiKeyCreate { expires_at: Some(text.into()), ..asked() }.read(NOW);
        for label in ["", " \n", "\u{200B}"] {
            assert_eq!(ApiKeyCreate { label: label.into(), ..asked() }.read(NOW), Err(BadApiKey::Incomplete));
        }
        assert_eq!(ApiKeyCreate { capabilities: vec![], ..asked() }.read(NOW), Err(BadApiKey::Incomplete));
        assert_eq!(ApiKeyCreate { label: "x".repeat(65), ..asked() }.read(NOW), Err(BadApiKey::Label));
        let fly = ApiKeyCreate { capabilities: vec!["fly".into()], ..asked() };
        assert_eq!(fly.read(NOW).unwrap_err().to_string(), "capabilities must be send, read, state_write or admin");
        assert_eq!(scopes(vec!["a".into(); 65]), Err(BadApiKey::Scopes));
        for scope in ["", "#general", " a", "a\u{202E}", "a b", &"x".repeat(65)] {
            assert_eq!(scopes(vec![scope.into()]), Err(BadApiKey::Scope), "{scope}");
        }
        for text in ["soon", "2026-09-21", "1790000000000"] {
            assert_eq!(until(text), Err(BadApiKey::Expiry), "{text}");
        }
        assert_eq!(until("2026-09-21T14:13:20.000Z"), Err(BadApiKey::Expired));
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", ShownSecret("cm_x".into())), "ShownSecret");
    }
}
