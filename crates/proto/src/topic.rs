//! Topics: conversations of a mesh with a history, and a key that the broker does not have.
//!
//! A request names a topic by its id or its name. What a client sends stays text until the broker has checked it, so that the
//! refusal can name the field.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::{MemberId, MessageId, TopicId};
use crate::key::PublicKey;
use crate::limits::MAX_NAME_CHARS;
use crate::text::{DisplayName, Verbatim};
use crate::time::Timestamp;

/// The topic that every mesh has and every newcomer is put into.
pub const GENERAL: &str = "general";

/// Shortest text that may be a topic's id: shorter ones are names.
const MIN_ID_CHARS: usize = 20;

/// A topic's name: `[a-z0-9][a-z0-9_-]{0,63}`, without `#`. Capitals are made small when it is read, so that names that differ
/// only in case are one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Box<str>);

/// The text is not a topic's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1-64 of a-z, 0-9, _ and -, beginning with a letter or digit")]
pub struct BadTopicName;

impl TopicName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TopicName {
    type Err = BadTopicName;

    fn from_str(text: &str) -> Result<Self, BadTopicName> {
        let fits = (1..=MAX_NAME_CHARS).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        fits.then(|| Self(text.to_ascii_lowercase().into())).ok_or(BadTopicName)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for TopicName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TopicName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Which topic is meant by a text: the one with this id, else the one with this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSought {
    id: Option<TopicId>,
    name: Option<TopicName>,
}

impl TopicSought {
    /// By id or name.
    pub fn new(text: &str) -> Self {
        let id = (text.len() >= MIN_ID_CHARS).then(|| text.parse().ok()).flatten();
        Self { id, name: text.parse().ok() }
    }

    /// By name alone.
    pub fn by_name(text: &str) -> Self {
        Self { id: None, name: text.parse().ok() }
    }

    /// By id alone.
    pub fn by_id(id: TopicId) -> Self {
        Self { id: Some(id), name: None }
    }

    /// The id to look for first.
    pub fn id(&self) -> Option<&TopicId> {
        self.id.as_ref()
    }

    /// The name to look for then.
    pub fn name(&self) -> Option<&TopicName> {
        self.name.as_ref()
    }
}

/// Whom a topic is open to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Everybody in the mesh sees it and may join it.
    #[default]
    Public,
    /// One is added by a lead of it or an admin.
    Private,
    /// The same; for a conversation of a few.
    Dm,
}

impl Visibility {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Dm => "dm",
        }
    }
}

/// The visibility is none of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be public, private or dm")]
pub struct BadVisibility;

impl FromStr for Visibility {
    type Err = BadVisibility;

    fn from_str(text: &str) -> Result<Self, BadVisibility> {
        let known = [Self::Public, Self::Private, Self::Dm];
        known.into_iter().find(|visibility| visibility.as_str() == text).ok_or(BadVisibility)
    }
}

/// What a member is in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopicRole {
    /// Also adds others.
    Lead,
    /// Reads and writes.
    #[default]
    Member,
    /// Says that it only reads along. Nothing keeps it from writing, as in the existing protocol.
    Observer,
}

impl TopicRole {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lead => "lead",
            Self::Member => "member",
            Self::Observer => "observer",
        }
    }
}

/// The role is none of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be lead, member or observer")]
pub struct BadTopicRole;

impl FromStr for TopicRole {
    type Err = BadTopicRole;

    fn from_str(text: &str) -> Result<Self, BadTopicRole> {
        [Self::Lead, Self::Member, Self::Observer].into_iter().find(|role| role.as_str() == text).ok_or(BadTopicRole)
    }
}

/// Makes a topic, or finds the public one of that name. A client that makes the topic's key itself gives its own sealed copy,
/// all three fields of it; for one that gives none the broker makes a key and keeps nothing but the creator's copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicCreate {
    /// The name, without `#`.
    #[serde(default)]
    pub name: String,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `public`, `private` or `dm`; absent means public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<String>,
    /// The X25519 public key that the copy was sealed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_key_pubkey: Option<String>,
    /// The creator's copy: base64 of 80 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted_key: Option<String>,
    /// Its nonce: base64 of 24 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

/// Answers `topic_create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicCreated {
    /// The topic.
    pub topic: MadeTopic,
    /// Whether it was made now.
    pub created: bool,
}

/// A topic, as its creator is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeTopic {
    /// The topic.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// Whom it is open to.
    pub visibility: Visibility,
}

