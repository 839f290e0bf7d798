//! Verifying the audit log: every entry from the first to the last is hashed again, page by page, and compared with what was kept of
//! it: the next entry, the mesh's head, and the checkpoints.
//!
//! What is evident is a change before any of these that whoever made it could not change as well. Whether a checkpoint is the
//! broker's own is for the caller to say: keys are not known here.

use std::collections::BTreeMap;

use claudemesh_proto::audit::Checkpoint;
use claudemesh_proto::{MeshId, Timestamp, canonical};
use serde_json::Value as Json;

use crate::audit::Hashed;
use crate::error::StoreError;
use crate::sql::{Row, Sql, sql};
use crate::{Store, checkpoint};

/// Entries that are read and hashed in one go: some milliseconds, after which others have their turn.
const PAGE: i64 = 500;

/// What is known of an entry from elsewhere than the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The entry's number.
    pub seq: i64,
    /// Its hash.
    pub hash: String,
    /// Its second hash.
    pub hash2: String,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The number of the last entry.
    pub entries: i64,
    /// The first thing that does not fit.
    pub broken: Option<Broken>,
    /// The newest checkpoint in the database.
    pub newest: Option<Checkpoint>,
    /// That entry, its hash and its second hash: where the log stands, when everything fits.
    pub end: Mark,
}

/// Something does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// At which entry.
    pub at: i64,
    /// What.
    pub why: String,
}

impl Broken {
    fn new(at: i64, why: impl Into<String>) -> Self {
        Self { at, why: why.into() }
    }
}

impl Store {
    /// Verifies a mesh's log as it stands now; what comes in meanwhile is not looked at. `marks` are in the order of their numbers.
    /// `is_ours` tells whether a checkpoint is signed by this broker. `None` when `goes_on` said no between two pages.
    pub async fn verify_audit_log(
        &self,
        mesh_id: &MeshId,
        marks: &[Mark],
        is_ours: impl Fn(&Checkpoint) -> bool + Send + Sync,
        goes_on: impl Fn() -> bool + Send + Sync,
    ) -> Result<Option<Verified>, StoreError> {
        let head = self.audit_head(mesh_id).await?;
        let newest = self.newest_checkpoint(mesh_id).await?;
        let mut chain = Chain::new(mesh_id, &head);
        let mut marks = marks;
        while goes_on() {
            let rows = self.audit_page(mesh_id, chain.read_to, head.seq).await?;
            let last = rows.last().map_or(Ok(i64::MAX), |row| row.int(0))?;
            let (these, later) = marks.split_at(marks.partition_point(|mark| mark.seq <= last));
            marks = later;
            let checkpoints = self.checkpoints(mesh_id, chain.read_to, last.min(head.seq)).await?;
            let mut expected = Expected::default();
            for mark in these {
                expected.add(mark.clone());
            }
            for found in checkpoints {
                match found.map(|one| (is_ours(&one), one)) {
                    Ok((true, Checkpoint { seq, hash, hash2, .. })) => expected.add(Mark { seq, hash, hash2 }),
                    Ok((false, Checkpoint { seq, .. })) | Err(seq) => expected.forged(seq),
                }
            }
            let is_end = rows.is_empty();
            let checked = chain.check(&rows, &mut expected)?;
            // The rest of the log may be long, and another turn is due.
            tokio::task::yield_now().await;
            if let Some(broken) = checked.err().or_else(|| if is_end { chain.check_end(&expected).err() } else { None })
            {
                let entries = head.last_row;
                return Ok(Some(Verified { entries, broken: Some(broken), newest, end: chain.end() }));
            }
            if is_end {
                return Ok(Some(Verified { entries: head.seq, broken: None, newest, end: chain.end() }));
            }
        }
        Ok(None)
    }

