//! Groups: names that members gather under, so that one message reaches all of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::frame::BadField;
use crate::hello::Group;
use crate::limits::{MAX_GROUPS, MAX_NAME_CHARS};
use crate::text::one_line;

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

/// The groups that somebody is in: each once, and no more than [`MAX_GROUPS`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GroupSet(Vec<Group>);

/// One group more would be too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 32 groups at most")]
pub struct TooManyGroups;

impl GroupSet {
    /// The groups of a frame's `groups`. Of a group that is named twice the last one counts.
    ///
    /// # Errors
    /// [`BadField`] names the first one that is no group's name, or `groups` when there are too many.
    pub fn read(groups: Vec<Group>) -> Result<Self, BadField> {
        let mut set = Self::default();
        for (index, Group { name, role }) in groups.into_iter().enumerate() {
            let name: GroupName = name.parse().map_err(|why: BadGroupName| BadField {
                field: format!("groups[{index}].name"),
                why: why.to_string(),
            })?;
            set.join(&name, role.as_deref())
                .map_err(|why| BadField { field: "groups".into(), why: why.to_string() })?;
        }
        Ok(set)
    }

    /// Adds a group, or changes the role in it; whether that changed anything. The role is cut to its limit and cleaned.
    ///
    /// # Errors
    /// [`TooManyGroups`] when it would be the 33rd.
    pub fn join(&mut self, name: &GroupName, role: Option<&str>) -> Result<bool, TooManyGroups> {
        let joined = Group { name: name.to_string(), role: role.and_then(clean_role) };
        if let Some(known) = self.0.iter_mut().find(|known| is_called(known, name)) {
            let changes = *known != joined;
            *known = joined;
            return Ok(changes);
        }
        if self.0.len() >= MAX_GROUPS {
            return Err(TooManyGroups);
        }
        self.0.push(joined);
        Ok(true)
    }

    /// Takes a group out; whether it was in.
    pub fn leave(&mut self, name: &GroupName) -> bool {
        let before = self.0.len();
        self.0.retain(|group| !is_called(group, name));
        self.0.len() < before
    }

    /// Adds the groups of another set; whether that changed anything.
    ///
    /// # Errors
    /// [`TooManyGroups`] when both together are too many.
    pub fn join_all(&mut self, others: &Self) -> Result<bool, TooManyGroups> {
        let mut changes = false;
        for Group { name, role } in &others.0 {
            // What stands in a set was parsed when it came in.
            if let Ok(name) = name.parse() {
                changes |= self.join(&name, role.as_deref())?;
            }
        }
        Ok(changes)
    }

    /// Whether the group is in it.
    pub fn has(&self, name: &GroupName) -> bool {
        self.0.iter().any(|group| is_called(group, name))
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The groups, in the order in which they were joined.
    pub fn as_slice(&self) -> &[Group] {
        &self.0
    }

    /// The groups as frames carry them.
    pub fn into_vec(self) -> Vec<Group> {
        self.0
    }
}

/// What was written as a set; what does not fit one is left out.
impl<'de> Deserialize<'de> for GroupSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut set = Self::default();
        for Group { name, role } in Vec::<Group>::deserialize(deserializer)? {
            if let Ok(name) = name.parse() {
                let _ = set.join(&name, role.as_deref());
            }
        }
        Ok(set)
    }
}

fn is_called(group: &Group, name: &GroupName) -> bool {
    group.name.eq_ignore_ascii_case(name.as_str())
}

/// One line of at most 64 characters; `None` when nothing visible is in it.
fn clean_role(role: &str) -> Option<String> {
    let role: String = one_line(role).chars().take(MAX_NAME_CHARS).collect();
    Some(role.trim_end().to_owned()).filter(|role| !role.is_empty())
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

    fn group(name: &str, role: Option<&str>) -> Group {
        Group { name: name.into(), role: role.map(Into::into) }
    }

    /// (R1)
    #[test]
    fn a_set_takes_32_groups_of_the_grammar_and_names_what_it_does_not_take() {
        let many = |count: usize| (0..count).map(|n| group(&format!("g{n}"), None)).collect::<Vec<_>>();
        assert_eq!(GroupSet::read(many(32)).unwrap().as_slice().len(), 32);
        assert_eq!(GroupSet::read(many(33)).unwrap_err().to_string(), "groups must be 32 groups at most");
        let error = GroupSet::read(vec![group("a", None), group("@b", None)]).unwrap_err();
        assert_eq!(error.field, "groups[1].name");
        let twice = [many(32), many(32)].concat();
        assert_eq!(GroupSet::read(twice).unwrap().as_slice().len(), 32, "a group counts once");
    }

    #[test]
    fn a_group_is_joined_once_and_its_role_is_the_last_one_said() {
        let mut set = GroupSet::read(vec![group("Dev", Some("lead")), group("dev", Some(" \u{7}cook\n"))]).unwrap();
        assert_eq!(set.as_slice(), [group("dev", Some("cook"))]);
        let dev = "DEV".parse().unwrap();
        assert_eq!(set.join(&"dev".parse().unwrap(), Some("cook")), Ok(false));
        assert_eq!(set.join(&dev, Some("")), Ok(true));
        assert_eq!(set.as_slice(), [group("DEV", None)]);
        assert!(set.has(&"dev".parse().unwrap()) && set.leave(&"dev".parse().unwrap()));
        assert!(!set.leave(&dev) && set.is_empty());
    }
}
