//! One batch of the journal: requests in, one synced transaction, outcomes out.
//!
//! A statement is a trip to the database's thread or server, and with one message in flight the trips are what it costs. So a batch
//! first reads and decides, kind by kind, and then writes everything that it decided in one statement; only what claims take is
//! read and marked after that.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use claudemesh_proto::{ConnectionId, MeshId, Timestamp};

use crate::crash::crash_point;
use crate::db::{Db, Tx};
use crate::delivery;
use crate::error::Failure;
use crate::look_up::{Earlier, Endable, LOOK_UP, Named};
use crate::message::{self, Accepted, Questions};
use crate::recipient::Recipient;
use crate::request::{Entry, Outcome, Sorted};
use crate::session;
use crate::settle::{self, Settle};
use crate::sql::{Connection, Row, Sql, Value, json, sql, together};
use crate::standing::{Rings, Standing};

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
    /// Deliveries that their recipients have.
    pub(crate) ended: HashSet<i64>,
    /// Deliveries that connections gave back.
    pub(crate) freed: Vec<(i64, ConnectionId)>,
    rings: Rings,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    message_seq: i64,
    changed: bool,
}

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

impl Backlog {
    pub(crate) fn change(&mut self, mesh: &MeshId, recipient: &Recipient) -> &mut Change {
        self.0.entry((mesh.clone(), recipient.clone())).or_default()
    }

    /// The changes as rows of the table.
    fn rows(&self) -> Vec<(&MeshId, String, i64, i64)> {
        let changes = self.0.iter().filter(|(_, change)| **change != Change::default());
        changes.map(|((mesh, to), change)| (mesh, to.to_string(), change.rows, change.bytes)).collect()
    }

    /// Adds the changes to the table.
    pub(crate) async fn write(&self, connection: &mut Connection<'_>) -> sqlx::Result<()> {
        const ADD: Sql = together!(write(add_to_backlog!(), "$1", add_to_backlog!(tail)));
        let rows = self.rows();
        if !rows.is_empty() {
            connection.execute(ADD, &[(&json(&rows)?).into()]).await?;
        }
        Ok(())
    }
}

/// Writes a batch in one transaction. Outcomes are in the order of the entries, and true once this returns.
///
/// Claims that waited for what this batch brings become entries of it.
pub(crate) async fn commit(
    db: &Db,
    settings: Settings,
    now: Timestamp,
    entries: &mut Vec<Entry>,
    standing: &mut Standing,
) -> Result<(Vec<Outcome>, Vec<Ring>), Failure> {
    let tx = db.write().await.map_err(Failure::of_database)?;
    let mut batch = Batch::begin(tx, settings, now, entries).await?;
    let mut done = batch.change(&Sorted::of(entries)).await?;
    entries.extend(standing.wake(&mut batch.rings));
    done.extend(batch.hand_over(&Sorted::of(entries)).await?);
    let Batch { tx, rings, .. } = batch;
    let is_postgres = tx.is_postgres();
    let committed = tx.commit().await;
    // With SQLite's commit goes what is written, and the blame may be a row's.
    committed.map_err(|error| if is_postgres { Failure::of_database(error) } else { error.into() })?;
    crash_point("batch.committed");
    let mut outcomes: Vec<Outcome> = entries.iter().map(|_| Outcome::Done).collect();
    for (index, outcome) in done {
        if let Some(slot) = outcomes.get_mut(index) {
            *slot = outcome;
        }
    }
    let rings = rings.into_iter().map(|((mesh_id, recipient), from_start)| Ring { mesh_id, recipient, from_start });
    Ok((outcomes, rings.collect()))
}

