//! How long to wait before the next attempt.

use std::time::Duration;

/// Waits that grow: each is drawn evenly between nothing and a cap of 1, 2, 4, 8, 16 and then 30 seconds.
///
/// The jitter is the point: after a broker's restart its clients come back spread out and not in the same second.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: usize,
}

impl Backoff {
    /// The next wait. `random` is any evenly distributed number.
    pub fn next(&mut self, random: u64) -> Duration {
        let cap = CAPS.get(self.failures).copied().unwrap_or(LAST_CAP);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(random % (cap.saturating_mul(1000) + 1))
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

const CAPS: [u64; 5] = [1, 2, 4, 8, 16];
const LAST_CAP: u64 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_grow_to_thirty_seconds_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        // One short of a multiple of every cap's range would differ per cap; zero and the cap itself are the ends.
        let ends = |backoff: &mut Backoff, cap: u64| {
            assert_eq!(backoff.clone().next(0), Duration::ZERO);
            assert_eq!(backoff.next(cap * 1000), Duration::from_secs(cap));
        };
        for cap in [1, 2, 4, 8, 16, 30, 30, 30] {
            ends(&mut backoff, cap);
        }
        backoff.reset();
        ends(&mut backoff, 1);
    }
}
