//! Topics: which there are, what was written in them, and that it was read.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::limits::{HISTORY_PAGE, MAX_HISTORY_PAGE};
use claudemesh_proto::text::{Verbatim, one_line};
use claudemesh_proto::topic::TopicMessage;
use claudemesh_proto::{
    DisplayName, MemberId, MeshId, MessageId, PublicKey, Timestamp, TopicId, TopicName, Visibility,
};
use claudemesh_store::{Closed, HistoryPage, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::edge::rest::auth::Caller;
use crate::edge::rest::input::{Named, Parameters};
use crate::edge::rest::refusal::{Keyed, Queried, Refusal, Refused};
use crate::edge::server::Running;

/// The topics that the key's member may know of and the key is for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Topics {
    /// By name.
    topics: Vec<ListedTopic>,
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ListedTopic {
    #[schema(value_type = String)]
    id: TopicId,
    #[schema(value_type = String)]
    name: TopicName,
    /// What it is about.
    description: Option<String>,
    /// `public`, `private` or `dm`.
    #[schema(value_type = String)]
    visibility: Visibility,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// How many of the last thousand messages others wrote since the member read it; 0 for one that it is not in.
    unread: i64,
}

/// The topics of the mesh.
#[utoipa::path(
    get,
    path = "/topics",
    tag = "topics",
    responses((status = 200, description = "Those that the member may know of and the key is for", body = Topics), Keyed)
)]
pub(crate) async fn list(State(running): State<Arc<Running>>, caller: Caller) -> Result<Json<Topics>, Refusal> {
    caller.may(&[Capability::Read])?;
    let (mesh_id, member_id) = caller.whose();
    let unread = running.app.store.unread(mesh_id, member_id).await?;
    let topics = running.app.store.topics(mesh_id, member_id).await?;
    let topics = topics.into_iter().filter(|topic| caller.sees(&topic.name)).map(|topic| ListedTopic {
        unread: unread.get(&topic.id).copied().unwrap_or_default(),
        id: topic.id,
        name: topic.name,
        description: topic.description,
        visibility: topic.visibility,
        created_at: topic.created_at,
    });
    Ok(Json(Topics { topics: topics.collect() }))
}

/// Until when a topic was read.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TopicRead {
    #[schema(value_type = String)]
    topic: TopicName,
    #[schema(value_type = String)]
    topic_id: TopicId,
    #[schema(value_type = String, format = DateTime)]
    read_at: Timestamp,
}

/// Remembers that the key's member has read a topic.
#[utoipa::path(
    patch,
    path = "/topics/{name}/read",
    tag = "topics",
    params(("name" = String, Path, description = "The topic's name, without `#`", example = "general")),
    responses(
        (status = 200, description = "It is remembered", body = TopicRead),
        (status = 404, description = "`topic_not_found`: there is none, or not for this member", body = Refused),
        Keyed
    )
)]
pub(crate) async fn read(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Named(name): Named,
) -> Result<Json<TopicRead>, Refusal> {
    let sought = caller.topic(&name, &[Capability::Read])?;
    let read = running.app.store.mark_topic_read(caller.whose(), &sought).await?;
    let (topic, read_at) = read.map_err(|closed| shut(closed, &name))?;
    Ok(Json(TopicRead { topic: topic.name, topic_id: topic.id, read_at }))
}

/// Which messages.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// At most so many; 50 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// Only messages before the one with this id. An id that the topic does not have means the newest.
    before: Option<String>,
}

/// Messages of a topic.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct History {
    #[schema(value_type = String)]
    topic: TopicName,
    #[schema(value_type = String)]
    topic_id: TopicId,
    /// Newest first. A page of large messages has fewer than was asked for, and at least one.
    messages: Vec<Message>,
}

/// One message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    #[schema(value_type = String)]
    pub(super) id: MessageId,
    #[schema(value_type = String)]
    sender_member_id: MemberId,
    /// The key that the member has now: 64 hex characters.
    #[schema(value_type = String)]
    sender_pubkey: PublicKey,
    #[schema(value_type = String)]
    sender_name: DisplayName,
    /// Base64.
    nonce: String,
    /// Base64.
    ciphertext: String,
    /// 1 for text in base64, 2 for what is sealed under the topic's key.
    body_version: u8,
    /// Which message it answers.
    #[schema(value_type = Option<String>)]
    reply_to_id: Option<MessageId>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Its number in the topic, from 1, without gaps.
    pub(super) seq: i64,
    /// Whom its sender says it mentions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mentions: Vec<String>,
    /// An object that is carried as it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    ext: Option<Verbatim>,
    /// Whether it was written in clear although the topic has a key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    plaintext: bool,
}

