//! Sealing for a peer and opening what a peer sealed, with the channel to each peer kept: making one costs a curve operation,
//! using it does not.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use claudemesh_envelope::{Channel, Sealed};
use claudemesh_keys::Identity;
use claudemesh_proto::PublicKey;
use claudemesh_proto::message::Push;

use crate::error::{Error, Result};

/// Seals and opens with one key of ours.
pub struct Cipher {
    own: Arc<Identity>,
    channels: Mutex<HashMap<PublicKey, Arc<Channel>>>,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// It was opened.
    Text(String),
    /// It could not be opened with our key. It is kept as it came, and never shown as if it were text.
    Unopened {
        /// As it came.
        nonce: String,
        /// As it came.
        ciphertext: String,
    },
}

impl Cipher {
    /// For messages from and to this identity.
    pub fn new(own: Arc<Identity>) -> Self {
        Self { own, channels: Mutex::default() }
    }

    /// The public half of our key.
    pub fn own(&self) -> PublicKey {
        self.own.public()
    }

    /// Seals a text for a peer; the nonce and the ciphertext in base64.
    ///
    /// # Errors
    /// [`Error::BadRecipientKey`] when nobody could open it, [`Error::NoRandomness`].
    pub fn seal(&self, peer: &PublicKey, text: &str) -> Result<(String, String)> {
        let sealed = self.channel(peer).ok_or(Error::BadRecipientKey)?.seal(text.as_bytes())?;
        Ok((sealed.nonce_base64(), sealed.ciphertext_base64()))
    }

    /// Opens what came. It fails closed: anything but UTF-8 sealed for us by `senderPubkey` stays unopened.
    pub fn open(&self, push: &Push) -> Body {
        let text = || {
            let channel = self.channel(&push.sender_pubkey.parse().ok()?)?;
            let plain = channel.open(&Sealed::from_base64(&push.nonce, &push.ciphertext).ok()?).ok()?;
            String::from_utf8(plain).ok()
        };
        text().map_or_else(
            || Body::Unopened { nonce: push.nonce.clone(), ciphertext: push.ciphertext.clone() },
            Body::Text,
        )
    }

    fn channel(&self, peer: &PublicKey) -> Option<Arc<Channel>> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(peer) {
            return Some(Arc::clone(channel));
        }
        let channel = Arc::new(Channel::new(&self.own, peer).ok()?);
        if channels.len() >= MAX_CHANNELS {
            // Cheap to make again, and nobody writes to so many at once: forgetting all is simpler than forgetting the oldest.
            channels.clear();
        }
        channels.insert(*peer, Arc::clone(&channel));
        Some(channel)
    }
}

/// Without the keys.
impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher").field("own", &self.own()).finish_non_exhaustive()
    }
}

/// Peers to keep a channel for: 32 bytes each, a bound and not a limit.
const MAX_CHANNELS: usize = 4096;

#[cfg(test)]
mod tests {
    use claudemesh_proto::text::base64;
    use claudemesh_proto::{MeshId, MessageId, Priority, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn cipher(seed: u8) -> Cipher {
        Cipher::new(Arc::new(Identity::from_seed([seed; 32])))
    }

    fn push(sender: &PublicKey, nonce: String, ciphertext: String) -> Push {
        Push {
            message_id: MessageId::new(1, [1; 24]),
            mesh_id: MeshId::from_random([1; 32]),
            sender_pubkey: sender.to_string(),
            sender_member_pubkey: None,
            sender_member_id: None,
            sender_name: None,
            priority: Priority::Next,
            nonce,
            ciphertext,
            created_at: Timestamp::from_millis(0),
            client_message_id: None,
            request_fingerprint: None,
            ext: None,
            subtype: None,
        }
    }

    proptest! {
        #[test]
        fn the_recipient_opens_what_was_sealed_and_nobody_else_does(text in ".*") {
            let (anna, ben, eve) = (cipher(1), cipher(2), cipher(3));
            let (nonce, ciphertext) = anna.seal(&ben.own(), &text).unwrap();
            let push = push(&anna.own(), nonce, ciphertext);
            prop_assert_eq!(ben.open(&push), Body::Text(text));
            let is_closed = matches!(eve.open(&push), Body::Unopened { .. });
            prop_assert!(is_closed);
        }
    }

    #[test]
    fn plain_text_in_base64_is_not_taken_for_a_message() {
        let anna = cipher(1);
        for nonce in [String::new(), base64(&[0; 24])] {
            let push = push(&cipher(2).own(), nonce, base64(b"hello, this is not sealed"));
            assert!(matches!(anna.open(&push), Body::Unopened { .. }));
        }
        let (nonce, ciphertext) = cipher(2).seal(&anna.own(), "hi").unwrap();
        let mut forged = push(&cipher(2).own(), nonce, ciphertext);
        forged.sender_pubkey = "system".into();
        assert!(matches!(anna.open(&forged), Body::Unopened { .. }));
    }

    #[test]
    fn no_key_no_seal() {
        assert!(matches!(cipher(1).seal(&PublicKey::from_bytes([0; 32]), "x"), Err(Error::BadRecipientKey)));
    }
}
