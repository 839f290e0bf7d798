//! The task of a connection. It has three inputs, and ends with the first that ends:
//!
//! - what the broker says: answers go to their waiter, pushes into their queue, pings are answered by the library;
//! - what callers want said, and a ping every 30 s; everything that is ready goes out in one write;
//! - silence: nothing heard for 75 s.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use claudemesh_proto::message::{Ack, Push};
use claudemesh_proto::{BrokerFrame, Peek};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_tungstenite::tungstenite::{self, Bytes, Message};

use super::Outgoing;
use super::ended::Ended;
use super::open::Socket;
use super::waiting::{Answer, Waiting};
use crate::error::Error;
use crate::notification::Mention;

pub(super) async fn run(
    socket: Socket,
    mut outgoing: mpsc::Receiver<Outgoing>,
    told: (mpsc::Sender<Box<Push>>, mpsc::Sender<Mention>),
    waiting: Arc<Waiting>,
) {
    let (sink, stream) = socket.split();
    let (heard, closing) = (Heard::now(), AtomicBool::new(false));
    let ended = tokio::select! {
        ended = read(stream, &told, &waiting, &heard) => ended,
        ended = write(sink, &mut outgoing, &closing) => ended,
        ended = heard.silence() => ended,
    };
    waiting.end(if closing.into_inner() { Ended::ByUs } else { ended });
}

/// A frame of the broker, read as far as this connection needs it.
pub(super) enum Incoming {
    Ack(Ack),
    Push(Box<Push>),
    Mention(Mention),
    Answer { request_id: Option<String>, answer: Answer },
}

impl Incoming {
    /// `None` for what is not meant for us: a newer broker may say more than we know.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (kind, request_id) = head(text)?;
        Some(match BrokerFrame::read(&kind, text)? {
            Ok(BrokerFrame::Ack(ack)) => Self::Ack(ack),
            // What happens in the mesh is told to whoever is connected; it is nobody's mail and wants no ack.
            Ok(BrokerFrame::Push(push)) if push.subtype.as_deref() == Some("system") => {
                Self::Mention(Mention::in_event(text)?)
            }
            Ok(BrokerFrame::Push(push)) => Self::Push(push),
            Ok(frame) => Self::Answer { request_id, answer: Ok(frame) },
            Err(bad) => {
                tracing::debug!(frame.kind = kind, field = bad.field, "a frame of the broker could not be read");
                Self::Answer { request_id, answer: Err(Error::protocol(format_args!("{kind}: {bad}"))) }
            }
        })
    }
}

/// The `type`, and the `_reqId` where there can be one. Acks and pushes are almost all there is, have none, and come with the
/// type in front: they are not looked through for it.
fn head(text: &str) -> Option<(String, Option<String>)> {
    let first = text.strip_prefix("{\"type\":\"").and_then(|rest| rest.split_once('"'));
    if let Some((kind @ ("ack" | "push"), _)) = first {
        return Some((kind.to_owned(), None));
    }
    let peek = Peek::at(text).ok()?;
    Some((peek.kind?, peek.request_id))
}

async fn read(
    mut stream: SplitStream<Socket>,
    (pushes, mentions): &(mpsc::Sender<Box<Push>>, mpsc::Sender<Mention>),
    waiting: &Waiting,
    heard: &Heard,
) -> Ended {
    let mut said_why = None;
    loop {
        let text = match stream.next().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Close(frame))) => {
                said_why = Some(Ended::by_broker(frame.as_ref()));
                continue;
            }
            Some(Ok(_)) => {
                heard.something();
                continue;
            }
            Some(Err(tungstenite::Error::ConnectionClosed)) | None => {
                return said_why.unwrap_or_else(|| Ended::Lost("closed without a goodbye".into()));
            }
            Some(Err(error)) => return said_why.unwrap_or_else(|| Ended::Lost(error.to_string())),
        };
        heard.something();
        match Incoming::read(&text) {
            Some(Incoming::Ack(ack)) => waiting.on_ack(ack),
            // Nobody may be interested in pushes, and that is fine: unacknowledged, they stay with the broker.
            Some(Incoming::Push(push)) => drop(pushes.send(push).await),
            // The broker keeps what nobody takes in time, for whoever asks for notifications.
            Some(Incoming::Mention(mention)) => drop(mentions.try_send(mention)),
            Some(Incoming::Answer { request_id: Some(id), answer }) => waiting.on_answer(&id, answer),
            Some(Incoming::Answer { answer: Ok(BrokerFrame::Error(refusal)), .. }) => {
                tracing::debug!(code = refusal.code.as_str(), "the broker refused something it did not name");
            }
            Some(Incoming::Answer { .. }) | None => {}
        }
    }
}

