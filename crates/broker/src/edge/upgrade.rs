//! From an HTTP request to a WebSocket.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use claudemesh_proto::limits::MAX_FRAME_BYTES;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::edge::address::{Origin, is_loopback_name};
use crate::edge::impatient::Impatient;
use crate::edge::server::{RemoteAddress, Running};
use crate::edge::ws::{self, MAX_ANSWER_BYTES};
use crate::metrics::Reason;

/// `GET /ws`. Refusals are HTTP answers; once the protocol has switched, everything is said in frames.
pub(crate) async fn upgrade(
    State(running): State<Arc<Running>>,
    ConnectInfo(remote): ConnectInfo<RemoteAddress>,
    mut request: Request,
) -> Response {
    let app = &running.app;
    let origin = Origin::of(remote.0, request.headers(), &app.settings.config.trusted_proxies);
    if request.uri().query().is_some() {
        return (StatusCode::NOT_FOUND, "not found").into_response();
    }
    if !is_allowed_origin(request.headers(), &app.settings) {
        return (StatusCode::FORBIDDEN, "this origin may not open a WebSocket (BROKER_ALLOWED_ORIGINS)")
            .into_response();
    }
    app.limits.hearsay.note(&origin);
    if !app.limits.may_greet(origin.counted, app.clock.now()) {
        app.metrics.rejected(Reason::RateLimit);
        return (StatusCode::TOO_MANY_REQUESTS, "too many failed handshakes; try again in a minute").into_response();
    }
    let Some(stranger) = app.limits.strangers.let_in(origin.counted) else {
        app.metrics.rejected(Reason::RateLimit);
        return (StatusCode::TOO_MANY_REQUESTS, "too many connections that have not said hello").into_response();
    };
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (head, _) = request.into_parts();
    let response = match create_response(&axum::http::Request::from_parts(head, ())) {
        Ok(response) => response.map(|()| Body::empty()),
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let config = websocket_config();
    let serving = Arc::clone(&running);
    running.tasks.spawn(async move {
        // A client that went away between the two steps leaves nothing behind.
        let Ok(upgraded) = on_upgrade.await else { return };
        let Some((socket, read)) = bare(upgraded) else { return };
        let socket = WebSocketStream::from_partially_read(socket, read, Role::Server, Some(config)).await;
        ws::serve(serving, socket, (origin.counted, stranger)).await;
    });
    response
}

/// The socket itself, because frames have a deadline of their own, and what was read of it. HTTP's read buffer ends here: a connection
/// that idles for days has no use for it.
fn bare(upgraded: Upgraded) -> Option<(TcpStream, Vec<u8>)> {
    let parts = upgraded.downcast::<TokioIo<Impatient<TcpStream>>>().ok()?;
    Some((parts.io.into_inner().into_inner(), parts.read_buf.to_vec()))
}

/// Small buffers, because there are many connections and most of them are idle: the defaults cost 130 KiB each. One frame is written
/// before the next is put in (D11), so that the bound is only met by what is longer than any answer may be.
fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(4096)
        .max_write_buffer_size(MAX_ANSWER_BYTES + MAX_FRAME_BYTES)
        .max_message_size(Some(MAX_FRAME_BYTES))
        .max_frame_size(Some(MAX_FRAME_BYTES))
}

/// Programs send no `Origin`; a page of another site does, and must not speak in the name of whoever looks at it.
pub(crate) fn is_allowed_origin(headers: &HeaderMap, settings: &crate::app::Settings) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    // The same host is the broker's own page. A page that was led here under another name (DNS rebinding) brings that name as
    // its host, so only loopback and the public URL's host count.
    let own = |host: &str| settings.public_url.ends_with(&format!("//{host}")) || is_loopback_name(host);
    let is_own = host.is_some_and(|host| own(host) && origin.split_once("//").is_some_and(|(_, name)| name == host));
    is_own || origin == settings.public_url || settings.config.allowed_origins.iter().any(|allowed| allowed == origin)
}
