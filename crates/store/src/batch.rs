//! One batch of the journal: requests in, one synced transaction, outcomes out.
//!
//! A statement is a trip to the database's thread or server, and with one message in flight the trips are what it costs. So a batch
//! first reads and decides, kind by kind, and then writes everything that it decided in one statement; only what claims take is
//! read and marked after that.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use claudemesh_proto::{ConnectionId, DisplayName, MeshId, Timestamp, TopicId};

use crate::audit::Event;
use crate::backlog::Backlog;
use crate::claim::{self, Claim};
use crate::crash::crash_point;
use crate::cursor::{self, Cursors};
use crate::db::{Db, Tx};
use crate::error::Failure;
use crate::hand_over::{Offer, Offers};
use crate::look_up::{LOOK_UP, LookedUp};
use crate::mesh_heads::MeshHeads;
use crate::message::{self, NewMessage, Questions};
use crate::peer_state;
use crate::post::{self, TopicHeads};
use crate::recipient::Recipient;
use crate::request::{Entry, Outcome, Request, Sorted};
use crate::session;
use crate::settle::{self, Settle};
use crate::sql::{Connection, Row, Sql, Value, json, sql};
use crate::standing::{Rings, Standing};
use crate::writer::{Syncing, Unsynced};

/// What stays the same for the life of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// This start of the broker, as claims name it.
    pub(crate) incarnation: i64,
    /// How long a message is kept for its recipient.
    pub(crate) message_ttl: Duration,
}

/// There may be something to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ring {
    /// Mail to claim.
    Mail {
        /// The mesh.
        mesh_id: MeshId,
        /// For whom.
        recipient: Recipient,
        /// Whether rows came free that are older than what was claimed last.
        from_start: bool,
    },
    /// A new message in a topic, for whoever reads along.
    Topic {
        /// The mesh.
        mesh_id: MeshId,
        /// The topic.
        topic_id: TopicId,
    },
}

/// A transaction under way, with what it has learnt and decided so far.
#[derive(Debug)]
pub(crate) struct Batch {
    tx: Tx,
    pub(crate) settings: Settings,
    /// The moment of this batch, by the one clock that claims are judged by.
    pub(crate) now: Timestamp,
    pub(crate) heads: MeshHeads,
    pub(crate) backlog: Backlog,
    pub(crate) cursors: Cursors,
    pub(crate) topics: TopicHeads,
    /// How far cursors of senders have moved in this batch because of what they wrote themselves.
    pub(crate) own_cursors: HashMap<i64, i64>,
    /// What happened, in order.
    pub(crate) events: Vec<Event>,
    /// Deliveries that their recipients have.
    pub(crate) ended: HashSet<i64>,
    /// Deliveries that connections gave back.
    pub(crate) freed: Vec<(i64, ConnectionId)>,
    rings: Rings,
}

/// From so many requests on, a batch is synced while the next one is made. A smaller one is faster in one go.
const LARGE: usize = 32;

/// What a batch has done.
#[derive(Debug)]
pub(crate) struct Committed {
    /// One for each entry, in order; true once the batch is synced.
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) rings: Vec<Ring>,
    pub(crate) unsynced: Unsynced,
}

/// Writes a batch in one transaction.
///
/// Claims that waited for what this batch brings become entries of it.
pub(crate) async fn commit(
    db: &Db,
    settings: Settings,
    now: Timestamp,
    entries: &mut Vec<Entry>,
    standing: &mut Standing,
) -> Result<Committed, Failure> {
    let syncing = if entries.len() < LARGE { Syncing::InCommit } else { Syncing::AfterCommit };
    let tx = db.begin(syncing).await.map_err(Failure::of_database)?;
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
    let Batch { tx, rings, topics, .. } = batch;
    let is_postgres = tx.is_postgres();
    let committed = tx.commit_unsynced().await;
    // With SQLite's commit goes what is written, and the blame may be a row's.
    let unsynced = committed.map_err(|error| if is_postgres { Failure::of_database(error) } else { error.into() })?;
    crash_point("batch.committed");
    let mut outcomes: Vec<Outcome> = entries.iter().map(|_| Outcome::Done).collect();
    for (index, outcome) in done {
        if let Some(slot) = outcomes.get_mut(index) {
            *slot = outcome;
        }
    }
    let mail = |((mesh_id, recipient), from_start)| Ring::Mail { mesh_id, recipient, from_start };
    let rings = rings.into_iter().map(mail);
    let topics = topics.into_keys().map(|(mesh_id, topic_id)| Ring::Topic { mesh_id, topic_id });
    Ok(Committed { outcomes, rings: rings.chain(topics).collect(), unsynced })
}

