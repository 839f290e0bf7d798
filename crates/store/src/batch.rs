//! One batch of the journal: requests in, one synced transaction, outcomes out.
//!
//! A statement is a trip to the database's thread or server, and with one message in flight the trips are what it costs. So a batch
//! first reads and decides, kind by kind, and then writes everything that it decided in one statement; only what claims take is
//! read and marked after that.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use claudemesh_proto::{ConnectionId, MeshId, Timestamp};

use crate::audit::{AuditRow, Event};
use crate::crash::crash_point;
use crate::db::{Db, Tx};
use crate::delivery::{self, Claim};
use crate::error::Failure;
use crate::hand_over::{Offer, Offers};
use crate::look_up::{HeadRow, LOOK_UP, LookedUp};
use crate::message::{self, Accepted, MAX_MESH_QUEUED_BYTES, MAX_MESH_QUEUED_ROWS, NewMessage, Questions};
use crate::peer_state;
use crate::recipient::Recipient;
use crate::request::{Entry, Outcome, Request, Sorted};
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
    /// What happened, in order.
    events: Vec<Event>,
    /// Deliveries that their recipients have.
    pub(crate) ended: HashSet<i64>,
    /// Deliveries that connections gave back.
    pub(crate) freed: Vec<(i64, ConnectionId)>,
    rings: Rings,
}

/// The counters of a mesh as this batch will leave them.
#[derive(Debug)]
struct Head {
    row: HeadRow,
    /// What the batch adds to the mesh's queue.
    queued: Change,
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

/// Inserts deliveries, with their numbers where the batch gives them.
macro_rules! insert_deliveries {
    (numbered) => {
        concat!(
            "insert into delivery (",
            insert_deliveries!(columns),
            ", id) select ",
            insert_deliveries!(values),
            ", cast(r.value ->> 9 as bigint) from "
        )
    };
    (unnumbered) => {
        concat!("insert into delivery (", insert_deliveries!(columns), ") select ", insert_deliveries!(values), " from ")
    };
    (columns) => {
        "mesh_id, message_seq, recipient, member_id, priority, size_bytes, state, ended_at, claim_connection, claim_until, \
         claim_incarnation"
    };
    (values) => {
        "r.value ->> 0, cast(r.value ->> 1 as bigint), r.value ->> 2, r.value ->> 3, r.value ->> 4, \
         cast(r.value ->> 5 as bigint), r.value ->> 6, case when r.value ->> 6 <> 'queued' then cast($1 as bigint) end, \
         r.value ->> 7, cast(r.value ->> 8 as bigint), case when r.value ->> 7 is not null then cast($9 as bigint) end"
    };
}

/// Everything that a batch decided.
macro_rules! write_batch {
    ($numbering:ident) => {
        together!(
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
                insert_deliveries!($numbering),
                "$5",
                ""
            );
            heads: write(
                "insert into mesh_head (mesh_id, message_seq, queued_rows, queued_bytes, audit_seq, audit_hash, audit_hash2) \
                 select r.value ->> 0, cast(r.value ->> 1 as bigint), cast(r.value ->> 2 as bigint), \
                 cast(r.value ->> 3 as bigint), cast(r.value ->> 4 as bigint), r.value ->> 5, r.value ->> 6 from ",
                "$6",
                " where true on conflict (mesh_id) do update set \
                 message_seq = case when excluded.audit_hash = '' then mesh_head.message_seq else excluded.message_seq end, \
                 queued_rows = mesh_head.queued_rows + excluded.queued_rows, \
                 queued_bytes = mesh_head.queued_bytes + excluded.queued_bytes, \
                 audit_seq = case when excluded.audit_hash = '' then mesh_head.audit_seq else excluded.audit_seq end, \
                 audit_hash = case when excluded.audit_hash = '' then mesh_head.audit_hash else excluded.audit_hash end, \
                 audit_hash2 = case when excluded.audit_hash = '' then mesh_head.audit_hash2 else excluded.audit_hash2 end"
            );
            logged: write(
                "insert into audit_log (mesh_id, seq, event_type, actor_member_id, actor_display_name, payload, prev_hash, \
                 hash, hash2, created_at) select r.value ->> 0, cast(r.value ->> 1 as bigint), r.value ->> 2, r.value ->> 3, \
                 r.value ->> 4, r.value ->> 5, r.value ->> 6, r.value ->> 7, r.value ->> 8, cast($1 as bigint) from ",
                "$8",
                ""
            );
            write(add_to_backlog!(), "$7", add_to_backlog!(tail))
        )
    };
}

