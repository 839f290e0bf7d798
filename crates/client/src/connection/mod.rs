//! One open connection to a broker: requests and their answers, messages and their acks, pushes.
//!
//! - [`Connection::open`] connects, proves who we are and waits for `hello_ack`.
//! - One task per connection then reads and writes; it ends with the connection. See [`run`].
//! - Callers wait on their own answer only: many may be under way at once.
//!
//! Dropping a [`Connection`] breaks it like a crash would; [`Connection::close`] says goodbye, so that the broker ends the
//! presence at once and has processed everything said before.

mod ended;
mod open;
mod run;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use claudemesh_proto::hello::HelloAck;
use claudemesh_proto::message::{Ack, ClientAck, Push, Send};
use claudemesh_proto::presence::SetProfile;
use claudemesh_proto::{Addressed, BrokerFrame, ClientFrame};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::notification::Mention;

pub use ended::Ended;
use waiting::Waiting;

/// An open connection. It is a handle: share it behind an `Arc` to use it from several tasks.
#[derive(Debug)]
pub struct Connection {
    queue: mpsc::Sender<Outgoing>,
    waiting: Arc<Waiting>,
    welcome: Box<HelloAck>,
    round_trip: Duration,
    /// Owns the one task of the connection: dropping this ends it.
    _task: JoinSet<()>,
}

/// The messages that are handed over, in order, and beside them who mentions us.
#[derive(Debug)]
pub struct Pushes {
    queue: mpsc::Receiver<Box<Push>>,
    mentions: mpsc::Receiver<Mention>,
    waiting: Arc<Waiting>,
}

/// What [`Pushes::next_of_all`] brings.
#[derive(Debug)]
pub enum Handed {
    /// Messages; none when the connection is over.
    Pushes(Vec<Box<Push>>),
    /// Somebody mentions us. It is told only to a connection that announced
    /// [`TOPICS`](claudemesh_proto::hello::TOPICS).
    Mention(Mention),
}

/// A message that is on its way to the broker.
#[derive(Debug)]
#[must_use = "the message counts only once its ack is here"]
pub struct Submitted {
    ack: oneshot::Receiver<Ack>,
    waiting: Arc<Waiting>,
}

/// What the writing half is told.
#[derive(Debug)]
enum Outgoing {
    Frame(String),
    Ping,
    Close,
}

impl Connection {
    /// What the broker said when it let us in.
    pub fn welcome(&self) -> &HelloAck {
        &self.welcome
    }

    /// How long the handshake took, an upper bound of the way there and back.
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Why the connection is over; `None` while it is open.
    pub fn ended(&self) -> Option<Ended> {
        self.waiting.ended()
    }

    /// Queues a message and returns before its ack: submit many, then collect the acks. Its `id` is ours to choose and is
    /// overwritten.
    ///
    /// # Errors
    /// [`Error::Ended`] when the connection is over.
    pub async fn submit(&self, mut send: Send) -> Result<Submitted> {
        let (id, ack) = self.waiting.ack()?;
        send.id = Some(id.to_string());
        let frame = ClientFrame::Send(Box::new(send));
        self.say(Addressed { frame, request_id: None }.to_json()).await?;
        Ok(Submitted { ack, waiting: Arc::clone(&self.waiting) })
    }

    /// Sends a message and waits for its ack, whatever that says.
    ///
    /// # Errors
    /// [`Error::TimedOut`] after 10 s, [`Error::Ended`] when the connection is over.
    pub async fn send(&self, send: Send) -> Result<Ack> {
        self.submit(send).await?.ack().await
    }

    /// Says that a push is safely kept. Nothing answers this; a push whose ack is lost is handed over again.
    ///
    /// # Errors
    /// [`Error::Ended`] when the connection is over.
    pub async fn ack(&self, push: &Push) -> Result<()> {
        let frame = ClientFrame::ClientAck(ClientAck {
            client_message_id: push.client_message_id.clone(),
            broker_message_id: Some(push.message_id.to_string()),
        });
        self.say(Addressed { frame, request_id: None }.to_json()).await
    }

    /// Asks something and waits for the answer that carries the same `_reqId`.
    ///
    /// # Errors
    /// [`Error::Refused`] when the answer is an `error` frame, [`Error::TimedOut`] after 10 s, [`Error::Ended`] when the
    /// connection is over.
    pub async fn request(&self, frame: ClientFrame) -> Result<BrokerFrame> {
        let (id, answer) = self.waiting.answer()?;
        self.say(Addressed { frame, request_id: Some(id.to_string()) }.to_json()).await?;
        read(self.within("answer", answer).await??)
    }

    /// The same for what takes longer than 10 s.
    pub(crate) async fn request_within(&self, frame: ClientFrame, limit: Duration) -> Result<BrokerFrame> {
        let (id, answer) = self.waiting.answer()?;
        self.say(Addressed { frame, request_id: Some(id.to_string()) }.to_json()).await?;
        read(self.waiting.within_time("answer", answer, limit).await??)
    }

