//! What a request says, read into types; what cannot be read is a refusal that names it.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use claudemesh_proto::Peek;
use serde::de::DeserializeOwned;

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
        let limit = running.app.settings.config.max_message_bytes;
        let reading = axum::body::to_bytes(request.into_body(), limit);
        let bytes = match tokio::time::timeout(HEAD_TIMEOUT, reading).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(_)) => {
                let words = "payload too large";
                return Err(Refusal::Common(StatusCode::PAYLOAD_TOO_LARGE, "error.too_large", words.into()));
            }
            Err(_) => {
                let words = "the body did not arrive in time";
                return Err(Refusal::Common(StatusCode::REQUEST_TIMEOUT, "error.timeout", words.into()));
            }
        };
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
