//! The counters of the meshes that a batch writes to: read once, written once.

use std::collections::HashMap;

use claudemesh_proto::{MeshId, Timestamp};

use crate::audit::{AuditRow, Event};
use crate::backlog::{Backlog, Change, MAX_MESH_QUEUED_BYTES, MAX_MESH_QUEUED_ROWS, MAX_MESH_TOPIC_BYTES};
use crate::db::Tx;
use crate::look_up::HeadRow;
use crate::sql::{Sql, json, sql};

/// The heads as the batch will leave them.
#[derive(Debug, Default)]
pub(crate) struct MeshHeads(HashMap<MeshId, Head>);

#[derive(Debug)]
struct Head {
    row: HeadRow,
    /// What the batch adds to the mesh's queue.
    queued: Change,
    changed: bool,
}

impl MeshHeads {
    /// Reads and locks the heads of these meshes on PostgreSQL, always in the order of their ids, so that of all brokers only this one
    /// writes to them, and what is read next holds until the commit. The server's time, if there was a head.
    pub(crate) async fn lock(&mut self, tx: &mut Tx, mut meshes: Vec<&MeshId>) -> sqlx::Result<Option<Timestamp>> {
        const HEADS: Sql = sql!(
            "select h.mesh_id, (extract(epoch from clock_timestamp()) * 1000)::bigint, h.message_seq, h.queued_rows, \
             h.queued_bytes, h.topic_bytes, h.audit_seq, h.audit_hash, h.audit_hash2 from mesh_head h \
             where h.mesh_id in (select * from jsonb_array_elements_text($1::text::jsonb)) order by h.mesh_id for update"
        );
        meshes.sort_unstable();
        meshes.dedup();
        let mut clock = None;
        for row in tx.connection().rows(HEADS, &[(&json(&meshes)?).into()]).await? {
            self.add(HeadRow {
                mesh_id: row.parsed(0)?,
                message_seq: row.int(2)?,
                queued_rows: row.int(3)?,
                queued_bytes: row.int(4)?,
                topic_bytes: row.int(5)?,
                audit_seq: row.int(6)?,
                audit_hash: row.text(7)?,
                audit_hash2: row.text(8)?,
            });
            clock = clock.max(Some(Timestamp::from_millis(row.int(1)?)));
        }
        Ok(clock)
    }

    pub(crate) fn add(&mut self, row: HeadRow) {
        let new = |row| Head { row, queued: Change::default(), changed: false };
        self.0.entry(row.mesh_id.clone()).or_insert_with(|| new(row));
    }

    pub(crate) fn knows(&self, mesh: &MeshId) -> bool {
        self.0.contains_key(mesh)
    }

    /// Gives every event its place in its mesh's chain.
    pub(crate) fn chain(&mut self, events: Vec<Event>, now: Timestamp) -> Vec<AuditRow> {
        let now = now.to_string();
        let chained = events.into_iter().filter_map(|event| {
            let head = self.0.get_mut(&event.mesh_id)?;
            head.changed = true;
            Some(event.chain(&mut head.row, &now))
        });
        chained.collect()
    }

    /// The heads as rows; one without hashes only adds to what is queued.
    pub(crate) fn rows(&self, backlog: &Backlog) -> Vec<impl serde::Serialize + use<>> {
        let mut queued = backlog.by_mesh();
        let mut rows = Vec::new();
        for (mesh, head) in self.0.iter().filter(|(_, head)| head.changed) {
            let Change { rows: more, bytes } = queued.remove(mesh).unwrap_or_default();
            let HeadRow { message_seq, topic_bytes, audit_seq, audit_hash, audit_hash2, .. } = &head.row;
            let hashes = (audit_hash.clone(), audit_hash2.clone());
            rows.push((mesh.clone(), *message_seq, more, bytes, *audit_seq, hashes.0, hashes.1, *topic_bytes));
        }
        let only_queued = queued.into_iter().filter(|(_, change)| *change != Change::default());
        rows.extend(
            only_queued
                .map(|(mesh, change)| (mesh.clone(), 0, change.rows, change.bytes, 0, String::new(), String::new(), 0)),
        );
        rows
    }

    /// Whether the mesh's whole queue takes so much more.
    pub(crate) fn has_room(&mut self, mesh: &MeshId, more: Change) -> bool {
        let Some(head) = self.0.get_mut(mesh) else { return false };
        let (rows, bytes) = (head.row.queued_rows + head.queued.rows, head.row.queued_bytes + head.queued.bytes);
        let fits = rows.saturating_add(more.rows) <= MAX_MESH_QUEUED_ROWS
            && bytes.saturating_add(more.bytes) <= MAX_MESH_QUEUED_BYTES;
        if fits {
            head.queued.rows += more.rows;
            head.queued.bytes += more.bytes;
        }
        fits
    }

    /// Takes so many bytes for a message of a topic; false when the mesh's topics have no room for them.
    pub(crate) fn take_topic_bytes(&mut self, mesh: &MeshId, bytes: i64) -> bool {
        let Some(head) = self.0.get_mut(mesh) else { return false };
        let taken = head.row.topic_bytes.saturating_add(bytes);
        let fits = taken <= MAX_MESH_TOPIC_BYTES;
        if fits {
            head.row.topic_bytes = taken;
        }
        fits
    }

    /// The next number in a mesh's order of messages. The mesh was looked up: its sender was found in it.
    pub(crate) fn next_message_seq(&mut self, mesh: &MeshId) -> i64 {
        let Some(head) = self.0.get_mut(mesh) else { return 0 };
        head.row.message_seq += 1;
        head.changed = true;
        head.row.message_seq
    }
}
