//! What one was notified of.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::{DisplayName, MessageId, NotificationId, PublicKey, Timestamp, TopicId, TopicName};
use claudemesh_store::{NotificationPage, ReadNow};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::edge::rest::auth::Caller;
use crate::edge::rest::input::{Body, Parameters, time};
use crate::edge::rest::refusal::{Bodied, Keyed, Queried, Refusal, Refused};
use crate::edge::server::Running;

/// Most notifications of one answer.
const PAGE: i64 = 50;
/// From when on, unless something else is asked for.
const LOOK_BACK: Duration = Duration::from_hours(24);
/// Most notifications that are marked at once.
const MAX_IDS: usize = 200;

/// Which notifications.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Asked {
    /// Not those from before this time (ISO-8601); 24 hours ago when absent.
    #[param(format = DateTime)]
    since: Option<String>,
    /// `1` for the unread alone.
    unread: Option<String>,
}

/// What one was notified of.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NotificationList {
    /// Newest first, 50 at most.
    notifications: Vec<Notification>,
    /// From when on.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// The name by which one is mentioned, in lower case.
    mentioned_as: String,
}

/// Somebody mentions one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Notification {
    /// The message.
    #[schema(value_type = String)]
    id: MessageId,
    #[serde(rename = "notificationId")]
    #[schema(value_type = String)]
    own_id: NotificationId,
    #[schema(value_type = String)]
    topic_id: TopicId,
    #[schema(value_type = String)]
    topic_name: TopicName,
    /// The sender's name when it wrote.
    #[schema(value_type = String)]
    sender_name: DisplayName,
    #[schema(value_type = String)]
    sender_pubkey: PublicKey,
    nonce: String,
    /// The body; null for whoever is not in the topic.
    ciphertext: Option<String>,
    /// How the body is to be read: 1 or 2.
    body_version: i64,
    /// The message's number in the topic.
    seq: i64,
    /// `mention`.
    kind: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    read_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

/// What the key's member was notified of, in the topics that the key is for.
#[utoipa::path(
    get,
    path = "/notifications",
    tag = "notifications",
    params(Asked),
    responses(
        (status = 200, description = "Newest first", body = NotificationList),
        (status = 400, description = "`invalid_since`: it is no time", body = Refused),
        Keyed,
        Queried
    )
)]
pub(crate) async fn notifications(
    State(running): State<Arc<Running>>,
    caller: Caller,
    asked: Result<Parameters<Asked>, Refusal>,
) -> Result<Json<NotificationList>, Refusal> {
    caller.may(&[Capability::Read])?;
    let Parameters(asked) = asked?;
    let since = time(asked.since.as_deref(), running.app.clock.now().minus(LOOK_BACK), "invalid_since")?;
    let page = NotificationPage { since, unread_only: asked.unread.as_deref() == Some("1"), limit: PAGE };
    let found = running.app.store.notifications((caller.mesh_id(), caller.member_id()), page).await?;
    let notifications = found.into_iter().filter(|one| caller.sees(&one.topic)).map(|one| Notification {
        id: one.message_id,
        own_id: one.id,
        topic_id: one.topic_id,
        topic_name: one.topic,
        sender_name: one.sender_name,
        sender_pubkey: one.sender_pubkey,
        nonce: one.nonce,
        ciphertext: one.ciphertext,
        body_version: one.body_version,
        seq: one.seq,
        kind: one.kind,
        read_at: one.read_at,
        created_at: one.created_at,
    });
    let mentioned_as = caller.access().display_name.as_str().to_ascii_lowercase();
    Ok(Json(NotificationList { notifications: notifications.collect(), since, mentioned_as }))
}

/// Which notifications were read: `ids`, or `all`.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ToMark {
    /// These, 200 at most.
    #[schema(min_items = 1, max_items = 200)]
    ids: Option<Vec<String>>,
    /// All of them.
    #[serde(default)]
    all: bool,
    /// Of all, those from before this time (ISO-8601); now when absent.
    #[schema(format = DateTime)]
    before: Option<String>,
}

/// They are read.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", untagged)]
pub(crate) enum Marked {
    These {
        /// How many were named.
        marked: usize,
        #[serde(rename = "readAt")]
        #[schema(value_type = String, format = DateTime)]
        read_at: Timestamp,
    },
    All {
        /// `all`.
        marked: &'static str,
        #[schema(value_type = String, format = DateTime)]
        before: Timestamp,
    },
}

/// Marks notifications of the key's member as read.
#[utoipa::path(
    post,
    path = "/notifications/read",
    tag = "notifications",
    request_body = ToMark,
    responses(
        (status = 200, description = "They are read", body = Marked),
        (status = 400, description = "`invalid_before`: it is no time", body = Refused),
        Keyed,
        Bodied
    )
)]
pub(crate) async fn mark_read(
    State(running): State<Arc<Running>>,
    caller: Caller,
    request: Result<Body<ToMark>, Refusal>,
) -> Result<Json<Marked>, Refusal> {
    caller.may(&[Capability::Read])?;
    let Body(request) = request?;
    let scopes = caller.access().topic_scopes.as_ref();
    let whose = (caller.mesh_id(), caller.member_id());
    match request {
        ToMark { ids: Some(ids), all: false, before: None } => {
            if !(1..=MAX_IDS).contains(&ids.len()) {
                return Err(Refusal::invalid("ids must be 1 to 200 of them"));
            }
            let marked = ids.len();
            let parsed: Result<Vec<NotificationId>, _> = ids.iter().map(|id| id.parse()).collect();
            let ids = parsed.map_err(|_| Refusal::invalid("ids must be ids of notifications"))?;
            let read_at = running.app.store.read_notifications(whose, &ReadNow::These(ids), scopes).await?;
            Ok(Json(Marked::These { marked, read_at }))
        }
        ToMark { ids: None, all: true, before } => {
            let before = time(before.as_deref(), running.app.clock.now(), "invalid_before")?;
            running.app.store.read_notifications(whose, &ReadNow::Before(before), scopes).await?;
            Ok(Json(Marked::All { marked: "all", before }))
        }
        _ => Err(Refusal::invalid("either ids, or all with or without before")),
    }
}
