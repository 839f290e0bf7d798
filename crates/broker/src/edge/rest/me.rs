//! What concerns the key's member, over all that it is in. A key is of one mesh, and this broker has no accounts that join the members
//! of several: so it is that one mesh, and the member stands for its user.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::{
    DisplayName, MemberId, MemberRole, MeshId, MessageId, NotificationId, Slug, Timestamp, TopicId, TopicName,
    Visibility,
};
use claudemesh_store::{MAX_NOTIFICATIONS, NotificationPage};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::edge::rest::auth::Caller;
use crate::edge::rest::input::{Parameters, time};
use crate::edge::rest::refusal::{Keyed, Queried, Refusal, Refused};
use crate::edge::server::Running;

/// Characters of a plaintext that are shown.
const SNIPPET: usize = 240;
/// So long they are at most, of four bytes each.
const SNIPPET_BASE64: usize = SNIPPET * 4 / 3 * 4;
const DAY: Duration = Duration::from_hours(24);

/// The mesh, as every entry names it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct OfMesh {
    #[serde(rename = "meshId")]
    #[schema(value_type = String)]
    id: MeshId,
    #[serde(rename = "meshSlug")]
    #[schema(value_type = String)]
    slug: Slug,
    #[serde(rename = "meshName")]
    #[schema(value_type = String)]
    name: Slug,
}

pub(super) async fn mesh_of(running: &Running, caller: &Caller) -> Result<OfMesh, Refusal> {
    // Its key was valid a moment ago, and so was the mesh.
    let mesh = running.app.store.mesh(caller.mesh_id()).await?.ok_or_else(Refusal::key_invalid)?;
    Ok(OfMesh { id: mesh.id, name: mesh.slug.clone(), slug: mesh.slug })
}

/// The first characters of a plaintext; none for what only members can open.
pub(super) fn snippet(body_version: i64, ciphertext: &str) -> Option<String> {
    // What comes after these cannot be among the first characters.
    let start = ciphertext.get(..SNIPPET_BASE64).unwrap_or(ciphertext);
    let text = (body_version == 1).then(|| claudemesh_proto::text::from_base64(start))??;
    Some(String::from_utf8_lossy(&text).chars().take(SNIPPET).collect())
}

/// What the member is in.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Workspace {
    /// The member: this broker has no accounts.
    #[schema(value_type = String)]
    user_id: MemberId,
    meshes: Vec<WorkspaceMesh>,
    totals: WorkspaceTotals,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WorkspaceMesh {
    #[schema(value_type = String)]
    mesh_id: MeshId,
    #[schema(value_type = String)]
    slug: Slug,
    #[schema(value_type = String)]
    name: Slug,
    #[schema(value_type = String)]
    member_id: MemberId,
    /// `admin` or `member`.
    #[schema(value_type = String)]
    my_role: MemberRole,
    #[schema(value_type = String, format = DateTime)]
    joined_at: Timestamp,
    /// How many belong to it.
    peers: usize,
    /// How many of them are here, but for those who hide.
    online: usize,
    /// How many topics the member is in.
    topics: usize,
    /// Of the last seven days, 100 at most.
    unread_mentions: usize,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WorkspaceTotals {
    meshes: usize,
    peers: usize,
    online: usize,
    topics: usize,
    unread_mentions: usize,
}

/// What the member is in.
#[utoipa::path(
    get,
    path = "/me/workspace",
    tag = "me",
    responses((status = 200, description = "Its mesh", body = Workspace), Keyed)
)]
pub(crate) async fn workspace(State(running): State<Arc<Running>>, caller: Caller) -> Result<Json<Workspace>, Refusal> {
    caller.may(&[Capability::Read])?;
    let (app, of) = (&running.app, mesh_of(&running, &caller).await?);
    let members = app.store.members(caller.mesh_id()).await?;
    let own = members.iter().find(|member| member.id == *caller.member_id()).ok_or_else(Refusal::key_invalid)?;
    let is_online = |id: &MemberId| app.hub.is_member_online(caller.mesh_id(), id, id == caller.member_id());
    let online = members.iter().filter(|member| is_online(&member.id)).count();
    let topics = app.store.own_topics(caller.mesh_id(), caller.member_id()).await?;
    let topics = topics.iter().filter(|topic| caller.sees(&topic.name)).count();
    let page = NotificationPage { since: app.clock.now().minus(7 * DAY), unread_only: true, limit: MAX_NOTIFICATIONS };
    let unread = app.store.notifications(caller.whose(), page).await?;
    let unread_mentions = unread.iter().filter(|one| caller.sees(&one.topic)).count();
    let peers = members.len();
    Ok(Json(Workspace {
        user_id: caller.member_id().clone(),
        meshes: vec![WorkspaceMesh {
            mesh_id: of.id,
            slug: of.slug,
            name: of.name,
            member_id: own.id.clone(),
            my_role: own.role,
            joined_at: own.joined_at,
            peers,
            online,
            topics,
            unread_mentions,
        }],
        totals: WorkspaceTotals { meshes: 1, peers, online, topics, unread_mentions },
    }))
}

