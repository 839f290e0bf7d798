//! Reading a topic as it is written: server-sent events. A stream is told to look again and reads the store, as a connection does;
//! what many read at once is read from the store once.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response, Sse, sse::Event};
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::{TopicId, TopicName, TopicSought};
use claudemesh_store::{Access, Closed, StoreError};
use futures_util::stream;
use serde_json::json;
use tokio::time::Instant;

use crate::edge::rest::auth::Caller;
use crate::edge::rest::input::Named;
use crate::edge::rest::refusal::{Keyed, Refusal, Refused};
use crate::edge::rest::topic;
use crate::edge::server::{Over, Running};
use crate::hub::{Line, MAX_STREAMS, Stream};

/// How often it is asked whether the key and its member may still read.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How often something is said, so that a line that is dead is noticed.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long to wait before a store that could not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// Messages read at once.
const PAGE: i64 = 100;
/// Messages that are kept for the others who read along, and about how many bytes of them.
const RECENT: usize = 256;
const RECENT_BYTES: usize = 4 << 20;
/// About how much waits for one reader: whoever reads slowly has no more of it in memory.
const WAITING_BYTES: usize = 1 << 20;

/// Reads a topic as it is written. Events: `ready` once, `message` with the message's id, `heartbeat` every 30 s, `error` when the store
/// cannot answer. With `Last-Event-ID` it begins after that message, else with the next one. It ends when the key is revoked or its
/// member may no longer read; that a key expires ends no stream.
#[utoipa::path(
    get,
    path = "/topics/{name}/stream",
    tag = "topics",
    params(
        ("name" = String, Path, description = "The topic's name", example = "general"),
        ("Last-Event-ID" = Option<String>, Header, description = "Begin after this message")
    ),
    responses(
        (status = 200, description = "Events, until the line breaks", body = String, content_type = "text/event-stream"),
        (status = 404, description = "`topic_not_found`: there is none of this name that the member is in", body = Refused),
        Keyed
    )
)]
pub(crate) async fn stream(
    State(running): State<Arc<Running>>,
    Extension(Over(over)): Extension<Over>,
    caller: Caller,
    Named(name): Named,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let by_name = caller.topic(&name, &[Capability::Read])?;
    let access = caller.access().clone();
    let (app, whose) = (&running.app, (&access.mesh_id, &access.member_id));
    let topic = app.store.topic(whose, &by_name).await?.map_err(|closed| topic::shut(closed, &name))?;
    let who = (access.member_id.clone(), access.key_id.clone());
    // Before it is read how far the topic is, so that nothing falls in between.
    let stream = app.hub.streams.open((access.mesh_id.clone(), topic.id.clone()), who, over);
    let too_many = || Refusal::rate_limited(format!("max {MAX_STREAMS} streams of one member"));
    let stream = stream.ok_or_else(too_many)?;
    let topic = app.store.topic(whose, &by_name).await?.map_err(|closed| topic::shut(closed, &name))?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let resumed = match last {
        Some(id) => app.store.topic_message_seq(&access.mesh_id, &topic.id, id).await?,
        None => None,
    };
    let ready = json!({"topic": topic.name, "topicId": topic.id, "connectedAt": app.clock.now()});
    let now = Instant::now();
    let reading = Reading {
        seq: resumed.unwrap_or(topic.head_seq),
        topic_id: topic.id,
        name: topic.name,
        access,
        stream,
        lines: VecDeque::new(),
        events: VecDeque::from([Event::default().event("ready").data(ready.to_string())]),
        look: true,
        has_failed: false,
        ask_at: now + ASK_AGAIN,
        heartbeat_at: now + HEARTBEAT,
        running,
    };
    let events = stream::unfold(reading, |mut reading| async move {
        let event = reading.next().await?;
        Some((Ok::<_, Infallible>(event), reading))
    });
    Ok(Sse::new(events).into_response())
}

/// One stream under way.
struct Reading {
    running: Arc<Running>,
    access: Access,
    topic_id: TopicId,
    name: TopicName,
    stream: Stream,
    /// The number of the last message that was told.
    seq: i64,
    /// Messages that wait to be told.
    lines: VecDeque<Arc<Line>>,
    /// What else waits to be said; it goes first.
    events: VecDeque<Event>,
    /// There may be something new.
    look: bool,
    has_failed: bool,
    ask_at: Instant,
    heartbeat_at: Instant,
}

