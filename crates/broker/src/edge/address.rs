//! Where a request really comes from.

use std::net::{IpAddr, SocketAddr};
use std::sync::Once;

use axum::http::header::HOST;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

/// Headers by which a proxy says for whom it asks, besides everything that begins with `x-forwarded-`.
const FORWARDING: [&str; 5] = ["forwarded", "x-real-ip", "via", "cf-connecting-ip", "true-client-ip"];

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The address that limits count by; none for this machine with nothing in between.
    pub(crate) counted: Option<IpAddr>,
    /// Whether it is this machine, with nothing in between, asking for the broker by an address or a name that nobody else can own.
    /// A web page that was led here under a name of its own (DNS rebinding) is not.
    pub(crate) is_local: bool,
    /// Whether somebody says that it is asked for somebody else, and is not trusted to.
    pub(crate) is_hearsay: bool,
}

/// Says once that a proxy seems to be missing from the settings.
#[derive(Debug)]
pub(crate) struct Hearsay(Once);

impl Default for Hearsay {
    fn default() -> Self {
        Self(Once::new())
    }
}

impl Hearsay {
    pub(crate) fn note(&self, origin: &Origin) {
        if origin.is_hearsay {
            self.0.call_once(|| {
                tracing::warn!(
                    "a request says that it comes through a proxy, and BROKER_TRUSTED_PROXIES does not name that proxy: all its \
                     clients count as one address, limits are theirs together, and status hooks without a token are refused"
                );
            });
        }
    }
}

impl Origin {
    /// `X-Forwarded-For` is read from the right, as far as the addresses are proxies that are trusted, and no further than the first
    /// hop that is no address: what stands left of it may be anybody's word.
    pub(crate) fn of(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let peer = peer.ip().to_canonical();
        let is_forwarded = headers.keys().any(is_forwarding);
        let is_direct = peer.is_loopback() && !is_forwarded;
        let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
        let mut address = peer;
        let values: Vec<&[u8]> = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes).collect();
        let hops = values.iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
        for hop in hops {
            if !is_trusted(&address) {
                break;
            }
            let Some(before) = read_hop(hop) else { break };
            address = before;
        }
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        Self {
            counted: (!is_direct).then_some(address),
            is_local: is_direct && !host.is_some_and(is_public_name),
            is_hearsay: is_forwarded && !is_trusted(&peer),
        }
    }
}

/// Whether a `Host` is a name that somebody may have registered: it has a dot and is no address.
fn is_public_name(host: &str) -> bool {
    let name = without_port(host).trim_end_matches('.');
    name.contains('.') && name.parse::<IpAddr>().is_err() && !name.starts_with('[')
}

fn without_port(host: &str) -> &str {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name)
}

/// Whether a `Host` is a name that a machine has for itself.
pub(crate) fn is_loopback_name(host: &str) -> bool {
    matches!(without_port(host), "localhost" | "127.0.0.1" | "[::1]")
}

fn is_forwarding(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-forwarded-") || FORWARDING.contains(&name.as_str())
}

/// `IP`, `IP:PORT` or `[IPv6]:PORT`.
fn read_hop(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    hop.parse().ok().or_else(with_port).or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(peer: &str, headers: &[(&'static str, &[u8])]) -> Origin {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.to_vec().try_into().unwrap()));
        Origin::of(peer.parse().unwrap(), &headers.collect(), &["10.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn only_a_trusted_proxy_speaks_for_others_and_only_in_addresses() {
        let counted = |peer, hops: &[u8]| origin(peer, &[("x-forwarded-for", hops)]).counted.unwrap().to_string();
        assert_eq!(counted("203.0.113.1:5", b"198.51.100.7"), "203.0.113.1");
        assert_eq!(counted("10.0.0.1:5", b"198.51.100.7"), "198.51.100.7");
        assert_eq!(counted("10.0.0.1:5", b"1.1.1.1, 198.51.100.7, 10.0.0.2"), "198.51.100.7");
        assert_eq!(counted("10.0.0.1:5", b"9.9.9.9, 198.51.100.7:443"), "198.51.100.7");
        assert_eq!(counted("10.0.0.1:5", b"[2001:db8::1]:443"), "2001:db8::1");
        assert_eq!(counted("10.0.0.1:5", b"\xff, 198.51.100.7"), "198.51.100.7");
        assert_eq!(counted("10.0.0.1:5", b"9.9.9.9, unknown"), "10.0.0.1");
        assert_eq!(counted("10.0.0.1:5", b"127.0.0.1"), "127.0.0.1");
    }

    #[test]
    fn this_machine_is_local_only_without_a_proxy_and_under_its_own_name() {
        let is_local = |peer, headers: &[(&'static str, &[u8])]| origin(peer, headers).is_local;
        assert!(is_local("127.0.0.1:5", &[("host", b"127.0.0.1:7900")]));
        assert!(is_local("[::1]:5", &[("host", b"localhost")]));
        assert!(!is_local("127.0.0.1:5", &[("host", b"rebound.example:7900")]));
        assert!(!is_local("127.0.0.1:5", &[("host", b"rebound.example.")]));
        assert!(is_local("127.0.0.1:5", &[("host", b"broker:7900")]));
        assert!(is_local("127.0.0.1:5", &[]));
        for proxy in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via", "cf-connecting-ip"] {
            assert!(!is_local("127.0.0.1:5", &[("host", b"localhost"), (proxy, b"x")]), "{proxy}");
        }
        assert!(!is_local("203.0.113.1:5", &[("host", b"localhost")]));
    }

    #[test]
    fn who_is_no_trusted_proxy_speaks_by_hearsay() {
        let is_hearsay = |peer, headers: &[(&'static str, &[u8])]| origin(peer, headers).is_hearsay;
        for header in ["x-forwarded-for", "forwarded", "x-real-ip"] {
            assert!(is_hearsay("127.0.0.1:5", &[(header, b"x")]) && is_hearsay("203.0.113.1:5", &[(header, b"x")]));
            assert!(!is_hearsay("10.0.0.1:5", &[(header, b"x")]));
        }
        assert!(!is_hearsay("203.0.113.1:5", &[("host", b"x")]));
    }

    #[test]
    fn only_this_machine_with_nothing_in_between_is_not_counted() {
        assert_eq!(origin("127.0.0.1:5", &[]).counted, None);
        assert!(origin("127.0.0.1:5", &[("x-forwarded-for", b"127.0.0.1")]).counted.is_some());
    }
}
