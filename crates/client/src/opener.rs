//! Opening mail of every kind: what was sealed for us, and what was sealed with the key of a topic.
//!
//! A topic's key is asked for when a message needs it. That takes an API key, which is made then and ended by [`Opener::end`]: who
//! waits for a key asks for it with each message of the topic, and API keys are counted.

use std::collections::HashMap;
use std::time::Duration;

use claudemesh_envelope::TopicKey;
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::message::Push;
use claudemesh_proto::post::BodyVersion;
use claudemesh_proto::{Timestamp, TopicId, TopicName};
use tokio::time::timeout;

use crate::api_key::{Passing, PassingKey};
use crate::cipher::{Body, Cipher};
use crate::clock::now;
use crate::config::Membership;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::post::open_sealed;
use crate::topic_key::Held;
use crate::topic_pin::TopicPin;

/// Opens the mail of one mesh.
#[expect(missing_debug_implementations, reason = "secrets must not be printable")]
pub struct Opener<'a> {
    home: &'a Home,
    mesh: &'a Membership,
    cipher: Cipher,
    topics: HashMap<TopicId, TopicKey>,
    api_key: Option<(PassingKey, Timestamp)>,
}

impl<'a> Opener<'a> {
    /// For the mail of this member.
    pub fn new(home: &'a Home, mesh: &'a Membership) -> Self {
        let cipher = Cipher::new(mesh.identity.clone());
        Self { home, mesh, cipher, topics: HashMap::new(), api_key: None }
    }

    /// Opens what came, as [`Cipher::open`] and [`crate::open_post`] do. Without the topic's key it stays unopened.
    pub fn open(&self, push: &Push) -> Body {
        match (&push.topic_id, push.body_version) {
            (Some(topic), Some(BodyVersion::Sealed)) => {
                open_sealed(self.topics.get(topic), &push.nonce, &push.ciphertext)
            }
            _ => self.cipher.open(push),
        }
    }

    /// Gets the keys that these messages were sealed with, as far as they are not here and there is a copy for us. What went
    /// wrong; it keeps nothing from being opened that needs another key.
    pub async fn learn(&mut self, connection: &Connection, pushes: &[Box<Push>]) -> Vec<Error> {
        let mut wanted: HashMap<&TopicId, TopicName> = HashMap::new();
        for push in pushes.iter().filter(|push| push.body_version == Some(BodyVersion::Sealed)) {
            let name = push.topic.as_deref().and_then(|name| name.parse().ok());
            if let (Some(id), Some(name)) = (&push.topic_id, name)
                && !self.topics.contains_key(id)
            {
                wanted.insert(id, name);
            }
        }
        let mut failures = Vec::new();
        for (id, name) in wanted {
            match self.key_of(connection, (id, &name)).await {
                Ok(Some(key)) => drop(self.topics.insert(id.clone(), key)),
                Ok(None) => {}
                Err(error) => failures.push(error),
            }
        }
        failures
    }

    /// Ends the API key, if one was made; it ends by itself when this takes too long. It is made anew when it is needed again.
    pub async fn end(&mut self, connection: &Connection) {
        if let Some((key, _)) = self.api_key.take() {
            let _ = timeout(LONGEST_END, connection.end_api_key(&key.id)).await;
        }
    }

    async fn key_of(
        &mut self,
        connection: &Connection,
        (id, name): (&TopicId, &TopicName),
    ) -> Result<Option<TopicKey>> {
        let (home, mesh) = (self.home, self.mesh);
        let bearer = match &self.api_key {
            Some((key, until)) if now() < *until => key.bearer.clone(),
            _ => {
                self.end(connection).await;
                let passing =
                    Passing { purpose: "inbox", capabilities: &[Capability::Read], topic: None, life: API_KEY_LIFE };
                let key = connection.passing_key(&mesh.broker_url, passing).await?;
                let bearer = key.bearer.clone();
                self.api_key = Some((key, now().plus(API_KEY_USE)));
                bearer
            }
        };
        match bearer.topic_key(TopicPin { home, mesh, id, name }).await {
            Ok(Held::Key { key, .. }) => Ok(Some(key)),
            Ok(Held::Awaited { .. } | Held::None) => Ok(None),
            Err(error) => {
                if matches!(error, Error::HttpRefused { status: 401, .. }) {
                    // Somebody ended it.
                    self.api_key = None;
                }
                Err(error)
            }
        }
    }
}

/// How long an API key lives, and for how long it is used.
const API_KEY_LIFE: Duration = Duration::from_hours(1);
const API_KEY_USE: Duration = Duration::from_mins(55);

const LONGEST_END: Duration = Duration::from_secs(3);
