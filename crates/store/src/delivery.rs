//! What is handed over: a delivery with its message.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use claudemesh_proto::text::Verbatim;
use claudemesh_proto::{DisplayName, MemberId, MessageId, Priority, PublicKey, Timestamp};
use serde::Deserialize;

use crate::recipient::Recipient;

/// Names a delivery inside the store; never on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub(crate) i64);

impl DeliveryId {
    /// The row's number; only the store makes such that mean something.
    pub const fn from_row(row: i64) -> Self {
        Self(row)
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
    /// When the batch that claimed it was committed.
    pub committed_at: Option<Instant>,
    /// The message; shared by everybody who gets it.
    pub letter: Arc<Letter>,
}

/// A message as its recipients get it.
#[derive(Debug)]
pub struct Letter {
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
    /// What whoever hands it on made of it, kept for the next recipient.
    pub written: OnceLock<String>,
}

/// A delivery is read as the message that it delivers.
impl std::ops::Deref for Claimed {
    type Target = Letter;

    fn deref(&self) -> &Letter {
        &self.letter
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
}

impl Found {
    pub(crate) fn letter(self) -> Letter {
        Letter {
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
