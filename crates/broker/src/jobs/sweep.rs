//! Ends what is over: leases every second, old rows every minute.

use std::sync::Arc;
use std::time::Duration;

use crate::edge::server::Running;

const LEASES_EVERY: Duration = Duration::from_secs(1);
const ROWS_EVERY: Duration = Duration::from_mins(1);

/// Runs until the broker stops.
pub(crate) async fn run(running: Arc<Running>) {
    let app = &running.app;
    let mut leases = tokio::time::interval(LEASES_EVERY);
    let mut rows = tokio::time::interval(ROWS_EVERY);
    loop {
        tokio::select! {
            () = running.stop.cancelled() => return,
            _ = leases.tick() => app.hub.end_leases(app.clock.now()),
            _ = rows.tick() => match app.store.sweep().await {
                Ok(0) => {}
                Ok(expired) => tracing::info!(deliveries = expired, "messages expired that nobody came for"),
                Err(error) => tracing::warn!(error = %error, "old rows could not be swept; the next sweep tries again"),
            },
        }
    }
}
