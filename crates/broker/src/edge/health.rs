//! Whether the broker is well.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::edge::server::Running;
use crate::metrics::Gauges;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET /health`: always 200, so that a supervisor does not kill a broker that only waits for its database.
pub(crate) async fn health(State(running): State<Arc<Running>>) -> Response {
    let settings = &running.app.settings;
    let db = if running.app.store.is_up().await { "up" } else { "down" };
    let uptime = settings.started_at.elapsed().as_secs();
    Json(json!({"status": "ok", "db": db, "version": VERSION, "gitSha": settings.git_sha, "uptime": uptime}))
        .into_response()
}

/// `GET /health/ready`: 200 while the database answers, else 503.
pub(crate) async fn ready(State(running): State<Arc<Running>>) -> Response {
    let settings = &running.app.settings;
    if !running.app.store.is_up().await {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "not_ready", "reason": "db_down"})))
            .into_response();
    }
    let uptime = settings.started_at.elapsed().as_secs();
    Json(json!({"status": "ready", "version": VERSION, "gitSha": settings.git_sha, "uptime": uptime})).into_response()
}

/// `GET /metrics`, in the text format of Prometheus.
pub(crate) async fn metrics(State(running): State<Arc<Running>>) -> Response {
    let app = &running.app;
    let queue_depth = app.store.queue_depth().await;
    let gauges = Gauges {
        connections_active: app.hub.open(),
        streams_active: app.hub.streams.count(),
        is_db_healthy: queue_depth.is_ok(),
        queue_depth: queue_depth.unwrap_or_default(),
    };
    let page = app.metrics.render(gauges, app.store.meters());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page).into_response()
}
