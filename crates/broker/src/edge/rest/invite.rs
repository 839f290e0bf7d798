//! Joining by an invite, and what a browser shows of one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use claudemesh_proto::invite::{Join, Joined};

use crate::calls;
use crate::calls::invite::NotJoined;
use crate::edge::address::Origin;
use crate::edge::rest::{body, foreign_origin};
use crate::edge::server::{RemoteAddress, Running};
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

/// `GET /join/<token>`: what somebody sees who opens an invite in a browser. The token is not looked at.
pub(crate) async fn invite_page(State(running): State<Arc<Running>>, Path(_): Path<String>) -> Response {
    let broker = &running.app.settings.public_url;
    let text = format!(
        "This link is an invite to a claudemesh mesh on {broker}.\n\n\
         Whoever has it can join, so keep it to yourself. To accept it, run:\n\n    claudemesh join <this link>\n"
    );
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], text).into_response()
}
