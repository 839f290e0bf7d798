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
        self.silence(now) >= self.silence_allowed
    }

    /// When it counts as dead, unless something comes before.
    pub(crate) fn deadline(&self) -> Instant {
        self.heard + self.silence_allowed
    }

    /// For how long nothing has come.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
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
        assert!(!liveness.is_dead(start + Duration::from_secs(74)));
        assert!(liveness.is_dead(start + Duration::from_secs(75)));
        assert_eq!(liveness.deadline(), start + Duration::from_secs(75));
        liveness.heard(start + Duration::from_secs(76));
        assert!(!liveness.is_dead(start + Duration::from_secs(150)));
    }
}
