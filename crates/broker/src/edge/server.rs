//! The HTTP server: one task per connection, every one of them owned.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::app::App;
use crate::edge::impatient::Impatient;
use crate::edge::{health, hook, rest, upgrade};

/// Largest head of a request.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// How long a client may take to send the head of a request, and again for its body.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
/// How long a client may take to read the end of a stream that is over.
const GOODBYE: Duration = Duration::from_secs(1);
/// A short rest when the system has no more file descriptors, instead of a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A broker with its tasks.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) app: Arc<App>,
    pub(crate) tasks: TaskTracker,
    /// Cancelled once: stop accepting, finish, close.
    pub(crate) stop: CancellationToken,
}

/// The address at the other end of the socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RemoteAddress(pub(crate) SocketAddr);

/// Cancelled when what the connection is answered is over, whether or not it is read.
#[derive(Debug, Clone)]
pub(crate) struct Over(pub(crate) CancellationToken);

impl Connected<SocketAddr> for RemoteAddress {
    fn connect_info(address: SocketAddr) -> Self {
        Self(address)
    }
}

/// Every route; the table of contents of what can be asked over HTTP.
fn routes(running: Arc<Running>) -> Router {
    Router::new()
        .merge(rest::routes(&running))
        .route("/ws", get(upgrade::upgrade))
        .route("/join", post(rest::invite::join))
        .route("/hook/set-status", post(hook::set_status))
        .route("/join/{token}", get(rest::invite::invite_page))
        .route("/health", get(health::health))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/", get(rest::front_page))
        .fallback(rest::not_found)
        .layer(from_fn(harden))
        .with_state(running)
}

/// What every answer says to a browser: run nothing, send nothing on, guess nothing; and keep nothing of what needs a key.
async fn harden(request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, HeaderValue); 3] = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    let is_private = ["/v1/", "/api/v1/"].iter().any(|start| request.uri().path().starts_with(start));
    let mut response = next.run(request).await;
    response.headers_mut().extend(HEADERS);
    if is_private {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Accepts until told to stop. Connections under way go on; whoever runs the broker waits for them.
pub(crate) async fn accept(listener: TcpListener, running: Arc<Running>) {
    let routes = routes(Arc::clone(&running));
    loop {
        let accepted = tokio::select! {
            () = running.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Small frames should not wait for more to come.
                let _ = stream.set_nodelay(true);
                let address = peer.ip().to_canonical();
                let is_proxy =
                    running.app.settings.config.trusted_proxies.iter().any(|network| network.contains(&address));
                let counted = (!address.is_loopback() && !is_proxy).then_some(address);
                // One caller too many is hung up on: it has not said yet what an answer could be given to.
                let Some(caller) = running.app.limits.callers.let_in(counted) else { continue };
                let stream = Impatient::new(stream, running.app.settings.config.write_timeout);
                let (routes, stop) = (routes.clone(), running.stop.clone());
                running.tasks.spawn(async move {
                    serve(stream, peer, routes, stop).await;
                    drop(caller);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: Impatient<TcpStream>, peer: SocketAddr, routes: Router, stop: CancellationToken) {
    let over = Over(CancellationToken::new());
    let told = over.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        let routes = routes.clone();
        request.extensions_mut().insert(ConnectInfo(RemoteAddress(peer)));
        request.extensions_mut().insert(told.clone());
        async move {
            let response = routes.oneshot(request.map(axum::body::Body::new)).await;
            response.map_err(|never: Infallible| match never {})
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // What breaks here is the client's line; there is nobody to tell.
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
        () = over.0.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(GOODBYE, connection).await;
        }
    }
}
