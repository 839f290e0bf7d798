//! Keys of topics: a member's copy, rejecting it, and making the first.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::{MemberId, Timestamp, TopicId, TopicName};
use claudemesh_store::{Topic, TopicKeyClaimed, TopicKeyFound, TopicKeyRejected};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::calls;
use crate::edge::rest::auth::Caller;
use crate::edge::rest::input::{Body, Named};
use crate::edge::rest::refusal::{Bodied, Keyed, Refusal, Refused};
use crate::edge::rest::topic::shut;
use crate::edge::server::Running;

/// A copy of a topic's key, sealed for the key's member.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SealedCopy {
    #[schema(value_type = String)]
    topic: TopicName,
    #[schema(value_type = String)]
    topic_id: TopicId,
    /// Base64 of 80 bytes: the X25519 public key of who sealed it, and the box of the key.
    encrypted_key: String,
    /// Base64 of 24 bytes.
    nonce: String,
    /// The X25519 public key that the topic's first copy was sealed with: 64 hex characters.
    sender_pubkey: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

/// The copy of a topic's key that is sealed for the key's member.
#[utoipa::path(
    get,
    path = "/topics/{name}/key",
    tag = "topic keys",
    params(("name" = String, Path, description = "The topic's name, without `#`", example = "general")),
    responses(
        (status = 200, description = "The copy", body = SealedCopy),
        (status = 404, description = "`topic_not_found`, or `key_not_sealed_for_member`: nobody did yet", body = Refused),
        (status = 409, description = "`topic_unencrypted`: it has no key", body = Refused),
        Keyed
    )
)]
pub(crate) async fn own_copy(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Named(name): Named,
) -> Result<Json<SealedCopy>, Refusal> {
    let sought = caller.topic(&name, &[Capability::Read])?;
    match running.app.store.topic_key(caller.whose(), &sought).await? {
        TopicKeyFound::Copy(topic, copy) => Ok(Json(SealedCopy {
            topic: topic.name,
            topic_id: topic.id,
            encrypted_key: copy.encrypted_key,
            nonce: copy.nonce,
            sender_pubkey: topic.encrypted_key_pubkey,
            created_at: copy.created_at,
        })),
        TopicKeyFound::NotSealed(topic) => Err(not_sealed(&topic)),
        TopicKeyFound::Unencrypted(topic) => Err(unencrypted(&topic)),
        TopicKeyFound::Closed(closed) => Err(shut(closed, &name)),
    }
}

/// Since when a copy is rejected.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RejectedCopy {
    #[schema(value_type = String)]
    topic: TopicName,
    #[schema(value_type = String)]
    topic_id: TopicId,
    #[schema(value_type = String, format = DateTime)]
    rejected_at: Timestamp,
}

/// Rejects the member's copy, which is of no use to it: others may seal for it again.
#[utoipa::path(
    post,
    path = "/topics/{name}/key/reject",
    tag = "topic keys",
    params(("name" = String, Path, description = "The topic's name, without `#`", example = "general")),
    responses(
        (status = 200, description = "It counts as missing", body = RejectedCopy),
        (status = 404, description = "`topic_not_found`, or `key_not_sealed_for_member`", body = Refused),
        (status = 409, description = "`topic_unencrypted`: it has no key; `last_copy`: nobody else has one", body = Refused),
        Keyed
    )
)]
pub(crate) async fn reject(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Named(name): Named,
) -> Result<Json<RejectedCopy>, Refusal> {
    let sought = caller.topic(&name, &[Capability::Read])?;
    match running.app.store.reject_topic_key(caller.whose(), &sought).await? {
        TopicKeyRejected::Done(topic, rejected_at) => {
            Ok(Json(RejectedCopy { topic: topic.name, topic_id: topic.id, rejected_at }))
        }
        TopicKeyRejected::NotSealed(topic) => Err(not_sealed(&topic)),
        TopicKeyRejected::LastCopy(topic) => {
            let hint = "nobody else in the topic has a copy: without this one the key would be lost";
            let body = json!({"error": "last_copy", "topic": topic.name, "hint": hint});
            Err(Refusal::Own(StatusCode::CONFLICT, body))
        }
        TopicKeyRejected::Unencrypted(topic) => Err(unencrypted(&topic)),
        TopicKeyRejected::Closed(closed) => Err(shut(closed, &name)),
    }
}

