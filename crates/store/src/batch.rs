//! One batch of the journal: requests in, one synced transaction, outcomes out.

use std::collections::HashMap;
use std::time::Duration;

use claudemesh_proto::{MeshId, Timestamp};

use crate::crash::crash_point;
use crate::db::{Db, Tx};
use crate::delivery::{self, Claim, Claimed, Reclaim};
use crate::error::Failure;
use crate::message::{self, Appended, NewMessage};
use crate::recipient::Recipient;
use crate::session::{self, Admission, Admitted};
use crate::settle::{self, Release, Settle};
use crate::sql::{Connection, Sql, json, sql};

/// Something for the journal to write.
#[derive(Debug)]
pub(crate) enum Request {
    Admit(Admission),
    Append(Box<NewMessage>),
    Claim(Claim),
    Reclaim(Reclaim),
    Settle(Settle),
    Release(Release),
}

/// What became of a [`Request`].
#[derive(Debug)]
pub(crate) enum Outcome {
    Admitted(Admitted),
    Appended(Appended),
    Claimed(Vec<Claimed>),
    Done,
}

/// What stays the same for the life of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// This start of the broker, as claims name it.
    pub(crate) incarnation: i64,
    /// How long a message is kept for its recipient.
    pub(crate) message_ttl: Duration,
}

/// There may be something to claim.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ring {
    /// The mesh.
    pub mesh_id: MeshId,
    /// For whom.
    pub recipient: Recipient,
    /// Whether rows came free that are older than what was claimed last.
    pub from_start: bool,
}

/// A transaction under way, with what it has learnt and decided so far.
#[derive(Debug)]
pub(crate) struct Batch {
    tx: Tx,
    pub(crate) settings: Settings,
    /// The moment of this batch, by the one clock that claims are judged by.
    pub(crate) now: Timestamp,
    heads: HashMap<MeshId, Head>,
    pub(crate) backlog: Backlog,
    /// Whom to ring for, and whether from the start.
    rings: HashMap<(MeshId, Recipient), bool>,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    message_seq: i64,
    changed: bool,
}

/// How the queues of recipients grow and shrink in this batch.
#[derive(Debug, Default)]
pub(crate) struct Backlog(HashMap<(MeshId, Recipient), Change>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
}

impl Backlog {
    pub(crate) fn change(&mut self, mesh: &MeshId, recipient: &Recipient) -> &mut Change {
        self.0.entry((mesh.clone(), recipient.clone())).or_default()
    }

    /// Adds the changes to the table.
    pub(crate) async fn write(&self, connection: &mut Connection<'_>) -> sqlx::Result<()> {
        const BACKLOG: Sql = sql!(
            "insert into backlog (mesh_id, recipient, queued_rows, queued_bytes) \
             select r.value ->> 0, r.value ->> 1, cast(r.value ->> 2 as bigint), cast(r.value ->> 3 as bigint) from ",
            rows " where true on conflict (mesh_id, recipient) do update set \
                   queued_rows = backlog.queued_rows + excluded.queued_rows, \
                   queued_bytes = backlog.queued_bytes + excluded.queued_bytes"
        );
        let changes = self.0.iter().filter(|(_, change)| **change != Change::default());
        let rows: Vec<_> =
            changes.map(|((mesh, to), change)| (mesh, to.to_string(), change.rows, change.bytes)).collect();
        if !rows.is_empty() {
            connection.execute(BACKLOG, &[(&json(&rows)?).into()]).await?;
        }
        Ok(())
    }
}

/// Writes a batch in one transaction. Outcomes are in the order of the requests, and true once this returns.
pub(crate) async fn commit(
    db: &Db,
    settings: Settings,
    now: Timestamp,
    requests: &[&Request],
) -> Result<(Vec<Outcome>, Vec<Ring>), Failure> {
    let tx = db.write().await.map_err(Failure::of_database)?;
    let mut batch = Batch::begin(tx, settings, now, requests).await?;
    let outcomes = batch.apply(requests).await?;
    batch.write_heads().await?;
    let Batch { mut tx, backlog, rings, .. } = batch;
    backlog.write(&mut tx.connection()).await?;
    crash_point("batch.written");
    tx.commit().await.map_err(Failure::of_database)?;
    crash_point("batch.committed");
    let rings = rings.into_iter().map(|((mesh_id, recipient), from_start)| Ring { mesh_id, recipient, from_start });
    Ok((outcomes, rings.collect()))
}

