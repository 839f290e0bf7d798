//! Closes what is still open of members who were removed: on another broker, or while they said hello.

use std::sync::Arc;
use std::time::Duration;

use crate::edge::server::Running;

/// Well below the 5 s of D9.
const EVERY: Duration = Duration::from_secs(1);
/// The time of a removal is a little before its commit.
const OVERLAP: Duration = Duration::from_secs(30);

/// Looks for removed members until the broker stops.
pub(crate) async fn connections(running: Arc<Running>) {
    let looking = async {
        let app = &running.app;
        let mut ticks = tokio::time::interval(EVERY);
        let mut looked = app.clock.instant();
        loop {
            ticks.tick().await;
            let now = app.clock.instant();
            match app.store.removed_within(now.saturating_duration_since(looked) + OVERLAP).await {
                Ok(removed) => {
                    for (mesh, member) in removed {
                        if app.hub.expel(&mesh, &member) {
                            tracing::info!(mesh.id = %mesh, member.id = %member, "connections of a removed member were closed");
                        }
                    }
                    looked = now;
                }
                // The next look goes back as far.
                Err(error) => tracing::debug!(error = %error, "the store could not say who was removed"),
            }
        }
    };
    running.stop.run_until_cancelled(looking).await;
}
