//! Finding things again: topics by what they are called, messages by what they say. Of what only members can open nothing is found.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::text::from_base64;
use claudemesh_proto::{DisplayName, MessageId, Timestamp, TopicId, TopicName};
use claudemesh_store::{StoreError, WrittenMessage};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::edge::rest::auth::Caller;
use crate::edge::rest::input::Parameters;
use crate::edge::rest::me::{OfMesh, mesh_of, snippet};
use crate::edge::rest::refusal::{Keyed, Queried, Refusal};
use crate::edge::server::Running;

/// How old what is found may be.
const LOOK_BACK: Duration = Duration::from_hours(30 * 24);
/// Messages that are looked through.
const LOOKED_THROUGH: i64 = 2000;
const MOST: usize = 200;
const USUALLY: usize = 50;

/// What to look for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Sought {
    /// 2 to 128 characters.
    #[param(required = true, min_length = 2, max_length = 128)]
    q: Option<String>,
    /// At most so many messages; 50 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Found {
    query: String,
    topics: Vec<FoundTopic>,
    /// Plaintexts of the last 30 days that others wrote, newest first.
    messages: Vec<FoundMessage>,
    totals: FoundTotals,
}

#[derive(Debug, Serialize, ToSchema)]
struct FoundTopic {
    #[schema(value_type = String)]
    id: TopicId,
    #[schema(value_type = String)]
    name: TopicName,
    description: Option<String>,
    #[serde(flatten)]
    of: OfMesh,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FoundMessage {
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
    /// The first 240 characters.
    snippet: Option<String>,
    body_version: u8,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
struct FoundTotals {
    topics: usize,
    messages: usize,
}

/// Looks for a text in the topics that the member is in.
#[utoipa::path(
    get,
    path = "/me/search",
    tag = "me",
    params(Sought),
    responses((status = 200, description = "What was found", body = Found), Keyed, Queried)
)]
pub(crate) async fn search(
    State(running): State<Arc<Running>>,
    caller: Caller,
    sought: Result<Parameters<Sought>, Refusal>,
) -> Result<Json<Found>, Refusal> {
    caller.may(&[Capability::Read])?;
    let Parameters(sought) = sought?;
    let query = sought.q.unwrap_or_default();
    let words = query.trim().to_lowercase();
    if words.chars().count() < 2 || query.chars().count() > 128 {
        return Err(Refusal::invalid("q must be 2 to 128 characters"));
    }
    let limit = sought.limit.unwrap_or(USUALLY);
    if !(1..=MOST).contains(&limit) {
        return Err(Refusal::invalid("limit must be 1 to 200"));
    }
    caller.may_search(&running)?;
    let (app, of) = (&running.app, mesh_of(&running, &caller).await?);
    let has = |text: &str| text.to_lowercase().contains(&words);
    let topics = app.store.own_topics(caller.mesh_id(), caller.member_id()).await?;
    let topics: Vec<FoundTopic> = topics
        .into_iter()
        .filter(|topic| caller.sees(&topic.name))
        .filter(|topic| has(topic.name.as_str()) || topic.description.as_deref().is_some_and(has))
        .map(|topic| FoundTopic { id: topic.id, name: topic.name, description: topic.description, of: of.clone() })
        .collect();
    let oldest = app.clock.now().minus(LOOK_BACK);
    let mut written = app.store.recent_messages(caller.whose(), oldest, LOOKED_THROUGH).await?;
    written.retain(|one| caller.sees(&one.topic) && one.message.body_version == 1);
    // Megabytes are looked through while others are served.
    let looking = tokio::task::spawn_blocking(move || saying(written, &words, limit));
    let messages = looking.await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let messages: Vec<FoundMessage> = messages
        .into_iter()
        .map(|one| FoundMessage {
            snippet: snippet(1, &one.message.ciphertext),
            message_id: one.message.id,
            topic_id: one.topic_id,
            topic_name: one.topic,
            of: of.clone(),
            sender_name: one.message.sender_name,
            body_version: one.message.body_version,
            created_at: one.message.created_at,
        })
        .collect();
    let totals = FoundTotals { topics: topics.len(), messages: messages.len() };
    Ok(Json(Found { query, topics, messages, totals }))
}

/// Of plaintexts, the first that say these words, which are in lower case.
fn saying(written: Vec<WrittenMessage>, words: &str, limit: usize) -> Vec<WrittenMessage> {
    let says = |text: &[u8]| String::from_utf8_lossy(text).to_lowercase().contains(words);
    let found = written.into_iter().filter(|one| from_base64(&one.message.ciphertext).is_some_and(|text| says(&text)));
    found.take(limit).collect()
}
