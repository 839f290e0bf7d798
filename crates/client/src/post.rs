//! What is written in a topic: composing it, and reading it back.

use claudemesh_envelope::{Sealed, TopicKey, open_body, seal_body};
use claudemesh_keys::{random_bytes, request_fingerprint};
use claudemesh_proto::canonical::Destination;
use claudemesh_proto::limits::{MAX_MESSAGE_BYTES, NONCE_BYTES};
use claudemesh_proto::message::Send;
use claudemesh_proto::post::{BodyVersion, mentioned_in};
use claudemesh_proto::text::{base64, from_base64};
use claudemesh_proto::topic::TopicMessage;
use claudemesh_proto::{MessageId, Priority, TopicId};

use crate::cipher::Body;
use crate::clock::now;
use crate::error::{Error, Result};
use crate::message_id::client_message_id;

/// A message to a topic, before it is sealed.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "the key is a secret")]
pub struct Post<'a> {
    /// The topic.
    pub topic: &'a TopicId,
    /// Its key. Without one the message is NOT encrypted, which is right only when the topic has none.
    pub key: Option<&'a TopicKey>,
    /// How urgent it is.
    pub priority: Priority,
    /// The message of the topic that this one answers.
    pub reply_to: Option<&'a MessageId>,
    /// What it says.
    pub text: &'a str,
}

impl Post<'_> {
    /// A `send` with an id of its own. Sending the same value again is a retry, not another message. Whom it mentions is read from
    /// the text here and stands beside it in clear, because a broker notifies them.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoRandomness`].
    pub fn compose(&self) -> Result<Send> {
        let (nonce, ciphertext) = match self.key {
            Some(key) => {
                let sealed = seal_body(key, self.text.as_bytes())?;
                (sealed.nonce_base64(), sealed.ciphertext_base64())
            }
            // Existing clients look for a nonce; nothing is sealed with it.
            None => (base64(&random_bytes::<NONCE_BYTES>()?), base64(self.text.as_bytes())),
        };
        let version = if self.key.is_some() { BodyVersion::Sealed } else { BodyVersion::Plain };
        let reference = self.topic.as_str();
        let reply_to = self.reply_to.map(MessageId::as_str);
        let destination = Destination { kind: "topic", reference, reply_to };
        let mentions = mentioned_in(self.text.as_bytes());
        let send = Send {
            target_spec: format!("#{}", self.topic),
            priority: Some(self.priority.as_str().into()),
            nonce,
            ciphertext,
            client_message_id: Some(client_message_id(now())?),
            request_fingerprint: Some(request_fingerprint(destination, self.priority.as_str(), None, self.text)),
            body_version: Some(version.into()),
            mentions: (!mentions.is_empty()).then_some(mentions),
            reply_to_id: reply_to.map(Into::into),
            ..Send::default()
        };
        if send.size_bytes() > MAX_MESSAGE_BYTES {
            return Err(Error::TooLarge { size_bytes: self.text.len() });
        }
        Ok(send)
    }
}

/// What a message of a topic says. It fails closed: version 2 is text only when the topic's key opens it, version 1 is
/// [`Body::Plaintext`] whatever the topic is, and any other version stays unopened.
pub fn open_post(key: Option<&TopicKey>, message: &TopicMessage) -> Body {
    let version = BodyVersion::try_from(i64::from(message.body_version)).ok();
    open(key, version, &message.nonce, &message.ciphertext)
}

/// What a message of version 2 says.
pub(crate) fn open_sealed(key: Option<&TopicKey>, nonce: &str, ciphertext: &str) -> Body {
    open(key, Some(BodyVersion::Sealed), nonce, ciphertext)
}