    /// The end of the log, and the last numbers of entries and checkpoints, as they are at one time.
    async fn audit_head(&self, mesh_id: &MeshId) -> Result<Head, StoreError> {
        const HEAD: Sql = sql!(
            "select h.audit_seq, h.audit_hash, h.audit_hash2, \
             coalesce((select a.seq from audit_log a where a.mesh_id = h.mesh_id order by a.seq desc limit 1), 0), \
             coalesce((select c.seq from audit_checkpoint c where c.mesh_id = h.mesh_id order by c.seq desc limit 1), 0) \
             from mesh_head h where h.mesh_id = $1"
        );
        let mut reader = self.db().read().await?;
        let Some(row) = reader.connection().row(HEAD, &[mesh_id.as_str().into()]).await? else {
            return Ok(Head::default());
        };
        Ok(Head {
            seq: row.int(0)?,
            hash: row.text(1)?,
            hash2: row.text(2)?,
            last_row: row.int(3)?,
            last_checkpoint: row.int(4)?,
        })
    }

    async fn newest_checkpoint(&self, mesh_id: &MeshId) -> Result<Option<Checkpoint>, StoreError> {
        const NEWEST: Sql = sql!(
            "select seq, hash, hash2, signed_at, pubkey, signature from audit_checkpoint \
             where mesh_id = $1 order by seq desc limit 1"
        );
        let mut reader = self.db().read().await?;
        let row = reader.connection().row(NEWEST, &[mesh_id.as_str().into()]).await?;
        Ok(row.as_ref().map(checkpoint::read).transpose()?.and_then(Result::ok))
    }

    async fn audit_page(&self, mesh_id: &MeshId, after: i64, to: i64) -> Result<Vec<Row>, StoreError> {
        const ROWS: Sql = sql!(
            "select seq, event_type, actor_member_id, actor_display_name, payload, prev_hash, hash, hash2, created_at \
             from audit_log where mesh_id = $1 and seq > $2 and seq <= $3 order by seq limit $4"
        );
        let mut reader = self.db().read().await?;
        Ok(reader.connection().rows(ROWS, &[mesh_id.as_str().into(), after.into(), to.into(), PAGE.into()]).await?)
    }

    async fn checkpoints(
        &self,
        mesh_id: &MeshId,
        after: i64,
        to: i64,
    ) -> Result<Vec<Result<Checkpoint, i64>>, StoreError> {
        const CHECKPOINTS: Sql = sql!(
            "select seq, hash, hash2, signed_at, pubkey, signature from audit_checkpoint \
             where mesh_id = $1 and seq > $2 and seq <= $3 order by seq limit 10000"
        );
        let mut reader = self.db().read().await?;
        let values = [mesh_id.as_str().into(), after.into(), to.into()];
        let found = reader.connection().rows(CHECKPOINTS, &values).await?;
        Ok(found.iter().map(checkpoint::read).collect::<sqlx::Result<_>>()?)
    }
}

#[derive(Debug, Default)]
struct Head {
    seq: i64,
    hash: String,
    hash2: String,
    last_row: i64,
    last_checkpoint: i64,
}

/// What checkpoints say about the entries of a page.
#[derive(Debug, Default)]
struct Expected(BTreeMap<i64, Vec<Result<Mark, ()>>>);

impl Expected {
    fn add(&mut self, mark: Mark) {
        self.0.entry(mark.seq).or_default().push(Ok(mark));
    }

    fn forged(&mut self, seq: i64) {
        self.0.entry(seq).or_default().push(Err(()));
    }
}

/// The log as far as it was verified.
struct Chain<'a> {
    mesh_id: &'a MeshId,
    head: &'a Head,
    seq: i64,
    hash: String,
    hash2: String,
    /// The last row that was read, which may be of a number that no entry has.
    read_to: i64,
}

impl<'a> Chain<'a> {
    fn new(mesh_id: &'a MeshId, head: &'a Head) -> Self {
        Self { mesh_id, head, seq: 0, hash: "genesis".into(), hash2: String::new(), read_to: i64::MIN }
    }

    fn end(&self) -> Mark {
        Mark { seq: self.seq, hash: self.hash.clone(), hash2: self.hash2.clone() }
    }

