//! Groups: names that members gather under, so that one message reaches all of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::MAX_NAME_CHARS;

/// A group's name: `[a-z0-9][a-z0-9_./-]{0,63}` in either case, without `@`. `/` makes a hierarchy: what is for `a` reaches `a/b`.
///
/// Names that differ only in case are one group; each is shown as it was written.
#[derive(Debug, Clone)]
pub struct GroupName(Box<str>);

/// The text is not a group's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1-64 of a-z, 0-9 and _./-, beginning with a letter or digit")]
pub struct BadGroupName;

impl GroupName {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What makes two names the same group.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl PartialEq for GroupName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for GroupName {}

impl FromStr for GroupName {
    type Err = BadGroupName;

    fn from_str(text: &str) -> Result<Self, BadGroupName> {
        let fits = (1..=MAX_NAME_CHARS).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte));
        fits.then(|| Self(text.into())).ok_or(BadGroupName)
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for GroupName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for GroupName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Joins a group, or changes the role in it. No answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinGroup {
    /// The group, without `@`.
    #[serde(default)]
    pub name: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// Leaves a group. No answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveGroup {
    /// The group, without `@`.
    #[serde(default)]
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_grammar_are_refused() {
        for text in ["", "@a", "/a", ".a", "-a", "a b", "ä", "a\n", &"a".repeat(65)] {
            assert!(text.parse::<GroupName>().is_err(), "{text:?}");
        }
        for text in ["a", "A", "0", "front-end/css.v2_x", &"a".repeat(64)] {
            assert!(text.parse::<GroupName>().is_ok(), "{text:?}");
        }
    }

    #[test]
    fn case_does_not_make_another_group() {
        let (upper, lower): (GroupName, GroupName) = ("Front/End".parse().unwrap(), "front/end".parse().unwrap());
        assert_eq!(upper, lower);
        assert_eq!((upper.as_str(), upper.key()), ("Front/End", "front/end".to_owned()));
    }
}
