//! What a request says, read into types; what cannot be read is a refusal that names it.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use claudemesh_proto::{Peek, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::edge::rest::refusal::Refusal;
use crate::edge::server::{HEAD_TIMEOUT, Running};

/// The parameters after the `?`.
#[derive(Debug)]
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Running>> for Parameters<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, running: &Arc<Running>) -> Result<Self, Refusal> {
        match Query::from_request_parts(parts, running).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(Refusal::invalid(rejection.body_text())),
        }
    }
}

/// A JSON object.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<Running>> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, running: &Arc<Running>) -> Result<Self, Refusal> {
        let refused = |(status, code, words): NotWhole| Refusal::Common(status, code, words.into());
        let bytes = whole(running, request.into_body()).await.map_err(refused)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Refusal::invalid("the body must be UTF-8"))?;
        // As with frames: an object, and not nested deeper than is read safely.
        Peek::at(text).map_err(|_| Refusal::invalid("the body must be a JSON object"))?;
        let mut json = serde_json::Deserializer::from_str(text);
        match serde_path_to_error::deserialize(&mut json) {
            Ok(body) => Ok(Self(body)),
            Err(error) => Err(Refusal::invalid(named(&error))),
        }
    }
}

/// A status, a code, and words for people.
type NotWhole = (StatusCode, &'static str, &'static str);

/// The whole body, within the limit of size and in a time that a slow line needs and a stalled one does not get.
pub(super) async fn whole(running: &Running, body: axum::body::Body) -> Result<bytes::Bytes, NotWhole> {
    let limit = running.app.settings.config.max_message_bytes;
    match tokio::time::timeout(HEAD_TIMEOUT, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err((StatusCode::PAYLOAD_TOO_LARGE, "error.too_large", "payload too large")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "error.timeout", "the body did not arrive in time")),
    }
}

/// A time that was asked for as text, or the one that counts without it; `error` says that it is none.
pub(super) fn time(text: Option<&str>, otherwise: Timestamp, error: &'static str) -> Result<Timestamp, Refusal> {
    let invalid = |_| Refusal::Own(StatusCode::BAD_REQUEST, json!({"error": error}));
    text.map_or(Ok(otherwise), |text| text.parse().map_err(invalid))
}

/// The field, and what is wrong with it.
fn named(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let why = error.inner().to_string();
    // serde_json ends its sentence with a position in the text, which helps nobody here.
    let why = why.split_once(" at line ").map_or(why.as_str(), |(why, _)| why);
    match error.path().to_string().as_str() {
        "." => why.to_owned(),
        path => format!("{path} {why}"),
    }
}

/// The name of a topic in a path. What is no text is nobody's name.
#[derive(Debug)]
pub(crate) struct Named(pub(crate) String);

impl FromRequestParts<Arc<Running>> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, running: &Arc<Running>) -> Result<Self, Refusal> {
        let path = Path::from_request_parts(parts, running).await;
        Ok(Self(path.map(|Path(name)| name).unwrap_or_default()))
    }
}