/// A key of a topic, sealed by who made it for itself.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Claim {
    /// The X25519 public key that the copy is sealed with, which is in the copy too: 64 hex characters.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    encrypted_key_pubkey: String,
    /// Base64 of 80 bytes.
    #[schema(pattern = "^[A-Za-z0-9+/]{107}=$")]
    encrypted_key: String,
    /// Base64 of 24 bytes.
    #[schema(pattern = "^[A-Za-z0-9+/]{32}$")]
    nonce: String,
    /// Takes the place of a key of which there is no trace but one member's copy and messages. For admins and leads of the topic.
    #[serde(default)]
    replace: bool,
}

/// A topic that has this key.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClaimedKey {
    #[schema(value_type = String)]
    topic: TopicName,
    #[schema(value_type = String)]
    topic_id: TopicId,
    sender_pubkey: Option<String>,
    #[schema(value_type = String)]
    member_id: MemberId,
    /// Always true.
    claimed: bool,
}

/// Gives a topic that has no key the one that the member made.
#[utoipa::path(
    post,
    path = "/topics/{name}/claim-key",
    tag = "topic keys",
    params(("name" = String, Path, description = "The topic's name, without `#`", example = "general")),
    request_body = Claim,
    responses(
        (status = 200, description = "The topic has it", body = ClaimedKey),
        (status = 404, description = "`topic_not_found`", body = Refused),
        (status = 409, description = "`already_encrypted`: it has another one; `senderPubkey` says which", body = Refused),
        Keyed,
        Bodied
    )
)]
pub(crate) async fn claim(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Named(name): Named,
    claim: Result<Body<Claim>, Refusal>,
) -> Result<Json<ClaimedKey>, Refusal> {
    let sought = caller.topic(&name, &[Capability::Send])?;
    let Body(claim) = claim?;
    let key = calls::topic_key::own_copy(&claim.encrypted_key_pubkey, &claim.encrypted_key, &claim.nonce);
    let key = key.map_err(|bad| Refusal::invalid(bad.to_string()))?;
    let (store, whose) = (&running.app.store, caller.whose());
    let claimed = if claim.replace {
        store.replace_topic_key(whose, &sought, &key).await?
    } else {
        store.claim_topic_key(whose, &sought, &key).await?
    };
    match claimed {
        TopicKeyClaimed::Done(topic) => Ok(Json(ClaimedKey {
            topic: topic.name,
            topic_id: topic.id,
            sender_pubkey: topic.encrypted_key_pubkey,
            member_id: caller.member_id().clone(),
            claimed: true,
        })),
        TopicKeyClaimed::AlreadyEncrypted(topic) => {
            let hint = "ask for your copy: GET key";
            let sender = topic.encrypted_key_pubkey;
            let body = json!({"error": "already_encrypted", "topic": topic.name, "senderPubkey": sender, "hint": hint});
            Err(Refusal::Own(StatusCode::CONFLICT, body))
        }
        TopicKeyClaimed::Closed(closed) => Err(shut(closed, &name)),
    }
}

fn not_sealed(topic: &Topic) -> Refusal {
    let hint = "a member who has the key seals it for you while it is online";
    let body = json!({"error": "key_not_sealed_for_member", "topic": topic.name, "hint": hint});
    Refusal::Own(StatusCode::NOT_FOUND, body)
}

pub(super) fn unencrypted(topic: &Topic) -> Refusal {
    let hint = "nobody has made a key for this topic: POST claim-key";
    Refusal::Own(StatusCode::CONFLICT, json!({"error": "topic_unencrypted", "topic": topic.name, "hint": hint}))
}
