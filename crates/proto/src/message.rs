//! Messages: sending, pushing, acknowledging, and asking what became of one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::group::GroupName;
use crate::id::{MemberId, MeshId, MessageId, TopicId};
use crate::key::PublicKey;
use crate::limits::{MAX_CLIENT_ID_BYTES, MAX_EXT_BYTES, NONCE_BYTES};
use crate::post::{BodyVersion, Post};
use crate::text::{DisplayName, Verbatim, base64_len};
use crate::time::Timestamp;

/// How urgent a message is. A busy recipient is handed `now` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Whenever there is time.
    Low,
    /// With the next free moment.
    #[default]
    Next,
    /// At once.
    Now,
}

impl Priority {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Next => "next",
            Self::Now => "now",
        }
    }
}

impl FromStr for Priority {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "low" => Ok(Self::Low),
            "next" => Ok(Self::Next),
            "now" => Ok(Self::Now),
            _ => Err(Invalid { field: "priority", why: "must be now, next or low" }),
        }
    }
}

/// Whom a message is for: the `targetSpec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A member or a session, by its public key.
    Key(PublicKey),
    /// Everybody in the mesh: `*`.
    Everybody,
    /// The same, written `@all`.
    All,
    /// Everybody in a group or in one below it: `@name`.
    Group(GroupName),
    /// Everybody in a topic, by its id: `#id`.
    Topic(TopicId),
}

/// The text names nobody that a message could be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// It is not in the grammar.
    #[error("must be a member's or session's key, *, @all, @group or #topic-id")]
    Malformed,
    /// It looks like a name: clients look those up themselves.
    #[error("names nobody")]
    Nobody,
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        match text {
            "*" => return Ok(Self::Everybody),
            "@all" => return Ok(Self::All),
            _ => {}
        }
        if let Some(group) = text.strip_prefix('@') {
            return group.parse().map(Self::Group).map_err(|_| BadTarget::Malformed);
        }
        if let Some(topic) = text.strip_prefix('#') {
            return topic.parse().map(Self::Topic).map_err(|_| BadTarget::Malformed);
        }
        if text.is_empty() || text.starts_with('*') {
            return Err(BadTarget::Malformed);
        }
        text.parse().map(Self::Key).map_err(|_| BadTarget::Nobody)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::Everybody => f.write_str("*"),
            Self::All => f.write_str("@all"),
            Self::Group(name) => write!(f, "@{name}"),
            Self::Topic(id) => write!(f, "#{id}"),
        }
    }
}

/// `send` as it was written; [`Send::check`] makes it something to act on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Send {
    /// Comes back as `ack.id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Whom it is for, in the words of [`Target`].
    #[serde(default, rename = "targetSpec")]
    pub target_spec: String,
    /// `now`, `next` or `low`; absent means `next`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// 24 bytes in base64, or empty.
    #[serde(default)]
    pub nonce: String,
    /// The sealed body in base64.
    #[serde(default)]
    pub ciphertext: String,
    /// The client's own id of the message: a retry with the same one is the same message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    /// What tells a retry from another message under the same id: 64 hex characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_fingerprint: Option<String>,
    /// An object carried beside the ciphertext, byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ext: Option<Verbatim>,
    /// For a topic: what the ciphertext is, 1 or 2. Absent means 1.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "bodyVersion")]
    pub body_version: Option<i64>,
    /// For a topic: names of those who are mentioned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mentions: Option<Vec<String>>,
    /// For a topic: the message that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "replyToId")]
    pub reply_to_id: Option<String>,
}

/// A `send` whose every field is in order.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Whom it is for.
    pub target: Target,
    /// How urgent it is.
    pub priority: Priority,
    /// 24 bytes in padded base64, or empty.
    pub nonce: String,
    /// Padded base64, not empty.
    pub ciphertext: String,
    /// The client's own id.
    pub client_message_id: Option<String>,
    /// 64 lower-case hex characters.
    pub request_fingerprint: Option<String>,
    /// A JSON object of at most 4 KiB.
    pub ext: Option<Verbatim>,
    /// What it has as a topic's message; nothing for any other target.
    pub post: Option<Post>,
}

