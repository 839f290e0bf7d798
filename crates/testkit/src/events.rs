//! A stream of server-sent events, read by hand: over HTTP/1.0, so that the body is what the server writes and ends with the line.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::wire::DEADLINE;

/// An open stream.
#[derive(Debug)]
pub struct Events {
    stream: TcpStream,
    buffer: String,
    /// The status of the answer.
    pub status: u16,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `message` and so on.
    pub event: String,
    /// The `id:` of it, if it has one.
    pub id: Option<String>,
    /// Its data, lines joined.
    pub data: String,
}

impl Event {
    /// The data as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

impl Events {
    /// Asks for a stream.
    pub async fn open(to: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        Self::over(TcpStream::connect(to).await.expect("a listening broker"), path, headers).await
    }

    /// Asks by a line whose system takes in little, so that a reader who stops is felt soon.
    pub async fn open_narrow(to: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        Self::over(socket.connect(to).await.expect("a listening broker"), path, headers).await
    }

    async fn over(mut stream: TcpStream, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut head = format!("GET {path} HTTP/1.0\r\nHost: broker\r\n");
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await.expect("a line to the broker");
        let mut this = Self { stream, buffer: String::new(), status: 0 };
        let head = this.block("\r\n\r\n").await.expect("an HTTP answer");
        this.status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        this
    }

    /// The next event; none when the stream has ended.
    pub async fn next(&mut self) -> Option<Event> {
        let block = self.block("\n\n").await?;
        assert!(!block.contains('\r'), "lines end with LF alone: {block:?}");
        let field = |name: &str| {
            let lines = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            lines.map(|value| value.strip_prefix(' ').unwrap_or(value).to_owned()).collect::<Vec<_>>()
        };
        Some(Event {
            event: field("event").pop().unwrap_or_default(),
            id: field("id").pop(),
            data: field("data").join("\n"),
        })
    }

    /// The next event of this name, whatever comes before.
    pub async fn expect(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the stream ended before a {name}"));
            if event.event == name {
                return event;
            }
        }
    }

    /// What is left, when the answer is no stream.
    pub async fn rest(mut self) -> String {
        let mut bytes = Vec::new();
        let _ = timeout(DEADLINE, self.stream.read_to_end(&mut bytes)).await;
        self.buffer + &String::from_utf8_lossy(&bytes)
    }

    async fn block(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once(end) {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                return Some(block);
            }
            let mut bytes = [0; 4096];
            let read = timeout(DEADLINE, self.stream.read(&mut bytes)).await.expect("an event in time").ok()?;
            if read == 0 {
                return None;
            }
            self.buffer.push_str(&String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()));
        }
    }
}
