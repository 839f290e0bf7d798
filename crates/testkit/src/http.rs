//! One HTTP request, written and read by hand: what a test sends is what it says.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wire::DEADLINE;

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    head: String,
    body: Vec<u8>,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Every header line, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub body: String,
}

impl Request {
    /// A GET.
    pub fn get(path: &str) -> Self {
        Self { head: format!("GET {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n"), body: Vec::new() }
    }

    /// A POST of JSON.
    pub fn post(path: &str, body: &Value) -> Self {
        Self::post_bytes(path, body.to_string().into_bytes())
    }

    /// A POST of anything.
    pub fn post_bytes(path: &str, body: Vec<u8>) -> Self {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n"
        );
        Self { head, body }
    }

    /// Any method, with a body of JSON or none.
    pub fn of(method: &str, path: &str, body: Option<&Value>) -> Self {
        let Self { head, body } = match body {
            Some(body) => Self::post(path, body),
            None => Self::get(path),
        };
        let rest = head.split_once(' ').map_or("", |(_, rest)| rest);
        Self { head: format!("{method} {rest}"), body }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let line = [name, ": ", value, "\r\n"].concat();
        self.head.push_str(&line);
        self
    }

    /// Sends it.
    pub async fn send(&self, to: SocketAddr) -> Answer {
        timeout(DEADLINE, self.exchange(to)).await.expect("an answer in time").expect("an HTTP answer")
    }

    async fn exchange(&self, to: SocketAddr) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(format!("{}\r\n", self.head).as_bytes()).await?;
        // A server that has refused the head need not read the body.
        let _ = stream.write_all(&self.body).await;
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes).await;
        if bytes.is_empty() {
            read?;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        Ok(Answer {
            status: status.ok_or(std::io::ErrorKind::InvalidData)?,
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
            body: body.to_owned(),
        })
    }
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}
