//! So many at once, and so many a minute after that.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use claudemesh_proto::Timestamp;

/// Buckets are looked through for full ones whenever so many have gathered.
const CLEAN_AT: usize = 10_000;

/// Rates per minute and bursts; a rate of 0 is no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_minute: u32,
    pub(crate) burst: u32,
}

/// Token buckets: `burst` tokens at most, `per_minute` new ones a minute.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    buckets: HashMap<K, Bucket>,
    clean_at: usize,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

impl<K: Hash + Eq> Buckets<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, held: Mutex::new(Held { buckets: HashMap::new(), clean_at: CLEAN_AT }) }
    }

    pub(crate) fn is_unlimited(&self) -> bool {
        self.rate.per_minute == 0
    }

    pub(crate) fn take(&self, key: K, now: Timestamp) -> bool {
        if self.is_unlimited() {
            return true;
        }
        let rate = self.rate;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Held { buckets, clean_at } = &mut *held;
        if buckets.len() >= *clean_at {
            buckets.retain(|_, bucket| bucket.filled(rate, now).tokens < f64::from(rate.burst));
            // Those that are left are looked through again only when as many have come.
            *clean_at = CLEAN_AT.max(2 * buckets.len());
        }
        let bucket = buckets.entry(key).or_insert(Bucket { tokens: f64::from(rate.burst), at: now });
        *bucket = bucket.filled(rate, now);
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }

    pub(crate) fn has_any(&self, key: &K, now: Timestamp) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_unlimited() || held.buckets.get(key).is_none_or(|bucket| bucket.filled(self.rate, now).tokens >= 1.0)
    }
}

impl Bucket {
    fn filled(self, rate: Rate, now: Timestamp) -> Self {
        let elapsed = if now > self.at { now.distance(self.at).as_secs_f64() } else { 0.0 };
        let tokens = self.tokens + elapsed * f64::from(rate.per_minute) / 60.0;
        Self { tokens: tokens.min(f64::from(rate.burst)), at: now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let buckets = Buckets::new(Rate { per_minute: 60, burst: 10 });
        let allowed = |second| (0..20).filter(|_| buckets.take("member", at(second))).count();
        assert_eq!(allowed(0), 10);
        assert_eq!(allowed(3), 3);
        assert_eq!(allowed(1000), 10);
        assert_eq!(allowed(500), 0, "a clock that goes back gives nothing");
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let buckets = Buckets::new(Rate { per_minute: 0, burst: 0 });
        assert!((0..1000).all(|_| buckets.take("member", at(0))));
    }
}
