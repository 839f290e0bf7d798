//! How the hub reaches a connection without waiting for it, and how its successor waits for it to let go.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use claudemesh_proto::Timestamp;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::close::Close;

/// Most texts that wait for one connection. Whoever reads so slowly misses what comes on top: events are kept for nobody.
const MAX_SAID: usize = 256;
/// Most bytes of them.
const MAX_SAID_BYTES: usize = 256 << 10;

/// How the hub reaches a connection: one bit for "look again", one for "from the start", and a reason to close.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    rung: Notify,
    /// Whether somebody rang because of mail.
    look: AtomicBool,
    from_start: AtomicBool,
    close: Mutex<Option<Close>>,
    said: Mutex<Said>,
    /// Whether only what is urgent may be handed over.
    is_busy: AtomicBool,
    gone: Notify,
    /// When the client was last heard, in milliseconds.
    heard: AtomicI64,
}

/// What waits to be written, and its size.
#[derive(Debug, Default)]
struct Said {
    texts: VecDeque<Utf8Bytes>,
    bytes: usize,
}

impl Doorbell {
    pub(crate) fn ring(&self, from_start: bool) {
        if from_start {
            self.from_start.store(true, Ordering::Release);
        }
        self.look.store(true, Ordering::Release);
        self.rung.notify_one();
    }

    pub(crate) fn close(&self, with: Close) {
        self.close.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(with);
        self.rung.notify_one();
    }

    /// Remembers that the client gave a sign of life.
    pub(crate) fn hear(&self, now: Timestamp) {
        self.heard.store(now.as_millis(), Ordering::Relaxed);
    }

    /// The client's last sign of life.
    pub(super) fn heard_at(&self) -> Timestamp {
        Timestamp::from_millis(self.heard.load(Ordering::Relaxed))
    }

    /// Says a text that is kept nowhere; the same bytes for everybody who is told.
    pub(super) fn say(&self, text: Utf8Bytes) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.texts.len() < MAX_SAID && said.bytes + text.len() <= MAX_SAID_BYTES {
            said.bytes += text.len();
            said.texts.push_back(text);
            if said.texts.len() == 1 {
                self.rung.notify_one();
            }
        }
    }

    /// Whether something waits to be written.
    pub(crate) fn has_said(&self) -> bool {
        !self.said.lock().unwrap_or_else(PoisonError::into_inner).texts.is_empty()
    }

    /// What was said since this was last asked.
    pub(crate) fn take_said(&self) -> VecDeque<Utf8Bytes> {
        std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner)).texts
    }

    /// Says whether only what is urgent may be handed over now. Whoever becomes idle looks from the start, because what was held
    /// back is older than what came through; whoever becomes busy gives up a question that asks for everything.
    pub(super) fn set_busy(&self, is_busy: bool) {
        if self.is_busy.swap(is_busy, Ordering::AcqRel) != is_busy {
            self.ring(!is_busy);
        }
    }

    /// Whether only what is urgent may be handed over now.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    /// Resolves at the next ring; a ring that nobody waited for is kept.
    pub(crate) async fn rung(&self) {
        self.rung.notified().await;
    }

    /// Resolves once the connection has let go of its mail. Only its successor waits.
    pub(crate) async fn gone(&self) {
        self.gone.notified().await;
    }

    /// Tells the successor that the mail is let go of.
    pub(super) fn leave(&self) {
        self.gone.notify_one();
    }

    /// Whether somebody rang because of mail since this was last asked, and if so, whether it is to be looked for from the start.
    pub(crate) fn take_ring(&self) -> Option<bool> {
        self.look.swap(false, Ordering::AcqRel).then(|| self.from_start.swap(false, Ordering::AcqRel))
    }

    /// Whether the client was sent away: nothing more is done for it.
    pub(crate) fn is_sent_away(&self) -> bool {
        self.wants_close().is_some_and(Close::is_at_once)
    }

    /// The Close that the hub wants.
    pub(crate) fn wants_close(&self) -> Option<Close> {
        *self.close.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
