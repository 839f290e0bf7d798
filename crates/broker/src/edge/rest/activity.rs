//! What others wrote in the topics that the member is in.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::{DisplayName, MemberId, MessageId, Timestamp, TopicId, TopicName};
use claudemesh_store::WrittenMessage;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::edge::rest::auth::Caller;
use crate::edge::rest::input::{Parameters, time};
use crate::edge::rest::me::{OfMesh, mesh_of, snippet};
use crate::edge::rest::refusal::{Keyed, Queried, Refusal, Refused};
use crate::edge::server::Running;

/// Most events of one answer.
const EVENTS: i64 = 200;
/// From when on, unless something else is asked for.
const LOOK_BACK: Duration = Duration::from_hours(24);

/// When something was asked from.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Since {
    /// Not what is from before this time (ISO-8601).
    #[param(format = DateTime)]
    since: Option<String>,
}

/// What happened in the topics that the member is in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Activity {
    /// Newest first, 200 at most.
    activity: Vec<Happened>,
    totals: ActivityTotals,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Happened {
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
    #[schema(value_type = String)]
    sender_member_id: MemberId,
    /// The first 240 characters of a plaintext.
    snippet: Option<String>,
    /// Of version 2 alone.
    ciphertext: Option<String>,
    nonce: String,
    body_version: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
struct ActivityTotals {
    events: usize,
}

fn happened(of: &OfMesh, written: WrittenMessage) -> Happened {
    let (message, version) = (written.message.clone(), i64::from(written.message.body_version));
    Happened {
        message_id: message.id,
        topic_id: written.topic_id,
        topic_name: written.topic,
        of: of.clone(),
        sender_name: message.sender_name,
        sender_member_id: message.sender_member_id,
        snippet: snippet(version, &message.ciphertext),
        ciphertext: (version == 2).then_some(message.ciphertext),
        nonce: message.nonce,
        body_version: version,
        created_at: message.created_at,
    }
}

/// What others wrote in the topics that the member is in.
#[utoipa::path(
    get,
    path = "/me/activity",
    tag = "me",
    params(Since),
    responses(
        (status = 200, description = "Of the last 24 hours, unless something else is asked for", body = Activity),
        (status = 400, description = "`invalid_since`: it is no time", body = Refused),
        Keyed,
        Queried
    )
)]
pub(crate) async fn activity(
    State(running): State<Arc<Running>>,
    caller: Caller,
    asked: Result<Parameters<Since>, Refusal>,
) -> Result<Json<Activity>, Refusal> {
    caller.may(&[Capability::Read])?;
    let Parameters(asked) = asked?;
    let (app, of) = (&running.app, mesh_of(&running, &caller).await?);
    let since = time(asked.since.as_deref(), app.clock.now().minus(LOOK_BACK), "invalid_since")?;
    caller.may_search(&running)?;
    let written = app.store.recent_messages(caller.whose(), since, EVENTS).await?;
    let seen = written.into_iter().filter(|written| caller.sees(&written.topic));
    let activity: Vec<Happened> = seen.map(|written| happened(&of, written)).collect();
    let totals = ActivityTotals { events: activity.len() };
    Ok(Json(Activity { activity, totals }))
}
