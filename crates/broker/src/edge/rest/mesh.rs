//! Making meshes.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use claudemesh_proto::mesh::{MeshCreate, MeshCreateError};
use serde_json::json;
use utoipa::ToSchema;

use crate::calls;
use crate::edge::address::Origin;
use crate::edge::rest::auth::bearer;
use crate::edge::rest::refusal::Refused;
use crate::edge::rest::{body, foreign_origin};
use crate::edge::server::{RemoteAddress, Running};
use crate::edge::upgrade::is_allowed_origin;

/// Makes a mesh whose owner keeps the key.
///
/// What is signed is in `docs/protocol.md`. Where `BROKER_MESH_CREATION` says so, the setup token goes into `Authorization: Bearer`.
#[utoipa::path(
    post,
    path = "/meshes",
    tag = "meshes",
    security((), ("setup_token" = [])),
    request_body(content = NewMesh, description = "Signed by the owner's key and the member's"),
    responses(
        (status = 201, description = "It is made, or was by the same keys", body = MadeMesh),
        (status = 400, description = "`malformed`, `bad_signature` or `timestamp_skew`", body = Refused),
        (status = 403, description = "`creation_not_allowed`; or a page of another site asks", body = Refused),
        (status = 408, description = "The body did not arrive in time", body = Refused),
        (status = 409, description = "`slug_taken`", body = Refused),
        (status = 413, description = "The body is too large", body = Refused),
        (status = 422, description = "`invalid_slug`", body = Refused),
        (status = 429, description = "Too many meshes made and joined from one address", body = Refused),
        (status = 503, description = "The store cannot be written just now", body = Refused)
    )
)]
pub(crate) async fn create_mesh(
    State(running): State<Arc<Running>>,
    ConnectInfo(remote): ConnectInfo<RemoteAddress>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let refused = |status, error: MeshCreateError| (status, Json(json!({"error": error}))).into_response();
    if !is_allowed_origin(&headers, &running.app.settings) {
        return foreign_origin();
    }
    let origin = Origin::of(remote.0, &headers, &running.app.settings.config.trusted_proxies);
    if !calls::mesh::may_create(&running.app.settings, origin.is_local, bearer(&headers)) {
        return refused(StatusCode::FORBIDDEN, MeshCreateError::CreationNotAllowed);
    }
    if !running.app.limits.may_create(origin.counted, running.app.clock.now()) {
        return (StatusCode::TOO_MANY_REQUESTS, Json(json!({"error": "rate limited"}))).into_response();
    }
    let body = match body(&running, request.into_body()).await {
        Ok(body) => body,
        Err(too_large) => return too_large,
    };
    let Ok(request) = serde_json::from_slice::<MeshCreate>(&body) else {
        return refused(StatusCode::BAD_REQUEST, MeshCreateError::Malformed);
    };
    match calls::mesh::create(&running.app, &request).await {
        Ok(created) => (StatusCode::CREATED, Json(created)).into_response(),
        Err(calls::mesh::NotCreated::Refused(error)) => refused(status(error), error),
        Err(calls::mesh::NotCreated::Unavailable) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"error": "unavailable"}))).into_response()
        }
    }
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

/// What is asked for; the description of [`MeshCreate`].
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a body that is read as a type of the protocol")]
struct NewMesh {
    /// `^[a-z0-9][a-z0-9-]{1,31}$`
    slug: String,
    /// The key that signs the mesh's invites: 64 hex characters.
    owner_pubkey: String,
    member: NewMember,
    /// Milliseconds.
    timestamp: i64,
    /// By the owner's key: 128 hex characters.
    signature: String,
    /// By the member's key: 128 hex characters.
    member_signature: String,
}

/// Its first member.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a body that is read as a type of the protocol")]
struct NewMember {
    /// 64 hex characters.
    pubkey: String,
    display_name: String,
}

/// What was made.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes an answer that is a type of the protocol")]
struct MadeMesh {
    mesh_id: String,
    slug: String,
    member_id: String,
}