/// Why a `send` cannot be accepted; the ack says `invalid: <field> <why>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid: {field} {why}")]
pub struct Invalid {
    /// The field as it is called on the wire.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Send {
    /// Bytes that count against `MAX_MESSAGE_BYTES`.
    pub fn size_bytes(&self) -> usize {
        self.ciphertext.len() + self.nonce.len() + self.target_spec.len()
    }

    /// Checks every field but the target.
    ///
    /// # Errors
    /// [`Invalid`] names the first field that is out of order.
    pub fn check(mut self, target: Target) -> Result<Outgoing, Invalid> {
        let wrong = |field, why| Err(Invalid { field, why });
        if base64_len(&self.ciphertext).is_none_or(|length| length == 0) {
            return wrong("ciphertext", "must be padded standard base64, not empty");
        }
        if !self.nonce.is_empty() && base64_len(&self.nonce) != Some(NONCE_BYTES) {
            return wrong("nonce", "must be 24 bytes in padded standard base64, or empty");
        }
        if self.client_message_id.as_deref().is_some_and(|id| !is_client_id(id)) {
            return wrong("client_message_id", "must be 1-128 printable ASCII characters");
        }
        let fingerprint = self.request_fingerprint.as_deref();
        if fingerprint.is_some_and(|text| text.parse::<PublicKey>().is_err()) {
            return wrong("request_fingerprint", "must be 64 lowercase hex chars");
        }
        if let Some(ext) = &self.ext {
            if !ext.get().starts_with('{') {
                return wrong("ext", "must be a JSON object");
            }
            if ext.get().len() > MAX_EXT_BYTES {
                return wrong("ext", "must be at most 4096 bytes");
            }
            // PostgreSQL text holds no NUL, and a byte-for-byte promise leaves no room for replacing it.
            if ext.get().contains("\\u0000") {
                return wrong("ext", "must not contain U+0000");
            }
        }
        let post = if matches!(target, Target::Topic(_)) { Some(Post::of(&mut self)?) } else { None };
        let priority = self.priority.as_deref().map_or(Ok(Priority::default()), str::parse)?;
        Ok(Outgoing {
            target,
            priority,
            nonce: self.nonce,
            ciphertext: self.ciphertext,
            client_message_id: self.client_message_id,
            request_fingerprint: self.request_fingerprint,
            ext: self.ext,
            post,
        })
    }
}

/// Whether `text` can be a client's own id: 1 to 128 printable ASCII characters.
pub fn is_client_id(text: &str) -> bool {
    (1..=MAX_CLIENT_ID_BYTES).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// The answer to every `send`, and to a few other requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// The `id` of the request, or empty.
    pub id: String,
    /// The message's id, or empty when it was not accepted.
    pub message_id: String,
    /// Whether the message is kept until it is delivered.
    pub queued: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A message handed to one connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Push {
    /// The message; the same in every redelivery.
    pub message_id: MessageId,
    /// The mesh.
    pub mesh_id: MeshId,
    /// The key whose secret half sealed the body.
    pub sender_pubkey: String,
    /// The sending member's key; absent where existing clients would drop their own member's message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_member_pubkey: Option<PublicKey>,
    /// The sending member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_member_id: Option<MemberId>,
    /// The sender's name at the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_name: Option<DisplayName>,
    /// How urgent it is.
    pub priority: Priority,
    /// As sent.
    pub nonce: String,
    /// As sent.
    pub ciphertext: String,
    /// When the broker accepted it.
    pub created_at: Timestamp,
    /// As sent.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "client_message_id")]
    pub client_message_id: Option<String>,
    /// As sent.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "request_fingerprint")]
    pub request_fingerprint: Option<String>,
    /// As sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ext: Option<Verbatim>,
    /// The name of its topic, when it is a topic's; then `topicId`, `bodyVersion` and `seq` are there too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Its topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<TopicId>,
    /// What the ciphertext is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_version: Option<BodyVersion>,
    /// Its number in the topic, without gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<String>,
    /// Who is mentioned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<String>,
    /// It was written without the topic's key although there is one: the broker could read it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plaintext: bool,
    /// `system` for events, which need no ack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtype: Option<String>,
}

/// The receiver has the message durably.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientAck {
    /// The client's own id of the message; decides only when the broker's is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    /// The message's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_message_id: Option<String>,
}