impl Reading {
    /// The next event; none when the stream is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.stream.over.is_cancelled() {
                return None;
            }
            // However much there is to tell, and however slowly it is read.
            if Instant::now() >= self.wake_at() {
                self.on_time().await?;
            }
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if let Some(line) = self.lines.pop_front() {
                return Some(Event::default().event("message").id(&line.id).data(&line.text));
            }
            if self.look {
                self.look = false;
                if self.read_on().await? {
                    continue;
                }
            }
            let wake_at = self.wake_at();
            tokio::select! {
                () = self.stream.over.cancelled() => return None,
                () = self.running.stop.cancelled() => return None,
                _ = self.stream.rung.changed() => self.look = true,
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    fn wake_at(&self) -> Instant {
        self.ask_at.min(self.heartbeat_at)
    }

    /// Asks whether all is still allowed, and says that the line is alive.
    async fn on_time(&mut self) -> Option<()> {
        let now = Instant::now();
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + HEARTBEAT;
            let millis = self.running.app.clock.now().as_millis().to_string();
            self.events.push_back(Event::default().event("heartbeat").data(millis));
        }
        if now >= self.ask_at {
            self.ask_at = now + ASK_AGAIN;
            match self.may_read().await {
                Ok(true) => self.look = true,
                Ok(false) => return None,
                // Nobody is let in or sent away while the store is away.
                Err(error) => self.fail(&error),
            }
        }
        Some(())
    }

    /// R9: the key, its member, the mesh and the topic, all as they are now.
    async fn may_read(&self) -> Result<bool, StoreError> {
        let (app, access) = (&self.running.app, &self.access);
        let Some(now) = app.store.api_key_access(&access.mesh_id, &access.key_id).await? else { return Ok(false) };
        let may = now.may(&[Capability::Read]);
        let sees = now.topic_scopes.is_none_or(|scopes| scopes.contains(&self.name));
        let whose = (&access.mesh_id, &access.member_id);
        let topic = app.store.topic(whose, &TopicSought::by_id(self.topic_id.clone())).await?;
        Ok(may && sees && topic.is_ok())
    }

    /// Takes what is new; whether there was something. None when the topic is closed to the member.
    async fn read_on(&mut self) -> Option<bool> {
        match self.new_messages().await {
            Ok(Ok(lines)) => {
                self.has_failed = false;
                if let Some(last) = lines.last() {
                    self.seq = last.seq;
                    self.look = true;
                }
                let is_something = !lines.is_empty();
                self.lines.extend(lines);
                Some(is_something)
            }
            Ok(Err(Closed::NotFound | Closed::NotIn)) => None,
            Err(error) => {
                self.fail(&error);
                tokio::time::sleep(RETRY).await;
                self.look = true;
                Some(!self.events.is_empty())
            }
        }
    }

    /// Says once that the store cannot answer.
    fn fail(&mut self, error: &StoreError) {
        if !std::mem::replace(&mut self.has_failed, true) {
            tracing::error!(error = %error, "a stream could not be read from the store");
            let data = json!({"error": crate::fault::UNAVAILABLE}).to_string();
            self.events.push_back(Event::default().event("error").data(data));
        }
    }

    /// What comes after the last message that was told, in order; from the store once for all who read along.
    async fn new_messages(&self) -> Result<Result<Vec<Arc<Line>>, Closed>, StoreError> {
        let mut recent = self.stream.recent.lock().await;
        let is_before = recent.first().is_some_and(|first| self.seq + 1 < first.seq);
        let place = recent.partition_point(|line| line.seq <= self.seq);
        if !is_before && place < recent.len() {
            return Ok(Ok(some(recent.iter().skip(place))));
        }
        let whose = (&self.access.mesh_id, &self.access.member_id);
        let sought = TopicSought::by_id(self.topic_id.clone());
        let found = self.running.app.store.topic_messages_after(whose, &sought, (self.seq, PAGE)).await?;
        let messages = match found {
            Ok((_, messages)) => messages,
            Err(closed) => return Ok(Err(closed)),
        };
        let shown = topic::shown(&self.running.app.store, &self.access.mesh_id, messages).await?;
        let lines: Vec<_> = shown.iter().map(|message| Arc::new(line(message))).collect();
        if !is_before {
            let is_gap = recent.last().zip(lines.first()).is_some_and(|(last, first)| last.seq + 1 != first.seq);
            if is_gap {
                recent.clear();
            }
            recent.extend(lines.iter().cloned());
            let kept = recent.iter().rev().take(RECENT).scan(0, |bytes, line| {
                *bytes += line.text.len();
                (*bytes <= RECENT_BYTES).then_some(())
            });
            let too_many = recent.len() - kept.count();
            recent.drain(..too_many);
        }
        Ok(Ok(lines))
    }
}

/// As many as may wait for one reader, and one at least.
fn some<'a>(lines: impl Iterator<Item = &'a Arc<Line>>) -> Vec<Arc<Line>> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for line in lines {
        bytes += line.text.len();
        if !taken.is_empty() && bytes > WAITING_BYTES {
            break;
        }
        taken.push(Arc::clone(line));
    }
    taken
}

fn line(message: &topic::Message) -> Line {
    // Text keys and plain values always serialise.
    let text = serde_json::to_string(message).unwrap_or_default();
    Line { id: message.id.to_string(), seq: message.seq, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_waits_for_one_reader_and_one_message_at_least() {
        let line = |seq, size| Arc::new(Line { id: String::new(), seq, text: "x".repeat(size) });
        let small: Vec<_> = (1..=100).map(|seq| line(seq, 100 << 10)).collect();
        assert_eq!(some(small.iter()).last().map(|line| line.seq), Some(10));
        let large = [line(1, WAITING_BYTES + 1), line(2, 1)];
        assert_eq!(some(large.iter()).len(), 1);
    }
}
