//! Whether the other side is still there.

use std::time::{Duration, Instant};

/// Remembers when something last came from the other side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Liveness {
    heard: Instant,
    silence_allowed: Duration,
}

impl Liveness {
    /// A connection may miss one ping and be late for the next: 75 s for a ping every 30 s.
    pub(crate) fn new(now: Instant, ping_every: Duration) -> Self {
        Self { heard: now, silence_allowed: ping_every.mul_f32(2.5) }
    }

    /// Any frame counts, not only a pong.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    pub(crate) fn is_dead(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) > self.silence_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a moment to count from")]
    fn silence_beyond_two_and_a_half_pings_is_death() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start, Duration::from_secs(30));
        assert!(!liveness.is_dead(start + Duration::from_secs(75)));
        assert!(liveness.is_dead(start + Duration::from_secs(76)));
        liveness.heard(start + Duration::from_secs(76));
        assert!(!liveness.is_dead(start + Duration::from_secs(150)));
    }
}