impl Backlog {
    pub(crate) fn change(&mut self, mesh: &MeshId, recipient: &Recipient) -> &mut Change {
        self.0.entry((mesh.clone(), recipient.clone())).or_default()
    }

    /// The changes of each mesh's whole queue.
    fn by_mesh(&self) -> HashMap<&MeshId, Change> {
        let mut meshes: HashMap<&MeshId, Change> = HashMap::new();
        for ((mesh, _), change) in &self.0 {
            let whole = meshes.entry(mesh).or_default();
            whole.rows += change.rows;
            whole.bytes = whole.bytes.saturating_add(change.bytes);
        }
        meshes
    }

    /// The changes as rows of the table.
    fn rows(&self) -> Vec<(&MeshId, String, i64, i64)> {
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
    for (request, _) in entries.iter() {
        // It came before what this batch brings.
        if let Request::Withdraw(withdraw) = request {
            standing.withdraw(&withdraw.connection);
        }
    }
    let (mut done, served) = batch.change(&Sorted::of(entries), standing).await?;
    let mut answered = HashSet::new();
    for Offer { place, connection, waits, rows, .. } in served {
        let place = match place {
            Some(place) => place,
            None => match standing.take(&connection) {
                Some(entry) => {
                    entries.push(entry);
                    entries.len() - 1
                }
                None => continue,
            },
        };
        answered.insert(place);
        done.push((place, if waits && rows.is_empty() { Outcome::Nothing } else { Outcome::Claimed(rows) }));
    }
    entries.extend(standing.wake(&mut batch.rings));
    let mut sorted = Sorted::of(entries);
    sorted.claims.retain(|(place, _)| !answered.contains(place));
    done.extend(batch.hand_over(&sorted).await?);
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
            "select h.mesh_id, (extract(epoch from clock_timestamp()) * 1000)::bigint, h.message_seq, h.queued_rows, \
             h.queued_bytes, h.audit_seq, h.audit_hash, h.audit_hash2 from mesh_head h \
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
                let head = HeadRow {
                    mesh_id: row.parsed(0)?,
                    message_seq: row.int(2)?,
                    queued_rows: row.int(3)?,
                    queued_bytes: row.int(4)?,
                    audit_seq: row.int(5)?,
                    audit_hash: row.text(6)?,
                    audit_hash2: row.text(7)?,
                };
                heads.insert(head.mesh_id.clone(), Head::of(head));
                clock = clock.max(Some(Timestamp::from_millis(row.int(1)?)));
            }
        }
        Ok(Self {
            tx,
            settings,
            now: clock.unwrap_or(now),
            heads,
            backlog: Backlog::default(),
            events: Vec::new(),
            ended: HashSet::new(),
            freed: Vec::new(),
            rings: Rings::new(),
        })
    }

    /// Does every kind of request that changes something. Sessions find their owners first: acknowledgements and messages go by
    /// who owns a key now.
    async fn change(
        &mut self,
        sorted: &Sorted<'_>,
        standing: &mut Standing,
    ) -> sqlx::Result<(Vec<(usize, Outcome)>, Vec<Offer>)> {
        // Whoever comes back in the same batch finds what was remembered.
        peer_state::remember(self, &sorted.remembers).await?;
        let (places, admissions) = split(&sorted.admissions);
        let admitted = session::admit(self, &admissions).await?;
        let mut done: Vec<_> = places.into_iter().zip(admitted.into_iter().map(Outcome::Admitted)).collect();
        let (places, messages) = split(&sorted.messages);
        let questions = Questions::of(&messages);
        for event in &sorted.events {
            self.record((*event).clone());
        }
        let claims = self.can_be_served(sorted);
        let found = self.look_up(&questions, &sorted.settles, &claims).await?;
        settle::settle(self, found.endable);
        settle::release(self, &sorted.releases);
        let oldest = self.now.minus(self.settings.message_ttl);
        let recipients = questions.addresses.recipients(found.named, found.listeners, oldest);
        let (appended, mut accepted) = message::decide(self, &messages, &questions, (found.earlier, &recipients))?;
        done.extend(places.into_iter().zip(appended.into_iter().map(Outcome::Appended)));
        let nothing_older = claims.into_iter().filter(|(place, _)| !found.older.contains(place)).collect::<Vec<_>>();
        let mut offers = Offers::of(&nothing_older, standing, &self.rings, self.now);
        if self.tx.is_postgres() {
            offers = Offers::default();
        } else if !accepted.is_empty() {
            let last = self.last_delivery(standing).await?;
            let now = self.now;
            for message in &mut accepted {
                message.hand_over(&mut offers, last, now);
            }
        }
        self.write(&accepted).await?;
        settle::release_unanswered(self, &sorted.releases).await?;
        Ok((done, offers.served(&mut self.rings)))
    }

    /// The claims that might be served from memory, with their places.
    fn can_be_served<'a>(&self, sorted: &Sorted<'a>) -> Vec<(usize, &'a Claim)> {
        let is_new = |(_, claim): &&(usize, &Claim)| !claim.is_retry && claim.max_rows > 0;
        if self.tx.is_postgres() { Vec::new() } else { sorted.claims.iter().filter(is_new).copied().collect() }
    }

    /// The last number that a delivery got.
    async fn last_delivery<'s>(&mut self, standing: &'s mut Standing) -> sqlx::Result<&'s mut i64> {
        const LAST: Sql = sql!("select coalesce(max(id), 0) from delivery");
        let last = standing.last_delivery();
        if last.is_none() {
            *last = Some(self.connection().row(LAST, &[]).await?.map_or(Ok(0), |row| row.int(0))?);
        }
        Ok(last.get_or_insert(0))
    }

    async fn look_up(
        &mut self,
        questions: &Questions<'_>,
        settles: &[&Settle],
        claims: &[(usize, &Claim)],
    ) -> sqlx::Result<LookedUp> {
        let (held, by_message) = settle::rows(settles);
        let heads = self.unknown_heads(questions);
        let keys = questions.addresses.key_rows();
        if keys.is_empty() && held.is_empty() && by_message.is_empty() && heads.is_empty() && claims.is_empty() {
            return Ok(LookedUp::default());
        }
        let (retries, addresses) = (questions.retry_rows(), &questions.addresses);
        let rows = [
            json(&retries)?,
            json(&keys)?,
            json(&addresses.broadcast_rows())?,
            json(&addresses.group_rows())?,
            json(&held)?,
            json(&by_message)?,
            json(&heads)?,
            json(&self.cursors(claims))?,
        ];
        let values: Vec<Value<'_>> = rows.iter().map(Into::into).collect();
        let row = self.connection().row(LOOK_UP, &values).await?.ok_or(sqlx::Error::RowNotFound)?;
        let mut found = LookedUp {
            earlier: row.folded(0)?,
            named: row.folded(1)?,
            listeners: row.folded(2)?,
            endable: row.folded(4)?,
            heads: row.folded(6)?,
            older: row.folded::<(usize,)>(7)?.into_iter().map(|(place,)| place).collect(),
        };
        found.listeners.extend(row.folded(3)?);
        found.endable.extend(row.folded(5)?);
        for head in found.heads.drain(..) {
            self.heads.entry(head.mesh_id.clone()).or_insert_with(|| Head::of(head));
        }
        Ok(found)
    }

    /// Claims as rows: place, mesh, recipient, number, now, incarnation.
    fn cursors(&self, claims: &[(usize, &Claim)]) -> Vec<impl serde::Serialize + use<>> {
        let (now, incarnation) = (self.now.as_millis(), self.settings.incarnation);
        let row = |(place, claim): &(usize, &Claim), to: &Recipient| {
            (*place, claim.mesh_id.clone(), to.to_string(), claim.after_seq, now, incarnation)
        };
        claims.iter().flat_map(|asked| asked.1.recipients.iter().map(move |to| row(asked, to))).collect()
    }

    /// The meshes in which something happens, as rows, where their heads were not read yet.
    fn unknown_heads(&self, questions: &Questions<'_>) -> Vec<(MeshId,)> {
        let meshes = self.events.iter().map(|event| &event.mesh_id).chain(questions.addresses.meshes());
        let unknown: HashSet<&MeshId> = meshes.filter(|mesh| !self.heads.contains_key(*mesh)).collect();
        unknown.into_iter().map(|mesh| (mesh.clone(),)).collect()
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
        const WRITE: Sql = Sql { sqlite: write_batch!(numbered).sqlite, postgres: write_batch!(unnumbered).postgres };
        let logged = self.chain_events();
        let ended: Vec<(i64,)> = self.ended.iter().map(|id| (*id,)).collect();
        // PostgreSQL changes a row once in a statement: what has ended need not be free.
        let freed: Vec<_> = self.freed.iter().filter(|(id, _)| !self.ended.contains(id)).collect();
        if accepted.is_empty() && ended.is_empty() && freed.is_empty() && logged.is_empty() {
            return Ok(());
        }
        let messages: Vec<_> = accepted.iter().map(Accepted::message_row).collect();
        let deliveries: Vec<_> = accepted.iter().flat_map(Accepted::delivery_rows).collect();
        let heads = self.head_rows();
        let (ended, freed, messages) = (json(&ended)?, json(&freed)?, json(&messages)?);
        let (deliveries, heads, backlog) = (json(&deliveries)?, json(&heads)?, json(&self.backlog.rows())?);
        let logged = json(&logged)?;
        let now = self.now.as_millis().into();
        let rows = [&ended, &freed, &messages, &deliveries, &heads, &backlog, &logged].map(Into::into);
        let [ended, freed, messages, deliveries, heads, backlog, logged] = rows;
        let incarnation = self.settings.incarnation.into();
        let values = [now, ended, freed, messages, deliveries, heads, backlog, logged, incarnation];
        self.connection().later(WRITE, &values).await?;
        if !self.freed.is_empty() {
            crash_point("release.done");
        }
        crash_point("batch.written");
        Ok(())
    }

    /// Takes up what happened; it is logged with the batch.
    pub(crate) fn record(&mut self, event: Event) {
        self.events.push(event);
    }

    /// A message was accepted.
    pub(crate) fn sent(&mut self, message: &NewMessage) {
        self.record(Event::sent(message));
    }

    /// Gives every event its place in its mesh's chain.
    fn chain_events(&mut self) -> Vec<AuditRow> {
        let (events, now) = (std::mem::take(&mut self.events), self.now);
        let chained = events.into_iter().filter_map(|event| {
            let head = self.heads.get_mut(&event.mesh_id)?;
            head.changed = true;
            Some(event.chain(&mut head.row, now))
        });
        chained.collect()
    }

    /// The heads as rows; one without hashes only adds to what is queued.
    fn head_rows(&self) -> Vec<(MeshId, i64, i64, i64, i64, String, String)> {
        let mut queued = self.backlog.by_mesh();
        let mut rows = Vec::new();
        for (mesh, head) in self.heads.iter().filter(|(_, head)| head.changed) {
            let Change { rows: more, bytes } = queued.remove(mesh).unwrap_or_default();
            let HeadRow { message_seq, audit_seq, audit_hash, audit_hash2, .. } = &head.row;
            let hashes = (audit_hash.clone(), audit_hash2.clone());
            rows.push((mesh.clone(), *message_seq, more, bytes, *audit_seq, hashes.0, hashes.1));
        }
        let only_queued = queued.into_iter().filter(|(_, change)| *change != Change::default());
        rows.extend(
            only_queued
                .map(|(mesh, change)| (mesh.clone(), 0, change.rows, change.bytes, 0, String::new(), String::new())),
        );
        rows
    }

    /// Whether the mesh's whole queue takes so much more.
    pub(crate) fn mesh_has_room(&mut self, mesh: &MeshId, more: Change) -> bool {
        let Some(head) = self.heads.get_mut(mesh) else { return false };
        let (rows, bytes) = (head.row.queued_rows + head.queued.rows, head.row.queued_bytes + head.queued.bytes);
        let fits = rows.saturating_add(more.rows) <= MAX_MESH_QUEUED_ROWS
            && bytes.saturating_add(more.bytes) <= MAX_MESH_QUEUED_BYTES;
        if fits {
            head.queued.rows += more.rows;
            head.queued.bytes += more.bytes;
        }
        fits
    }

    pub(crate) fn connection(&mut self) -> Connection<'_> {
        self.tx.connection()
    }

    /// The last query of the batch; it may be committed with it.
    pub(crate) async fn last_rows(&mut self, sql: Sql, values: &[Value<'_>]) -> sqlx::Result<Vec<Row>> {
        self.tx.last_rows(sql, values).await
    }

    /// The next number in a mesh's order of messages. The mesh was looked up: its sender was found in it.
    pub(crate) fn next_message_seq(&mut self, mesh: &MeshId) -> i64 {
        let Some(head) = self.heads.get_mut(mesh) else { return 0 };
        head.row.message_seq += 1;
        head.changed = true;
        head.row.message_seq
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

impl Head {
    fn of(row: HeadRow) -> Self {
        Self { row, queued: Change::default(), changed: false }
    }
}

fn split<'a, T>(placed: &[(usize, &'a T)]) -> (Vec<usize>, Vec<&'a T>) {
    placed.iter().copied().unzip()
}
