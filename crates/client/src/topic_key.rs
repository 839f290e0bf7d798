//! Keys of topics: getting our own copy, making the key of a topic that has none, sealing copies for newcomers.
//!
//! A key is in memory while it is used and nowhere else: the sealed copy is at the broker, to be opened again next time.

use claudemesh_envelope::{SealError, SealedTopicKey, TopicKey, open_topic_key, pass_topic_key};
use claudemesh_keys::Identity;
use claudemesh_proto::text::one_line;
use claudemesh_proto::topic::TopicMessage;
use claudemesh_proto::{MemberId, PublicKey, TopicName};
use futures_util::{StreamExt, stream};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::api_key::Bearer;
use crate::error::{Error, Result};

/// What there is of a topic's key for us.
#[expect(missing_debug_implementations, reason = "a secret must not be printable")]
pub enum Held {
    /// Our copy was opened.
    Key {
        /// The key.
        key: TopicKey,
        /// Whether we have just made it, for a topic that had none.
        is_new: bool,
    },
    /// The topic has a key, and nobody has sealed a copy for us yet.
    Awaited {
        /// There was one that could not be opened. It was given back, so that somebody seals another.
        was_bad: bool,
    },
    /// The topic has no key: what is written there is not encrypted.
    None,
}

/// Somebody for whom a copy was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newcomer {
    /// The name, as the broker says.
    pub name: String,
    /// The key that the copy was sealed for, as the broker says.
    pub pubkey: PublicKey,
}

impl Bearer {
    /// Our copy of a topic's key, opened. A copy that does not open is given back.
    ///
    /// # Errors
    /// [`Error::HttpRefused`] when there is no such topic or we are not in it, and those of every request.
    pub async fn topic_key(&self, own: &Identity, topic: &TopicName) -> Result<Held> {
        let copy: Copy = match self.get(&route(topic, "/key")).await {
            Ok(copy) => copy,
            Err(error) if is_word(&error, "key_not_sealed_for_member") => return Ok(Held::Awaited { was_bad: false }),
            Err(error) if is_word(&error, "topic_unencrypted") => return Ok(Held::None),
            Err(error) => return Err(error),
        };
        let sealed = SealedTopicKey::from_base64(&copy.encrypted_key, &copy.nonce).ok();
        if let Some(key) = sealed.and_then(|sealed| open_topic_key(own, &sealed).ok()) {
            return Ok(Held::Key { key, is_new: false });
        }
        match self.post::<IgnoredAny>(&route(topic, "/key/reject"), &Nothing {}).await {
            Ok(_) => Ok(Held::Awaited { was_bad: true }),
            // Nobody has the key then, until an admin gives the topic another one.
            Err(error) if is_word(&error, "last_copy") => Ok(Held::Awaited { was_bad: true }),
            Err(error) => Err(error),
        }
    }

