//! Signs where audit logs stand, while they grow.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use claudemesh_proto::audit::Checkpoint;
use claudemesh_store::AuditHead;

use crate::app::App;
use crate::edge::server::Running;

/// How often it is looked which logs have grown; each has one checkpoint in this time at most.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A log that has grown by so many entries gets a checkpoint at the next look.
const ENTRIES: i64 = 1000;
/// One that has grown by fewer gets it after so long.
const AFTER: Duration = Duration::from_mins(1);

/// Makes checkpoints until the broker stops.
pub(crate) async fn of_all(running: Arc<Running>) {
    let making = async {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            if let Err(error) = of_due(&running.app).await {
                tracing::warn!(error = %format!("{error:#}"), "checkpoints of audit logs could not be made; it is tried again");
            }
        }
    };
    running.stop.run_until_cancelled(making).await;
}

/// Makes one and keeps it: in the file first, which whoever changes the database may not reach.
pub(crate) async fn make(app: &App, head: AuditHead) -> anyhow::Result<Checkpoint> {
    let mesh_id = head.mesh_id.clone();
    let signing = app.notary.sign(head, app.clock.now());
    let checkpoint = signing.await.context("cannot write audit-checkpoints.jsonl in the data directory")?;
    app.store.keep_checkpoint(&mesh_id, &checkpoint).await?;
    Ok(checkpoint)
}

async fn of_due(app: &App) -> anyhow::Result<()> {
    for head in app.store.audit_heads_due(ENTRIES, AFTER).await? {
        make(app, head).await?;
    }
    Ok(())
}
