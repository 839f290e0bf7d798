//! Ends what is over, and keeps alive what is not: leases every second, statuses that nobody repeats every 15 s, old rows every
//! minute, open sessions every hour.

use std::sync::Arc;
use std::time::Duration;

use claudemesh_store::StoreError;

use crate::app::App;
use crate::edge::server::Running;

const LEASES_EVERY: Duration = Duration::from_secs(1);
const STATUSES_EVERY: Duration = Duration::from_secs(15);
const ROWS_EVERY: Duration = Duration::from_mins(1);
/// A session key goes on taking mail for days after it was last seen, so an hour is often enough.
const REFRESH_EVERY: Duration = Duration::from_hours(1);

/// Ends leases and old statuses until the broker stops.
pub(crate) async fn presences(running: Arc<Running>) {
    let app = &running.app;
    let mut ticks = tokio::time::interval(LEASES_EVERY);
    let mut rested_at = app.clock.now();
    while running.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        app.hub.end_leases();
        log_departures(app).await;
        let now = app.clock.now();
        if now.distance(rested_at) >= STATUSES_EVERY {
            rested_at = now;
            app.metrics.rested(app.hub.rest());
        }
    }
}

/// Logs who has left; what cannot be logged now is tried again.
pub(crate) async fn log_departures(app: &App) {
    let mut logging = Vec::new();
    for event in app.hub.take_departures() {
        logging.push((event.clone(), app.store.record(event).await));
    }
    let mut left = Vec::new();
    for (event, logged) in logging {
        match logged.await {
            Ok(()) | Err(StoreError::Refused(_)) => {}
            Err(StoreError::Unavailable(_)) => left.push(event),
        }
    }
    app.hub.give_back_departures(left);
}

/// Sweeps the tables until the broker stops; a sweep under way is given up then, and what it has not done is done after the start.
pub(crate) async fn rows(running: Arc<Running>) {
    let sweeping = async {
        let app = &running.app;
        let mut rows = tokio::time::interval(ROWS_EVERY);
        let mut refresh = tokio::time::interval(REFRESH_EVERY);
        loop {
            tokio::select! {
                _ = refresh.tick() => {
                    if let Err(error) = app.store.refresh_sessions(&app.hub.open_sessions()).await {
                        tracing::warn!(error = %error, "open sessions could not be written down; the next time is in an hour");
                    }
                }
                _ = rows.tick() => match app.store.sweep().await {
                    Ok(0) => {}
                    Ok(expired) => tracing::info!(deliveries = expired, "messages expired that nobody came for"),
                    Err(error) => tracing::warn!(error = %error, "old rows could not be swept; the next sweep tries again"),
                },
            }
        }
    };
    running.stop.run_until_cancelled(sweeping).await;
}
