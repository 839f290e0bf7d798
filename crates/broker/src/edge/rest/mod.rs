//! HTTP routes: read what is asked, ask `calls`, write the answer.
//!
//! Those under `/v1` are also under `/api/v1`, where clients of the existing protocol look for them, and are described by
//! `/openapi.json`, which is made of the handlers: a route is added to [`keyed`] or [`open`] and is described with that, and the test
//! of who may what fails until it has a row for it.

mod activity;
mod auth;
mod describe;
mod input;
pub(crate) mod invite;
mod me;
mod member;
mod mesh;
mod message;
mod not_kept;
mod notification;
mod peer_pubkey;
mod refusal;
mod search;
mod stream;
mod topic;
mod topic_key;
mod topic_seal;

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::edge::server::Running;

/// Everything under `/v1` and `/api/v1`, and the pages that describe it.
pub(crate) fn routes(running: &Arc<Running>) -> Router<Arc<Running>> {
    let keyed = keyed().layer(from_fn_with_state(Arc::clone(running), refusal::finish));
    let (v1, mut description) = OpenApiRouter::new().merge(keyed).merge(open()).split_for_parts();
    describe::complete(&mut description);
    Router::new().nest("/v1", v1.clone()).nest("/api/v1", v1).merge(describe::pages(&description))
}

/// Routes that need an API key: their handlers take a [`auth::Caller`].
fn keyed() -> OpenApiRouter<Arc<Running>> {
    OpenApiRouter::new()
        .routes(routes!(member::members))
        .routes(routes!(member::peers))
        .routes(routes!(message::post_message))
        .routes(routes!(stream::stream))
        .routes(routes!(notification::notifications))
        .routes(routes!(notification::mark_read))
        .routes(routes!(me::workspace))
        .routes(routes!(me::topics))
        .routes(routes!(me::notifications))
        .routes(routes!(activity::activity))
        .routes(routes!(search::search))
        .routes(routes!(not_kept::tasks))
        .routes(routes!(not_kept::state))
        .routes(routes!(not_kept::memory))
        .routes(routes!(topic::list))
        .routes(routes!(topic::read))
        .routes(routes!(topic::messages))
        .routes(routes!(topic_key::own_copy))
        .routes(routes!(topic_key::reject))
        .routes(routes!(topic_key::claim))
        .routes(routes!(topic_seal::pending))
        .routes(routes!(topic_seal::seal))
        .routes(routes!(peer_pubkey::change))
}

/// Routes that need none.
fn open() -> OpenApiRouter<Arc<Running>> {
    OpenApiRouter::new().routes(routes!(mesh::create_mesh))
}

/// `GET /`.
pub(crate) async fn front_page() -> &'static str {
    "This is a claudemesh broker. Its health is at /health, its metrics are at /metrics.\n"
}

pub(crate) async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "not found").into_response()
}

/// A page of another site must not act in the name of whoever looks at it.
pub(crate) fn foreign_origin() -> Response {
    (StatusCode::FORBIDDEN, Json(json!({"ok": false, "error": "this origin may not do this (BROKER_ALLOWED_ORIGINS)"})))
        .into_response()
}

/// The whole body; refused in the shape of the routes that need no key.
pub(crate) async fn body(running: &Running, body: Body) -> Result<bytes::Bytes, Response> {
    let refused = |(status, _, words)| (status, Json(json!({"ok": false, "error": words}))).into_response();
    input::whole(running, body).await.map_err(refused)
}