    /// Says something that has no answer unless it is refused, and waits until the broker has taken it in.
    ///
    /// # Errors
    /// [`Error::Refused`] when it was, [`Error::TimedOut`] after 10 s, [`Error::Ended`] when the connection is over.
    pub async fn tell(&self, frame: ClientFrame) -> Result<()> {
        let (id, mut answer) = self.waiting.answer()?;
        self.say(Addressed { frame, request_id: Some(id.to_string()) }.to_json()).await?;
        // The broker answers in order, and acknowledges a profile that changes nothing.
        let (id, ack) = self.waiting.ack()?;
        let fence = ClientFrame::SetProfile(SetProfile::default());
        self.say(Addressed { frame: fence, request_id: Some(id.to_string()) }.to_json()).await?;
        let told = self.within("ack", ack).await;
        let refusal = answer.try_recv();
        drop(answer);
        self.waiting.forget_abandoned();
        match refusal {
            Ok(Ok(BrokerFrame::Error(refusal))) => Err(Error::refused(&refusal)),
            _ => told.map(drop),
        }
    }

    /// Sends a Close frame behind everything said so far and waits, for at most 5 s, until the broker has answered it: by
    /// then it has processed everything before.
    pub async fn close(&self) {
        let closing = async {
            if self.queue.send(Outgoing::Close).await.is_ok() {
                self.queue.closed().await;
            }
        };
        // A broker that does not read or answer in time is left alone; there is nothing more to do for it.
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }

    async fn say(&self, text: String) -> Result<()> {
        let said = self.queue.send(Outgoing::Frame(text)).await;
        said.map_err(|_| self.waiting.over())
    }

    async fn within<T>(&self, what: &'static str, answer: oneshot::Receiver<T>) -> Result<T> {
        self.waiting.within(what, answer).await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The task is ended from outside and can tell nobody: those who still wait are told here.
        self.waiting.end(Ended::ByUs);
    }
}

impl Submitted {
    /// Waits for the ack, whatever it says.
    ///
    /// # Errors
    /// [`Error::TimedOut`] after 10 s, [`Error::Ended`] when the connection is over: the message may or may not have been
    /// accepted, and the same `client_message_id` may be sent again.
    pub async fn ack(self) -> Result<Ack> {
        self.waiting.within("ack", self.ack).await
    }
}

impl Pushes {
    /// The next push; `None` when the connection is over, see [`Pushes::ended`].
    pub async fn next(&mut self) -> Option<Box<Push>> {
        self.queue.recv().await
    }

    /// Waits for a push and takes with it those that are here already, `limit` at most. Empty when the connection is over.
    pub async fn next_many(&mut self, limit: usize) -> Vec<Box<Push>> {
        let mut pushes = Vec::new();
        self.queue.recv_many(&mut pushes, limit).await;
        pushes
    }

    /// Waits for messages as [`Pushes::next_many`] does, or for a mention.
    pub async fn next_of_all(&mut self, limit: usize) -> Handed {
        let mut pushes = Vec::new();
        tokio::select! {
            Some(mention) = self.mentions.recv() => Handed::Mention(mention),
            _ = self.queue.recv_many(&mut pushes, limit) => Handed::Pushes(pushes),
        }
    }

    /// Why the connection is over; `None` while it is open.
    pub fn ended(&self) -> Option<Ended> {
        self.waiting.ended()
    }
}

/// An answer, unless it is a refusal.
fn read(answer: BrokerFrame) -> Result<BrokerFrame> {
    match answer {
        BrokerFrame::Error(refusal) => Err(Error::refused(&refusal)),
        frame => Ok(frame),
    }
}

const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Frames that may wait to be written. A caller that is faster waits for room.
const OUTGOING: usize = 1024;

/// Pushes that may wait to be taken. It is more than the 256 that a broker hands over before it wants acks, so that only a
/// caller who takes none at all makes the reading half wait.
const PUSHES: usize = 512;

/// Mentions that may wait to be taken.
const MENTIONS: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::hostile::{Hostile, WELCOME};

    #[tokio::test]
    async fn a_refusal_of_a_request_stays_one_line() {
        let broker = Hostile::web_socket(|_, asked| {
            let refusal =
                json!({"type": "error", "code": "forbidden", "message": "no\ntry: x", "_reqId": asked["_reqId"]});
            Some(vec![if asked["type"] == "hello" { WELCOME.to_owned() } else { refusal.to_string() }])
        })
        .await;
        let (connection, _) = broker.dial().open().await.unwrap();
        assert_eq!(connection.peers().await.unwrap_err().to_string(), "the broker refused: notry: x (forbidden)");
    }
}