    /// Checks the next entries.
    fn check(&mut self, rows: &[Row], expected: &mut Expected) -> sqlx::Result<Result<(), Broken>> {
        for row in rows {
            let seq = row.int(0)?;
            self.read_to = seq;
            match self.check_entry(row, seq) {
                Ok(Ok(())) => {}
                Ok(Err(broken)) => return Ok(Err(broken)),
                Err(_) => return Ok(Err(Broken::new(seq, "a column holds something else than it should"))),
            }
            for mark in expected.0.remove(&seq).unwrap_or_default() {
                let why = match mark {
                    Ok(mark) if mark == self.end() => continue,
                    Ok(_) => "the entry is another than the one that a checkpoint was signed for",
                    Err(()) => "a checkpoint for it is not signed by this broker",
                };
                return Ok(Err(Broken::new(seq, why)));
            }
        }
        Ok(Ok(()))
    }

    fn check_entry(&mut self, row: &Row, seq: i64) -> sqlx::Result<Result<(), Broken>> {
        let wanted = self.seq + 1;
        if seq != wanted {
            let why = if seq > wanted { "the entry is missing" } else { "there is no entry before the first" };
            return Ok(Err(Broken::new(seq.min(wanted), why)));
        }
        let broken = |why| Ok(Err(Broken::new(seq, why)));
        let (event, payload) = (row.text(1)?, row.text(4)?);
        let (actor, name) = (row.maybe_text(2)?, row.maybe_text(3)?);
        if !serde_json::from_str::<Json>(&payload).is_ok_and(|json| canonical::json(&json) == payload) {
            return broken("its payload is not as it was written");
        }
        if row.text(5)? != self.hash {
            return broken("it does not follow the entry before it");
        }
        let created_at = Timestamp::from_millis(row.int(8)?);
        let shown = created_at.to_string();
        // The hashes see times by what they look like, and texts that are absent as empty ones.
        let is_canonical =
            shown.parse() == Ok(created_at) && actor.as_deref() != Some("") && name.as_deref() != Some("");
        let hashed = Hashed {
            mesh_id: self.mesh_id.as_str(),
            seq,
            event: &event,
            actor: actor.as_deref(),
            name: name.as_deref().unwrap_or_default(),
            payload: &payload,
            created_at: &shown,
        };
        let (hash, hash2) = (hashed.hash(&self.hash), hashed.hash2(&self.hash2));
        if !is_canonical || row.text(6)? != hash || row.text(7)? != hash2 {
            return broken("its hash is not that of what it says");
        }
        (self.seq, self.hash, self.hash2) = (seq, hash, hash2);
        Ok(Ok(()))
    }

    /// Checks the end against the head, and that no checkpoint is beyond it.
    fn check_end(&self, expected: &Expected) -> Result<(), Broken> {
        let next = self.seq + 1;
        if self.seq < self.head.seq {
            return Err(Broken::new(next, "the entry is missing, and so are all after it"));
        }
        let is_head = self.head.seq == 0 || self.hash == self.head.hash && self.hash2 == self.head.hash2;
        if !is_head {
            return Err(Broken::new(self.seq, "it is not the entry that the mesh's head names"));
        }
        if self.head.last_row > self.head.seq {
            return Err(Broken::new(next, "the entry is beyond the mesh's head"));
        }
        let is_beyond = |seq: i64| seq > self.head.seq;
        let marked = expected.0.keys().copied().find(|seq| is_beyond(*seq));
        if is_beyond(self.head.last_checkpoint) || marked.is_some() {
            let seq = marked.unwrap_or(self.head.last_checkpoint);
            return Err(Broken::new(next, format!("the entry is missing: a checkpoint was signed for entry {seq}")));
        }
        if let Some(seq) = expected.0.keys().next() {
            return Err(Broken::new(*seq, "a checkpoint was signed for an entry that cannot be"));
        }
        Ok(())
    }
}
