//! A topic as it is written: server-sent events, read one after the other.
//!
//! A thread reads, because what comes is waited for without end. It ends when the stream does, when nothing came for a while, not
//! even a sign of life, or with the next event after the [`TopicStream`] was dropped.

use std::io::{BufRead, BufReader, Read};
use std::thread;
use std::time::Duration;

use claudemesh_proto::text::one_line;
use claudemesh_proto::topic::TopicMessage;
use claudemesh_proto::{MessageId, TopicName};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use crate::api_key::Bearer;
use crate::error::{Error, Result};
use crate::http::StreamHead;
use crate::topic_key::route;

/// The open stream of a topic.
#[derive(Debug)]
pub struct TopicStream {
    events: mpsc::Receiver<Result<TopicEvent>>,
}

/// What a stream says.
#[derive(Debug)]
pub enum TopicEvent {
    /// It is open: whatever is written from now on comes.
    Ready,
    /// A message was written.
    Message(Box<TopicMessage>),
    /// Something went wrong at the broker, in its words; the stream goes on.
    Failed(String),
}

impl TopicStream {
    /// Opens the stream of a topic; with the last message that is known, what follows it comes first.
    ///
    /// # Errors
    /// [`Error::HttpRefused`] when there is no such topic, we are not in it, or the key is none any more; those of every request.
    pub async fn open(bearer: &Bearer, topic: &TopicName, after: Option<&MessageId>) -> Result<Self> {
        let (http, secret) = (bearer.http.clone(), bearer.secret.clone());
        let broker = http.broker.to_string();
        let (route, after) = (route(topic, "/stream"), after.cloned());
        let (opened, is_open) = oneshot::channel();
        let (queue, events) = mpsc::channel(EVENTS);
        thread::spawn(move || {
            let last_event_id = after.as_ref().map(MessageId::as_str);
            let head = StreamHead { route: &route, bearer: &secret, last_event_id };
            match http.open_stream(head, IDLE) {
                Ok(body) => {
                    // Whoever opens it may be gone by now; reading then ends with the first event.
                    let _ = opened.send(Ok(()));
                    read(BufReader::new(body.into_reader()), &queue, &broker);
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        });
        is_open.await.map_err(Error::protocol)??;
        Ok(Self { events })
    }

    /// The next event; `None` when the stream is over.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the connection broke or nothing came for a while.
    pub async fn next(&mut self) -> Result<Option<TopicEvent>> {
        self.events.recv().await.transpose()
    }
}

fn read(mut lines: impl BufRead, queue: &mpsc::Sender<Result<TopicEvent>>, broker: &str) {
    let mut block = Block::default();
    loop {
        let mut line = Vec::new();
        let outcome = match lines.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) if line.last() != Some(&b'\n') => Err(Error::protocol("a line of the stream has no end")),
            Ok(_) => Ok(block.take_in(&String::from_utf8_lossy(&line))),
            Err(error) => {
                let why = format!("the topic is not read any more: {error}");
                Err(Error::Unreachable { url: broker.to_owned(), why })
            }
        };
        let is_over = outcome.is_err();
        let event = outcome.transpose();
        // A heartbeat is not told, but whether anybody listens is to be known.
        if event.map_or(queue.is_closed(), |event| queue.blocking_send(event).is_err()) || is_over {
            return;
        }
    }
}

/// The lines of one event, until the empty one that ends it.
#[derive(Debug, Default)]
struct Block {
    event: String,
    data: Vec<String>,
}

impl Block {
    /// Takes in a line. The event that it ends, if it does and is one to tell of.
    fn take_in(&mut self, line: &str) -> Option<TopicEvent> {
        let line = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() {
            return std::mem::take(self).event();
        }
        // What begins with a colon, a comment, is a field without a name.
        let (field, value) = line.split_once(':')?;
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => self.data.push(value.to_owned()),
            _ => {}
        }
        None
    }

    fn event(self) -> Option<TopicEvent> {
        let data = self.data.join("\n");
        match self.event.as_str() {
            "ready" => Some(TopicEvent::Ready),
            "message" => Some(serde_json::from_str(&data).map_or_else(
                |error| TopicEvent::Failed(format!("a message could not be read: {}", one_line(&error.to_string()))),
                TopicEvent::Message,
            )),
            "error" => {
                let failure = serde_json::from_str::<Failure>(&data).map(|failure| failure.error);
                Some(TopicEvent::Failed(one_line(&failure.unwrap_or(data))))
            }
            // Signs of life, and what later brokers say.
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Failure {
    error: String,
}

/// A broker says every 30 s that it is alive.
const IDLE: Duration = Duration::from_secs(75);

/// Events that wait to be taken.
const EVENTS: usize = 64;

/// A message of 64 KiB with all that is beside it is a tenth of it.
const MAX_LINE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = r#"{"id":"m1","senderPubkey":"abababababababababababababababababababababababababababababababab","senderMemberId":"x","senderName":"Anna","nonce":"","ciphertext":"aGk=","bodyVersion":1,"replyToId":null,"createdAt":"2026-01-02T03:04:05.678Z","seq":7}"#;

    fn events(text: &str) -> Vec<String> {
        let (queue, mut events) = mpsc::channel(100);
        read(text.as_bytes(), &queue, "ws://h");
        let mut told = Vec::new();
        while let Ok(event) = events.try_recv() {
            told.push(match event {
                Ok(TopicEvent::Message(message)) => format!("{} {}", message.id, message.seq),
                Ok(other) => format!("{other:?}"),
                Err(error) => error.to_string(),
            });
        }
        told
    }

    #[test]
    fn events_are_told_in_their_order_and_signs_of_life_are_not() {
        let text = format!(
            ": hello\nevent: ready\ndata: {{}}\n\nevent: heartbeat\ndata: 1\n\nid: m1\nevent: message\ndata: {MESSAGE}\n\n\
             event:error\ndata: {{\"error\":\"store\\nbusy\"}}\n\nevent: later\ndata: x\n\n\n"
        );
        assert_eq!(events(&text), ["Ready", "m1 7", "Failed(\"storebusy\")"]);
    }

    #[test]
    fn data_of_several_lines_is_one_text() {
        let (head, tail) = MESSAGE.split_at(20);
        let text = format!("event: message\r\ndata: {head}\r\ndata: {tail}\r\n\r\n");
        assert!(events(&text)[0].starts_with("Failed"), "a line feed inside a text is not JSON");
        let text = format!("event: message\ndata: {{\ndata: {}\n\n", &MESSAGE[1..]);
        assert_eq!(events(&text), ["m1 7"]);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_does_not_end_the_stream() {
        let text = format!("event: message\ndata: nothing\n\nevent: message\ndata: {MESSAGE}\n\n");
        let told = events(&text);
        assert!(told.len() == 2 && told[0].starts_with("Failed(\"a message could not be read"), "{told:?}");
    }

    #[test]
    fn a_line_without_an_end_is_not_read_to_it() {
        let endless = "data: ".to_owned() + &"x".repeat(2 << 20);
        assert_eq!(events(&endless).len(), 1);
        assert!(events("event: mess").len() == 1);
    }
}
