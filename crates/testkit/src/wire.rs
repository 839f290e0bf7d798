//! A WebSocket in a test's hand. It knows JSON and nothing of our types, so that a mistake in them shows.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use claudemesh_proto::text::base64;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::people::merged;

/// How long anything may take before a test fails. Nothing is ever waited for that is not expected to come.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// One WebSocket to the broker.
#[derive(Debug)]
pub struct Wire {
    socket: WebSocketStream<TcpStream>,
    /// Frames that were read while another was waited for.
    kept: VecDeque<Value>,
    /// System events, which come at any time and are looked at only by who asks for them.
    events: VecDeque<Value>,
    /// All that came, while somebody wants to see it.
    heard: Option<String>,
    /// The `hello_ack`, once there was one.
    pub greeting: Value,
}

/// What comes next on a wire.
#[derive(Debug)]
enum Next {
    Frame(Value),
    Close(Option<(u16, String)>),
    /// The line ended without a Close.
    Ended,
}

impl Wire {
    /// Opens a WebSocket and says nothing.
    pub async fn open(address: SocketAddr) -> Self {
        Self::open_with(address, &[]).await.unwrap_or_else(|status| panic!("refused with {status}"))
    }

    /// Opens one with headers of a test's own; the HTTP status when it was refused.
    pub async fn open_with(address: SocketAddr, headers: &[(&str, &str)]) -> Result<Self, u16> {
        Self::over(TcpStream::connect(address).await.unwrap(), address, headers).await
    }

    /// Tries to open one; the HTTP status when it was refused, or nothing when the line was cut.
    pub async fn try_open(address: SocketAddr, headers: &[(&str, &str)]) -> Result<Self, Option<u16>> {
        let line = timeout(DEADLINE, TcpStream::connect(address)).await.expect("a line in time").map_err(|_| None)?;
        Self::try_over(line, address, headers).await
    }