impl Message {
    fn new(message: TopicMessage, sender_pubkey: PublicKey) -> Self {
        Self {
            id: message.id,
            sender_member_id: message.sender_member_id,
            sender_pubkey,
            sender_name: message.sender_name,
            nonce: message.nonce,
            ciphertext: message.ciphertext,
            body_version: message.body_version,
            reply_to_id: message.reply_to_id,
            created_at: message.created_at,
            seq: message.seq,
            mentions: message.mentions,
            ext: message.ext,
            plaintext: message.plaintext,
        }
    }
}

/// What was written in a topic.
#[utoipa::path(
    get,
    path = "/topics/{name}/messages",
    tag = "topics",
    params(("name" = String, Path, description = "The topic's name, without `#`", example = "general"), Page),
    responses(
        (status = 200, description = "A page of messages", body = History),
        (status = 404, description = "`topic_not_found`: there is none, or not for this member", body = Refused),
        Keyed,
        Queried
    )
)]
pub(crate) async fn messages(
    State(running): State<Arc<Running>>,
    caller: Caller,
    Named(name): Named,
    page: Result<Parameters<Page>, Refusal>,
) -> Result<Json<History>, Refusal> {
    let sought = caller.topic(&name, &[Capability::Read])?;
    let Parameters(page) = page?;
    let page = checked(&page)?;
    let store = &running.app.store;
    let found = store.topic_history(caller.whose(), &sought, page).await?;
    let (topic, found) = found.map_err(|closed| shut(closed, &name))?;
    let messages = if let Some(messages) = found {
        messages
    } else {
        let newest = HistoryPage { before: None, ..page };
        let found = store.topic_history(caller.whose(), &sought, newest).await?;
        found.map_err(|closed| shut(closed, &name))?.1.unwrap_or_default()
    };
    let messages = shown(store, caller.mesh_id(), messages).await?;
    Ok(Json(History { topic: topic.name, topic_id: topic.id, messages }))
}

/// Messages with the keys that their senders have now.
pub(super) async fn shown(
    store: &Store,
    mesh_id: &MeshId,
    messages: Vec<TopicMessage>,
) -> Result<Vec<Message>, StoreError> {
    let senders: BTreeSet<&MemberId> = messages.iter().map(|message| &message.sender_member_id).collect();
    let keys = store.pubkeys_of(mesh_id, senders).await?;
    let messages = messages.into_iter().map(|message| {
        let key = keys.get(&message.sender_member_id).copied().unwrap_or(message.sender_pubkey);
        Message::new(message, key)
    });
    Ok(messages.collect())
}

fn checked(page: &Page) -> Result<HistoryPage<'_>, Refusal> {
    let limit = page.limit.unwrap_or(HISTORY_PAGE);
    if !(1..=MAX_HISTORY_PAGE).contains(&limit) {
        return Err(Refusal::invalid(format!("limit must be 1 to {MAX_HISTORY_PAGE}")));
    }
    let before = page.before.as_deref();
    if before.is_some_and(|id| id.parse::<MessageId>().is_err()) {
        return Err(Refusal::invalid("before must be the id of a message"));
    }
    Ok(HistoryPage { before, limit })
}

/// How a topic is refused to who is not in it. Of a private one nothing is said.
pub(super) fn shut(closed: Closed, name: &str) -> Refusal {
    let topic: String = one_line(name).chars().take(64).collect();
    match closed {
        Closed::NotFound => Refusal::Own(StatusCode::NOT_FOUND, json!({"error": "topic_not_found", "topic": topic})),
        Closed::NotIn => {
            let hint = "join the topic first";
            Refusal::Own(StatusCode::FORBIDDEN, json!({"error": "not_in_topic", "topic": topic, "hint": hint}))
        }
    }
}