/// What became of a message?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageStatus {
    /// The id, or at least its first eight characters.
    #[serde(default)]
    pub message_id: String,
}

/// The path of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageStatusResult {
    /// As asked.
    pub message_id: String,
    /// Whom it was for.
    pub target_spec: String,
    /// Whether every recipient has it.
    pub delivered: bool,
    /// When the last recipient got it.
    pub delivered_at: Option<Timestamp>,
    /// One delivery per recipient.
    pub recipients: Vec<Delivery>,
}

/// Where a message stands with one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The recipient's name.
    pub name: String,
    /// The key it was addressed by.
    pub pubkey: PublicKey,
    /// `delivered`, `held` or `disconnected`, as existing clients know it.
    pub status: RecipientStatus,
    /// The exact state.
    pub state: DeliveryState,
    /// When this recipient acknowledged it, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Timestamp>,
}

/// The three words of the existing protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipientStatus {
    /// The recipient has it.
    Delivered,
    /// The recipient is connected and does not have it yet.
    Held,
    /// The recipient is away.
    Disconnected,
}

/// A delivery's state: `queued → claimed → delivered`, or one of the other ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Kept for the recipient.
    Queued,
    /// Handed to a connection that has not acknowledged it yet.
    Claimed,
    /// Waiting for the recipient to be less busy.
    Held,
    /// Acknowledged.
    Delivered,
    /// Nobody came for it in time.
    Expired,
    /// The recipient was removed from the mesh.
    Revoked,
}

impl DeliveryState {
    /// The word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Claimed => "claimed",
            Self::Held => "held",
            Self::Delivered => "delivered",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(change: impl FnOnce(&mut Send)) -> Result<Outgoing, Invalid> {
        let mut send = Send { ciphertext: "aGVsbG8=".into(), nonce: "A".repeat(32), ..Send::default() };
        change(&mut send);
        send.check(Target::Key(PublicKey::from_bytes([1; 32])))
    }

    #[test]
    fn a_send_in_order_passes_and_defaults_to_next() {
        assert_eq!(send(|_| ()).unwrap().priority, Priority::Next);
    }

    #[test]
    fn a_target_is_a_key_everybody_or_a_group() {
        let key = "01".repeat(32);
        assert_eq!(key.parse(), Ok(Target::Key(PublicKey::from_bytes([1; 32]))));
        assert_eq!("*".parse(), Ok(Target::Everybody));
        assert_eq!("@all".parse(), Ok(Target::All));
        assert_eq!("@a/B".parse(), Ok(Target::Group("a/b".parse().unwrap())));
        assert_eq!("#t-1".parse(), Ok(Target::Topic("t-1".parse().unwrap())));
        for malformed in ["", "**", "*x", "@", "@@a", "@a b", "#", "#a b"] {
            assert_eq!(malformed.parse::<Target>(), Err(BadTarget::Malformed), "{malformed}");
        }
        for nobody in ["Ann", "tag:x", "0101", "ü", &key[1..]] {
            assert_eq!(nobody.parse::<Target>(), Err(BadTarget::Nobody), "{nobody}");
        }
    }

    #[test]
    fn each_bad_field_is_named() {
        type Change = fn(&mut Send);
        let cases: [(&str, Change); 8] = [
            ("ciphertext", |send| send.ciphertext = String::new()),
            ("ciphertext", |send| send.ciphertext = "not base64".into()),
            ("nonce", |send| send.nonce = "AAAA".into()),
            ("priority", |send| send.priority = Some("urgent".into())),
            ("client_message_id", |send| send.client_message_id = Some("x".repeat(129))),
            ("client_message_id", |send| send.client_message_id = Some("a\0b".into())),
            ("request_fingerprint", |send| send.request_fingerprint = Some("AB".repeat(32))),
            ("ext", |send| send.ext = serde_json::from_str("[1]").ok()),
        ];
        for (field, change) in cases {
            assert_eq!(send(change).unwrap_err().field, field);
        }
    }
}
