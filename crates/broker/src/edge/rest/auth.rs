//! Who asks. A handler that takes a [`Caller`] cannot be reached without a valid key (R5), and nothing of the key is remembered
//! between requests: whether it is one is asked each time (R9).

use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::{MemberId, MeshId, TopicName, TopicSought};
use claudemesh_store::{Access, NOTED_EVERY};

use crate::calls;
use crate::edge::address::Origin;
use crate::edge::rest::refusal::Refusal;
use crate::edge::server::{RemoteAddress, Running};

/// The member in whose name something is asked, and what the key allows.
#[derive(Debug)]
pub(crate) struct Caller(Access);

impl Caller {
    /// What the key lets do.
    pub(crate) fn access(&self) -> &Access {
        &self.0
    }

    pub(crate) fn mesh_id(&self) -> &MeshId {
        &self.0.mesh_id
    }

    /// The member that issued the key.
    pub(crate) fn member_id(&self) -> &MemberId {
        &self.0.member_id
    }

    /// Mesh and member, as the store is asked.
    pub(crate) fn whose(&self) -> (&MeshId, &MemberId) {
        (&self.0.mesh_id, &self.0.member_id)
    }

    /// Whether the key has one of these capabilities; `admin` is all of them.
    pub(crate) fn may(&self, needed: &[Capability]) -> Result<(), Refusal> {
        if self.0.may(needed) {
            return Ok(());
        }
        let needed: Vec<_> = needed.iter().map(|capability| capability.as_str()).collect();
        Err(Refusal::capability_missing(&needed.join(" or ")))
    }

    /// Whether the member may look through what was written once more.
    pub(crate) fn may_search(&self, running: &Running) -> Result<(), Refusal> {
        let app = &running.app;
        if app.limits.may_search(self.mesh_id(), self.member_id(), app.clock.now()) {
            return Ok(());
        }
        let rate = app.settings.config.search_rate_per_min;
        Err(Refusal::rate_limited(format!("max {rate} searches/min, slow down")))
    }

    /// Whether the key is for a topic.
    pub(crate) fn sees(&self, topic: &TopicName) -> bool {
        self.0.topic_scopes.as_ref().is_none_or(|scopes| scopes.contains(topic))
    }

    /// The topic that is named, if the key has one of these capabilities and is for that topic. What is no name is no topic's.
    pub(crate) fn topic(&self, name: &str, needed: &[Capability]) -> Result<TopicSought, Refusal> {
        self.may(needed)?;
        let is_in_scope = name.parse().map_or(self.0.topic_scopes.is_none(), |name: TopicName| self.sees(&name));
        if is_in_scope { Ok(TopicSought::by_name(name)) } else { Err(Refusal::out_of_scope()) }
    }
}

impl FromRequestParts<Arc<Running>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, running: &Arc<Running>) -> Result<Self, Refusal> {
        let (app, config) = (&running.app, &running.app.settings.config);
        let secret = bearer(&parts.headers).ok_or_else(Refusal::key_missing)?;
        let remote = parts.extensions.get::<ConnectInfo<RemoteAddress>>();
        let address = remote.and_then(|remote| Origin::of(remote.0.0, &parts.headers, &config.trusted_proxies).counted);
        if !app.limits.may_present_key(address, app.clock.now()) {
            let most = config.failed_keys_per_min;
            return Err(Refusal::rate_limited(format!("max {most} wrong API keys/min from one address, slow down")));
        }
        let Some(access) = calls::api_key::find(app, secret).await? else {
            app.limits.key_failed(address, app.clock.now());
            return Err(Refusal::key_invalid());
        };
        if !app.limits.may_ask(&access.mesh_id, &access.member_id, app.clock.now()) {
            let (rate, burst) = (config.request_rate_per_min, config.request_burst);
            return Err(Refusal::rate_limited(format!("max {rate} requests/min (burst {burst}), slow down")));
        }
        note_use(running, &access);
        Ok(Self(access))
    }
}

/// Notes once a minute that the key is used. The request does not wait for it, and does not fail with it.
fn note_use(running: &Arc<Running>, access: &Access) {
    let now = running.app.clock.now();
    let is_noted = access.last_used_at.is_some_and(|at| at > now.minus(NOTED_EVERY));
    if is_noted || !running.app.limits.may_note_use(&access.key_id, now) {
        return;
    }
    let (app, mesh_id, key_id) = (Arc::clone(&running.app), access.mesh_id.clone(), access.key_id.clone());
    running.tasks.spawn(async move {
        if let Err(error) = app.store.note_use_of_api_key(&mesh_id, &key_id).await {
            tracing::warn!(error = %error, "that a key was used could not be noted");
        }
    });
}

/// What stands after `Bearer `, in this case alone. A key in a query is not looked for: addresses end up in logs.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}