    /// Opens one whose system takes in little, so that a reader who stops is felt soon.
    pub async fn open_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::over(socket.connect(address).await.unwrap(), address, &[]).await.unwrap()
    }

    async fn over(stream: TcpStream, address: SocketAddr, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let tried = Self::try_over(stream, address, headers).await;
        tried.map_err(|status| status.expect("a WebSocket, or a status"))
    }

    async fn try_over(stream: TcpStream, address: SocketAddr, headers: &[(&str, &str)]) -> Result<Self, Option<u16>> {
        stream.set_nodelay(true).map_err(|_| None)?;
        let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        }
        let opening = timeout(DEADLINE, tokio_tungstenite::client_async(request, stream));
        match opening.await.expect("a WebSocket in time") {
            Ok((socket, _)) => {
                let (kept, events) = (VecDeque::new(), VecDeque::new());
                Ok(Self { socket, kept, events, heard: None, greeting: Value::Null })
            }
            Err(Error::Http(response)) => Err(Some(response.status().as_u16())),
            Err(_) => Err(None),
        }
    }

    /// Says a handshake and waits for its `hello_ack`.
    pub async fn greet(&mut self, hello: &Value) {
        self.say(hello).await;
        self.greeting = self.next().await;
        assert_eq!(self.greeting["type"], "hello_ack", "{}", self.greeting);
    }

    /// Says a frame.
    pub async fn say(&mut self, frame: &Value) {
        self.say_text(&frame.to_string()).await;
    }

    /// Says a text.
    pub async fn say_text(&mut self, text: &str) {
        self.write(Message::text(text)).await;
    }

    /// Says a binary frame.
    pub async fn say_binary(&mut self, bytes: &[u8]) {
        self.write(Message::binary(bytes.to_vec())).await;
    }

    /// Says a frame into the buffer; a later flush or say sends it.
    pub async fn feed(&mut self, frame: &Value) {
        self.feed_text(&frame.to_string()).await;
    }

    /// Says a text into the buffer.
    pub async fn feed_text(&mut self, text: &str) {
        let feeding = self.socket.feed(Message::text(text));
        timeout(DEADLINE, feeding).await.expect("written in time").unwrap();
    }

    /// Sends what was fed.
    pub async fn flush(&mut self) {
        timeout(DEADLINE, self.socket.flush()).await.expect("written in time").unwrap();
    }

    /// Writes bytes past the WebSocket; false when the other side is gone.
    pub async fn say_bytes(&mut self, bytes: &[u8]) -> bool {
        timeout(DEADLINE, self.socket.get_mut().write_all(bytes)).await.expect("written in time").is_ok()
    }

    /// Says a text if the other side still listens.
    pub async fn try_say(&mut self, text: &str) -> bool {
        timeout(DEADLINE, self.socket.send(Message::text(text))).await.expect("written in time").is_ok()
    }

    /// Says a text without reading anything at the same time, for as long as it takes; false when the line ended.
    pub async fn say_blindly(&mut self, text: &str) -> bool {
        self.socket.send(Message::text(text)).await.is_ok()
    }

    /// Says ping.
    pub async fn ping(&mut self) {
        self.write(Message::Ping(Bytes::new())).await;
    }

    async fn write(&mut self, message: Message) {
        timeout(DEADLINE, self.socket.send(message)).await.expect("written in time").unwrap();
    }

    /// The next frame, whatever it is.
    pub async fn next(&mut self) -> Value {
        match self.kept.pop_front() {
            Some(frame) => frame,
            None => self.read_frame("a frame").await,
        }
    }

    /// The next frame of a type; others are kept for later.
    pub async fn expect(&mut self, kind: &str) -> Value {
        self.find(kind, |frame| frame["type"] == kind).await
    }

    async fn find(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(index) = self.kept.iter().position(&is_it) {
            return self.kept.remove(index).unwrap();
        }
        loop {
            let frame = self.read_frame(what).await;
            if is_it(&frame) {
                return frame;
            }
            self.kept.push_back(frame);
        }
    }

    /// The next text as it came, when no frame was kept.
    pub async fn next_text(&mut self) -> String {
        assert!(self.kept.is_empty(), "unexpected: {:?}", self.kept);
        match timeout(DEADLINE, self.socket.next()).await.expect("a text in time") {
            Some(Ok(Message::Text(text))) => text.to_string(),
            other => panic!("not a text: {other:?}"),
        }
    }

    /// Asks and waits for the answer with the same `_reqId`; an error is an answer.
    pub async fn ask(&mut self, request: Value) -> Value {
        let request_id = fresh("r");
        self.say(&merged(request, json!({"_reqId": request_id}))).await;
        self.find("an answer", |frame| frame["_reqId"] == request_id.as_str()).await
    }

    /// Sends a text in clear to a key and waits for the ack.
    pub async fn send(&mut self, to: &str, text: &str) -> Value {
        self.send_with(to, text, json!({})).await
    }

    /// Sends with more fields.
    pub async fn send_with(&mut self, to: &str, text: &str, fields: Value) -> Value {
        let send = merged(send_frame(to, text), fields);
        self.say(&send).await;
        let id = send["id"].clone();
        self.find("an ack", |frame| frame["type"] == "ack" && frame["id"] == id).await
    }

    /// Sends what must be accepted; the message's id.
    pub async fn deliver(&mut self, to: &str, text: &str) -> String {
        let ack = self.send(to, text).await;
        assert_eq!(ack["queued"], true, "{ack}");
        ack["messageId"].as_str().unwrap().to_owned()
    }

    /// The next push and the text in it, unacknowledged.
    pub async fn push(&mut self) -> (Value, String) {
        let push = self.expect("push").await;
        let text = text_of(&push);
        (push, text)
    }

    /// The text of the next push, acknowledged.
    pub async fn receive(&mut self) -> String {
        let (push, text) = self.push().await;
        self.acknowledge(&push).await;
        text
    }

    /// Says that a push is safely kept.
    pub async fn acknowledge(&mut self, push: &Value) {
        self.say(&json!({"type": "client_ack", "brokerMessageId": push["messageId"]})).await;
    }

    /// The next frame, or the Close that came instead; `None` when the line ended without one.
    pub async fn next_or_end(&mut self) -> Result<Value, Option<(u16, String)>> {
        if let Some(frame) = self.kept.pop_front() {
            return Ok(frame);
        }
        match self.read("a frame or the end").await {
            Next::Frame(frame) => Ok(frame),
            Next::Close(close) => Err(close),
            Next::Ended => Err(None),
        }
    }

    /// Waits until everything said so far is processed.
    pub async fn fence(&mut self) {
        let peers = self.ask(json!({"type": "list_peers"})).await;
        assert_eq!(peers["type"], "peers_list");
    }

    /// Shows that nothing has come that was not asked for. What could still come must have happened elsewhere by now.
    pub async fn nothing_else(&mut self) {
        self.fence().await;
        assert!(self.kept.is_empty(), "unexpected: {:?}", self.kept);
    }

    /// The next system event of this name; earlier ones of other names are passed over.
    pub async fn event(&mut self, name: &str) -> Value {
        let asking = async {
            loop {
                while let Some(event) = self.events.pop_front() {
                    if event["event"] == name {
                        return event;
                    }
                }
                self.fence().await;
            }
        };
        timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("waited too long for the event {name}"))
    }

    /// The names of the system events that have come so far and that nobody looked at, oldest first.
    pub async fn events(&mut self) -> Vec<String> {
        self.fence().await;
        self.events.drain(..).map(|event| event["event"].as_str().unwrap().to_owned()).collect()
    }

    /// Who is here, as this connection is told.
    pub async fn peers(&mut self) -> Vec<Value> {
        self.ask(json!({"type": "list_peers"})).await["peers"].as_array().unwrap().clone()
    }

    /// The error and the Close of a refused handshake: code, message, close code, close reason.
    pub async fn refusal(&mut self) -> (String, String, u16, String) {
        let error = self.next().await;
        assert_eq!(error["type"], "error", "{error}");
        let text = |field: &str| error[field].as_str().unwrap().to_owned();
        let (close, reason) = self.closed().await;
        (text("code"), text("message"), close, reason)
    }

    /// The Close that the broker says; frames before it are kept.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.read("a Close").await {
                Next::Frame(frame) => self.kept.push_back(frame),
                Next::Close(close) => return close.expect("a Close with a code"),
                Next::Ended => panic!("the line ended without a Close; kept: {:?}", self.kept),
            }
        }
    }

    /// How many frames of a type were read while something else was waited for.
    pub fn kept(&self, kind: &str) -> usize {
        self.kept.iter().filter(|frame| frame["type"] == kind).count()
    }

    /// Forgets what was read while something else was waited for.
    pub fn forget(&mut self) {
        self.kept.clear();
        self.events.clear();
    }

    /// The next ack, or the Close that came instead; `None` when the line ended without one.
    pub async fn ack_or_close(&mut self) -> Result<Value, Option<(u16, String)>> {
        loop {
            match self.read("an ack or a Close").await {
                Next::Frame(frame) if frame["type"] == "ack" => return Ok(frame),
                Next::Frame(frame) => self.kept.push_back(frame),
                Next::Close(close) => return Err(close),
                Next::Ended => return Err(None),
            }
        }
    }

    /// The next push, or the Close that came instead; `None` when the line ended without one.
    pub async fn push_or_close(&mut self) -> Result<Value, Option<(u16, String)>> {
        loop {
            match self.read("a push or a Close").await {
                Next::Frame(frame) if frame["type"] == "push" => return Ok(frame),
                Next::Frame(frame) => self.kept.push_back(frame),
                Next::Close(close) => return Err(close),
                Next::Ended => return Err(None),
            }
        }
    }

    /// Waits until the broker ends the line without saying a Close; frames before it are kept.
    pub async fn cut_off(&mut self) {
        loop {
            match self.read("the end").await {
                Next::Frame(frame) => self.kept.push_back(frame),
                Next::Close(close) => panic!("a Close: {close:?}"),
                Next::Ended => return,
            }
        }
    }

    /// Says a Close and waits until the broker has answered it.
    pub async fn close(mut self, code: u16) {
        self.say_close(code).await;
        while let Next::Frame(_) = self.read("the answer to a Close").await {}
    }

    /// Says a Close and waits for nothing.
    pub async fn say_close(&mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        self.write(Message::Close(Some(frame))).await;
    }

    /// Ends its own side of the line without a Close, and reads until the broker has ended the other.
    pub async fn half_close(mut self) {
        self.socket.get_mut().shutdown().await.unwrap();
        while let Next::Frame(_) = self.read("the end").await {}
    }

    /// From now on keeps all that comes, for [`Wire::heard`].
    pub fn listen(&mut self) {
        self.heard.get_or_insert_default();
    }

    /// All that came since [`Wire::listen`] or since this was last asked, byte for byte.
    pub fn heard(&mut self) -> String {
        self.heard.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Waits until something has come that nobody has read.
    pub async fn unread(&self) {
        timeout(DEADLINE, self.socket.get_ref().readable()).await.expect("something comes").unwrap();
    }

    /// Goes away without a word.
    pub fn break_off(self) {
        drop(self);
    }

    async fn read_frame(&mut self, what: &str) -> Value {
        match self.read(what).await {
            Next::Frame(frame) => frame,
            end => panic!("waiting for {what}: {end:?}; kept: {:?}", self.kept),
        }
    }

    fn hear(&mut self, text: &str) {
        if let Some(heard) = &mut self.heard {
            heard.push_str(text);
            heard.push('\n');
        }
    }

    async fn read(&mut self, what: &str) -> Next {
        loop {
            let Ok(message) = timeout(DEADLINE, self.socket.next()).await else {
                panic!("waited too long for {what}; kept: {:?}", self.kept)
            };
            return match message {
                Some(Ok(Message::Text(text))) => {
                    self.hear(&text);
                    let frame: Value = serde_json::from_str(&text).expect("a frame of JSON");
                    if frame["subtype"] == "system" {
                        self.events.push_back(frame);
                        continue;
                    }
                    Next::Frame(frame)
                }
                Some(Ok(Message::Close(close))) => {
                    self.hear(close.as_ref().map_or("", |close| close.reason.as_str()));
                    Next::Close(close.map(|close| (close.code.into(), close.reason.to_string())))
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(other)) => panic!("not a text: {other:?}"),
                Some(Err(_)) | None => Next::Ended,
            };
        }
    }
}

/// A `send` frame with a text in clear.
pub fn send_frame(to: &str, text: &str) -> Value {
    json!({
        "type": "send", "id": fresh("s"), "targetSpec": to, "priority": "next", "nonce": base64(&[7; 24]),
        "ciphertext": base64(text.as_bytes()),
    })
}

fn text_of(push: &Value) -> String {
    let bytes = claudemesh_proto::text::from_base64(push["ciphertext"].as_str().unwrap()).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn fresh(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