/// The topics that the member is in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnTopics {
    /// By name.
    topics: Vec<OwnTopic>,
    totals: OwnTopicTotals,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OwnTopic {
    #[schema(value_type = String)]
    topic_id: TopicId,
    #[schema(value_type = String)]
    name: TopicName,
    description: Option<String>,
    /// `public`, `private` or `dm`.
    #[schema(value_type = String)]
    visibility: Visibility,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[serde(flatten)]
    of: OfMesh,
    #[schema(value_type = String)]
    member_id: MemberId,
    /// How many of the last thousand messages others wrote since the member read it.
    unread: i64,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_message_at: Option<Timestamp>,
}

#[derive(Debug, Serialize, ToSchema)]
struct OwnTopicTotals {
    topics: usize,
    unread: i64,
}

/// The topics that the member is in.
#[utoipa::path(
    get,
    path = "/me/topics",
    tag = "me",
    responses((status = 200, description = "Those that the key is for", body = OwnTopics), Keyed)
)]
pub(crate) async fn topics(State(running): State<Arc<Running>>, caller: Caller) -> Result<Json<OwnTopics>, Refusal> {
    caller.may(&[Capability::Read])?;
    let (store, of) = (&running.app.store, mesh_of(&running, &caller).await?);
    let unread: BTreeMap<TopicId, i64> = store.unread(caller.mesh_id(), caller.member_id()).await?;
    let topics = store.own_topics(caller.mesh_id(), caller.member_id()).await?;
    let topics: Vec<OwnTopic> = topics
        .into_iter()
        .filter(|topic| caller.sees(&topic.name))
        .map(|topic| OwnTopic {
            unread: unread.get(&topic.id).copied().unwrap_or_default(),
            topic_id: topic.id,
            name: topic.name,
            description: topic.description,
            visibility: topic.visibility,
            created_at: topic.created_at,
            of: of.clone(),
            member_id: caller.member_id().clone(),
            last_message_at: topic.last_message_at,
        })
        .collect();
    let totals = OwnTopicTotals { topics: topics.len(), unread: topics.iter().map(|topic| topic.unread).sum() };
    Ok(Json(OwnTopics { topics, totals }))
}

/// Which notifications.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Included {
    /// `all` for the read ones, too.
    include: Option<String>,
    /// Not those from before this time (ISO-8601); seven days ago when absent.
    #[param(format = DateTime)]
    since: Option<String>,
}

/// What the member was notified of.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnNotifications {
    /// Newest first, 100 at most.
    notifications: Vec<OwnNotification>,
    totals: NotificationTotals,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OwnNotification {
    #[schema(value_type = String)]
    notification_id: NotificationId,
    #[schema(value_type = String)]
    message_id: MessageId,
    #[schema(value_type = String)]
    topic_id: TopicId,
    #[schema(value_type = String)]
    topic_name: TopicName,
    #[serde(flatten)]
    of: OfMesh,
    #[schema(value_type = String)]
    sender_name: DisplayName,
    /// The first 240 characters of a plaintext.
    snippet: Option<String>,
    /// Of version 2 alone.
    ciphertext: Option<String>,
    nonce: String,
    body_version: i64,
    read: bool,
    #[schema(value_type = Option<String>, format = DateTime)]
    read_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
struct NotificationTotals {
    unread: usize,
    total: usize,
}

/// What the member was notified of.
#[utoipa::path(
    get,
    path = "/me/notifications",
    tag = "me",
    params(Included),
    responses(
        (status = 200, description = "Those of topics that the key is for", body = OwnNotifications),
        (status = 400, description = "`invalid_since`: it is no time", body = Refused),
        Keyed,
        Queried
    )
)]
pub(crate) async fn notifications(
    State(running): State<Arc<Running>>,
    caller: Caller,
    asked: Result<Parameters<Included>, Refusal>,
) -> Result<Json<OwnNotifications>, Refusal> {
    caller.may(&[Capability::Read])?;
    let Parameters(asked) = asked?;
    let (app, of) = (&running.app, mesh_of(&running, &caller).await?);
    let since = time(asked.since.as_deref(), app.clock.now().minus(7 * DAY), "invalid_since")?;
    let unread_only = asked.include.as_deref() != Some("all");
    let page = NotificationPage { since, unread_only, limit: MAX_NOTIFICATIONS };
    let found = app.store.notifications(caller.whose(), page).await?;
    let notifications: Vec<OwnNotification> = found
        .into_iter()
        .filter(|one| caller.sees(&one.topic))
        .map(|one| OwnNotification {
            notification_id: one.id,
            message_id: one.message_id,
            topic_id: one.topic_id,
            topic_name: one.topic,
            of: of.clone(),
            sender_name: one.sender_name,
            snippet: one.ciphertext.as_deref().and_then(|text| snippet(one.body_version, text)),
            ciphertext: one.ciphertext.filter(|_| one.body_version == 2),
            nonce: one.nonce,
            body_version: one.body_version,
            read: one.read_at.is_some(),
            read_at: one.read_at,
            created_at: one.created_at,
        })
        .collect();
    let unread = notifications.iter().filter(|one| !one.read).count();
    let totals = NotificationTotals { unread, total: notifications.len() };
    Ok(Json(OwnNotifications { notifications, totals }))
}