impl Batch {
    /// Begins. PostgreSQL's heads of the meshes are read and locked, always in the order of their ids, so that of all brokers only
    /// this one writes to them, and what is read next holds until the commit.
    async fn begin(mut tx: Tx, settings: Settings, now: Timestamp, entries: &[Entry]) -> sqlx::Result<Self> {
        const HEADS: Sql = sql!(
            "select h.mesh_id, h.message_seq, (extract(epoch from clock_timestamp()) * 1000)::bigint from mesh_head h \
             where h.mesh_id in (select * from jsonb_array_elements_text($1::text::jsonb)) order by h.mesh_id for update"
        );
        let mut heads = HashMap::new();
        let mut clock = None;
        // SQLite's one writer needs no lock, and learns a head with whatever else it reads.
        if tx.is_postgres() {
            let mut meshes: Vec<&MeshId> = entries.iter().map(|(request, _)| request.mesh_id()).collect();
            meshes.sort_unstable();
            meshes.dedup();
            for row in tx.connection().rows(HEADS, &[(&json(&meshes)?).into()]).await? {
                heads.insert(row.parsed(0)?, Head { message_seq: row.int(1)?, changed: false });
                clock = clock.max(Some(Timestamp::from_millis(row.int(2)?)));
            }
        }
        Ok(Self {
            tx,
            settings,
            now: clock.unwrap_or(now),
            heads,
            backlog: Backlog::default(),
            ended: HashSet::new(),
            freed: Vec::new(),
            rings: Rings::new(),
        })
    }

    /// Does every kind of request that changes something. Sessions find their owners first: acknowledgements and messages go by
    /// who owns a key now.
    async fn change(&mut self, sorted: &Sorted<'_>) -> sqlx::Result<Vec<(usize, Outcome)>> {
        let (places, admissions) = split(&sorted.admissions);
        let admitted = session::admit(self, &admissions).await?;
        let mut done: Vec<_> = places.into_iter().zip(admitted.into_iter().map(Outcome::Admitted)).collect();
        let (places, messages) = split(&sorted.messages);
        let questions = Questions::of(&messages);
        let (earlier, named, endable) = self.look_up(&questions, &sorted.settles).await?;
        settle::settle(self, endable);
        settle::release(self, &sorted.releases);
        let (appended, accepted) = message::decide(self, &messages, &questions, (earlier, named))?;
        done.extend(places.into_iter().zip(appended.into_iter().map(Outcome::Appended)));
        self.write(&accepted).await?;
        settle::release_unanswered(self, &sorted.releases).await?;
        Ok(done)
    }

    async fn look_up(
        &mut self,
        questions: &Questions<'_>,
        settles: &[&Settle],
    ) -> sqlx::Result<(Vec<Earlier>, Vec<Named>, Vec<Endable>)> {
        let (retries, targets) = (questions.retry_rows(), questions.target_rows());
        let (held, by_message) = settle::rows(settles);
        if targets.is_empty() && held.is_empty() && by_message.is_empty() {
            return Ok((Vec::new(), Vec::new(), Vec::new()));
        }
        let rows = [json(&retries)?, json(&targets)?, json(&held)?, json(&by_message)?];
        let values: Vec<Value<'_>> = rows.iter().map(Into::into).collect();
        let row = self.connection().row(LOOK_UP, &values).await?.ok_or(sqlx::Error::RowNotFound)?;
        let mut endable = row.folded(2)?;
        endable.extend(row.folded::<Endable>(3)?);
        Ok((row.folded(0)?, row.folded(1)?, endable))
    }

    /// Does the requests that ask for mail.
    async fn hand_over(&mut self, sorted: &Sorted<'_>) -> sqlx::Result<Vec<(usize, Outcome)>> {
        let (places, claims) = split(&sorted.claims);
        let (again_places, reclaims) = split(&sorted.reclaims);
        let outcomes = delivery::claim(self, &claims, &reclaims).await?;
        Ok(places.into_iter().chain(again_places).zip(outcomes).collect())
    }

