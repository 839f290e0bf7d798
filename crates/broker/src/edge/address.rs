//! Where a request really comes from.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// Headers by which a proxy says for whom it asks.
const FORWARDING: [&str; 4] = ["x-forwarded-for", "forwarded", "x-real-ip", "via"];

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The address that limits count by.
    pub(crate) address: IpAddr,
    /// Whether it is this machine, with nothing in between.
    pub(crate) is_local: bool,
}

impl Origin {
    /// `X-Forwarded-For` is read from the right, as far as the addresses are proxies that are trusted.
    pub(crate) fn of(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
        let peer = peer.ip().to_canonical();
        let is_forwarded = FORWARDING.iter().any(|name| headers.contains_key(*name));
        let mut address = peer;
        if is_trusted(&peer) {
            let hops = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
            let hops: Vec<IpAddr> =
                hops.flat_map(|value| value.split(',')).filter_map(|hop| hop.trim().parse().ok()).collect();
            for hop in hops.into_iter().rev() {
                address = hop;
                if !is_trusted(&hop) {
                    break;
                }
            }
        }
        Self { address, is_local: peer.is_loopback() && !is_forwarded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(peer: &str, forwarded: Option<&str>) -> Origin {
        let mut headers = HeaderMap::new();
        if let Some(value) = forwarded {
            headers.insert("x-forwarded-for", value.parse().unwrap());
        }
        Origin::of(peer.parse().unwrap(), &headers, &["10.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn only_a_trusted_proxy_speaks_for_others() {
        let address = |peer, forwarded| origin(peer, forwarded).address.to_string();
        assert_eq!(address("203.0.113.1:5", Some("198.51.100.7")), "203.0.113.1");
        assert_eq!(address("10.0.0.1:5", Some("198.51.100.7")), "198.51.100.7");
        assert_eq!(address("10.0.0.1:5", Some("1.1.1.1, 198.51.100.7, 10.0.0.2")), "198.51.100.7");
        assert_eq!(address("10.0.0.1:5", None), "10.0.0.1");
    }

    #[test]
    fn loopback_behind_a_proxy_is_not_local() {
        assert!(origin("127.0.0.1:5", None).is_local);
        assert!(!origin("127.0.0.1:5", Some("127.0.0.1")).is_local);
        assert!(!origin("203.0.113.1:5", None).is_local);
    }
}
