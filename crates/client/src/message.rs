//! Writing messages and asking what became of them.

use std::time::Duration;

use claudemesh_keys::request_fingerprint;
use claudemesh_proto::canonical::Destination;
use claudemesh_proto::limits::MAX_MESSAGE_BYTES;
use claudemesh_proto::message::{MessageStatus, MessageStatusResult, RecipientStatus, Send};
use claudemesh_proto::{BrokerFrame, ClientFrame, DeliveryState, Priority, PublicKey};
use tokio::time::{Instant, sleep};

use crate::cipher::Cipher;
use crate::clock::now;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::message_id::client_message_id;

/// A message before it is sealed.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// The key it is sealed for and sent to.
    pub to: &'a PublicKey,
    /// The recipient as the user wrote it; part of the fingerprint.
    pub reference: &'a str,
    /// How urgent it is.
    pub priority: Priority,
    /// What it says.
    pub text: &'a str,
}

impl Cipher {
    /// Seals a draft into a `send` with an id of its own. Sending the same value again is a retry, not another message.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::BadRecipientKey`], [`Error::NoRandomness`].
    pub fn compose(&self, draft: &Draft<'_>) -> Result<Send> {
        let (nonce, ciphertext) = self.seal(draft.to, draft.text)?;
        let destination = Destination { kind: "dm", reference: draft.reference, reply_to: None };
        let send = Send {
            target_spec: draft.to.to_string(),
            priority: Some(draft.priority.as_str().into()),
            nonce,
            ciphertext,
            client_message_id: Some(client_message_id(now())?),
            request_fingerprint: Some(request_fingerprint(destination, draft.priority.as_str(), None, draft.text)),
            ..Send::default()
        };
        if send.size_bytes() > MAX_MESSAGE_BYTES {
            return Err(Error::TooLarge { size_bytes: draft.text.len() });
        }
        Ok(send)
    }
}

impl Connection {
    /// What became of a message, by its id or at least the first eight characters of it.
    pub async fn message_status(&self, id: &str) -> Result<MessageStatusResult> {
        let asked = ClientFrame::MessageStatus(MessageStatus { message_id: id.to_owned() });
        match self.request(asked).await? {
            BrokerFrame::MessageStatusResult(status) => Ok(status),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Asks what became of a message until every recipient has it, or none of the others will have it soon, or `patience` is
    /// over.
    pub async fn await_delivery(&self, id: &str, patience: Duration) -> Result<MessageStatusResult> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let status = self.message_status(id).await?;
            if !is_moving(&status) || started.elapsed() + pause > patience {
                return Ok(status);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Whether a recipient is about to have the message: connected, and not too busy to be handed it.
fn is_moving(status: &MessageStatusResult) -> bool {
    status.recipients.iter().any(|delivery| match delivery.state {
        DeliveryState::Claimed => true,
        DeliveryState::Queued => delivery.status != RecipientStatus::Disconnected,
        DeliveryState::Held | DeliveryState::Delivered | DeliveryState::Expired | DeliveryState::Revoked => false,
    })
}

/// Whether a refusal by `ack` will be the same next time. The words are part of the protocol: existing daemons decide by them,
/// on a member's connection by the first row and on a session's by the second.
pub fn is_permanent(error: &str) -> bool {
    const WORDS: [&str; 10] = [
        "payload_too_large",
        "forbidden",
        "not_found",
        "invalid",
        "schema",
        "auth",
        "signature", //
        "unknown",
        "not_authorized",
        "target_not_found",
    ];
    let error = error.to_ascii_lowercase();
    // Nobody of that key: for a command that a person waits for, later is too late.
    WORDS.iter().any(|word| error.contains(word)) || error.starts_with("no connected peer")
}

/// The longest text that a message holds: what counts is its base64, a third longer, with 16 bytes of the seal, the key it is for
/// in hex and 24 bytes of nonce in base64.
pub const MAX_TEXT_BYTES: usize = (MAX_MESSAGE_BYTES - 64 - 32) / 4 * 3 - 16;

const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use claudemesh_keys::Identity;

    use super::*;

    #[test]
    fn a_draft_becomes_a_send_that_a_broker_accepts() {
        let cipher = Cipher::new(Arc::new(Identity::from_seed([1; 32])));
        let to = Identity::from_seed([2; 32]).public();
        let draft = Draft { to: &to, reference: "bob", priority: Priority::Next, text: "hi" };
        let send = cipher.compose(&draft).unwrap();
        // The golden fingerprint of (1, dm, bob, "", next, "", body "hi").
        let fingerprint = "f1a1afeb432b0317af460f0a14ba47d5a8a43144e761652deeb914d507415bd6";
        assert_eq!(send.request_fingerprint.as_deref(), Some(fingerprint));
        assert_eq!(send.target_spec, to.to_string());
        send.check(claudemesh_proto::Target::Key(to)).unwrap();
    }

    #[test]
    fn a_text_that_no_broker_takes_is_refused_here() {
        let cipher = Cipher::new(Arc::new(Identity::from_seed([1; 32])));
        let to = Identity::from_seed([2; 32]).public();
        let compose = |length: usize| {
            let text = "x".repeat(length);
            cipher.compose(&Draft { to: &to, reference: "bob", priority: Priority::Next, text: &text })
        };
        assert!(compose(MAX_TEXT_BYTES).is_ok());
        assert!(matches!(compose(MAX_TEXT_BYTES + 1), Err(Error::TooLarge { size_bytes: 49_065 })));
    }

    #[test]
    fn the_documented_refusals_are_told_apart() {
        let cases = [
            ("rate_limit: max 600 msg/min (burst 100) — slow down", false),
            ("recipient queue full", false),
            ("temporarily unavailable, try again", false),
            ("invalid: client_message_id was used with another request_fingerprint", true),
            ("invalid: nonce must be 24 bytes in padded standard base64, or empty", true),
            ("invalid: payload too large: 70000 bytes > MAX_MESSAGE_BYTES=65536", true),
            ("forbidden: blocked by recipient grants (sender lacks dm capability)", true),
            ("no connected peer for target (not online, or targetSpec is your own key without another session)", true),
        ];
        for (text, permanent) in cases {
            assert_eq!(is_permanent(text), permanent, "{text}");
        }
    }
}
