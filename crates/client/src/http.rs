//! Asking a broker over HTTP: one JSON object out, one back.
//!
//! `ureq` does it: a small blocking client, run on a thread of its own. It follows no redirects, because a key must not be
//! introduced to another host than the one the user or the owner named, and uses no proxy, because the WebSocket uses none.

use std::time::Duration;

use claudemesh_proto::text::one_line;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::broker_url::BrokerUrl;
use crate::error::{Error, Result};
use crate::tls;

/// Posts `body` to `route` of the broker, within 15 s.
///
/// # Errors
/// Those of [`Http::ask`].
pub(crate) async fn post<T>(broker: &BrokerUrl, route: &str, token: Option<&str>, body: &impl Serialize) -> Result<T>
where
    T: DeserializeOwned + Send + 'static,
{
    let body = serde_json::to_vec(body).map_err(Error::protocol)?;
    Http::to(broker)?.ask(Method::POST, route, token, Some(body)).await
}

/// Requests to one broker. Its connection is used again for the next request.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(crate) broker: BrokerUrl,
    agent: Agent,
}

impl Http {
    /// Nothing is connected to yet.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when this machine has no certificates to check the broker's with.
    pub(crate) fn to(broker: &BrokerUrl) -> Result<Self> {
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
        Ok(Self { broker: broker.clone(), agent: config.build().new_agent() })
    }

    /// Asks and reads the answer, within 15 s.
    ///
    /// # Errors
    /// [`Error::HttpRefused`] with the word of the answer when the status is not 2xx, [`Error::Unreachable`] also when no broker
    /// answers, [`Error::Protocol`] when the answer is not what it should be.
    pub(crate) async fn ask<T>(
        &self,
        method: Method,
        route: &str,
        bearer: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> Result<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let request = self.request(method, route, bearer)?;
        let http = self.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let mut answer = http.exchange(request, body)?;
            let text = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string();
            text.map(|text| (answer.status(), text)).map_err(|error| http.failed(error))
        });
        let (status, text) = answer.await.map_err(Error::protocol)??;
        if status.is_success() {
            return serde_json::from_str(&text).map_err(Error::protocol);
        }
        Err(self.refused(status, &text))
    }

    /// Opens an answer that goes on for as long as something comes at least every `idle`. It blocks, and so does reading.
    ///
    /// # Errors
    /// Those of [`Http::ask`].
    pub(crate) fn open_stream(&self, head: StreamHead<'_>, idle: Duration) -> Result<Body> {
        let StreamHead { route, bearer, last_event_id } = head;
        let mut request = self.request(Method::GET, route, Some(bearer))?.header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(()).map_err(Error::protocol)?;
        let request = self.agent.configure_request(request).timeout_global(None).timeout_connect(Some(TIMEOUT));
        let request = request.timeout_recv_response(Some(TIMEOUT)).timeout_per_read(Some(idle)).build();
        let mut answer = self.agent.run(request).map_err(|error| self.failed(error))?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        let text = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string();
        Err(self.refused(answer.status(), &text.map_err(|error| self.failed(error))?))
    }

    fn request(&self, method: Method, route: &str, bearer: Option<&str>) -> Result<ureq::http::request::Builder> {
        let mut request = Request::builder().method(method).uri(self.broker.http(route));
        if let Some(bearer) = bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        // What a route cannot hold is found here, and not on the other thread.
        if request.uri_ref().is_none() { Err(Error::protocol(format!("{route} is no route"))) } else { Ok(request) }
    }

    fn exchange(&self, request: ureq::http::request::Builder, body: Option<Vec<u8>>) -> Result<Response<Body>> {
        let answer = if let Some(body) = body {
            let request = request.header("content-type", "application/json").body(body).map_err(Error::protocol)?;
            self.agent.run(request)
        } else {
            self.agent.run(request.body(()).map_err(Error::protocol)?)
        };
        answer.map_err(|error| self.failed(error))
    }

    fn refused(&self, status: StatusCode, text: &str) -> Error {
        match serde_json::from_str::<Refusal>(text) {
            Ok(refusal) => Error::HttpRefused { status: status.as_u16(), word: one_line(refusal.word()) },
            // No broker says nothing: this is a proxy before it, or another server.
            Err(_) => Error::Unreachable { url: self.broker.to_string(), why: no_broker(status.as_u16()) },
        }
    }

    fn failed(&self, error: ureq::Error) -> Error {
        let url = self.broker.to_string();
        match error {
            ureq::Error::Timeout(_) => Error::TimedOut { what: "HTTP answer", seconds: TIMEOUT.as_secs() },
            ureq::Error::Io(error) => Error::Unreachable { url, why: tls::why(&error) },
            other => Error::Unreachable { url, why: other.to_string() },
        }
    }
}

/// What a stream is asked for with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamHead<'a> {
    pub(crate) route: &'a str,
    pub(crate) bearer: &'a str,
    /// The last event that is known: what follows it comes.
    pub(crate) last_event_id: Option<&'a str>,
}

/// Why an answer with this HTTP status is none of a broker's.
pub(crate) fn no_broker(status: u16) -> String {
    match status {
        404 | 405 | 501 => format!("there is no broker at this address (HTTP {status})"),
        429 => "too many connections from this address (HTTP 429)".into(),
        status => format!("it answered HTTP {status}"),
    }
}

/// What a refusal says: the word of one route, or what any route may say, with words for people.
#[derive(Deserialize)]
#[serde(untagged)]
enum Refusal {
    Own { error: String },
    Common { message: String },
}

impl Refusal {
    fn word(&self) -> &str {
        match self {
            Self::Own { error } => error,
            Self::Common { message } => message,
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(15);

/// The longest answer is a page of 200 messages of 64 KiB each, with what is beside them.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

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