    /// Makes the key of a topic that has none; `None` when somebody else was first.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn claim_topic_key(&self, own: &Identity, topic: &TopicName) -> Result<Option<TopicKey>> {
        let key = TopicKey::generate()?;
        let copy = pass_topic_key(own, &key, &own.public()).map_err(unsealable)?;
        let claim = Claim {
            encrypted_key_pubkey: copy.sender.to_string(),
            encrypted_key: copy.encrypted_key_base64(),
            nonce: copy.nonce_base64(),
        };
        match self.post::<IgnoredAny>(&route(topic, "/claim-key"), &claim).await {
            Ok(_) => Ok(Some(key)),
            Err(error) if is_word(&error, "already_encrypted") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Our copy of a topic's key; a topic that has none gets one, made here, unless we may not give it one.
    ///
    /// # Errors
    /// Those of [`Bearer::topic_key`].
    pub async fn topic_key_or_claim(&self, own: &Identity, topic: &TopicName) -> Result<Held> {
        let held = self.topic_key(own, topic).await?;
        if !matches!(held, Held::None) {
            return Ok(held);
        }
        match self.claim_topic_key(own, topic).await {
            Ok(Some(key)) => Ok(Held::Key { key, is_new: true }),
            Ok(None) => self.topic_key(own, topic).await,
            Err(Error::HttpRefused { status: 403, .. }) => Ok(Held::None),
            Err(error) => Err(error),
        }
    }

    /// Messages of a topic, newest first; 200 at most.
    ///
    /// # Errors
    /// Those of [`Bearer::topic_key`].
    pub async fn topic_messages(&self, topic: &TopicName, limit: u32) -> Result<Vec<TopicMessage>> {
        let page: Page = self.get(&route(topic, &format!("/messages?limit={limit}"))).await?;
        Ok(page.messages)
    }

    /// Seals the key for everybody who waits for a copy. Whom it was sealed for.
    ///
    /// Nothing here proves that the broker names members only: it is believed about keys, as it is for direct messages.
    ///
    /// # Errors
    /// Those of every request. What was sealed before is.
    pub async fn share_topic_key(&self, own: &Identity, topic: &TopicName, key: &TopicKey) -> Result<Vec<Newcomer>> {
        let mut sealed_for = Vec::new();
        loop {
            let waiting: PendingSeals = self.get(&route(topic, "/pending-seals")).await?;
            let sealing = waiting.pending.into_iter().map(|one| self.seal_for(own, topic, key, one));
            let sealing = stream::iter(sealing).buffered(AT_ONCE).collect::<Vec<_>>().await;
            let before = sealed_for.len();
            for sealed in sealing {
                sealed_for.extend(sealed?);
            }
            // A page has 50 at most; when none of it could be sealed for, the next one is the same.
            if sealed_for.len() == before {
                return Ok(sealed_for);
            }
        }
    }

    /// Seals the key for one; none when it cannot be helped, or was by somebody else.
    async fn seal_for(
        &self,
        own: &Identity,
        topic: &TopicName,
        key: &TopicKey,
        one: Waiting,
    ) -> Result<Option<Newcomer>> {
        // Nobody can seal for a key that is no proper one, today or later.
        let Ok(copy) = pass_topic_key(own, key, &one.pubkey) else { return Ok(None) };
        let seal =
            Seal { member_id: &one.member_id, encrypted_key: copy.encrypted_key_base64(), nonce: copy.nonce_base64() };
        match self.post::<IgnoredAny>(&route(topic, "/seal"), &seal).await {
            Ok(_) => Ok(Some(Newcomer { name: one_line(&one.display_name), pubkey: one.pubkey })),
            Err(Error::HttpRefused { status: 404 | 409, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Nobody can seal for our own key: then we would be no member.
pub(crate) fn unsealable(error: SealError) -> Error {
    match error {
        SealError::UnusableRecipient(_) => Error::BadRecipientKey,
        SealError::NoRandomness(_) => Error::NoRandomness,
    }
}

/// A name is made of what a route may hold.
pub(crate) fn route(topic: &TopicName, what: &str) -> String {
    format!("/v1/topics/{topic}{what}")
}

fn is_word(error: &Error, wanted: &str) -> bool {
    matches!(error, Error::HttpRefused { word, .. } if word == wanted)
}

/// Our copy, as the broker has it. The public key beside it is informative, and not looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Copy {
    encrypted_key: String,
    nonce: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    encrypted_key_pubkey: String,
    encrypted_key: String,
    nonce: String,
}

#[derive(Deserialize)]
struct Page {
    messages: Vec<TopicMessage>,
}

#[derive(Deserialize)]
struct PendingSeals {
    pending: Vec<Waiting>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Waiting {
    member_id: MemberId,
    pubkey: PublicKey,
    display_name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seal<'a> {
    member_id: &'a MemberId,
    encrypted_key: String,
    nonce: String,
}

#[derive(Serialize)]
struct Nothing {}

/// Copies that are sealed and sent at a time: the way to the broker costs more than the broker's work.
const AT_ONCE: usize = 8;

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zeroize::Zeroizing;

    use super::*;
    use crate::hostile::Hostile;

    /// What we make of whatever the broker answers to everything.
    async fn held(status: u16, answer: serde_json::Value) -> Result<Held> {
        let broker = Hostile::http(status, answer.to_string()).await;
        let bearer = Bearer::new(&broker.url, Zeroizing::new("cm_x".into())).unwrap();
        bearer.topic_key(&Identity::from_seed([1; 32]), &"general".parse().unwrap()).await
    }

    fn copy_for(seed: u8) -> serde_json::Value {
        let (ben, key) = (Identity::from_seed([2; 32]), TopicKey::from_bytes([4; 32]));
        let copy = pass_topic_key(&ben, &key, &Identity::from_seed([seed; 32]).public()).unwrap();
        json!({ "encryptedKey": copy.encrypted_key_base64(), "nonce": copy.nonce_base64() })
    }

    #[tokio::test]
    async fn a_copy_that_was_sealed_for_us_is_opened() {
        let Ok(Held::Key { key, is_new: false }) = held(200, copy_for(1)).await else { panic!("not opened") };
        assert_eq!(key.expose_bytes(), &[4; 32]);
    }

    /// (R8)
    #[tokio::test]
    async fn a_copy_that_does_not_open_is_given_back() {
        let zeros = json!({ "encryptedKey": claudemesh_proto::text::base64(&[0; 80]), "nonce": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" });
        for copy in [copy_for(3), zeros, json!({ "encryptedKey": "AA==", "nonce": "" })] {
            assert!(matches!(held(200, copy).await, Ok(Held::Awaited { was_bad: true })));
        }
    }

    #[tokio::test]
    async fn no_copy_and_no_key_are_told_apart_and_neither_is_a_failure() {
        let not_sealed = held(404, json!({ "error": "key_not_sealed_for_member", "topic": "general" })).await;
        assert!(matches!(not_sealed, Ok(Held::Awaited { was_bad: false })));
        assert!(matches!(held(409, json!({ "error": "topic_unencrypted" })).await, Ok(Held::None)));
        // Anything else is none of the two: taking it for a topic without a key would have us write in clear.
        for (status, word) in [(404, "topic_not_found"), (403, "not_in_topic"), (409, "conflict"), (503, "x")] {
            let refused = held(status, json!({ "error": word })).await;
            assert!(matches!(refused, Err(Error::HttpRefused { .. })), "{word}");
        }
    }
}
