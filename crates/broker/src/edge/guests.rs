//! Sockets that nobody has vouched for yet, counted by the address that they come from.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// How many there are, by network.
#[derive(Debug, Clone)]
pub(crate) struct Guests {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// Most of one network; 0 is no limit.
    most: usize,
}

/// One of them; dropped when it has left or is no guest any more.
#[derive(Debug)]
pub(crate) struct Guest {
    network: Option<IpAddr>,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Guests {
    pub(crate) fn new(most: usize) -> Self {
        Self { counts: Arc::default(), most }
    }

    /// Lets one in; `None` when its network has too many. Without an address it is not counted.
    pub(crate) fn let_in(&self, address: Option<IpAddr>) -> Option<Guest> {
        let network = address.filter(|_| self.most > 0).map(network);
        if let Some(network) = network {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(network).or_default();
            if *count >= self.most {
                return None;
            }
            *count += 1;
        }
        Some(Guest { network, counts: Arc::clone(&self.counts) })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some(network) = self.network else { return };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&network);
            }
        }
    }
}

/// What one customer of a provider has: an IPv4 address, or a /64 of IPv6.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_counted_while_they_last_and_only_with_an_address() {
        let guests = Guests::new(2);
        let far: Option<IpAddr> = "203.0.113.9".parse().ok();
        let two = [guests.let_in(far), guests.let_in(far)];
        assert!(two.iter().all(Option::is_some) && guests.let_in(far).is_none());
        drop(two);
        assert!(guests.let_in(far).is_some());
        let near: Vec<_> = (0..10).map(|_| guests.let_in(None)).collect();
        assert!(near.iter().all(Option::is_some));
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("203.0.113.1"), of("203.0.113.2"));
    }
}
