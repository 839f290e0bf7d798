//! The two HTTP requests of a client: one JSON object out, one back.
//!
//! `ureq` does it: a small blocking client, run on a thread of its own. It follows no redirects, because a key must not be
//! introduced to another host than the one the user or the owner named, and uses no proxy, because the WebSocket uses none.

use std::time::Duration;

use claudemesh_proto::text::one_line;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, http};

use crate::broker_url::BrokerUrl;
use crate::error::{Error, Result};
use crate::tls;

/// Posts `body` to `route` of the broker, within 15 s.
///
/// # Errors
/// [`Error::HttpRefused`] with the word of the answer when the status is not 2xx, [`Error::Unreachable`] also when no broker
/// answers, [`Error::Protocol`] when the answer is not what it should be.
pub(crate) async fn post<T>(broker: &BrokerUrl, route: &str, token: Option<&str>, body: &impl Serialize) -> Result<T>
where
    T: DeserializeOwned + Send + 'static,
{
    let body = serde_json::to_vec(body).map_err(Error::protocol)?;
    let bearer = token.map(|token| format!("Bearer {token}"));
    let (broker, url, url_shown) = (broker.clone(), broker.http(route), broker.to_string());
    let answer = tokio::task::spawn_blocking(move || exchange(&broker, &url, bearer.as_deref(), &body)).await;
    let (status, text) = answer.map_err(Error::protocol)??;
    if status.is_success() {
        return serde_json::from_str(&text).map_err(Error::protocol);
    }
    match serde_json::from_str::<Refusal>(&text) {
        Ok(refusal) => Err(Error::HttpRefused { status: status.as_u16(), word: one_line(&refusal.error) }),
        // No broker says nothing: this is a proxy before it, or another server.
        Err(_) => Err(Error::Unreachable { url: url_shown, why: no_broker(status.as_u16()) }),
    }
}

/// Why an answer with this HTTP status is none of a broker's.
pub(crate) fn no_broker(status: u16) -> String {
    match status {
        404 | 405 | 501 => format!("there is no broker at this address (HTTP {status})"),
        429 => "too many connections from this address (HTTP 429)".into(),
        status => format!("it answered HTTP {status}"),
    }
}

/// What a refusal says.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

fn exchange(broker: &BrokerUrl, url: &str, bearer: Option<&str>, body: &[u8]) -> Result<(http::StatusCode, String)> {
    let unreachable = |error: ureq::Error| match error {
        ureq::Error::Timeout(_) => Error::TimedOut { what: "HTTP answer", seconds: TIMEOUT.as_secs() },
        ureq::Error::Io(error) => Error::Unreachable { url: broker.to_string(), why: tls::why(&error) },
        other => Error::Unreachable { url: broker.to_string(), why: other.to_string() },
    };
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(TIMEOUT))
        .user_agent(concat!("claudemesh/", env!("CARGO_PKG_VERSION")));
    if broker.is_tls() {
        let roots = tls::roots().map_err(|why| Error::Unreachable { url: broker.to_string(), why })?;
        let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(tls::provider());
        config = config.tls_config(tls.build());
    }
    let mut request = config.build().new_agent().post(url).header("content-type", "application/json");
    if let Some(bearer) = bearer {
        request = request.header("authorization", bearer);
    }
    let mut answer = request.send(body).map_err(unreachable)?;
    let text = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string().map_err(unreachable)?;
    Ok((answer.status(), text))
}

const TIMEOUT: Duration = Duration::from_secs(15);

/// Both answers have a few hundred bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::Hostile;

    #[tokio::test]
    async fn the_word_of_a_refusal_stays_one_line() {
        let broker = Hostile::http(409, r#"{"error":"slug_taken\ntry: x"}"#).await;
        let refused = post::<serde_json::Value>(&broker.url, "/join", None, &0).await.unwrap_err();
        assert_eq!(refused.to_string(), "the broker refused: slug_takentry: x (HTTP 409)");
    }

    #[tokio::test]
    async fn a_server_that_is_no_broker_is_said_so() {
        let server = Hostile::http(501, "<h1>Unsupported method</h1>").await;
        let refused = post::<serde_json::Value>(&server.url, "/join", None, &0).await.unwrap_err();
        assert!(matches!(refused, Error::Unreachable { .. }), "{refused:?}");
        assert!(refused.to_string().ends_with(": there is no broker at this address (HTTP 501)"), "{refused}");
    }
}
