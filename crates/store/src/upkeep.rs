//! What the tables need done from time to time, in small steps that hold nobody up: expiry, forgetting, checkpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use claudemesh_proto::limits::REPLAY_MEMORY;
use claudemesh_proto::{MeshId, Timestamp};

use sqlx::Row as _;

use crate::backlog::Backlog;
use crate::crash::crash_point;
use crate::db::Db;
use crate::error::StoreError;
use crate::journal::Meters;
use crate::sql::{Sql, Value, json, sql};
use crate::{Clock, Store};

/// Messages looked at in one transaction.
pub(crate) const STEP: i64 = 1000;
/// A message outlives its deliveries by a day, so that its sender can still ask what became of it.
const AFTERLIFE: Duration = Duration::from_hours(24);
/// A notification that was read is forgotten so long after it was written.
const NOTIFICATION_LIFE: Duration = Duration::from_hours(90 * 24);
/// A session key that was never proven is forgotten after a day.
const UNPROVEN_LIFE: Duration = Duration::from_hours(24);
/// The WAL is copied back this often while there is something to copy.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(200);
/// From so many pages of 4 KiB on the journal pauses for a moment, so that the WAL starts again from its beginning: a sync of a file
/// that is overwritten costs a third of one that grows (docs/performance.md).
const WAL_FRAMES: i64 = 4096;
/// A WAL that grew beyond this size, because a reader kept it from starting again, is cut.
const WAL_LIMIT_BYTES: u64 = 256 << 20;

/// How far a mesh's messages have expired. On PostgreSQL this takes the mesh's lock, before which no row of its backlog is touched.
const EXPIRED: Sql = sql!(
    sqlite: "select expired_seq from mesh_head where mesh_id = $1",
    postgres: "select expired_seq from mesh_head where mesh_id = $1 for update",
);
/// A queue that is empty needs no row: the next message for it makes a new one.
pub(crate) const FORGET_EMPTY: Sql = sql!(
    "delete from backlog where (mesh_id, recipient) in (select r.value ->> 0, r.value ->> 1 from ",
    rows ") and queued_rows = 0"
);

