//! So many at once, and so many a minute after that.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use claudemesh_proto::Timestamp;

/// Buckets are looked through for full ones whenever so many have gathered.
const CLEAN_AT: usize = 10_000;

/// A rate and a burst; a rate of 0 is no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    per_second: f64,
    burst: u32,
}

impl Rate {
    pub(crate) fn per_minute(count: u32, burst: u32) -> Self {
        Self { per_second: f64::from(count) / 60.0, burst }
    }

    /// As many at once as in an hour.
    pub(crate) fn per_hour(count: u32) -> Self {
        Self { per_second: f64::from(count) / 3600.0, burst: count }
    }
}

/// Token buckets: `burst` tokens at most, and new ones at the rate.
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
        self.rate.per_second <= 0.0
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

    /// Gives back what was taken for nothing.
    pub(crate) fn give_back(&self, key: &K) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = held.buckets.get_mut(key) {
            bucket.tokens = (bucket.tokens + 1.0).min(f64::from(self.rate.burst));
        }
    }

    pub(crate) fn has_any(&self, key: &K, now: Timestamp) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_unlimited() || held.buckets.get(key).is_none_or(|bucket| bucket.filled(self.rate, now).tokens >= 1.0)
    }
}

impl Bucket {
    fn filled(self, rate: Rate, now: Timestamp) -> Self {
        let elapsed = if now > self.at { now.distance(self.at).as_secs_f64() } else { 0.0 };
        let tokens = self.tokens + elapsed * rate.per_second;
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
        let buckets = Buckets::new(Rate::per_minute(60, 10));
        let allowed = |second| (0..20).filter(|_| buckets.take("member", at(second))).count();
        assert_eq!(allowed(0), 10);
        assert_eq!(allowed(3), 3);
        assert_eq!(allowed(1000), 10);
        assert_eq!(allowed(500), 0, "a clock that goes back gives nothing");
    }

    #[test]
    fn so_many_an_hour_and_what_was_for_nothing_is_given_back() {
        let buckets = Buckets::new(Rate::per_hour(30));
        let allowed = |second| (0..50).filter(|_| buckets.take("member", at(second))).count();
        assert_eq!(allowed(0), 30);
        buckets.give_back(&"member");
        assert_eq!(allowed(0), 1);
        assert_eq!(allowed(240), 2);
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let buckets = Buckets::new(Rate::per_minute(0, 0));
        assert!((0..1000).all(|_| buckets.take("member", at(0))));
    }
}
