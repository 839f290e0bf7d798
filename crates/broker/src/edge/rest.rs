//! HTTP routes that change something: read the body, ask `calls`, write the answer.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use claudemesh_proto::invite::{Join, Joined};
use claudemesh_proto::mesh::{MeshCreate, MeshCreateError};
use serde_json::json;

use crate::calls;
use crate::calls::invite::NotJoined;
use crate::edge::address::Origin;
use crate::edge::server::{HEAD_TIMEOUT, RemoteAddress, Running};
use crate::edge::upgrade::is_allowed_origin;
use crate::fault::UNAVAILABLE;

/// `POST /join`: an invite makes a member.
pub(crate) async fn join(
    State(running): State<Arc<Running>>,
    ConnectInfo(remote): ConnectInfo<RemoteAddress>,
    request: Request,
) -> Response {
    if !is_allowed_origin(request.headers(), &running.app.settings) {
        return foreign_origin();
    }
    let origin = Origin::of(remote.0, request.headers(), &running.app.settings.config.trusted_proxies);
    let refused = |status, error: &str| {
        let body = Joined { ok: false, member_id: None, already_member: None, error: Some(error.to_owned()) };
        (status, Json(body)).into_response()
    };
    if !running.app.limits.may_create(origin.counted, running.app.clock.now()) {
        return refused(StatusCode::TOO_MANY_REQUESTS, "rate limited");
    }
    let body = match body(&running, request.into_body()).await {
        Ok(body) => body,
        Err(too_large) => return too_large,
    };
    let join: Join = match serde_json::from_slice(&body) {
        Ok(join) => join,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &format!("invalid body: {error}")),
    };
    match calls::invite::join(&running.app, join).await {
        Ok(joined) => Json(joined).into_response(),
        Err(NotJoined::Refused(error)) => refused(StatusCode::BAD_REQUEST, error),
        Err(NotJoined::Unavailable) => refused(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
    }
}

/// `POST /v1/meshes`: a mesh whose owner keeps the key.
pub(crate) async fn create_mesh(
    State(running): State<Arc<Running>>,
    ConnectInfo(remote): ConnectInfo<RemoteAddress>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let refused = |status, error: MeshCreateError| no_store((status, Json(json!({"error": error}))).into_response());
    if !is_allowed_origin(&headers, &running.app.settings) {
        return foreign_origin();
    }
    let origin = Origin::of(remote.0, &headers, &running.app.settings.config.trusted_proxies);
    if !calls::mesh::may_create(&running.app.settings, origin.is_local, bearer(&headers)) {
        return refused(StatusCode::FORBIDDEN, MeshCreateError::CreationNotAllowed);
    }
    if !running.app.limits.may_create(origin.counted, running.app.clock.now()) {
        let limited = (StatusCode::TOO_MANY_REQUESTS, Json(json!({"error": "rate limited"})));
        return no_store(limited.into_response());
    }
    let body = match body(&running, request.into_body()).await {
        Ok(body) => body,
        Err(too_large) => return too_large,
    };
    let Ok(request) = serde_json::from_slice::<MeshCreate>(&body) else {
        return refused(StatusCode::BAD_REQUEST, MeshCreateError::Malformed);
    };
    match calls::mesh::create(&running.app, &request).await {
        Ok(created) => no_store((StatusCode::CREATED, Json(created)).into_response()),
        Err(calls::mesh::NotCreated::Refused(error)) => refused(status(error), error),
        Err(calls::mesh::NotCreated::Unavailable) => {
            no_store((StatusCode::SERVICE_UNAVAILABLE, Json(json!({"error": "unavailable"}))).into_response())
        }
    }
}

/// `GET /join/<token>`: what somebody sees who opens an invite in a browser. The token is not looked at.
pub(crate) async fn invite_page(State(running): State<Arc<Running>>, Path(_): Path<String>) -> Response {
    let broker = &running.app.settings.public_url;
    let text = format!(
        "This link is an invite to a claudemesh mesh on {broker}.\n\n\
         Whoever has it can join, so keep it to yourself. To accept it, run:\n\n    claudemesh join <this link>\n"
    );
    no_store(text.into_response())
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

fn status(error: MeshCreateError) -> StatusCode {
    match error {
        MeshCreateError::Malformed | MeshCreateError::BadSignature | MeshCreateError::TimestampSkew => {
            StatusCode::BAD_REQUEST
        }
        MeshCreateError::CreationNotAllowed => StatusCode::FORBIDDEN,
        MeshCreateError::SlugTaken => StatusCode::CONFLICT,
        MeshCreateError::InvalidSlug => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// The whole body, within the limit of size and in a time that a slow line needs and a stalled one does not get.
pub(crate) async fn body(running: &Running, body: Body) -> Result<bytes::Bytes, Response> {
    let refused = |status, error| (status, Json(json!({"ok": false, "error": error}))).into_response();
    let limit = running.app.settings.config.max_message_bytes;
    match tokio::time::timeout(HEAD_TIMEOUT, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(refused(StatusCode::PAYLOAD_TOO_LARGE, "payload too large")),
        Err(_) => Err(refused(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
