//! A connection that is opened again when it is lost.

use std::time::Duration;

use claudemesh_keys::random_bytes;
use claudemesh_proto::MessageId;
use claudemesh_proto::hello::Place;
use claudemesh_proto::message::{Ack, Send};
use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::broker_url::BrokerUrl;
use crate::config::Membership;
use crate::connection::{Connection, Pushes};
use crate::error::{Error, Result};
use crate::handshake::Handshake;
use crate::message::is_permanent;
use crate::place::here;

/// Everything that is needed to connect, any number of times.
#[derive(Debug, Clone)]
pub struct Dial {
    /// Where.
    pub url: BrokerUrl,
    /// As whom.
    pub handshake: Handshake,
    /// What to say about ourselves. Its session id lets a new connection take up where a lost one was.
    pub place: Place,
}

/// A connection for asking and sending. Mail that arrives on it is not looked at, so its place should announce
/// [`claudemesh_proto::hello::QUIET`].
#[derive(Debug)]
pub struct Line {
    dial: Dial,
    connection: Connection,
    /// An ack did not come on the connection: it may be dead without knowing it yet, and is not used again.
    is_stuck: bool,
}

impl Dial {
    /// As a member of this mesh; `capability` is [`crate::MAIL`] or [`claudemesh_proto::hello::QUIET`].
    pub fn member(mesh: &Membership, capability: &str) -> Result<Self> {
        let handshake = Handshake::Member {
            mesh: mesh.mesh_id.clone(),
            member: mesh.member_id.clone(),
            identity: mesh.identity.clone(),
        };
        Ok(Self { url: mesh.broker_url.clone(), handshake, place: here(capability)? })
    }

    /// Connects once.
    pub async fn open(&self) -> Result<(Connection, Pushes)> {
        Connection::open(&self.url, &self.handshake, self.place.clone()).await
    }

    /// Connects, and tries again after a while for as long as that may help; `notice` hears of each failure and the wait.
    ///
    /// # Errors
    /// What will not get better by itself, such as a refused key.
    pub async fn open_patiently(&self, notice: impl Fn(&Error, Duration)) -> Result<(Connection, Pushes)> {
        let mut backoff = Backoff::default();
        loop {
            match self.open().await {
                Err(error) if error.is_transient() => {
                    let wait = backoff.next(u64::from_le_bytes(random_bytes()?));
                    notice(&error, wait);
                    sleep(wait).await;
                }
                outcome => return outcome,
            }
        }
    }
}

impl Line {
    /// Connects.
    pub async fn open(dial: Dial) -> Result<Self> {
        // Without a receiver pushes are passed over, and cannot hold up the answers behind them.
        let (connection, _) = dial.open().await?;
        Ok(Self { dial, connection, is_stuck: false })
    }

    /// The connection of the moment.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Our own name for this connection, by which it is found in [`Connection::peers`].
    pub fn session_id(&self) -> &str {
        &self.dial.place.session_id
    }

    /// Sends a message and waits until it is accepted; tries up to 5 times, always under the same id, when the connection is
    /// lost, the ack does not come, or the refusal may pass.
    ///
    /// # Errors
    /// [`Error::NotAccepted`] with the broker's words, or why there is no connection or no ack. When one was lost, the refusals for
    /// the moment that follow are not reported: it may have been accepted.
    pub async fn send(&mut self, send: &Send) -> Result<MessageId> {
        let mut backoff = Backoff::default();
        let mut attempts_left = ATTEMPTS;
        let mut in_doubt = None;
        loop {
            attempts_left -= 1;
            let failure = match self.attempt(send).await {
                Ok(id) => return Ok(id),
                Err(error) => error,
            };
            let may_pass = match &failure {
                Error::NotAccepted(words) => !is_permanent(words),
                other => other.is_transient(),
            };
            if !may_pass || attempts_left == 0 {
                return Err(told(in_doubt, failure));
            }
            // An ack was lost: the message may have been accepted, whatever the next attempts are told.
            if matches!(failure, Error::Ended(_) | Error::TimedOut { .. }) {
                in_doubt = Some(failure);
            }
            sleep(backoff.next(u64::from_le_bytes(random_bytes()?))).await;
        }
    }

    /// Says goodbye, see [`Connection::close`].
    pub async fn close(&self) {
        self.connection.close().await;
    }

    async fn attempt(&mut self, send: &Send) -> Result<MessageId> {
        if self.is_stuck || self.connection.ended().is_some() {
            (self.connection, _) = self.dial.open().await?;
            self.is_stuck = false;
        }
        let outcome = self.connection.send(send.clone()).await;
        self.is_stuck = matches!(outcome, Err(Error::TimedOut { .. }));
        accepted(&outcome?)
    }
}

/// The id that the broker gave the message.
fn accepted(ack: &Ack) -> Result<MessageId> {
    match (&ack.error, ack.queued) {
        (None, true) => ack.message_id.parse().map_err(|why| Error::Protocol(format!("ack: messageId {why}"))),
        (Some(words), _) => Err(Error::NotAccepted(claudemesh_proto::text::one_line(words))),
        (None, false) => Err(Error::NotAccepted("no reason given".into())),
    }
}

/// Which failure to report: after a lost ack, a refusal for the moment does not mean that nothing was accepted.
fn told(in_doubt: Option<Error>, failure: Error) -> Error {
    match &failure {
        Error::NotAccepted(words) if is_permanent(words) => failure,
        _ => in_doubt.unwrap_or(failure),
    }
}

const ATTEMPTS: u32 = 5;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hostile::{Hostile, WELCOME};

    #[test]
    fn a_refusal_for_the_moment_after_a_lost_ack_does_not_say_that_nothing_was_sent() {
        let refused = |words: &str| Error::NotAccepted(words.into());
        let lost = || Some(Error::TimedOut { what: "ack", seconds: 10 });
        assert!(matches!(told(lost(), refused("rate_limit: slow down")), Error::TimedOut { .. }));
        assert!(told(None, refused("rate_limit: slow down")).is_rate_limit());
        assert!(matches!(told(lost(), refused("forbidden")), Error::NotAccepted(_)));
    }

    /// Lets every connection in but the second, and names the connection in its acks. It never ends one.
    async fn broker() -> Hostile {
        Hostile::web_socket(|number, asked| {
            let ack = json!({"type": "ack", "id": asked["id"], "messageId": format!("by-{number}"), "queued": true});
            let frame = if asked["type"] == "hello" { WELCOME.to_owned() } else { ack.to_string() };
            (number != 1).then(|| vec![frame])
        })
        .await
    }

    #[tokio::test]
    async fn a_stuck_connection_is_not_used_again_also_when_opening_another_fails() {
        let broker = broker().await;
        let mut line = Line::open(broker.dial()).await.unwrap();
        let send = Send { target_spec: "x".into(), ..Send::default() };
        assert_eq!(line.attempt(&send).await.unwrap().as_str(), "by-0");
        line.is_stuck = true;
        assert!(line.attempt(&send).await.is_err());
        assert_eq!(line.attempt(&send).await.unwrap().as_str(), "by-2");
        assert!(!line.is_stuck);
    }
}
