//! Keys to the broker's REST interface, and using it with one.

use std::time::Duration;

use claudemesh_proto::api_key::{ApiKey, ApiKeyCreate, ApiKeyCreated, ApiKeyRevoke, ApiKeyRevokeResponse, Capability};
use claudemesh_proto::frame::Empty;
use claudemesh_proto::{ApiKeyId, BrokerFrame, ClientFrame, TopicName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Method;
use zeroize::Zeroizing;

use crate::broker_url::BrokerUrl;
use crate::clock::now;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::http::Http;

/// What may be asked with a key.
#[derive(Clone)]
pub struct Bearer {
    pub(crate) http: Http,
    pub(crate) secret: Zeroizing<String>,
}

/// A key that a program makes for itself and ends when it is done.
#[derive(Debug)]
#[must_use = "it is to be ended with `Connection::end_api_key`"]
pub struct PassingKey {
    /// The key.
    pub id: ApiKeyId,
    /// What may be asked with it.
    pub bearer: Bearer,
}

/// What a [`PassingKey`] is for.
#[derive(Debug, Clone, Copy)]
pub struct Passing<'a> {
    /// A word for it in the list of keys.
    pub purpose: &'a str,
    /// What it lets do.
    pub capabilities: &'a [Capability],
    /// The one topic that it is for; `None` for all.
    pub topic: Option<&'a TopicName>,
    /// For how long, when nobody ends it before.
    pub life: Duration,
}

impl Bearer {
    /// With a key's secret, at a broker.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when this machine has no certificates to check the broker's with.
    pub fn new(broker: &BrokerUrl, secret: Zeroizing<String>) -> Result<Self> {
        Ok(Self { http: Http::to(broker)?, secret })
    }

    pub(crate) async fn get<T: DeserializeOwned + Send + 'static>(&self, route: &str) -> Result<T> {
        self.http.ask(Method::GET, route, Some(&self.secret), None).await
    }

    pub(crate) async fn post<T>(&self, route: &str, body: &impl Serialize) -> Result<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let body = serde_json::to_vec(body).map_err(Error::protocol)?;
        self.http.ask(Method::POST, route, Some(&self.secret), Some(body)).await
    }
}

/// Without the secret.
impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bearer").field("http", &self.http).finish_non_exhaustive()
    }
}

impl Connection {
    /// Makes a key. Its secret is in the answer and nowhere else.
    pub async fn create_api_key(&self, create: ApiKeyCreate) -> Result<ApiKeyCreated> {
        match self.request(ClientFrame::ApiKeyCreate(create)).await? {
            BrokerFrame::ApiKeyCreated(created) => Ok(*created),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// The keys that we may know of, newest first.
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>> {
        match self.request(ClientFrame::ApiKeyList(Empty {})).await? {
            BrokerFrame::ApiKeyListResponse(list) => Ok(list.keys),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Ends a key, by its id or the beginning of it.
    pub async fn revoke_api_key(&self, id: &str) -> Result<ApiKeyRevokeResponse> {
        match self.request(ClientFrame::ApiKeyRevoke(ApiKeyRevoke { id: id.to_owned() })).await? {
            BrokerFrame::ApiKeyRevokeResponse(answer) => Ok(answer),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Makes a key for ourselves.
    ///
    /// # Errors
    /// Those of [`Connection::request`], and those of [`Bearer::new`].
    pub async fn passing_key(&self, broker: &BrokerUrl, passing: Passing<'_>) -> Result<PassingKey> {
        let Passing { purpose, capabilities, topic, life } = passing;
        let create = ApiKeyCreate {
            label: format!("cli-{purpose}-{}", std::process::id()),
            capabilities: capabilities.iter().map(|one| one.as_str().to_owned()).collect(),
            topic_scopes: topic.map(|topic| vec![topic.to_string()]),
            expires_at: Some(now().plus(life).to_string()),
        };
        let created = self.create_api_key(create).await?;
        let bearer = Bearer::new(broker, Zeroizing::new(created.secret.0))?;
        Ok(PassingKey { id: created.id, bearer })
    }

    /// Ends such a key. It ends by itself when this fails, so nobody needs to hear of it.
    pub async fn end_api_key(&self, key: &ApiKeyId) {
        let _ = self.revoke_api_key(key.as_str()).await;
    }
}

/// How long a key lives that serves one command.
pub const PASSING_KEY_LIFE: Duration = Duration::from_mins(5);
