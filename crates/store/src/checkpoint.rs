//! Where a mesh's audit log stood at some time, as the broker has signed it. Signing and checking signatures is not done here.

use std::time::Duration;

use claudemesh_proto::MeshId;
use claudemesh_proto::Timestamp;
use claudemesh_proto::audit::Checkpoint;

use crate::Store;
use crate::error::StoreError;
use crate::sql::{Row, Sql, sql};

/// The end of a mesh's audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditHead {
    /// The mesh.
    pub mesh_id: MeshId,
    /// The number of its last entry.
    pub seq: i64,
    /// That entry's hash.
    pub hash: String,
    /// That entry's second hash.
    pub hash2: String,
}

impl Store {
    /// The logs that have grown since their last checkpoint: by so many entries, or by any number after so long.
    pub async fn audit_heads_due(&self, entries: i64, after: Duration) -> Result<Vec<AuditHead>, StoreError> {
        const DUE: Sql = sql!(
            "select h.mesh_id, h.audit_seq, h.audit_hash, h.audit_hash2 from mesh_head h \
             left join audit_checkpoint c on c.mesh_id = h.mesh_id \
              and c.seq = (select l.seq from audit_checkpoint l where l.mesh_id = h.mesh_id order by l.seq desc limit 1) \
             where h.audit_seq > coalesce(c.seq, 0) \
             and (h.audit_seq >= coalesce(c.seq, 0) + $1 or coalesce(c.signed_at, 0) <= $2)"
        );
        let before = self.now().minus(after);
        let mut reader = self.db().read().await?;
        let found = reader.connection().rows(DUE, &[entries.into(), before.as_millis().into()]).await?;
        let heads = found.iter().map(|row| -> sqlx::Result<AuditHead> {
            Ok(AuditHead { mesh_id: row.parsed(0)?, seq: row.int(1)?, hash: row.text(2)?, hash2: row.text(3)? })
        });
        Ok(heads.collect::<sqlx::Result<_>>()?)
    }

    /// Keeps a checkpoint. Of two brokers that sign for the same entry, the first one's is kept.
    pub async fn keep_checkpoint(&self, mesh_id: &MeshId, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        const KEEP: Sql = sql!(
            "insert into audit_checkpoint (mesh_id, seq, hash, hash2, signed_at, pubkey, signature) \
             values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing"
        );
        let Checkpoint { seq, hash, hash2, signed_at, pubkey, signature } = checkpoint;
        let (pubkey, signature) = (pubkey.to_string(), signature.to_string());
        let values = [
            mesh_id.as_str().into(),
            (*seq).into(),
            hash.into(),
            hash2.into(),
            signed_at.as_millis().into(),
            (&pubkey).into(),
            (&signature).into(),
        ];
        let mut tx = self.db().write().await?;
        tx.connection().execute(KEEP, &values).await?;
        Ok(tx.commit().await?)
    }
}

/// The columns of a checkpoint, from the first on. One that was tampered with beyond recognition is none: its number is given.
pub(crate) fn read(row: &Row) -> sqlx::Result<Result<Checkpoint, i64>> {
    let (seq, pubkey, signature) = (row.int(0)?, row.text(4)?, row.text(5)?);
    let (Ok(pubkey), Ok(signature)) = (pubkey.parse(), signature.parse()) else { return Ok(Err(seq)) };
    let (hash, hash2, signed_at) = (row.text(1)?, row.text(2)?, Timestamp::from_millis(row.int(3)?));
    Ok(Ok(Checkpoint { seq, hash, hash2, signed_at, pubkey, signature }))
}
