//! Sealing a topic's key for others: who waits for a copy, and storing one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::{DisplayName, MemberId, PublicKey, Timestamp, TopicId, TopicName};
use claudemesh_store::TopicKeySealed;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::calls;
use crate::edge::rest::auth::Caller;
use crate::edge::rest::input::{Body, Named};
use crate::edge::rest::refusal::{Bodied, Keyed, Refusal, Refused};
use crate::edge::rest::topic::shut;
use crate::edge::rest::topic_key::unencrypted;
use crate::edge::server::Running;

/// Who waits for a copy.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WaitingList {
    #[schema(value_type = String)]
    topic: TopicName,
    #[schema(value_type = String)]
    topic_id: TopicId,
    /// Null when the topic has no key.
    sender_pubkey: Option<String>,
    /// 50 at most, whoever has been in the topic longest first.
    pending: Vec<Waiting>,
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Waiting {
    #[schema(value_type = String)]
    member_id: MemberId,
    /// The key to seal for: 64 hex characters.
    #[schema(value_type = String)]
    pubkey: PublicKey,
    #[schema(value_type = String)]
    display_name: DisplayName,
}

/// Who in a topic waits for a copy of its key.
#[utoipa::path(
    get,
    path = "/topics/{name}/pending-seals",
    tag = "topic keys",
    params(("name" = String, Path, description = "The topic's name, without `#`", example = "general")),
    responses(
        (status = 200, description = "Who waits; nobody while the topic has no key", body = WaitingList),
        (status = 404, description = "`topic_not_found`", body = Refused),
        Keyed
    )
)]
pub(crate) async fn pending(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Named(name): Named,
) -> Result<Json<WaitingList>, Refusal> {
    let sought = caller.topic(&name, &[Capability::Read])?;
    let found = running.app.store.pending_seals(caller.whose(), &sought).await?;
    let (topic, waiting) = found.map_err(|closed| shut(closed, &name))?;
    let pending = waiting.into_iter().map(|one| Waiting {
        member_id: one.member_id,
        pubkey: one.pubkey,
        display_name: one.display_name,
    });
    Ok(Json(WaitingList {
        topic: topic.name,
        topic_id: topic.id,
        sender_pubkey: topic.encrypted_key_pubkey,
        pending: pending.collect(),
    }))
}

/// A copy for somebody else.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seal {
    /// For whom.
    #[schema(value_type = String)]
    member_id: MemberId,
    /// Base64 of 80 bytes.
    #[schema(pattern = "^[A-Za-z0-9+/]{107}=$")]
    encrypted_key: String,
    /// Base64 of 24 bytes.
    #[schema(pattern = "^[A-Za-z0-9+/]{32}$")]
    nonce: String,
}

/// A copy that was stored.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredCopy {
    #[schema(value_type = String)]
    topic: TopicName,
    #[schema(value_type = String)]
    topic_id: TopicId,
    #[schema(value_type = String)]
    member_id: MemberId,
    #[schema(value_type = String, format = DateTime)]
    sealed_at: Timestamp,
}

/// Stores a copy of a topic's key for a member who has none, in the name of one who has.
///
/// A key that only reads may do so too: it gives away nothing that its member does not have.
#[utoipa::path(
    post,
    path = "/topics/{name}/seal",
    tag = "topic keys",
    params(("name" = String, Path, description = "The topic's name, without `#`", example = "general")),
    request_body = Seal,
    responses(
        (status = 200, description = "The member has it", body = StoredCopy),
        (status = 404, description = "`topic_not_found`, or `recipient_not_in_topic`", body = Refused),
        (status = 409, description = "`topic_unencrypted`, or `already_sealed`: a copy is never replaced", body = Refused),
        Keyed,
        Bodied
    )
)]
pub(crate) async fn seal(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Named(name): Named,
    seal: Result<Body<Seal>, Refusal>,
) -> Result<Json<StoredCopy>, Refusal> {
    let sought = caller.topic(&name, &[Capability::Send, Capability::Read])?;
    let Body(Seal { member_id, encrypted_key, nonce }) = seal?;
    calls::topic_key::sealed_copy(&encrypted_key, &nonce).map_err(|bad| Refusal::invalid(bad.to_string()))?;
    let copy = (&member_id, encrypted_key.as_str(), nonce.as_str());
    let (status, error, topic) = match running.app.store.seal_topic_key(caller.whose(), &sought, copy).await? {
        TopicKeySealed::Done(topic, sealed_at) => {
            return Ok(Json(StoredCopy { topic: topic.name, topic_id: topic.id, member_id, sealed_at }));
        }
        TopicKeySealed::Closed(closed) => return Err(shut(closed, &name)),
        TopicKeySealed::Unencrypted(topic) => return Err(unencrypted(&topic)),
        TopicKeySealed::SealerHasNoKey(topic) => (StatusCode::FORBIDDEN, "sealer_has_no_key", topic),
        TopicKeySealed::RecipientNotInTopic(topic) => (StatusCode::NOT_FOUND, "recipient_not_in_topic", topic),
        TopicKeySealed::AlreadySealed(topic) => (StatusCode::CONFLICT, "already_sealed", topic),
    };
    Err(Refusal::Own(status, json!({"error": error, "topic": topic.name, "memberId": member_id})))
}
