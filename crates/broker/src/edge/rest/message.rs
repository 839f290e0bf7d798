//! Writing into a topic.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use claudemesh_proto::MessageId;
use claudemesh_proto::TopicId;
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::message::Send;
use claudemesh_proto::text::Verbatim;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::calls::post::{self, NotPosted};
use crate::edge::rest::auth::Caller;
use crate::edge::rest::input::Body;
use crate::edge::rest::refusal::{Bodied, Keyed, Refusal, Refused};
use crate::edge::rest::topic;
use crate::edge::server::Running;

/// A message for a topic.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewPost {
    /// The topic's name, without `#`.
    #[schema(example = "general")]
    topic: String,
    /// The body in padded base64: text for version 1, a secretbox under the topic's key for version 2.
    #[schema(
        min_length = 4,
        pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
        example = "aGVsbG8="
    )]
    ciphertext: String,
    /// 24 bytes in padded base64; may be empty for version 1.
    #[serde(default)]
    #[schema(pattern = "^([A-Za-z0-9+/]{32})?$")]
    nonce: String,
    /// `now`, `next` or `low`; absent means `next`.
    #[schema(pattern = "^(now|next|low)$")]
    priority: Option<String>,
    /// 1 or 2; absent means 1.
    #[schema(minimum = 1, maximum = 2)]
    body_version: Option<i64>,
    /// Names of those who are mentioned, 16 at most. Without them, those of a plaintext are what it says.
    #[schema(max_items = 16)]
    mentions: Option<Vec<String>>,
    /// The message of the topic that this one answers.
    reply_to_id: Option<String>,
    /// A JSON object of at most 4 KiB that is carried as it is written.
    #[schema(value_type = Option<Object>)]
    ext: Option<Verbatim>,
    /// The client's own id: a retry with the same one is the same message.
    #[schema(pattern = "^[ -~]{1,128}$")]
    client_message_id: Option<String>,
}

/// A message that is kept.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Posted {
    #[schema(value_type = String)]
    message_id: MessageId,
    /// The same.
    #[schema(value_type = String)]
    history_id: MessageId,
    /// The same.
    #[schema(value_type = String)]
    queue_id: MessageId,
    /// The topic's name.
    topic: String,
    #[schema(value_type = String)]
    topic_id: TopicId,
    /// How many members were notified; 0 for a message that was kept before.
    notifications: usize,
    body_version: i64,
    /// The message that it answers, if that is one of the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to_id: Option<String>,
    /// Its number in the topic, without gaps; absent for a message that was kept before.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<i64>,
}

/// Writes a message into a topic.
#[utoipa::path(
    post,
    path = "/messages",
    tag = "topics",
    request_body = NewPost,
    responses(
        (status = 200, description = "It is kept", body = Posted),
        (status = 404, description = "`topic_not_found`: there is none of this name that the member is in", body = Refused),
        (
            status = 409,
            description = "`topic_encrypted`: the topic has a key, and this is a plaintext; `client_message_id_reused`: the id was \
                           used for another message",
            body = Refused
        ),
        (status = 507, description = "`mesh_topics_full`: the topics of the mesh hold 8 GiB", body = Refused),
        Keyed,
        Bodied
    )
)]
pub(crate) async fn post_message(
    State(running): State<Arc<Running>>,
    caller: Caller,
    new: Result<Body<NewPost>, Refusal>,
) -> Result<Json<Posted>, Refusal> {
    caller.may(&[Capability::Send])?;
    let Body(new) = new?;
    let sought = caller.topic(&new.topic, &[Capability::Send])?;
    let send = Send {
        priority: new.priority,
        nonce: new.nonce,
        ciphertext: new.ciphertext,
        client_message_id: new.client_message_id,
        ext: new.ext,
        body_version: new.body_version,
        mentions: new.mentions,
        reply_to_id: new.reply_to_id,
        ..Send::default()
    };
    let kept = post::post(&running.app, caller.access(), &sought, send).await;
    let kept = kept.map_err(|why| refused(why, &new.topic))?;
    Ok(Json(Posted {
        history_id: kept.message_id.clone(),
        queue_id: kept.message_id.clone(),
        message_id: kept.message_id,
        topic: kept.topic.name.to_string(),
        topic_id: kept.topic.id,
        notifications: kept.notified,
        body_version: kept.body_version,
        reply_to_id: kept.reply_to_id,
        seq: kept.seq,
    }))
}

fn refused(why: NotPosted, name: &str) -> Refusal {
    match why {
        NotPosted::TooOften => Refusal::rate_limited("too many messages, slow down"),
        NotPosted::TooLarge => {
            Refusal::Common(StatusCode::PAYLOAD_TOO_LARGE, "error.too_large", "payload too large".into())
        }
        NotPosted::Invalid(why) => Refusal::invalid(format!("{} {}", why.field, why.why)),
        NotPosted::Shut(closed) => topic::shut(closed, name),
        NotPosted::Encrypted => Refusal::Own(StatusCode::CONFLICT, json!({"error": "topic_encrypted", "topic": name})),
        NotPosted::Reused => Refusal::Own(StatusCode::CONFLICT, json!({"error": "client_message_id_reused"})),
        NotPosted::Full => {
            Refusal::Own(StatusCode::INSUFFICIENT_STORAGE, json!({"error": "mesh_topics_full", "topic": name}))
        }
        NotPosted::Removed => Refusal::key_invalid(),
        NotPosted::Failed(error) => error.into(),
    }
}