    /// Writes what was decided, in one statement.
    async fn write(&mut self, accepted: &[Accepted<'_>]) -> sqlx::Result<()> {
        const WRITE: Sql = together!(
            ended: write(
                "update delivery set state = 'delivered', ended_at = cast($1 as bigint), claim_incarnation = null, \
                 claim_connection = null, claim_until = null from ",
                "$2",
                " where delivery.id = cast(r.value ->> 0 as bigint)"
            );
            freed: write(
                "update delivery set claim_incarnation = null, claim_connection = null, claim_until = null from ",
                "$3",
                " where delivery.id = cast(r.value ->> 0 as bigint) \
                 and coalesce(delivery.claim_connection, '') = r.value ->> 1"
            );
            accepted: write(
                "insert into message (mesh_id, seq, id, sender_member_id, sender_pubkey, sender_name, target_spec, priority, \
                 nonce, ciphertext, ext, client_message_id, request_fingerprint, created_at) \
                 select r.value ->> 0, cast(r.value ->> 1 as bigint), r.value ->> 2, r.value ->> 3, r.value ->> 4, \
                 r.value ->> 5, r.value ->> 6, r.value ->> 7, r.value ->> 8, r.value ->> 9, r.value ->> 10, r.value ->> 11, \
                 r.value ->> 12, cast($1 as bigint) from ",
                "$4",
                ""
            );
            queued: write(
                "insert into delivery (mesh_id, message_seq, recipient, member_id, priority, size_bytes) \
                 select r.value ->> 0, cast(r.value ->> 1 as bigint), r.value ->> 2, r.value ->> 3, r.value ->> 4, \
                 cast(r.value ->> 5 as bigint) from ",
                "$5",
                ""
            );
            heads: write(
                "insert into mesh_head (mesh_id, message_seq) select r.value ->> 0, cast(r.value ->> 1 as bigint) from ",
                "$6",
                " where true on conflict (mesh_id) do update set message_seq = excluded.message_seq"
            );
            write(add_to_backlog!(), "$7", add_to_backlog!(tail))
        );
        let ended: Vec<(i64,)> = self.ended.iter().map(|id| (*id,)).collect();
        // PostgreSQL changes a row once in a statement: what has ended need not be free.
        let freed: Vec<_> = self.freed.iter().filter(|(id, _)| !self.ended.contains(id)).collect();
        if accepted.is_empty() && ended.is_empty() && freed.is_empty() {
            return Ok(());
        }
        let messages: Vec<_> = accepted.iter().map(Accepted::message_row).collect();
        let deliveries: Vec<_> = accepted.iter().map(Accepted::delivery_row).collect();
        let changed = self.heads.iter().filter(|(_, head)| head.changed);
        let heads: Vec<_> = changed.map(|(mesh, head)| (mesh, head.message_seq)).collect();
        let (ended, freed, messages) = (json(&ended)?, json(&freed)?, json(&messages)?);
        let (deliveries, heads, backlog) = (json(&deliveries)?, json(&heads)?, json(&self.backlog.rows())?);
        let now = self.now.as_millis().into();
        let rows = [&ended, &freed, &messages, &deliveries, &heads, &backlog].map(Into::into);
        let [ended, freed, messages, deliveries, heads, backlog] = rows;
        self.connection().later(WRITE, &[now, ended, freed, messages, deliveries, heads, backlog]).await?;
        if !self.freed.is_empty() {
            crash_point("release.done");
        }
        crash_point("batch.written");
        Ok(())
    }

    /// Says what the table has as the mesh's last number, unless this batch knows better.
    pub(crate) fn learn_head(&mut self, mesh: &MeshId, message_seq: i64) {
        self.heads.entry(mesh.clone()).or_insert(Head { message_seq, changed: false });
    }

    pub(crate) fn connection(&mut self) -> Connection<'_> {
        self.tx.connection()
    }

    /// The last query of the batch; it may be committed with it.
    pub(crate) async fn last_rows(&mut self, sql: Sql, values: &[Value<'_>]) -> sqlx::Result<Vec<Row>> {
        self.tx.last_rows(sql, values).await
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
}

fn split<'a, T>(placed: &[(usize, &'a T)]) -> (Vec<usize>, Vec<&'a T>) {
    placed.iter().copied().unzip()
}