impl Batch {
    async fn begin(mut tx: Tx, settings: Settings, now: Timestamp, entries: &[Entry]) -> sqlx::Result<Self> {
        let (mut heads, mut clock) = (MeshHeads::default(), None);
        // SQLite's one writer needs no lock, and learns a head with whatever else it reads.
        if tx.is_postgres() {
            clock = heads.lock(&mut tx, entries.iter().map(|(request, _)| request.mesh_id()).collect()).await?;
        }
        Ok(Self {
            tx,
            settings,
            now: clock.unwrap_or(now),
            heads,
            backlog: Backlog::default(),
            cursors: Cursors::default(),
            topics: TopicHeads::new(),
            own_cursors: HashMap::new(),
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
        let mut posts = post::look_up(self, &questions.posts, &sorted.settles).await?;
        settle::settle(self, found.endable);
        cursor::settle(self, &sorted.settles, std::mem::take(&mut posts.movable));
        settle::release(self, &sorted.releases);
        let oldest = self.now.minus(self.settings.message_ttl);
        let recipients = questions.addresses.recipients(found.named, found.listeners, oldest);
        let (appended, mut accepted) =
            message::decide(self, &messages, &questions, (found.earlier, &recipients, &posts))?;
        done.extend(places.into_iter().zip(appended.into_iter().map(Outcome::Appended)));
        let nothing_older = claims.into_iter().filter(|(place, _)| !found.older.contains(place)).collect::<Vec<_>>();
        let mut offers = Offers::of(&nothing_older, standing, &self.rings, self.now);
        if self.tx.is_postgres() {
            offers = Offers::default();
        } else if !accepted.is_empty() {
            let (now, mut cursors) = (self.now, std::mem::take(&mut self.cursors));
            let last = self.last_delivery(standing).await?;
            for message in &mut accepted {
                message.hand_over((&mut offers, &mut cursors), last, now);
            }
            self.cursors = cursors;
        }
        self.write(&accepted).await?;
        post::write(self, &accepted, self.now).await?;
        self.write_cursors().await?;
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
        found.earlier.extend(row.folded(8)?);
        found.listeners.extend(row.folded(3)?);
        found.endable.extend(row.folded(5)?);
        for head in found.heads.drain(..) {
            self.heads.add(head);
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
        let unknown: HashSet<&MeshId> = meshes.filter(|mesh| !self.heads.knows(mesh)).collect();
        unknown.into_iter().map(|mesh| (mesh.clone(),)).collect()
    }

    /// Does the requests that ask for mail.
    async fn hand_over(&mut self, sorted: &Sorted<'_>) -> sqlx::Result<Vec<(usize, Outcome)>> {
        let (places, claims) = split(&sorted.claims);
        let (again_places, reclaims) = split(&sorted.reclaims);
        let outcomes = claim::claim(self, &claims, &reclaims).await?;
        Ok(places.into_iter().chain(again_places).zip(outcomes).collect())
    }

    pub(crate) async fn write_cursors(&mut self) -> sqlx::Result<()> {
        let mut cursors = std::mem::take(&mut self.cursors);
        cursors.write(&mut self.tx.connection(), self.settings.incarnation).await
    }

    /// Takes up what happened; it is logged with the batch.
    pub(crate) fn record(&mut self, event: Event) {
        self.events.push(event);
    }

    /// A message was accepted.
    pub(crate) fn sent(&mut self, message: &NewMessage, sender: &DisplayName) {
        self.record(Event::sent(message, sender));
    }

    pub(crate) fn connection(&mut self) -> Connection<'_> {
        self.tx.connection()
    }

    /// The last query of the batch; it may be committed with it.
    pub(crate) async fn last_rows(&mut self, sql: Sql, values: &[Value<'_>]) -> sqlx::Result<Vec<Row>> {
        self.tx.last_rows(sql, values).await
    }

    /// Random bytes from the operating system, for so many ids of messages.
    pub(crate) fn random<const N: usize>(count: usize) -> sqlx::Result<Vec<[u8; N]>> {
        let mut bytes = vec![[0; N]; count];
        getrandom::fill(bytes.as_flattened_mut())
            .map_err(|error| sqlx::Error::Io(std::io::Error::other(error.to_string())))?;
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