impl Request {
    pub(crate) fn mesh_id(&self) -> &MeshId {
        match self {
            Self::Admit(admission) => &admission.mesh_id,
            Self::Append(message) => &message.mesh_id,
            Self::Claim(claim) => &claim.mesh_id,
            Self::Reclaim(again) => &again.mesh_id,
            Self::Settle(settle) => &settle.mesh_id,
            Self::Release(release) => &release.mesh_id,
        }
    }

    /// About how many bytes it puts into the values of a batch's statements.
    pub(crate) fn weight(&self) -> usize {
        /// Ids, keys and names.
        const FIELDS: usize = 1024;
        match self {
            Self::Append(message) => FIELDS + usize::try_from(message.size_bytes()).unwrap_or(usize::MAX),
            // It names rows, and they are read whatever they weigh: as much as a connection's window.
            Self::Reclaim(_) => 1 << 20,
            Self::Release(release) => FIELDS + release.held.len() * 64,
            // What a claim reads has a limit of its own.
            Self::Admit(_) | Self::Claim(_) | Self::Settle(_) => FIELDS,
        }
    }

    /// A claim as far as [`Request::undo`] needs it; `None` for what hands out no rows.
    pub(crate) fn without_rows(&self) -> Option<Self> {
        match self {
            Self::Claim(claim) => Some(Self::Claim(claim.clone())),
            Self::Reclaim(Reclaim { mesh_id, connection, .. }) => {
                let (mesh_id, connection) = (mesh_id.clone(), connection.clone());
                Some(Self::Reclaim(Reclaim { mesh_id, connection, rows: Vec::new() }))
            }
            _ => None,
        }
    }

    /// What frees the rows again that were handed to somebody who is gone.
    pub(crate) fn undo(&self, outcome: Outcome) -> Option<Self> {
        let Outcome::Claimed(rows) = outcome else { return None };
        let (mesh_id, connection) = match self {
            Self::Claim(claim) => (&claim.mesh_id, &claim.connection),
            Self::Reclaim(again) => (&again.mesh_id, &again.connection),
            _ => return None,
        };
        let held: Vec<_> = rows.into_iter().map(|row| (row.delivery, row.recipient)).collect();
        (!held.is_empty())
            .then(|| Self::Release(Release { mesh_id: mesh_id.clone(), connection: connection.clone(), held }))
    }
}

impl Batch {
    /// Reads the heads of the meshes in the batch. On PostgreSQL this locks them, in the order of their ids: a mesh
    /// commits one batch at a time in the whole cluster, so what a batch reads stays true until it commits.
    async fn begin(mut tx: Tx, settings: Settings, now: Timestamp, requests: &[&Request]) -> sqlx::Result<Self> {
        const HEADS: Sql = sql!(
            "select h.mesh_id, h.message_seq, (extract(epoch from clock_timestamp()) * 1000)::bigint from mesh_head h \
             where h.mesh_id in (select * from jsonb_array_elements_text($1::text::jsonb)) order by h.mesh_id for update"
        );
        let fresh =
            |tx, now, heads| Self { tx, settings, now, heads, backlog: Backlog::default(), rings: HashMap::new() };
        if !tx.is_postgres() {
            // The one writer needs no lock, and learns a head with whatever else it reads: a statement of its own costs as much as
            // all of a small batch's inserts.
            return Ok(fresh(tx, now, HashMap::new()));
        }
        let mut meshes: Vec<&MeshId> = requests.iter().map(|request| request.mesh_id()).collect();
        meshes.sort_unstable();
        meshes.dedup();
        let rows = tx.connection().rows(HEADS, &[(&json(&meshes)?).into()]).await?;
        let mut heads = HashMap::with_capacity(rows.len());
        let mut clock = None;
        for row in rows {
            heads.insert(row.parsed(0)?, Head { message_seq: row.int(1)?, changed: false });
            clock = clock.max(Some(Timestamp::from_millis(row.int(2)?)));
        }
        Ok(fresh(tx, clock.unwrap_or(now), heads))
    }

    /// Says what the table has as the mesh's last number, unless this batch knows better.
    pub(crate) fn learn_head(&mut self, mesh: &MeshId, message_seq: i64) {
        self.heads.entry(mesh.clone()).or_insert(Head { message_seq, changed: false });
    }

