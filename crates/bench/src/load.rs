//! Messages to send, and sending them with so many under way.

use std::collections::VecDeque;

use anyhow::ensure;
use claudemesh_client::{Connection, now};
use claudemesh_keys::random_bytes;
use claudemesh_proto::message::{Push, Send};
use claudemesh_proto::text::base64;

/// Makes the messages of one sender. What they say was sealed beforehand, so to speak: sealing is not what is measured.
#[derive(Debug)]
pub(crate) struct Outbox {
    sender: usize,
    /// The number of the next one.
    pub(crate) next: u64,
    template: Send,
}

impl Outbox {
    pub(crate) fn new(sender: usize) -> anyhow::Result<Self> {
        let template = Send {
            priority: Some("next".into()),
            nonce: base64(&random_bytes::<24>()?),
            ciphertext: base64(&random_bytes::<BODY_BYTES>()?),
            request_fingerprint: Some("5e".repeat(32)),
            ..Send::default()
        };
        Ok(Self { sender, next: 0, template })
    }

    /// The next message, to this key.
    pub(crate) fn to(&mut self, key: &str) -> Send {
        let mut message = self.template.clone();
        key.clone_into(&mut message.target_spec);
        // As long as the UUIDs (version 7) of clients, and like them beginning with the time.
        let millis = now().as_millis();
        let (high, low) = (millis >> 16, millis & 0xffff);
        message.client_message_id = Some(format!("{high:08x}-{low:04x}-7000-{:04x}-{:012x}", self.sender, self.next));
        self.next += 1;
        message
    }
}

/// The number that a message got from its sender.
pub(crate) fn number_of(push: &Push) -> Option<u64> {
    let id = push.client_message_id.as_deref()?;
    u64::from_str_radix(id.rsplit_once('-')?.1, 16).ok()
}

/// Sends what `next` gives, with at most `window` messages unacknowledged, until it gives nothing more and every ack is here.
/// Counts the messages; one that is not accepted is an error.
pub(crate) async fn send_all(
    connection: &Connection,
    window: usize,
    mut next: impl FnMut() -> Option<Send>,
) -> anyhow::Result<u64> {
    let mut waiting = VecDeque::with_capacity(window);
    let mut accepted = 0;
    loop {
        while waiting.len() < window
            && let Some(message) = next()
        {
            waiting.push_back(connection.submit(message).await?);
        }
        // Acks come in the order of the sends.
        let Some(oldest) = waiting.pop_front() else { return Ok(accepted) };
        let ack = oldest.ack().await?;
        ensure!(ack.queued, "a message was not accepted: {}", ack.error.unwrap_or_default());
        accepted += 1;
    }
}

/// 300 characters in base64: a few lines of text in their box.
const BODY_BYTES: usize = 225;
