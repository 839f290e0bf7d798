//! A member changes its key.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use claudemesh_proto::{MemberId, PublicKey, Signature, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::calls::peer_pubkey::{self, NotChanged, Proof};
use crate::edge::rest::auth::Caller;
use crate::edge::rest::input::Body;
use crate::edge::rest::refusal::{Bodied, Keyed, Refusal, Refused};
use crate::edge::server::Running;

/// A change of the member's key. The last three go together; only a member that has never connected may leave them out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyChange {
    /// The new key: 64 hex characters.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    pubkey: String,
    /// By the new key: 128 hex characters.
    #[schema(pattern = "^[0-9a-fA-F]{128}$")]
    signature: Option<String>,
    /// By the key that the member has: 128 hex characters.
    #[schema(pattern = "^[0-9a-fA-F]{128}$")]
    previous_signature: Option<String>,
    /// Milliseconds.
    timestamp: Option<i64>,
}

/// The member's key.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChangedKey {
    #[schema(value_type = String)]
    member_id: MemberId,
    #[schema(value_type = String)]
    pubkey: PublicKey,
    /// Whether it was another one.
    changed: bool,
}

/// Changes the key of the member. Its connections end, and its copies of topic keys are deleted.
///
/// Both keys sign the purpose `peer-pubkey` and the fields mesh, member, old key, new key (32 raw bytes each) and timestamp.
#[utoipa::path(
    post,
    path = "/me/peer-pubkey",
    tag = "members",
    request_body = KeyChange,
    responses(
        (status = 200, description = "The member has this key", body = ChangedKey),
        (status = 400, description = "`bad_signature`, or `timestamp_skew`: more than 60 s off", body = Refused),
        (status = 404, description = "`member_not_found`", body = Refused),
        (
            status = 409,
            description = "`not_web_member`: the change of a key that has been used must be signed; `pubkey_in_use`: by \
                           another member or a session; `pubkey_changed`: the member has yet another one meanwhile",
            body = Refused
        ),
        Keyed,
        Bodied
    )
)]
pub(crate) async fn change(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Body(change): Body<KeyChange>,
) -> Result<Json<ChangedKey>, Refusal> {
    let change = parse(change)?;
    let pubkey = change.pubkey;
    let changed = peer_pubkey::change(&running.app, caller.whose(), change).await.map_err(refused)?;
    Ok(Json(ChangedKey { member_id: caller.member_id().clone(), pubkey, changed }))
}

/// Capitals in a key are taken for small letters, as in the existing protocol.
fn parse(change: KeyChange) -> Result<peer_pubkey::Change, Refusal> {
    let hex = |field: &str, digits: usize| Refusal::invalid(format!("{field} must be {digits} hex characters"));
    let pubkey = change.pubkey.to_ascii_lowercase().parse().map_err(|_| hex("pubkey", 64))?;
    let signature = |field, text: &str| Signature::parse_any_case(text).map_err(|_| hex(field, 128));
    let proof = match (change.signature, change.previous_signature, change.timestamp) {
        (None, None, None) => None,
        (Some(by_new), Some(by_old), Some(timestamp)) => Some(Proof {
            signature: signature("signature", &by_new)?,
            previous_signature: signature("previousSignature", &by_old)?,
            timestamp: Timestamp::from_millis(timestamp),
        }),
        _ => return Err(Refusal::invalid("signature, previousSignature and timestamp go together")),
    };
    Ok(peer_pubkey::Change { pubkey, proof })
}

fn refused(why: NotChanged) -> Refusal {
    let own = |status, error: &str| Refusal::Own(status, json!({"error": error}));
    match why {
        NotChanged::Unusable => Refusal::invalid("pubkey must be a key that others can seal for"),
        NotChanged::TimestampSkew => own(StatusCode::BAD_REQUEST, "timestamp_skew"),
        NotChanged::BadSignature => own(StatusCode::BAD_REQUEST, "bad_signature"),
        NotChanged::NoMember => own(StatusCode::NOT_FOUND, "member_not_found"),
        NotChanged::NeedsProof => {
            let detail = "the change of a key that has been used must be signed by it and by the new one";
            Refusal::Own(StatusCode::CONFLICT, json!({"error": "not_web_member", "detail": detail}))
        }
        NotChanged::OtherKey => own(StatusCode::CONFLICT, "pubkey_changed"),
        NotChanged::KeyInUse => own(StatusCode::CONFLICT, "pubkey_in_use"),
        NotChanged::Unavailable(error) => error.into(),
    }
}
