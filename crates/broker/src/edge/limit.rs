//! How much one member or one address may do in a time.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use claudemesh_proto::{MemberId, MeshId, Timestamp};

/// Buckets are looked through for full ones whenever so many have gathered.
const CLEAN_AT: usize = 10_000;

/// Every limit that is counted over time.
#[derive(Debug)]
pub(crate) struct Limits {
    sends: Buckets<(MeshId, MemberId)>,
    failed_hellos: Buckets<IpAddr>,
    strangers: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max_strangers: usize,
}

/// A socket that has not said hello yet; dropped once it has.
#[derive(Debug)]
pub(crate) struct Stranger {
    address: IpAddr,
    strangers: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// Rates per minute and bursts; a rate of 0 is no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_minute: u32,
    pub(crate) burst: u32,
}

impl Limits {
    pub(crate) fn new(sends: Rate, failed_hellos: Rate, max_strangers: usize) -> Self {
        Self {
            sends: Buckets::new(sends),
            failed_hellos: Buckets::new(failed_hellos),
            strangers: Arc::default(),
            max_strangers,
        }
    }

    /// Whether the member may send one more message now.
    pub(crate) fn may_send(&self, mesh: &MeshId, member: &MemberId, now: Timestamp) -> bool {
        // The key is built only when there is a limit: this runs for every message.
        self.sends.is_unlimited() || self.sends.take((mesh.clone(), member.clone()), now)
    }

    /// Counts a handshake that failed. Loopback, where everything behind one machine looks alike, is exempt.
    pub(crate) fn hello_failed(&self, address: IpAddr, now: Timestamp) {
        if !address.is_loopback() {
            self.failed_hellos.take(network(address), now);
        }
    }

    /// Whether the address may try a handshake.
    pub(crate) fn may_greet(&self, address: IpAddr, now: Timestamp) -> bool {
        address.is_loopback() || self.failed_hellos.has_any(&network(address), now)
    }

    /// Lets a socket in that has not said hello; `None` when its address has too many.
    pub(crate) fn let_in(&self, address: IpAddr) -> Option<Stranger> {
        let is_exempt = address.is_loopback();
        let address = network(address);
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = strangers.entry(address).or_default();
        if self.max_strangers > 0 && *count >= self.max_strangers && !is_exempt {
            return None;
        }
        *count += 1;
        Some(Stranger { address, strangers: Arc::clone(&self.strangers) })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = strangers.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                strangers.remove(&self.address);
            }
        }
    }
}

/// What one customer of a provider has: an IPv4 address, or a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

/// Token buckets: `burst` tokens at most, `per_minute` new ones a minute.
#[derive(Debug)]
struct Buckets<K> {
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
    fn new(rate: Rate) -> Self {
        Self { rate, held: Mutex::new(Held { buckets: HashMap::new(), clean_at: CLEAN_AT }) }
    }

    fn is_unlimited(&self) -> bool {
        self.rate.per_minute == 0
    }

    fn take(&self, key: K, now: Timestamp) -> bool {
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

    fn has_any(&self, key: &K, now: Timestamp) -> bool {
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
    fn an_ipv6_network_counts_as_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("203.0.113.1"), of("203.0.113.2"));
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let buckets = Buckets::new(Rate { per_minute: 0, burst: 0 });
        assert!((0..1000).all(|_| buckets.take("member", at(0))));
    }

    #[test]
    fn strangers_are_counted_while_they_last_and_loopback_is_exempt() {
        let limits = Limits::new(Rate { per_minute: 0, burst: 0 }, Rate { per_minute: 0, burst: 0 }, 2);
        let far: IpAddr = "203.0.113.9".parse().unwrap();
        let guests = [limits.let_in(far), limits.let_in(far)];
        assert!(guests.iter().all(Option::is_some) && limits.let_in(far).is_none());
        drop(guests);
        assert!(limits.let_in(far).is_some());
        let near: Vec<_> = (0..10).map(|_| limits.let_in("127.0.0.1".parse().unwrap())).collect();
        assert!(near.iter().all(Option::is_some));
    }
}