impl Store {
    /// Expires, purges and forgets what is due, in transactions of a bounded size. How many deliveries expired.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let now = self.database_now().await?;
        let ttl = self.settings().message_ttl;
        while self.forget_handshakes(now.minus(REPLAY_MEMORY)).await? {}
        while self.forget_sessions(now.minus(UNPROVEN_LIFE), now.minus(ttl + AFTERLIFE)).await? {}
        while self.forget_notifications(now.minus(NOTIFICATION_LIFE)).await? {}
        self.end_mail_of_removed().await?;
        let mut expired = 0;
        for mesh in self.meshes_with_due(now.minus(ttl)).await? {
            while let Some(ended) = self.expire(&mesh, now, now.minus(ttl)).await? {
                expired += ended;
            }
            while self.purge(&mesh, now.minus(ttl + AFTERLIFE)).await? {}
        }
        Ok(expired)
    }

    /// Forgets handshakes that a replay would not get through with; whether there may be more.
    async fn forget_handshakes(&self, before: Timestamp) -> Result<bool, StoreError> {
        const FORGET: Sql = sql!(
            "delete from handshake where (mesh_id, signature) in \
             (select mesh_id, signature from handshake where accepted_at < $1 order by accepted_at limit $2)"
        );
        let mut tx = self.db().write().await?;
        let forgotten = tx.connection().execute(FORGET, &[before.as_millis().into(), STEP.into()]).await?;
        tx.commit().await?;
        Ok(forgotten == STEP.unsigned_abs())
    }

    /// Forgets old notifications that were read; whether there may be more.
    async fn forget_notifications(&self, before: Timestamp) -> Result<bool, StoreError> {
        const FORGET: Sql = sql!(
            "delete from notification where (mesh_id, id) in \
             (select mesh_id, id from notification where read_at is not null and created_at < $1 order by created_at limit $2)"
        );
        let mut tx = self.db().write().await?;
        let forgotten = tx.connection().execute(FORGET, &[before.as_millis().into(), STEP.into()]).await?;
        tx.commit().await?;
        Ok(forgotten == STEP.unsigned_abs())
    }

    /// Forgets session keys that nobody came with for long, and that nothing waits for any more; whether there may be more.
    async fn forget_sessions(&self, unproven: Timestamp, proven: Timestamp) -> Result<bool, StoreError> {
        const DUE: Sql = sql!(
            "select mesh_id, session_pubkey from session \
             where last_seen_at < $1 and (proven_at is null or last_seen_at < $2) order by last_seen_at limit $3"
        );
        const FORGET: Sql = sql!(
            "delete from session where (mesh_id, session_pubkey) in (select r.value ->> 0, r.value ->> 1 from ",
            rows ") and last_seen_at < $2 and (proven_at is null or last_seen_at < $3)"
        );
        let (unproven, proven) = (unproven.as_millis(), proven.as_millis());
        let mut reader = self.db().read().await?;
        let due = reader.connection().rows(DUE, &[unproven.into(), proven.into(), STEP.into()]).await?;
        drop(reader);
        let mut meshes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in &due {
            meshes.entry(row.text(0)?).or_default().push(row.text(1)?);
        }
        for (mesh, keys) in meshes {
            let keys: Vec<_> = keys.iter().map(|key| (&mesh, key)).collect();
            let keys = json(&keys)?;
            let mut tx = self.db().write().await?;
            let mut connection = tx.connection();
            connection.row(EXPIRED, &[(&mesh).into()]).await?;
            // Whoever came back meanwhile stays.
            connection.execute(FORGET, &[(&keys).into(), unproven.into(), proven.into()]).await?;
            connection.execute(FORGET_EMPTY, &[(&keys).into()]).await?;
            tx.commit().await?;
        }
        Ok(due.len() == usize::try_from(STEP).unwrap_or_default())
    }

    /// Meshes whose oldest kept message is old enough for something to be due.
    async fn meshes_with_due(&self, before: Timestamp) -> Result<Vec<MeshId>, StoreError> {
        const DUE: Sql = sql!(
            "select h.mesh_id from mesh_head h where \
             (select m.created_at from message m where m.mesh_id = h.mesh_id order by m.seq limit 1) < $1"
        );
        let mut reader = self.db().read().await?;
        let rows = reader.connection().rows(DUE, &[before.as_millis().into()]).await?;
        Ok(rows.iter().map(|row| row.parsed(0)).collect::<sqlx::Result<_>>()?)
    }

    /// Ends deliveries that nobody came for, oldest first; how many of the messages looked at. `None` when nothing is due.
    async fn expire(&self, mesh: &MeshId, now: Timestamp, before: Timestamp) -> Result<Option<u64>, StoreError> {
        const DUE: Sql = sql!(
            "select coalesce(max(seq), 0) from (select seq, created_at from message where mesh_id = $1 and seq > $2 \
             order by seq limit $3) t where created_at < $4"
        );
        const QUEUED: Sql = sql!(
            "select recipient, size_bytes from delivery \
             where mesh_id = $1 and message_seq > $2 and message_seq <= $3 and state = 'queued'"
        );
        const EXPIRE: Sql = sql!(
            "update delivery set state = 'expired', ended_at = $4, claim_incarnation = null, claim_connection = null, \
             claim_until = null where mesh_id = $1 and message_seq > $2 and message_seq <= $3 and state = 'queued'"
        );
        const DONE: Sql = sql!("update mesh_head set expired_seq = $2 where mesh_id = $1");
        let id: Value<'_> = mesh.as_str().into();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        let Some(head) = connection.row(EXPIRED, std::slice::from_ref(&id)).await? else { return Ok(None) };
        let from = head.int(0)?;
        let due = connection.row(DUE, &[id.clone(), from.into(), STEP.into(), before.as_millis().into()]).await?;
        let to = due.map_or(Ok(0), |row| row.int(0))?;
        if to <= from {
            return Ok(None);
        }
        let (mut backlog, mut queues) = (Backlog::default(), BTreeSet::new());
        for row in connection.rows(QUEUED, &[id.clone(), from.into(), to.into()]).await? {
            let change = backlog.change(mesh, &row.parsed(0)?);
            change.rows -= 1;
            change.bytes -= row.int(1)?;
            queues.insert((mesh, row.text(0)?));
        }
        let values = [id.clone(), from.into(), to.into(), now.as_millis().into()];
        let expired = connection.execute(EXPIRE, &values).await?;
        backlog.write(&mut connection).await?;
        connection.execute(FORGET_EMPTY, &[(&json(&queues)?).into()]).await?;
        connection.execute(DONE, &[id, to.into()]).await?;
        tx.commit().await?;
        Ok(Some(expired))
    }

    /// Removes messages, with content, dedupe key and deliveries; whether there may be more. What has not expired stays.
    async fn purge(&self, mesh: &MeshId, before: Timestamp) -> Result<bool, StoreError> {
        const PURGE: Sql = sql!(
            "delete from message where mesh_id = $1 and seq in (select seq from (select seq, created_at from message \
             where mesh_id = $1 and seq <= (select expired_seq from mesh_head where mesh_id = $1) \
             order by seq limit $2) t where created_at < $3)"
        );
        let mut tx = self.db().write().await?;
        let values = [mesh.as_str().into(), STEP.into(), before.as_millis().into()];
        let purged = tx.connection().execute(PURGE, &values).await?;
        tx.commit().await?;
        Ok(purged == STEP.unsigned_abs())
    }
}

