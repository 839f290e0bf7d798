//! Where a broker listens.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use tokio_tungstenite::tungstenite::http::Uri;

use crate::error::{Error, Result};

/// The address of a broker: one host and port for WebSocket and HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    tls: bool,
    host: String,
    port: Option<u16>,
    path: String,
}

/// Why a text is no broker address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Nothing of the kind.
    #[error("is not an address; write https://HOST, wss://HOST/ws, http://HOST:PORT or HOST:PORT")]
    Shape,
    /// Another scheme.
    #[error("must begin with https://, http://, wss:// or ws://")]
    Scheme,
    /// A user name or password in it.
    #[error("must not contain a user name or password")]
    User,
    /// Something after the host that is not the broker's.
    #[error("must end after the host and port, or with /ws")]
    Path,
}

impl BrokerUrl {
    /// The WebSocket address, such as `wss://mesh.example/ws`.
    pub fn ws(&self) -> String {
        format!("{}://{}{}", if self.tls { "wss" } else { "ws" }, self.authority(), self.path)
    }

    /// The address of an HTTP route on the same host; a path before `/ws` is dropped, as existing clients do.
    pub fn http(&self, route: &str) -> String {
        format!("{}://{}{route}", if self.tls { "https" } else { "http" }, self.authority())
    }

    /// Whether the connection is encrypted on its way.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether it is this very machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host().parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether it is the address of no machine, on which servers listen for every address.
    pub(crate) fn is_unspecified(&self) -> bool {
        self.host().parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    }

    /// The host without the brackets of IPv6, and the port: what is connected to.
    pub(crate) fn endpoint(&self) -> (&str, u16) {
        (self.host(), self.port.unwrap_or(if self.tls { 443 } else { 80 }))
    }

    /// The host, without the brackets of IPv6.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    fn read(text: &str) -> Result<Self, BadUrl> {
        // Without a scheme a loopback address means plain, anything else TLS: the safe guess, with a clear failure.
        let guessed = !text.contains("://");
        let full = if guessed { format!("wss://{text}") } else { text.to_owned() };
        let uri: Uri = full.parse().map_err(|_| BadUrl::Shape)?;
        let tls = match uri.scheme_str() {
            Some("wss" | "https") => true,
            Some("ws" | "http") => false,
            _ => return Err(BadUrl::Scheme),
        };
        let authority = uri.authority().ok_or(BadUrl::Shape)?;
        if authority.as_str().contains('@') {
            return Err(BadUrl::User);
        }
        let host = authority.host().to_ascii_lowercase();
        let has_port = authority.as_str().len() > host.len();
        if host.is_empty() || has_port != authority.port_u16().is_some() {
            return Err(BadUrl::Shape);
        }
        let is_websocket = uri.scheme_str().is_some_and(|scheme| scheme.starts_with("ws")) && !guessed;
        let path = match uri.path() {
            "" | "/" | "/ws" => "/ws",
            path if is_websocket => path,
            _ => return Err(BadUrl::Path),
        };
        if uri.query().is_some() {
            return Err(BadUrl::Path);
        }
        let mut url = Self { tls, host, port: authority.port_u16(), path: path.to_owned() };
        url.tls &= !(guessed && url.is_loopback());
        Ok(url)
    }
}

impl FromStr for BrokerUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::read(text.trim()).map_err(|why| Error::BadUrl { text: claudemesh_proto::text::one_line(text), why })
    }
}

/// The WebSocket address.
impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ws())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_form_leads_to_the_same_broker() {
        let cases = [
            ("http://h.example:7900", "ws://h.example:7900/ws", "http://h.example:7900/join"),
            ("http://h.example:7900/", "ws://h.example:7900/ws", "http://h.example:7900/join"),
            ("ws://h.example:7900/ws", "ws://h.example:7900/ws", "http://h.example:7900/join"),
            ("https://H.example", "wss://h.example/ws", "https://h.example/join"),
            ("wss://h.example/mesh/ws", "wss://h.example/mesh/ws", "https://h.example/join"),
            ("h.example", "wss://h.example/ws", "https://h.example/join"),
            ("h.example:7900", "wss://h.example:7900/ws", "https://h.example:7900/join"),
            ("127.0.0.1:7900", "ws://127.0.0.1:7900/ws", "http://127.0.0.1:7900/join"),
            ("localhost:7900", "ws://localhost:7900/ws", "http://localhost:7900/join"),
            (" http://[::1]:7900 ", "ws://[::1]:7900/ws", "http://[::1]:7900/join"),
        ];
        for (text, ws, join) in cases {
            let url: BrokerUrl = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((url.ws().as_str(), url.http("/join").as_str()), (ws, join), "{text}");
        }
        assert_eq!("[::1]:7900".parse::<BrokerUrl>().unwrap().endpoint(), ("::1", 7900));
    }

    #[test]
    fn other_forms_say_what_is_wrong() {
        let cases = [
            ("", BadUrl::Shape),
            ("not an address", BadUrl::Shape),
            ("ftp://h", BadUrl::Scheme),
            ("http://user:secret@h", BadUrl::User),
            ("http://h/some/path", BadUrl::Path),
            ("h/some/path", BadUrl::Path),
            ("ws://h/ws?token=x", BadUrl::Path),
            ("http://h:99999", BadUrl::Shape),
            ("http://h:", BadUrl::Shape),
        ];
        for (text, why) in cases {
            assert_eq!(BrokerUrl::read(text), Err(why), "{text}");
        }
    }
}