/// Answers `topic_list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicListResponse {
    /// By name, without the archived and those that the caller may not know of.
    pub topics: Vec<ListedTopic>,
}

/// A topic in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedTopic {
    /// The topic.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// What it is about.
    pub description: Option<String>,
    /// Whom it is open to.
    pub visibility: Visibility,
    /// How many are in it.
    pub member_count: i64,
    /// Since when it exists.
    pub created_at: Timestamp,
}

/// Joins a public topic. Has no answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicJoin {
    /// The topic's id or name.
    #[serde(default)]
    pub topic: String,
    /// `member` or `observer`; absent means member. Who is in it already stays what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// Names a topic: leaves it, asks who is in it, or says that it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfTopic {
    /// The topic's id or name.
    #[serde(default)]
    pub topic: String,
}

/// Adds a member to a topic; by a lead of it or an admin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicAddMember {
    /// The topic's id or name.
    #[serde(default)]
    pub topic: String,
    /// Whom.
    #[serde(default)]
    pub member_id: String,
    /// As what; absent means member, and leaves who is in it already what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// Answers `topic_add_member`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicMemberAdded {
    /// The topic, as it was named.
    pub topic: String,
    /// Who is in it now.
    pub member_id: MemberId,
    /// As what.
    pub role: TopicRole,
}

/// Answers `topic_members`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicMembersResponse {
    /// The topic, as it was named.
    pub topic: String,
    /// By name.
    pub members: Vec<TopicMember>,
}

/// Who is in a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicMember {
    /// The member.
    pub member_id: MemberId,
    /// Its key.
    pub pubkey: PublicKey,
    /// Its name.
    pub display_name: DisplayName,
    /// What it is in the topic.
    pub role: TopicRole,
    /// Since when.
    pub joined_at: Timestamp,
    /// When it last said that it has read the topic.
    pub last_read_at: Option<Timestamp>,
}

/// Asks for messages of a topic, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicHistory {
    /// The topic's id or name.
    #[serde(default)]
    pub topic: String,
    /// At most so many; absent means 50. Taken for 1 or 200 when it is beyond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// Only messages before the one with this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_id: Option<String>,
}

/// Answers `topic_history`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TopicHistoryResponse {
    /// The topic, as it was named.
    pub topic: String,
    /// Newest first.
    pub messages: Vec<TopicMessage>,
}

/// One message of a topic, wherever a client reads it back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicMessage {
    /// The message.
    pub id: MessageId,
    /// The key that its sender spoke with: a session's or the member's.
    pub sender_pubkey: PublicKey,
    /// The sender.
    pub sender_member_id: MemberId,
    /// The sender's name when it wrote.
    pub sender_name: DisplayName,
    /// The nonce that goes with the body.
    pub nonce: String,
    /// The body: base64 of text (version 1), or sealed under the topic's key (version 2).
    pub ciphertext: String,
    /// How the body is to be read: 1 or 2.
    pub body_version: u8,
    /// Which message of the topic it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<MessageId>,
    /// When the broker accepted it.
    pub created_at: Timestamp,
    /// Its number in the topic, from 1, without gaps.
    pub seq: i64,
    /// Whom its sender says it mentions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<String>,
    /// A JSON object that is carried as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ext: Option<Verbatim>,
    /// Whether it was written in clear although the topic has a key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plaintext: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (R1)
    #[test]
    fn names_outside_the_grammar_are_refused() {
        for text in ["", "#a", "-a", "_a", "a b", "a/b", "a.b", "ä", "a\n", &"a".repeat(65)] {
            assert!(text.parse::<TopicName>().is_err(), "{text:?}");
        }
        for text in ["a", "0", "front-end_2", &"a".repeat(64)] {
            assert_eq!(text.parse::<TopicName>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn case_does_not_make_another_topic() {
        assert_eq!("Front-End".parse::<TopicName>(), "front-end".parse());
        assert_eq!("Front-End".parse::<TopicName>().unwrap().as_str(), "front-end");
    }

    #[test]
    fn a_long_text_is_an_id_first_and_a_name_then() {
        let short = TopicSought::new("Deploys");
        assert_eq!((short.id(), short.name().map(TopicName::as_str)), (None, Some("deploys")));
        let long = TopicSought::new("A123456789012345678b");
        assert_eq!(long.id().map(TopicId::as_str), Some("A123456789012345678b"));
        assert_eq!(long.name().map(TopicName::as_str), Some("a123456789012345678b"));
        let neither = TopicSought::new("../../etc/passwd of the broker");
        assert_eq!((neither.id(), neither.name()), (None, None));
    }
}
