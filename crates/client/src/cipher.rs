//! Sealing for a peer and opening what a peer sealed, with the channel to each peer kept: making one costs a curve operation,
//! using it does not.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use claudemesh_envelope::{Channel, Sealed};
use claudemesh_keys::Identity;
use claudemesh_proto::PublicKey;
use claudemesh_proto::message::Push;
use claudemesh_proto::post::BodyVersion;
use claudemesh_proto::text::from_base64;

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
    /// It was not sealed: the broker could read it, and whose words it is the broker says.
    Plaintext(String),
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

    /// Opens what came. It fails closed: only UTF-8 sealed for us by `senderPubkey` is [`Body::Text`], and what is no UTF-8
    /// either way stays unopened. What was sealed for somebody else looks like plain text about as often as noise does. In a topic
    /// nothing is sealed for one reader, who would take it for what all of them read; what was sealed with the topic's key is not
    /// opened here.
    pub fn open(&self, push: &Push) -> Body {
        let is_in_topic = push.topic_id.is_some() || push.topic.is_some();
        let text = || {
            if is_in_topic {
                return None;
            }
            let channel = self.channel(&push.sender_pubkey.parse().ok()?)?;
            let plain = channel.open(&Sealed::from_base64(&push.nonce, &push.ciphertext).ok()?).ok()?;
            String::from_utf8(plain).ok()
        };
        let plain = || String::from_utf8(from_base64(&push.ciphertext)?).ok().filter(|text| !text.is_empty());
        let unopened = || Body::Unopened { nonce: push.nonce.clone(), ciphertext: push.ciphertext.clone() };
        if push.body_version == Some(BodyVersion::Sealed) {
            return unopened();
        }
        text().map(Body::Text).or_else(|| plain().map(Body::Plaintext)).unwrap_or_else(unopened)
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
            topic: None,
            topic_id: None,
            body_version: None,
            seq: None,
            reply_to_id: None,
            mentions: Vec::new(),
            plaintext: false,
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
            // Noise is sometimes UTF-8, and is flagged then.
            let is_opened = matches!(eve.open(&push), Body::Text(_));
            prop_assert!(!is_opened);
        }
    }

    /// (R17)
    #[test]
    fn what_was_sealed_with_a_topics_key_is_never_taken_for_text() {
        let text = push(&cipher(2).own(), base64(&[0; 24]), base64(b"looks like text"));
        let sealed = Push { body_version: Some(BodyVersion::Sealed), ..text };
        assert!(matches!(cipher(1).open(&sealed), Body::Unopened { .. }));
    }

    /// (R17)
    #[test]
    fn what_was_sealed_for_one_reader_is_not_opened_in_a_topic() {
        let (anna, ben) = (cipher(1), cipher(2));
        let (nonce, ciphertext) = anna.seal(&ben.own(), "for Ben alone, who believes that all read it").unwrap();
        let direct = push(&anna.own(), nonce, ciphertext);
        assert!(matches!(ben.open(&direct), Body::Text(_)));
        let plain = Some(BodyVersion::Plain);
        let named = Push { topic: Some("deploys".into()), body_version: plain, ..direct.clone() };
        let by_id = Push { topic_id: Some("t1".parse().unwrap()), body_version: plain, ..direct };
        assert!([named, by_id].iter().all(|push| !matches!(ben.open(push), Body::Text(_))));
    }

    /// (R17)
    #[test]
    fn plain_text_is_never_taken_for_sealed() {
        let anna = cipher(1);
        for nonce in [String::new(), base64(&[0; 24])] {
            let push = push(&cipher(2).own(), nonce, base64("hello, this is not sealed – ü".as_bytes()));
            assert_eq!(anna.open(&push), Body::Plaintext("hello, this is not sealed – ü".into()));
        }
    }

    /// (R17)
    #[test]
    fn what_is_neither_sealed_for_us_nor_text_stays_unopened() {
        let anna = cipher(1);
        let (nonce, ciphertext) = cipher(2).seal(&anna.own(), "a text that is long enough").unwrap();
        let mut forged = push(&cipher(2).own(), nonce.clone(), ciphertext);
        forged.sender_pubkey = "system".into();
        assert!(matches!(anna.open(&forged), Body::Unopened { .. }));
        for ciphertext in [base64(&[0xff; 20]), base64(b""), "not base64".into()] {
            let push = push(&cipher(2).own(), nonce.clone(), ciphertext);
            assert!(matches!(anna.open(&push), Body::Unopened { .. }));
        }
    }

    #[test]
    fn no_key_no_seal() {
        assert!(matches!(cipher(1).seal(&PublicKey::from_bytes([0; 32]), "x"), Err(Error::BadRecipientKey)));
    }
}