fn open(key: Option<&TopicKey>, version: Option<BodyVersion>, nonce: &str, ciphertext: &str) -> Body {
    let bytes = match version {
        Some(BodyVersion::Sealed) => {
            key.and_then(|key| open_body(key, &Sealed::from_base64(nonce, ciphertext).ok()?).ok())
        }
        Some(BodyVersion::Plain) => from_base64(ciphertext),
        None => None,
    };
    match bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(text) if version == Some(BodyVersion::Sealed) => Body::Text(text),
        Some(text) => Body::Plaintext(text),
        None => Body::Unopened { nonce: nonce.to_owned(), ciphertext: ciphertext.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_proto::{MemberId, Timestamp};

    use super::*;

    fn key() -> TopicKey {
        TopicKey::from_bytes([4; 32])
    }

    fn post<'a>(topic: &'a TopicId, key: Option<&'a TopicKey>, text: &'a str) -> Post<'a> {
        Post { topic, key, priority: Priority::Next, reply_to: None, text }
    }

    fn message(body_version: u8, nonce: &str, ciphertext: &str) -> TopicMessage {
        TopicMessage {
            id: "m1".parse().unwrap(),
            sender_pubkey: "ab".repeat(32).parse().unwrap(),
            sender_member_id: MemberId::from_random([1; 32]),
            sender_name: "Anna".parse().unwrap(),
            nonce: nonce.into(),
            ciphertext: ciphertext.into(),
            body_version,
            reply_to_id: None,
            created_at: Timestamp::from_millis(0),
            seq: 1,
            mentions: Vec::new(),
            ext: None,
            plaintext: false,
        }
    }

    /// (R17)
    #[test]
    fn what_goes_into_a_topic_with_a_key_is_sealed_and_says_whom_it_mentions() {
        let topic: TopicId = "t1".parse().unwrap();
        let answered: MessageId = "m0".parse().unwrap();
        let (key, text) = (key(), "secret of @Ben, and of a@b");
        let send = Post { reply_to: Some(&answered), ..post(&topic, Some(&key), text) }.compose().unwrap();
        assert_eq!(
            (send.target_spec.as_str(), send.body_version, send.reply_to_id.as_deref()),
            ("#t1", Some(2), Some("m0"))
        );
        assert_eq!(send.mentions.as_deref(), Some(["ben".to_owned()].as_slice()));
        let wire = serde_json::to_string(&send).unwrap();
        assert!(!wire.contains("secret") && !wire.contains(&base64(text.as_bytes())), "{wire}");
        assert_eq!(open_post(Some(&key), &message(2, &send.nonce, &send.ciphertext)), Body::Text(text.into()));
    }

    #[test]
    fn without_a_key_it_is_plaintext_and_read_back_as_that() {
        let topic: TopicId = "t1".parse().unwrap();
        let send = post(&topic, None, "open").compose().unwrap();
        assert_eq!((send.body_version, send.mentions), (Some(1), None));
        let key = key();
        for key in [None, Some(&key)] {
            assert_eq!(open_post(key, &message(1, &send.nonce, &send.ciphertext)), Body::Plaintext("open".into()));
        }
    }

    /// (R17)
    #[test]
    fn what_the_key_does_not_open_is_never_taken_for_text() {
        let (nonce, text) = (base64(&[0; 24]), base64(b"looks like text"));
        let (key, other) = (key(), TopicKey::from_bytes([5; 32]));
        let sealed = seal_body(&other, b"x").unwrap();
        for version in [0, 2, 3, 255] {
            for message in [
                message(version, &nonce, &text),
                message(version, "", &text),
                message(version, &sealed.nonce_base64(), &sealed.ciphertext_base64()),
            ] {
                for key in [None, Some(&key)] {
                    assert!(matches!(open_post(key, &message), Body::Unopened { .. }), "{version}");
                }
            }
        }
        let no_text = message(1, "", &base64(&[0xff, 0xfe]));
        assert!(matches!(open_post(None, &no_text), Body::Unopened { .. }));
    }

    #[test]
    fn a_text_that_is_too_long_is_refused_before_it_is_sent() {
        let topic: TopicId = "t".repeat(32).parse().unwrap();
        let key = key();
        let long = "x".repeat(50_000);
        assert!(matches!(post(&topic, Some(&key), &long).compose(), Err(Error::TooLarge { size_bytes: 50_000 })));
    }
}