/// What copies SQLite's WAL back into the database.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    pub(crate) db: Db,
    pub(crate) meters: Arc<Meters>,
    pub(crate) clock: Clock,
}

impl Checkpoints {
    /// Copies for as long as the store is open.
    pub(crate) async fn make_for_ever(&self) {
        let mut seen = 0;
        loop {
            tokio::time::sleep(CHECKPOINT_EVERY).await;
            let batches = self.meters.batches.load(Ordering::Relaxed);
            if batches == seen {
                continue;
            }
            seen = batches;
            if let Err(error) = self.checkpoint().await {
                tracing::warn!(error = %error, "the SQLite WAL could not be copied back; it grows until it can");
            }
        }
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        const PASSIVE: &str = "pragma wal_checkpoint(passive)";
        const RESTART: &str = "pragma wal_checkpoint(restart)";
        const TRUNCATE: &str = "pragma wal_checkpoint(truncate)";
        let Db::Sqlite { writer, checkpointer, file, .. } = &self.db else { return Ok(()) };
        let mut connection = checkpointer.acquire().await?;
        crash_point("checkpoint.before");
        // busy, frames in the WAL, frames copied back
        let frames: i64 = file.syncing(sqlx::query(PASSIVE).fetch_one(&mut *connection)).await?.try_get(1)?;
        crash_point("checkpoint.after");
        let mut wal = file.path.clone().into_os_string();
        wal.push("-wal");
        let bytes = std::fs::metadata(&wal).map_or(0, |metadata| metadata.len());
        self.meters.wal_bytes.store(bytes, Ordering::Relaxed);
        if bytes > WAL_LIMIT_BYTES || frames > WAL_FRAMES {
            let started = self.clock.instant();
            // Holding the one writer is what makes the journal pause. Little is left to copy: the rest was copied just before.
            let start_again = if bytes > WAL_LIMIT_BYTES { TRUNCATE } else { RESTART };
            writer.alone(async |paused| sqlx::query(start_again).execute(paused).await).await?;
            let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.meters.longest_pause_micros.fetch_max(micros, Ordering::Relaxed);
        }
        Ok(())
    }
}
