//! Keys of topics: getting our own copy, making the key of a topic that has none, sealing copies for newcomers.
//!
//! A key is in memory while it is used and nowhere else: the sealed copy is at the broker, to be opened again next time. Whose hands
//! a copy went through nobody knows, so which key it is has to be what it was: see [`TopicPin`].

use std::collections::HashSet;

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
use crate::topic_pin::TopicPin;

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
    /// [`Error::HttpRefused`] when there is no such topic or we are not in it, [`Error::TopicKeyChanged`] when it had another key,
    /// and those of every request.
    pub async fn topic_key(&self, pin: TopicPin<'_>) -> Result<Held> {
        let (own, topic) = (&pin.mesh.identity, pin.name);
        let copy: Copy = match self.get(&route(topic, "/key")).await {
            Ok(copy) => copy,
            Err(error) if is_word(&error, "key_not_sealed_for_member") => return Ok(Held::Awaited { was_bad: false }),
            Err(error) if is_word(&error, "topic_unencrypted") => return pin.check_none().map(|()| Held::None),
            Err(error) => return Err(error),
        };
        let sealed = SealedTopicKey::from_base64(&copy.encrypted_key, &copy.nonce).ok();
        if let Some(key) = sealed.and_then(|sealed| open_topic_key(own, &sealed).ok()) {
            pin.check(&key)?;
            return Ok(Held::Key { key, is_new: false });
        }
        match self.post::<IgnoredAny>(&route(topic, "/key/reject"), &Nothing {}).await {
            Ok(_) => Ok(Held::Awaited { was_bad: true }),
            // Nobody has the key then, until an admin gives the topic another one.
            Err(error) if is_word(&error, "last_copy") => Ok(Held::Awaited { was_bad: true }),
            Err(error) => Err(error),
        }
    }

    /// Makes the key of a topic that has none; `None` when somebody else was first. It is not remembered which one it is.
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

    /// Our copy of a topic's key; a topic that has none gets one, made here. It is never [`Held::None`]: a broker that lets nobody
    /// make a key must not have us write in clear.
    ///
    /// # Errors
    /// Those of [`Bearer::topic_key`], and [`Error::NoTopicKey`].
    pub async fn topic_key_or_claim(&self, pin: TopicPin<'_>) -> Result<Held> {
        let held = self.topic_key(pin).await?;
        if !matches!(held, Held::None) {
            return Ok(held);
        }
        let held = match self.claim_topic_key(&pin.mesh.identity, pin.name).await {
            Ok(Some(key)) => {
                pin.check(&key)?;
                Held::Key { key, is_new: true }
            }
            Ok(None) => self.topic_key(pin).await?,
            Err(Error::HttpRefused { status: 403, .. }) => Held::None,
            Err(error) => return Err(error),
        };
        if matches!(held, Held::None) { Err(Error::NoTopicKey { topic: pin.name.clone() }) } else { Ok(held) }
    }

    /// Messages of a topic, newest first; 200 at most.
    ///
    /// # Errors
    /// Those of [`Bearer::topic_key`].
    pub async fn topic_messages(&self, topic: &TopicName, limit: u32) -> Result<Vec<TopicMessage>> {
        let page: Page = self.get(&route(topic, &format!("/messages?limit={limit}"))).await?;
        Ok(page.messages)
    }

    /// Seals the key for everybody who waits for a copy, once for each and for 5,000 at most. Whom it was sealed for.
    ///
    /// Nothing here proves that the broker names members only: it is believed about keys, as it is for direct messages.
    ///
    /// # Errors
    /// Those of every request. What was sealed before is.
    pub async fn share_topic_key(&self, own: &Identity, topic: &TopicName, key: &TopicKey) -> Result<Vec<Newcomer>> {
        let (mut sealed_for, mut seen) = (Vec::new(), HashSet::new());
        for _ in 0..MAX_PAGES {
            let waiting: PendingSeals = self.get(&route(topic, "/pending-seals")).await?;
            let new = waiting.pending.into_iter().filter(|one| seen.insert(one.member_id.clone())).take(PAGE);
            let sealing = new.map(|one| self.seal_for(own, topic, key, one));
            let sealing = stream::iter(sealing).buffered(AT_ONCE).collect::<Vec<_>>().await;
            if sealing.is_empty() {
                break;
            }
            for sealed in sealing {
                sealed_for.extend(sealed?);
            }
        }
        Ok(sealed_for)
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

/// Members of a page, and pages that are asked for: the rest is for the next time, and a broker that names members without end is
/// not followed.
const PAGE: usize = 50;
const MAX_PAGES: usize = 100;

/// Copies that are sealed and sent at a time: the way to the broker costs more than the broker's work.
const AT_ONCE: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;
    use zeroize::Zeroizing;

    use super::*;
    use crate::home::Home;
    use crate::hostile::Hostile;
    use crate::samples::{home, membership};

    /// What we make of whatever the broker answers to everything.
    async fn held(status: u16, answer: serde_json::Value) -> Result<Held> {
        held_at(&home().1, status, answer).await
    }

    async fn held_at(home: &Home, status: u16, answer: serde_json::Value) -> Result<Held> {
        let broker = Hostile::http(status, answer.to_string()).await;
        ask(home, &broker, async |bearer, pin| bearer.topic_key(pin).await).await
    }

    async fn ask<T>(home: &Home, broker: &Hostile, talk: impl AsyncFnOnce(&Bearer, TopicPin<'_>) -> T) -> T {
        let bearer = Bearer::new(&broker.url, Zeroizing::new("cm_x".into())).unwrap();
        let (mesh, id, name) = (membership("team", 1), "t1".parse().unwrap(), "general".parse().unwrap());
        talk(&bearer, TopicPin { home, mesh: &mesh, id: &id, name: &name }).await
    }

    fn copy_for(seed: u8) -> serde_json::Value {
        copy_of([4; 32], seed)
    }

    fn copy_of(key: [u8; 32], seed: u8) -> serde_json::Value {
        let (ben, key) = (Identity::from_seed([2; 32]), TopicKey::from_bytes(key));
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

    /// (R17) Whatever a broker answers, there is a key to seal with or none to write without.
    #[tokio::test]
    async fn a_broker_that_takes_no_key_does_not_have_us_write_in_clear() {
        for (status, word) in [(403, "forbidden"), (409, "already_encrypted")] {
            let broker = Hostile::http_by(move |request| {
                let (status, word) =
                    if request.starts_with("GET") { (409, "topic_unencrypted") } else { (status, word) };
                (status, json!({ "error": word }).to_string())
            })
            .await;
            let held = ask(&home().1, &broker, async |bearer, pin| bearer.topic_key_or_claim(pin).await).await;
            assert!(matches!(held, Err(Error::NoTopicKey { .. })), "{word}");
        }
    }

    #[tokio::test]
    async fn a_key_that_is_not_the_one_it_was_is_refused_and_so_is_its_absence() {
        let (_dir, home) = home();
        let changed = |held| matches!(held, Err(Error::TopicKeyChanged { .. }));
        assert!(matches!(held_at(&home, 200, copy_for(1)).await, Ok(Held::Key { .. })));
        assert!(changed(held_at(&home, 200, copy_of([5; 32], 1)).await));
        assert!(changed(held_at(&home, 409, json!({ "error": "topic_unencrypted" })).await));
        assert!(matches!(held_at(&home, 200, copy_for(1)).await, Ok(Held::Key { .. })));
    }

    /// A key that we made is not replaced by the one that the broker shows next.
    #[tokio::test]
    async fn a_key_that_was_made_here_is_remembered() {
        let (_dir, home) = home();
        let broker = Hostile::http_by(|request| {
            if request.starts_with("GET") {
                (409, json!({ "error": "topic_unencrypted" }).to_string())
            } else {
                (200, "{}".into())
            }
        })
        .await;
        let held = ask(&home, &broker, async |bearer, pin| bearer.topic_key_or_claim(pin).await).await;
        assert!(matches!(held, Ok(Held::Key { is_new: true, .. })));
        assert!(matches!(held_at(&home, 200, copy_for(1)).await, Err(Error::TopicKeyChanged { .. })));
    }

    /// What came of sharing with whoever the broker says waits, page after page; and how many copies it was sent.
    async fn shared(page: impl Fn(usize) -> serde_json::Value + Clone + Send + 'static) -> (usize, usize) {
        let (asked, sealed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&sealed);
        let broker = Hostile::http_by(move |request| {
            if request.starts_with("POST") {
                count.fetch_add(1, Ordering::Relaxed);
                return (200, "{}".into());
            }
            let number = asked.fetch_add(1, Ordering::Relaxed);
            assert!(number < 1000, "asked without end");
            (200, json!({ "pending": page(number) }).to_string())
        })
        .await;
        let key = TopicKey::from_bytes([4; 32]);
        let own = Identity::from_seed([1; 32]);
        let shared =
            ask(&home().1, &broker, async |bearer, pin| bearer.share_topic_key(&own, pin.name, &key).await).await;
        (shared.unwrap().len(), sealed.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn nobody_is_sealed_for_without_end() {
        let waiting = |id: usize| {
            let key = Identity::from_seed([9; 32]).public();
            json!({ "memberId": format!("m{id}"), "pubkey": key, "displayName": "Eve" })
        };
        assert_eq!(
            shared(move |_| json!([waiting(1), waiting(2), waiting(1)])).await,
            (2, 2),
            "the same again and again"
        );
        let others = move |page| json!([waiting(3 * page), waiting(3 * page + 1)]);
        assert_eq!(shared(others).await, (2 * MAX_PAGES, 2 * MAX_PAGES), "others again and again");
        let many = move |page| (0..if page == 0 { 200 } else { 0 }).map(waiting).collect();
        assert_eq!(shared(many).await.0, PAGE, "more than a page holds");
    }
}
