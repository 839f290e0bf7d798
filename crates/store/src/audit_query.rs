//! Reading the audit log.

use claudemesh_proto::audit::{AuditEntry, AuditResult};
use claudemesh_proto::{MeshId, Timestamp};

use crate::Store;
use crate::error::StoreError;
use crate::sql::{Row, Sql, sql};

impl Store {
    /// Entries of the mesh, newest first, and how many there are; of one type when one is named. Counting those of a type reads
    /// the whole log, on a connection that nothing else waits for.
    pub async fn audit_entries(
        &self,
        mesh_id: &MeshId,
        (limit, offset): (u32, u32),
        event_type: Option<&str>,
    ) -> Result<AuditResult, StoreError> {
        const ENTRIES: Sql = sql!(
            "select seq, event_type, coalesce(actor_display_name, actor_member_id, 'system'), payload, hash, created_at, \
             actor_member_id \
             from audit_log where mesh_id = $1 and ($2 = '' or event_type = $2) order by seq desc limit $3 offset $4"
        );
        const TOTAL: Sql = sql!("select audit_seq from mesh_head where mesh_id = $1");
        const TOTAL_OF_TYPE: Sql = sql!("select count(*) from audit_log where mesh_id = $1 and event_type = $2");
        let mesh = mesh_id.as_str();
        // PostgreSQL stores no text with a zero in it, and refuses to look for one.
        let event = event_type.unwrap_or_default().replace('\0', " ");
        let mut reader = self.db().read().await?;
        let mut connection = reader.connection();
        let values = [mesh.into(), (&event).into(), i64::from(limit).into(), i64::from(offset).into()];
        let entries = connection.rows(ENTRIES, &values).await?.iter().map(entry).collect::<sqlx::Result<_>>()?;
        let total = match event.as_str() {
            "" => connection.row(TOTAL, &[mesh.into()]).await?,
            event => connection.row(TOTAL_OF_TYPE, &[mesh.into(), event.into()]).await?,
        };
        Ok(AuditResult { entries, total: total.map_or(Ok(0), |row| row.int(0))? })
    }
}

fn entry(row: &Row) -> sqlx::Result<AuditEntry> {
    let payload = row.text(3)?;
    Ok(AuditEntry {
        id: row.int(0)?,
        event_type: row.text(1)?,
        actor: row.text(2)?,
        actor_member_id: row.maybe_text(6)?.and_then(|id| id.parse().ok()),
        // What is no JSON any more was tampered with; it is shown all the same.
        payload: serde_json::from_str(&payload).unwrap_or(serde_json::Value::String(payload)),
        hash: row.text(4)?,
        created_at: Timestamp::from_millis(row.int(5)?),
    })
}
