//! What is handed over: a delivery with its message.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use claudemesh_proto::post::BodyVersion;
use claudemesh_proto::text::Verbatim;
use claudemesh_proto::{DisplayName, MemberId, MessageId, Priority, PublicKey, Timestamp, TopicId};
use serde::Deserialize;

use crate::recipient::Recipient;

/// Names a delivery inside the store; never on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeliveryId {
    /// A row of its own, by its number.
    Row(i64),
    /// A message of a topic, which has none: by the member's cursor in the topic, and the message's number there.
    Post {
        /// The cursor.
        cursor: i64,
        /// The number.
        seq: i64,
    },
}

impl DeliveryId {
    /// The numbers of those that have a row.
    pub(crate) fn row(self) -> Option<i64> {
        if let Self::Row(row) = self { Some(row) } else { None }
    }
}

/// A delivery handed to a connection.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Its place in the mesh's order.
    pub seq: i64,
    /// Whose mail it is.
    pub recipient: Recipient,
    /// Bytes that count against the window.
    pub size_bytes: i64,
    /// When the claim ends.
    pub until: Timestamp,
    /// Of a topic's message that is handed over for the first time: what lies before it.
    pub span: Option<Span>,
    /// When the batch that claimed it was committed.
    pub committed_at: Option<Instant>,
    /// The message; shared by everybody who gets it.
    pub message: Arc<StoredMessage>,
}

/// What lies before a topic's message that is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The member's cursor: everything up to this number was acknowledged.
    pub delivered: i64,
    /// Nothing between this number and the message is for the connection.
    pub after: i64,
}

/// A message as its recipients get it.
#[derive(Debug)]
pub struct StoredMessage {
    /// The message's id.
    pub message_id: MessageId,
    /// The key that sealed it.
    pub sender_pubkey: PublicKey,
    /// The sending member's key.
    pub sender_member_pubkey: PublicKey,
    /// The sending member.
    pub sender_member_id: MemberId,
    /// The sender's name at the time.
    pub sender_name: DisplayName,
    /// How urgent it is.
    pub priority: Priority,
    /// As sent.
    pub nonce: String,
    /// As sent.
    pub ciphertext: String,
    /// As sent.
    pub ext: Option<Verbatim>,
    /// As sent.
    pub client_message_id: Option<String>,
    /// As sent.
    pub request_fingerprint: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Where it stands in its topic, if it is a topic's.
    pub post: Option<TopicPart>,
    /// What whoever hands it on made of it, kept for the next recipient.
    pub written: OnceLock<String>,
}

/// What a topic's message has besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPart {
    /// The topic.
    pub topic_id: TopicId,
    /// Its name.
    pub topic: String,
    /// The number in the topic, without gaps.
    pub seq: i64,
    /// What the ciphertext is.
    pub body_version: BodyVersion,
    /// The message that it answers.
    pub reply_to_id: Option<String>,
    /// Who is mentioned.
    pub mentions: Vec<String>,
    /// It was written without the topic's key although there is one.
    pub plaintext: bool,
}

/// A delivery is read as the message that it delivers.
impl std::ops::Deref for Claimed {
    type Target = StoredMessage;

    fn deref(&self) -> &StoredMessage {
        &self.message
    }
}

/// A message as it is read for a claim, a JSON array of the fields in their order.
#[derive(Debug, Deserialize)]
pub(crate) struct Found {
    /// The place of its row among the chosen ones.
    pub(crate) place: usize,
    message_id: MessageId,
    sender_pubkey: PublicKey,
    sender_member_pubkey: PublicKey,
    sender_member_id: MemberId,
    sender_name: DisplayName,
    priority: Priority,
    nonce: String,
    ciphertext: String,
    ext: Option<String>,
    client_message_id: Option<String>,
    request_fingerprint: Option<String>,
    created_at: i64,
    topic_id: Option<TopicId>,
    topic: Option<String>,
    seq: Option<i64>,
    body_version: Option<BodyVersion>,
    reply_to_id: Option<String>,
    mentions: Option<String>,
    plaintext: Option<i64>,
}

impl Found {
    pub(crate) fn stored(self) -> StoredMessage {
        let post = self.topic_id.zip(self.topic).zip(self.seq).map(|((topic_id, topic), seq)| TopicPart {
            topic_id,
            topic,
            seq,
            body_version: self.body_version.unwrap_or_default(),
            reply_to_id: self.reply_to_id,
            mentions: self.mentions.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default(),
            plaintext: self.plaintext == Some(1),
        });
        StoredMessage {
            post,
            message_id: self.message_id,
            sender_pubkey: self.sender_pubkey,
            sender_member_pubkey: self.sender_member_pubkey,
            sender_member_id: self.sender_member_id,
            sender_name: self.sender_name,
            priority: self.priority,
            nonce: self.nonce,
            ciphertext: self.ciphertext,
            ext: self.ext.and_then(|ext| serde_json::value::RawValue::from_string(ext).ok()),
            client_message_id: self.client_message_id,
            request_fingerprint: self.request_fingerprint,
            created_at: Timestamp::from_millis(self.created_at),
            written: OnceLock::new(),
        }
    }
}
