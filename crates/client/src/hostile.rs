//! For tests: a broker that says what the test wants, which no honest one would.

use std::sync::Arc;

use claudemesh_keys::Identity;
use claudemesh_proto::hello::Place;
use claudemesh_proto::{MemberId, MeshId};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use crate::broker_url::BrokerUrl;
use crate::handshake::Handshake;
use crate::line::Dial;

/// The frame that lets a client in.
pub(crate) const WELCOME: &str = r#"{"type":"hello_ack","presenceId":"p1","memberDisplayName":"Anna"}"#;

/// Listens until it is dropped.
pub(crate) struct Hostile {
    pub(crate) url: BrokerUrl,
    _task: JoinSet<()>,
}

impl Hostile {
    /// Answers every HTTP request with this.
    pub(crate) async fn http(status: u16, body: impl Into<String>) -> Self {
        let body = body.into();
        Self::http_by(move |_| (status, body.clone())).await
    }

    /// Answers each HTTP request with the status and body that `reply` makes of it, head and body.
    pub(crate) async fn http_by(reply: impl Fn(&str) -> (u16, String) + Clone + Send + 'static) -> Self {
        Self::serve(move |_, mut stream| {
            let reply = reply.clone();
            async move {
                let request = read_request(&mut stream).await;
                let (status, body) = reply(&request);
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n\
                     content-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        })
        .await
    }

    /// Takes every WebSocket and answers each frame with what `reply` makes of it and of the connection's number; on `None` it
    /// hangs up.
    pub(crate) async fn web_socket(
        reply: impl Fn(usize, &Value) -> Option<Vec<String>> + Clone + Send + 'static,
    ) -> Self {
        Self::serve(move |number, stream| {
            let reply = reply.clone();
            async move {
                let mut socket = accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    let Message::Text(text) = message else { continue };
                    let Some(frames) = reply(number, &serde_json::from_str(&text).unwrap()) else { return };
                    for frame in frames {
                        // The other side may be gone by now.
                        let _ = socket.send(Message::text(frame)).await;
                    }
                }
            }
        })
        .await
    }

    /// How to connect to it, as anybody.
    pub(crate) fn dial(&self) -> Dial {
        let handshake = Handshake::Member {
            mesh: MeshId::from_random([1; 32]),
            member: MemberId::from_random([1; 32]),
            identity: Arc::new(Identity::from_seed([1; 32])),
        };
        Dial { url: self.url.clone(), handshake, place: Place::default() }
    }

    async fn serve<F>(serve: impl Fn(usize, TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap()).parse().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(number, stream));
            }
        });
        Self { url, _task: task }
    }
}

/// A message that cannot be opened.
pub(crate) fn push(number: usize) -> String {
    let message_id = format!("{number:032}");
    json!({
        "type": "push", "messageId": message_id, "meshId": "m1", "senderPubkey": "ab", "priority": "now", "nonce": "",
        "ciphertext": "", "createdAt": "2026-01-02T03:04:05.678Z"
    })
    .to_string()
}

/// Reads to the end of the body, because a closed socket with something unread in it loses the answer.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text.into_owned();
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return text.into_owned(),
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
    }
}
