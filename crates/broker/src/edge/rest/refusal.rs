//! How a route says no. Two shapes, both of the existing protocol: what every route has in common is a [`Problem`]; what one route
//! decides is `{"error": CODE}` with more beside it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use claudemesh_proto::Timestamp;
use claudemesh_store::StoreError;
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::schema::OneOfBuilder;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response as Described, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::edge::server::Running;
use crate::edge::upgrade::is_allowed_origin;

/// Why a route did not do what was asked.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// What any route may say: a status, a code, and words for people.
    Common(StatusCode, &'static str, Cow<'static, str>),
    /// What one route says: a status, and an object with `error`.
    Own(StatusCode, Value),
}

/// What any route may say when it refuses.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// What clients switch on.
    code: &'static str,
    /// What people read.
    message: Cow<'static, str>,
    /// The status of the answer.
    status: u16,
    /// When it was said.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// What was asked for.
    path: String,
}

/// What one route says when it refuses; some say more beside it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Refused {
    /// What clients switch on.
    error: String,
}

impl Refusal {
    pub(crate) fn key_missing() -> Self {
        let words = "an API key is needed: Authorization: Bearer cm_…";
        Self::Common(StatusCode::UNAUTHORIZED, "error.api_key_missing", words.into())
    }

    pub(crate) fn key_invalid() -> Self {
        let words = "this is no API key, or it is none any more";
        Self::Common(StatusCode::UNAUTHORIZED, "error.api_key_invalid", words.into())
    }

    pub(crate) fn capability_missing(needed: &str) -> Self {
        let words = format!("this API key lacks the capability {needed}");
        Self::Common(StatusCode::FORBIDDEN, "error.api_key_missing_capability", words.into())
    }

    pub(crate) fn out_of_scope() -> Self {
        let words = "this API key is not for this topic";
        Self::Common(StatusCode::FORBIDDEN, "error.api_key_topic_out_of_scope", words.into())
    }

    pub(crate) fn invalid(words: impl Into<Cow<'static, str>>) -> Self {
        Self::Common(StatusCode::UNPROCESSABLE_ENTITY, "error.validation", words.into())
    }

    pub(crate) fn rate_limited(words: impl Into<Cow<'static, str>>) -> Self {
        Self::Common(StatusCode::TOO_MANY_REQUESTS, "error.rate_limited", words.into())
    }
}

/// The cause is logged here, once; the client learns only that it can try again.
impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %error, "a request could not be answered from the store");
        let words = crate::fault::UNAVAILABLE;
        Self::Common(StatusCode::SERVICE_UNAVAILABLE, "error.unavailable", words.into())
    }
}

/// On its way to [`finish`], which knows where it was asked.
#[derive(Clone)]
struct Unfinished(&'static str, Cow<'static, str>);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Common(status, code, words) => {
                let mut response = status.into_response();
                response.extensions_mut().insert(Unfinished(code, words));
                response
            }
            Self::Own(status, body) => (status, Json(body)).into_response(),
        }
    }
}

/// Around every route that needs a key: refuses pages of other sites, and says in a [`Problem`] where and when it happened.
pub(crate) async fn finish(State(running): State<Arc<Running>>, request: Request, next: Next) -> Response {
    let path = request
        .extensions()
        .get::<axum::extract::OriginalUri>()
        .map_or_else(|| request.uri().path().to_owned(), |original| original.path().to_owned());
    let mut response = if is_allowed_origin(request.headers(), &running.app.settings) {
        next.run(request).await
    } else {
        let words = "this origin may not do this (BROKER_ALLOWED_ORIGINS)";
        Refusal::Common(StatusCode::FORBIDDEN, "error.origin_not_allowed", words.into()).into_response()
    };
    let Some(Unfinished(code, message)) = response.extensions_mut().remove() else { return response };
    let status = response.status();
    let problem = Problem { code, message, status: status.as_u16(), timestamp: running.app.clock.now(), path };
    let mut response = (status, Json(problem)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

const FORBIDDEN: &str = "The key lacks the capability (`error.api_key_missing_capability`) or is not for this topic \
     (`error.api_key_topic_out_of_scope`); a page of another site asks (`error.origin_not_allowed`); or the member is not in the \
     topic (`not_in_topic`) or has no copy of its key to seal (`sealer_has_no_key`)";

/// What every route that needs a key may answer besides its own.
pub(crate) struct Keyed;

impl IntoResponses for Keyed {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        described(&[
            (401, "No API key (`error.api_key_missing`), or none that is valid (`error.api_key_invalid`)"),
            (403, FORBIDDEN),
            (429, "Too many requests of one member, or wrong keys from one address (`error.rate_limited`)"),
            (503, "The store cannot answer just now (`error.unavailable`)"),
        ])
    }
}

/// What every route that reads a query may answer besides its own.
pub(crate) struct Queried;

impl IntoResponses for Queried {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        described(&[(422, "A parameter cannot be read (`error.validation`); `message` names it")])
    }
}

/// What every route that reads a body may answer besides its own.
pub(crate) struct Bodied;

impl IntoResponses for Bodied {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        described(&[
            (408, "The body did not arrive in time (`error.timeout`)"),
            (413, "The body is too large (`error.too_large`)"),
            (422, "The body cannot be read (`error.validation`); `message` names the field"),
        ])
    }
}

fn described(responses: &[(u16, &str)]) -> BTreeMap<String, RefOr<Described>> {
    let describe = |(status, words): &(u16, &str)| {
        let problem = Ref::from_schema_name("Problem");
        let content = if *words == FORBIDDEN {
            let either = OneOfBuilder::new().item(problem).item(Ref::from_schema_name("Refused"));
            ContentBuilder::new().schema(Some(either)).build()
        } else {
            ContentBuilder::new().schema(Some(problem)).build()
        };
        let response = ResponseBuilder::new().description(*words).content("application/json", content).build();
        (status.to_string(), RefOr::T(response))
    };
    responses.iter().map(describe).collect()
}
