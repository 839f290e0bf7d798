//! `POST /hook/set-status`: the hook of an agent's session says whether it works. It has no connection of its own.
//!
//! With an `Authorization` header the token in it decides whom the report is about, and nothing else does. Without one anybody
//! on a session's machine may say so, which is why it moves a presence of that very address only, and only between idle and
//! working (R13). Behind a proxy that is not trusted nobody can tell addresses apart, and nothing is heard without a token.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use claudemesh_keys::sha256;
use claudemesh_proto::Status;
use serde_json::{Map, Value, json};

use crate::edge::address::Origin;
use crate::edge::rest::{body, foreign_origin};
use crate::edge::server::{RemoteAddress, Running};
use crate::edge::upgrade::is_allowed_origin;
use crate::hub::{Heard, Process, Report, TokenHash, directory, name};

/// What a hook says, as far as it says anything.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    cwd: String,
    pid: i64,
    status: Option<Status>,
    session_id: String,
}

/// What the `Authorization` header says.
enum Bearer {
    Absent,
    /// The token of an open connection.
    Known(TokenHash),
    Unknown,
}

/// How a report ends that changes nothing.
enum Refusal {
    RateLimited,
    /// Words of the caller's mistake.
    Malformed(&'static str),
    Unauthorized,
    /// Answered with 200, as existing hooks expect.
    Unheard(&'static str),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate limited"),
            Self::Malformed(words) => (StatusCode::BAD_REQUEST, words),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::Unheard(words) => (StatusCode::OK, words),
        };
        (status, Json(json!({"ok": false, "error": error}))).into_response()
    }
}

/// The route.
pub(crate) async fn set_status(
    State(running): State<Arc<Running>>,
    ConnectInfo(remote): ConnectInfo<RemoteAddress>,
    request: Request,
) -> Response {
    let app = &running.app;
    app.metrics.hook_called();
    if !is_allowed_origin(request.headers(), &app.settings) {
        return foreign_origin();
    }
    let headers = request.headers().clone();
    let origin = Origin::of(remote.0, &headers, &app.settings.config.trusted_proxies);
    app.limits.hearsay.note(&origin);
    let bearer = bearer(&running, &headers);
    // A session's own word has a limit of its own: nobody who shares its address, or names its process, uses that up.
    let may_call = match &bearer {
        Bearer::Known(token) => app.limits.may_call_hook_of(token, app.clock.now()),
        Bearer::Absent | Bearer::Unknown => app.limits.may_call_hooks(origin.counted, app.clock.now()),
    };
    if !may_call {
        app.metrics.hook_refused();
        return Refusal::RateLimited.into_response();
    }
    let body = match body(&running, request.into_body()).await {
        Ok(body) => body,
        Err(too_large) => return too_large,
    };
    match take(&running, &bearer, &origin, &body) {
        Ok(Heard::About(presence_id)) => Json(json!({"ok": true, "presence_id": presence_id})).into_response(),
        Ok(Heard::Pending) => Json(json!({"ok": true, "pending": true})).into_response(),
        Err(refusal) => {
            if matches!(refusal, Refusal::RateLimited) {
                app.metrics.hook_refused();
            }
            refusal.into_response()
        }
    }
}

fn bearer(running: &Running, headers: &HeaderMap) -> Bearer {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Bearer::Absent };
    let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).map(sha256);
    token.filter(|token| running.app.hub.knows_token(token)).map_or(Bearer::Unknown, Bearer::Known)
}

fn take(running: &Running, bearer: &Bearer, origin: &Origin, body: &[u8]) -> Result<Heard, Refusal> {
    let app = &running.app;
    let Said { cwd, pid, status, session_id } = read(body).map_err(Refusal::Malformed)?;
    let process = Process { address: origin.counted, pid, cwd };
    let is_known = matches!(bearer, Bearer::Known(_));
    if !is_known && !app.limits.may_call_hook(&process, app.clock.now()) {
        return Err(Refusal::RateLimited);
    }
    if matches!(bearer, Bearer::Unknown) {
        return Err(Refusal::Unauthorized);
    }
    let status = status.filter(|_| !process.cwd.is_empty()).ok_or(Refusal::Unheard("cwd and status required"))?;
    if let Bearer::Known(token) = bearer {
        return app.hub.hear_from(token, status).map(Heard::About).ok_or(Refusal::Unauthorized);
    }
    match status {
        Status::Dnd => Err(Refusal::Unheard("dnd needs the hook token of the session")),
        _ if origin.is_hearsay => Err(Refusal::Unheard("behind this proxy the hook token of the session is needed")),
        status => Ok(app.hub.hear(Report { process, session_id, status })),
    }
}

/// Reads the body by hand, so that whoever wrote the hook learns which field is wrong. What is null or empty is missing.
fn read(body: &[u8]) -> Result<Said, &'static str> {
    let fields: Map<String, Value> = serde_json::from_slice(body).map_err(|_| "the body must be a JSON object")?;
    let text = |field: &str, wrong: &'static str| match fields.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(value) => value.as_str().ok_or(wrong),
    };
    let pid = match fields.get("pid") {
        None | Some(Value::Null) => 0,
        Some(pid) => pid.as_i64().ok_or("pid must be a whole number")?,
    };
    let status = match text("status", "status must be idle, working or dnd")? {
        "" => None,
        word => Some(word.parse().map_err(|_| "status must be idle, working or dnd")?),
    };
    Ok(Said {
        cwd: directory(text("cwd", "cwd must be a string")?),
        pid,
        status,
        session_id: name(text("session_id", "session_id must be a string")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_named_and_an_empty_one_is_missing() {
        let read = |text: &str| read(text.as_bytes());
        for (text, words) in [
            ("", "the body must be a JSON object"),
            ("[]", "the body must be a JSON object"),
            ("{} {}", "the body must be a JSON object"),
            (r#"{"cwd":5}"#, "cwd must be a string"),
            (r#"{"pid":"5"}"#, "pid must be a whole number"),
            (r#"{"pid":1.5}"#, "pid must be a whole number"),
            (r#"{"status":"away"}"#, "status must be idle, working or dnd"),
            (r#"{"status":["idle"]}"#, "status must be idle, working or dnd"),
            (r#"{"session_id":{}}"#, "session_id must be a string"),
        ] {
            assert_eq!(read(text), Err(words), "{text}");
        }
        for text in ["{}", r#"{"cwd":"","pid":null,"status":null,"session_id":null}"#, r#"{"else":1}"#] {
            assert_eq!(read(text), Ok(Said::default()), "{text}");
        }
        let said = read(r#"{"cwd":"/a","pid":7,"status":"working","session_id":"s"}"#).unwrap();
        assert_eq!(said, Said { cwd: "/a".into(), pid: 7, status: Some(Status::Working), session_id: "s".into() });
    }
}
