//! Sending members and connections away.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::key::PublicKey;
use crate::limits::{MAX_NAME_CHARS, MIN_KEY_PREFIX};
use crate::text::{DisplayName, one_line};
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

/// Characters of a key in hex.
const KEY_CHARS: usize = 64;

/// Whom a text names: the owner of a key, else whoever is called so or whose key begins so.
///
/// A full key is never taken for a name. Who is called like somebody else's key would be hit otherwise, or make that key ambiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sought(String);

impl Sought {
    /// Reads it; `None` when nothing visible is in it.
    pub fn new(text: &str) -> Option<Self> {
        Some(one_line(text)).filter(|clean| !clean.is_empty()).map(Self)
    }

    /// The text, cleaned.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key that it is in full.
    pub fn key(&self) -> Option<PublicKey> {
        self.0.parse().ok()
    }

    /// The text when keys may begin with it: at least 12 lower-case hex characters, and no more than a key has. Databases refuse
    /// patterns of tens of thousands.
    pub fn prefix(&self) -> Option<&str> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let fits = (MIN_KEY_PREFIX..=KEY_CHARS).contains(&self.0.len()) && self.0.bytes().all(is_hex);
        fits.then_some(self.0.as_str())
    }

    /// Whether this key is meant.
    pub fn means_key(&self, key: &PublicKey) -> bool {
        self.key().is_some_and(|named| named == *key)
            || self.prefix().is_some_and(|prefix| key.to_string().starts_with(prefix))
    }

    /// Whether this name is meant.
    pub fn means_name(&self, name: &DisplayName) -> bool {
        self.key().is_none() && name.as_str() == self.0
    }
}

/// Cut to the length of the longest name or key.
impl fmt::Display for Sought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().take(MAX_NAME_CHARS).try_for_each(|c| fmt::Write::write_char(f, c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";

    fn target(text: &str) -> Sought {
        Sought::new(text).unwrap()
    }

    #[test]
    fn what_is_longer_than_a_key_begins_none() {
        assert_eq!(target(&"a".repeat(64)).prefix().map(str::len), Some(64));
        assert_eq!(target(&"a".repeat(65)).prefix(), None);
    }

    #[test]
    fn twelve_characters_of_a_key_name_it_and_eleven_do_not() {
        let key: PublicKey = KEY.parse().unwrap();
        assert!(target(KEY).means_key(&key) && target(&KEY[..12]).means_key(&key));
        let other = format!("{}1", &KEY[..12]);
        for text in [&KEY[..11], &KEY[1..20], &KEY.to_uppercase()[..12], &other, &format!("{KEY}0")] {
            assert!(!target(text).means_key(&key), "{text}");
        }
    }

    #[test]
    fn a_full_key_is_no_name() {
        let name = |text: &str| text.parse::<DisplayName>().unwrap();
        assert!(!target(KEY).means_name(&name(KEY)));
        assert!(target(&KEY[..12]).means_name(&name(&KEY[..12])));
        assert!(target(" An\u{202e}n ").means_name(&name("Ann")) && !target("ann").means_name(&name("Ann")));
    }

    #[test]
    fn what_is_shown_of_it_is_short_and_what_is_compared_is_whole() {
        let long = target(&"x".repeat(65));
        assert_eq!(long.to_string(), "x".repeat(64));
        assert!(!long.means_name(&"x".repeat(64).parse().unwrap()));
        assert_eq!(Sought::new(" \u{200b}\n"), None);
    }
}
