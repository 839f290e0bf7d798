//! A clock that a test can move.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use claudemesh_proto::Timestamp;
use claudemesh_store::Clock;

/// The system's time, moved forward by what a test lets pass.
#[derive(Debug, Clone, Default)]
pub struct TestClock {
    offset: Arc<AtomicI64>,
    last: Arc<AtomicI64>,
}

impl TestClock {
    /// The time that the broker sees.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(Clock::system().now().as_millis() + self.offset.load(Ordering::Relaxed))
    }

    /// The time in milliseconds, never the same twice: a handshake signed again within one would be the same, and refused.
    pub fn tick(&self) -> i64 {
        let now = self.now().as_millis();
        let before = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
        now.max(before.unwrap_or_default() + 1)
    }

    /// Lets time pass at once.
    pub fn pass(&self, duration: Duration) {
        self.offset.fetch_add(i64::try_from(duration.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Makes it be `now`.
    pub fn set(&self, now: Timestamp) {
        self.offset.store(now.as_millis() - Clock::system().now().as_millis(), Ordering::Relaxed);
    }

    /// As the broker takes it.
    pub fn clock(&self) -> Clock {
        let clock = self.clone();
        Clock::from_fn(move || clock.now())
    }
}
