//! How much is queued for each recipient, kept with each batch, so that a limit costs no counting.

use std::collections::HashMap;

use claudemesh_proto::MeshId;

use crate::recipient::Recipient;
use crate::sql::{Connection, Sql, json, sql, together};

/// Most rows that may be queued for one recipient.
pub const MAX_QUEUED_ROWS: i64 = 10_000;
/// Most bytes that may be queued for one recipient.
pub const MAX_QUEUED_BYTES: i64 = 64 << 20;
/// Most rows that may be queued in one mesh.
pub const MAX_MESH_QUEUED_ROWS: i64 = 2_000_000;
/// Most bytes that may be queued in one mesh; a broadcast counts once per recipient.
pub const MAX_MESH_QUEUED_BYTES: i64 = 8 << 30;

/// Most bytes that the messages of a mesh's topics may take, which are kept for good; each with [`TOPIC_ROW_BYTES`], and so is each
/// notification.
pub const MAX_MESH_TOPIC_BYTES: i64 = 8 << 30;
/// About what a row and its indexes take besides what was written.
pub const TOPIC_ROW_BYTES: i64 = 512;

/// How the queues of recipients grow and shrink.
#[derive(Debug, Default)]
pub(crate) struct Backlog(HashMap<(MeshId, Recipient), Change>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
}

/// Adds to what is queued: mesh, recipient, rows, bytes.
macro_rules! add_to_backlog {
    () => {
        "insert into backlog (mesh_id, recipient, queued_rows, queued_bytes) \
         select r.value ->> 0, r.value ->> 1, cast(r.value ->> 2 as bigint), cast(r.value ->> 3 as bigint) from "
    };
    (tail) => {
        " where true on conflict (mesh_id, recipient) do update set \
         queued_rows = backlog.queued_rows + excluded.queued_rows, \
         queued_bytes = backlog.queued_bytes + excluded.queued_bytes"
    };
}
pub(crate) use add_to_backlog;

impl Backlog {
    pub(crate) fn change(&mut self, mesh: &MeshId, recipient: &Recipient) -> &mut Change {
        self.0.entry((mesh.clone(), recipient.clone())).or_default()
    }

    /// The changes of each mesh's whole queue.
    pub(crate) fn by_mesh(&self) -> HashMap<&MeshId, Change> {
        let mut meshes: HashMap<&MeshId, Change> = HashMap::new();
        for ((mesh, _), change) in &self.0 {
            let whole = meshes.entry(mesh).or_default();
            whole.rows += change.rows;
            whole.bytes = whole.bytes.saturating_add(change.bytes);
        }
        meshes
    }

    /// The changes as rows of the table.
    pub(crate) fn rows(&self) -> Vec<(&MeshId, String, i64, i64)> {
        let changes = self.0.iter().filter(|(_, change)| **change != Change::default());
        changes.map(|((mesh, to), change)| (mesh, to.to_string(), change.rows, change.bytes)).collect()
    }

    /// Adds the changes to the table.
    pub(crate) async fn write(&self, connection: &mut Connection<'_>) -> sqlx::Result<()> {
        const ADD: Sql = together!(write(add_to_backlog!(), "$1", add_to_backlog!(tail)));
        const ADD_TO_MESH: Sql = sql!(
            "update mesh_head set queued_rows = queued_rows + $2, queued_bytes = queued_bytes + $3 where mesh_id = $1"
        );
        let rows = self.rows();
        if !rows.is_empty() {
            connection.execute(ADD, &[(&json(&rows)?).into()]).await?;
        }
        for (mesh, change) in self.by_mesh() {
            connection.execute(ADD_TO_MESH, &[mesh.as_str().into(), change.rows.into(), change.bytes.into()]).await?;
        }
        Ok(())
    }
}

impl Change {
    /// Adds one message to a queue that holds so many rows and bytes in the tables; false when it is full.
    pub(crate) fn add(&mut self, size: i64, (rows, bytes): (i64, i64)) -> bool {
        let fits = rows + self.rows < MAX_QUEUED_ROWS
            && bytes.saturating_add(self.bytes).saturating_add(size) <= MAX_QUEUED_BYTES;
        if fits {
            self.rows += 1;
            self.bytes = self.bytes.saturating_add(size);
        }
        fits
    }
}
