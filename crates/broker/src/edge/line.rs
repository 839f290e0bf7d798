//! A WebSocket as a line of texts: what comes in is sorted, what goes out has a deadline, and a Close is said properly.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::close::Close;

/// How long the other side may take to take a Close, and then to answer it.
const GOODBYE: Duration = Duration::from_secs(2);
/// How much of what is still coming in is read away after a Close, so that the system does not reset the line before the Close
/// has been read at the other end.
const DISCARD_BYTES: usize = 32 << 20;

/// One WebSocket.
#[derive(Debug)]
pub(crate) struct Line {
    socket: WebSocketStream<TcpStream>,
    write_timeout: Duration,
    is_dirty: bool,
    /// The other side reads no more. What it said before is still to be read.
    is_deaf: bool,
}

/// What came in.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A frame; binary ones are read as text too.
    Text(Utf8Bytes),
    /// A frame that is not text.
    NotText,
    /// A ping or pong, which is dealt with.
    Alive,
    /// The other side says goodbye.
    Goodbye,
    /// A frame beyond the limit, or bytes that are no WebSocket: the Close to answer with.
    Unreadable(Close),
    /// The line is dead.
    Broken,
}

/// The other side does not take what is written to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stuck;

impl Line {
    pub(crate) fn new(socket: WebSocketStream<TcpStream>, write_timeout: Duration) -> Self {
        Self { socket, write_timeout, is_dirty: false, is_deaf: false }
    }

    /// The next thing that comes in. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Incoming {
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) => Incoming::Text(text),
            Some(Ok(Message::Binary(bytes))) => Utf8Bytes::try_from(bytes).map_or(Incoming::NotText, Incoming::Text),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Incoming::Alive,
            Some(Ok(Message::Close(_))) => Incoming::Goodbye,
            Some(Err(Error::Capacity(_))) => Incoming::Unreadable(Close::FRAME_TOO_LARGE),
            Some(Err(Error::Utf8(_))) => Incoming::Unreadable(Close::NOT_UTF8),
            // The line ended without a Close, which is no mistake in what was said on it.
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => Incoming::Broken,
            Some(Err(Error::Protocol(_))) => Incoming::Unreadable(Close::PROTOCOL_ERROR),
            Some(Err(_)) | None => Incoming::Broken,
        }
    }

    /// Puts a text into the buffer; writes when the buffer is full.
    pub(crate) async fn feed(&mut self, text: impl Into<Utf8Bytes>) -> Result<(), Stuck> {
        self.write(Message::Text(text.into())).await
    }

    pub(crate) async fn ping(&mut self) -> Result<(), Stuck> {
        self.write(Message::Ping(bytes::Bytes::new())).await
    }

    /// Writes what is in the buffer.
    pub(crate) async fn flush(&mut self) -> Result<(), Stuck> {
        if !self.is_dirty || self.is_deaf {
            return Ok(());
        }
        self.is_dirty = false;
        match timeout(self.write_timeout, self.socket.flush()).await {
            Ok(written) => self.note(&written),
            Err(_) => Err(Stuck),
        }
    }

    /// Says goodbye and waits a moment for the answer.
    pub(crate) async fn close(mut self, Close { code, reason }: Close) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::from_static(reason) };
        if let Ok(Ok(())) = timeout(GOODBYE, self.socket.send(Message::Close(Some(frame)))).await {
            self.finish().await;
        }
    }

    /// Lets the Close reach the other side, and reads away what is still coming.
    pub(crate) async fn finish(mut self) {
        let farewell = async {
            while let Some(Ok(_)) = self.socket.next().await {}
            let _ = self.socket.flush().await;
            // The server ends the line first; the other side waits for it.
            let _ = self.socket.get_mut().shutdown().await;
            let mut scrap = [0; 4096];
            let mut discarded = 0;
            while let Ok(read @ 1..) = self.socket.get_mut().read(&mut scrap).await {
                discarded += read;
                if discarded > DISCARD_BYTES {
                    return;
                }
            }
        };
        let _ = timeout(GOODBYE, Box::pin(farewell)).await;
    }

    async fn write(&mut self, message: Message) -> Result<(), Stuck> {
        if self.is_deaf {
            return Ok(());
        }
        self.is_dirty = true;
        match timeout(self.write_timeout, self.socket.feed(message)).await {
            Ok(written) => self.note(&written),
            Err(_) => Err(Stuck),
        }
    }

    /// A client may send, and go without reading the answers: the reading side says when the line has ended. Of a line that is
    /// whole and has no room it never would: what does not fit is the end of it.
    fn note(&mut self, written: &Result<(), Error>) -> Result<(), Stuck> {
        if matches!(written, Err(Error::WriteBufferFull(_))) {
            return Err(Stuck);
        }
        self.is_deaf |= written.is_err();
        Ok(())
    }
}