async fn write(
    mut sink: SplitSink<Socket, Message>,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    closing: &AtomicBool,
) -> Ended {
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            next = outgoing.recv() => next.unwrap_or(Outgoing::Close),
            _ = pings.tick() => Outgoing::Ping,
        };
        match write_ready(&mut sink, next, outgoing).await {
            Ok(Flow::Open) => {}
            Ok(Flow::Closed) => {
                closing.store(true, Ordering::Relaxed);
                // The broker's answer ends the reading half, and with it the connection.
                return std::future::pending().await;
            }
            Err(error) => return Ended::Lost(error.to_string()),
        }
    }
}

enum Flow {
    Open,
    Closed,
}

/// Writes `next` and whatever else is ready, then flushes once.
async fn write_ready(
    sink: &mut SplitSink<Socket, Message>,
    mut next: Outgoing,
    outgoing: &mut mpsc::Receiver<Outgoing>,
) -> Result<Flow, tungstenite::Error> {
    loop {
        match next {
            Outgoing::Frame(text) => sink.feed(Message::text(text)).await?,
            Outgoing::Ping => sink.feed(Message::Ping(Bytes::new())).await?,
            Outgoing::Close => {
                sink.send(Message::Close(None)).await?;
                return Ok(Flow::Closed);
            }
        }
        match outgoing.try_recv() {
            Ok(more) => next = more,
            Err(_) => return sink.flush().await.map(|()| Flow::Open),
        }
    }
}

/// When something was last heard, in milliseconds since `start`.
struct Heard {
    start: Instant,
    last: AtomicU64,
}

impl Heard {
    fn now() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    fn something(&self) {
        self.last.store(self.elapsed(), Ordering::Relaxed);
    }

    /// Comes back when nothing was heard for 75 s.
    async fn silence(&self) -> Ended {
        loop {
            let quiet = Duration::from_millis(self.elapsed().saturating_sub(self.last.load(Ordering::Relaxed)));
            match DEAD_AFTER.checked_sub(quiet).filter(|left| !left.is_zero()) {
                Some(left) => sleep(left).await,
                None => return Ended::Silent,
            }
        }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// How often we ask the broker for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(30);

/// How long it may give none. Two pings may get lost.
const DEAD_AFTER: Duration = Duration::from_secs(75);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_and_pushes_are_read_wherever_the_type_stands() {
        for text in [
            r#"{"type":"ack","id":"7","messageId":"m","queued":true}"#,
            r#"{"id":"7","messageId":"m","queued":true,"type":"ack"}"#,
        ] {
            let Some(Incoming::Ack(ack)) = Incoming::read(text) else { panic!("not an ack: {text}") };
            assert_eq!(ack.id, "7");
        }
    }

    #[test]
    fn an_answer_that_cannot_be_read_still_reaches_its_request() {
        let text = r#"{"type":"peers_list","peers":5,"_reqId":"3"}"#;
        let Some(Incoming::Answer { request_id, answer }) = Incoming::read(text) else { panic!("not an answer") };
        assert_eq!(request_id.as_deref(), Some("3"));
        assert!(matches!(answer, Err(Error::Protocol(why)) if why.starts_with("peers_list: peers ")));
    }

    #[test]
    fn what_a_frame_that_cannot_be_read_quotes_stays_one_line() {
        let text = r#"{"type":"message_status_result","messageId":"m\ntry: x","recipients":"\ntry: y","_reqId":"3"}"#;
        let Some(Incoming::Answer { answer: Err(error), .. }) = Incoming::read(text) else { panic!("it was read") };
        let why = error.to_string();
        assert!(!why.contains('\n') && why.contains("try: y"), "{why}");
    }

    #[test]
    fn what_we_do_not_know_is_passed_over() {
        let event = r#"{"type":"push","messageId":"3f2b-4c","meshId":"m","senderPubkey":"system","priority":"low","nonce":"",
            "ciphertext":"","createdAt":"2026-01-02T03:04:05.678Z","subtype":"system","event":"peer_left","eventData":{}}"#;
        for text in ["", "[]", "{}", r#"{"type":"later"}"#, r#"{"type":7}"#, event] {
            assert!(Incoming::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn of_the_events_a_mention_is_told() {
        let event = |data: &str| {
            let head = r#"{"type":"push","messageId":"3f2b-4c","meshId":"m","senderPubkey":"system","priority":"low","nonce":"",
                "ciphertext":"","createdAt":"2026-01-02T03:04:05.678Z","subtype":"system","event":"notification","eventData":"#;
            Incoming::read(&format!("{head}{data}}}"))
        };
        let data = r#"{"notificationId":"n","messageId":"m1","topicId":"t","topicName":"deploys","senderName":"Anna","kind":"mention"}"#;
        let Some(Incoming::Mention(mention)) = event(data) else { panic!("not a mention") };
        assert_eq!((mention.topic_name.as_str(), mention.sender_name.as_str()), ("deploys", "Anna"));
        assert!(event("{}").is_none() && event("7").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_last_thing_heard() {
        let heard = Heard::now();
        let started = Instant::now();
        sleep(Duration::from_mins(1)).await;
        heard.something();
        assert_eq!(heard.silence().await, Ended::Silent);
        assert_eq!(started.elapsed(), Duration::from_secs(135));
    }
}