    pub(crate) fn connection(&mut self) -> Connection<'_> {
        self.tx.connection()
    }

    /// The next number in a mesh's order of messages.
    pub(crate) fn next_message_seq(&mut self, mesh: &MeshId) -> i64 {
        let head = self.heads.entry(mesh.clone()).or_insert(Head { message_seq: 0, changed: true });
        head.message_seq += 1;
        head.changed = true;
        head.message_seq
    }

    /// Random bytes from the operating system.
    pub(crate) fn random<const N: usize>() -> sqlx::Result<[u8; N]> {
        let mut bytes = [0; N];
        getrandom::fill(&mut bytes).map_err(|error| sqlx::Error::Io(std::io::Error::other(error.to_string())))?;
        Ok(bytes)
    }

    pub(crate) fn ring(&mut self, mesh: &MeshId, recipient: &Recipient) {
        self.rings.entry((mesh.clone(), recipient.clone())).or_insert(false);
    }

    pub(crate) fn ring_again(&mut self, mesh: &MeshId, recipient: &Recipient) {
        self.rings.insert((mesh.clone(), recipient.clone()), true);
    }

    /// Does every kind of request in turn: what ends first, so that what is claimed is what is really left.
    async fn apply(&mut self, requests: &[&Request]) -> sqlx::Result<Vec<Outcome>> {
        let mut sorted = Sorted::default();
        for (index, request) in requests.iter().enumerate() {
            sorted.put(index, request);
        }
        let mut outcomes: Vec<Outcome> = requests.iter().map(|_| Outcome::Done).collect();
        let mut put = |index: usize, outcome| {
            if let Some(slot) = outcomes.get_mut(index) {
                *slot = outcome;
            }
        };
        settle::settle(self, &sorted.settles).await?;
        settle::release(self, &sorted.releases).await?;
        let (indexes, admissions): (Vec<_>, Vec<_>) = sorted.admissions.into_iter().unzip();
        let admitted = session::admit(self, &admissions).await?;
        indexes.into_iter().zip(admitted).for_each(|(index, outcome)| put(index, Outcome::Admitted(outcome)));
        let (indexes, messages): (Vec<_>, Vec<_>) = sorted.messages.into_iter().unzip();
        let appended = message::append(self, &messages).await?;
        indexes.into_iter().zip(appended).for_each(|(index, outcome)| put(index, Outcome::Appended(outcome)));
        let (indexes, claims): (Vec<_>, Vec<_>) = sorted.claims.into_iter().unzip();
        let (again_indexes, reclaims): (Vec<_>, Vec<_>) = sorted.reclaims.into_iter().unzip();
        let (claimed, reclaimed) = delivery::claim(self, &claims, &reclaims).await?;
        let claimed = indexes.into_iter().zip(claimed).chain(again_indexes.into_iter().zip(reclaimed));
        claimed.for_each(|(index, rows)| put(index, Outcome::Claimed(rows)));
        Ok(outcomes)
    }

    async fn write_heads(&mut self) -> sqlx::Result<()> {
        const HEADS: Sql = sql!(
            "insert into mesh_head (mesh_id, message_seq) select r.value ->> 0, cast(r.value ->> 1 as bigint) from ",
            rows " where true on conflict (mesh_id) do update set message_seq = excluded.message_seq"
        );
        let changed = self.heads.iter().filter(|(_, head)| head.changed);
        let rows: Vec<_> = changed.map(|(mesh, head)| (mesh, head.message_seq)).collect();
        if !rows.is_empty() {
            let rows = json(&rows)?;
            self.connection().execute(HEADS, &[(&rows).into()]).await?;
        }
        Ok(())
    }
}

/// The requests of a batch by kind, each kind in order.
#[derive(Default)]
struct Sorted<'a> {
    admissions: Vec<(usize, &'a Admission)>,
    messages: Vec<(usize, &'a NewMessage)>,
    claims: Vec<(usize, &'a Claim)>,
    reclaims: Vec<(usize, &'a Reclaim)>,
    settles: Vec<&'a Settle>,
    releases: Vec<&'a Release>,
}

impl<'a> Sorted<'a> {
    fn put(&mut self, index: usize, request: &'a Request) {
        match request {
            Request::Admit(admission) => self.admissions.push((index, admission)),
            Request::Append(message) => self.messages.push((index, message)),
            Request::Claim(claim) => self.claims.push((index, claim)),
            Request::Reclaim(again) => self.reclaims.push((index, again)),
            Request::Settle(settle) => self.settles.push(settle),
            Request::Release(release) => self.releases.push(release),
        }
    }
}
