//! Keys to the REST interface: made, listed and ended over the WebSocket, and looked up on every request that brings one.

use claudemesh_keys::{ApiKeySecret, api_key_prefix, secret_matches};
use claudemesh_proto::api_key::{
    ApiKeyCreate, ApiKeyCreated, ApiKeyListResponse, ApiKeyRevoke, ApiKeyRevokeResponse, ShownSecret,
};
use claudemesh_proto::{BrokerFrame, ErrorCode};
use claudemesh_store::{Access, ApiKeyMade, ApiKeyRevoked, MAX_API_KEYS, MAX_API_KEYS_PER_HOUR, NewApiKey, StoreError};

use crate::app::App;
use crate::calls::{Live, weight};
use crate::fault::Fault;

/// Makes a key. Its secret is in this one answer and nowhere else.
pub(crate) async fn create(app: &App, live: &Live, request: ApiKeyCreate) -> Result<BrokerFrame, Fault> {
    let wanted = request.read(app.clock.now()).map_err(|bad| Fault::new(ErrorCode::InvalidArgs, bad.to_string()))?;
    let secret = ApiKeySecret::generate().map_err(|error| {
        tracing::error!(error = %error, "a key could not be drawn");
        Fault::unavailable()
    })?;
    let new = NewApiKey {
        mesh_id: live.mesh_id.clone(),
        issued_by: live.member_id.clone(),
        wanted,
        prefix: secret.prefix().to_owned(),
        hash: secret.hash(),
    };
    let key = match app.store.create_api_key(&new).await? {
        ApiKeyMade::Done(key) => *key,
        ApiKeyMade::NoMember => {
            return Err(Fault::new(ErrorCode::Forbidden, "you are no member of this mesh any more"));
        }
        ApiKeyMade::Forbidden => {
            return Err(Fault::new(ErrorCode::Forbidden, "only owner or admin can make keys with admin"));
        }
        ApiKeyMade::TooOften => {
            let words = format!("max {MAX_API_KEYS_PER_HOUR} keys/h, slow down");
            return Err(Fault::new(ErrorCode::RateLimit, words));
        }
        ApiKeyMade::TooMany => {
            let words = format!("you have {MAX_API_KEYS} keys; revoke one first");
            return Err(Fault::new(ErrorCode::Capacity, words));
        }
    };
    tracing::info!(mesh.id = %live.mesh_id, member.id = %live.member_id, key.id = %key.id, "an API key was made");
    Ok(BrokerFrame::ApiKeyCreated(Box::new(ApiKeyCreated {
        id: key.id,
        secret: ShownSecret(secret.expose().to_owned()),
        label: key.label,
        prefix: key.prefix,
        capabilities: key.capabilities,
        topic_scopes: key.topic_scopes,
        created_at: key.created_at,
    })))
}

/// The caller's keys; to an admin, those of the whole mesh.
pub(crate) async fn list(app: &App, live: &Live) -> Result<BrokerFrame, Fault> {
    let keys = app.store.api_keys(&live.mesh_id, &live.member_id).await?;
    Ok(BrokerFrame::ApiKeyListResponse(ApiKeyListResponse { keys: weight::api_keys(keys) }))
}

/// Ends a key of the caller's; an admin's are all of the mesh.
pub(crate) async fn revoke(app: &App, live: &Live, request: ApiKeyRevoke) -> Result<BrokerFrame, Fault> {
    if request.id.is_empty() {
        return Err(Fault::new(ErrorCode::InvalidArgs, "id required"));
    }
    let answer = match named(&request.id) {
        None => ApiKeyRevokeResponse::NotFound,
        Some(id) => match app.store.revoke_api_key((&live.mesh_id, &live.member_id), id).await? {
            ApiKeyRevoked::Done(id) => {
                tracing::info!(mesh.id = %live.mesh_id, by = %live.member_id, key.id = %id, "an API key was revoked");
                ApiKeyRevokeResponse::Revoked { id }
            }
            ApiKeyRevoked::NotFound => ApiKeyRevokeResponse::NotFound,
            ApiKeyRevoked::Several(matches) => ApiKeyRevokeResponse::NotUnique { matches },
        },
    };
    Ok(BrokerFrame::ApiKeyRevokeResponse(answer))
}

/// What may be the beginning of an id. A database takes no U+0000, and no id is longer.
fn named(id: &str) -> Option<&str> {
    let fits = id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fits.then_some(id)
}

/// What whoever brings this secret may do now; `None` when it is no valid key's (R9).
pub(crate) async fn find(app: &App, secret: &str) -> Result<Option<Access>, StoreError> {
    // Of another shape it is none, which needs no question to the store.
    let Some(prefix) = api_key_prefix(secret).filter(|_| is_shaped(secret)) else { return Ok(None) };
    let candidates = app.store.api_keys_like(prefix).await?;
    Ok(candidates.into_iter().find(|candidate| secret_matches(secret, &candidate.hash)).map(|found| found.access))
}

fn is_shaped(secret: &str) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    secret.len() == SECRET_CHARS && secret.bytes().all(is_base64url)
}

/// `cm_` and 32 bytes in unpadded base64url.
const SECRET_CHARS: usize = 46;
