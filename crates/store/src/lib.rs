//! What has to outlive a power cut, in SQLite or PostgreSQL: meshes, members, messages and who still has to get them. It must not
//! know sockets, keys or plaintext: it keeps what it is given.
//!
//! - Hot writes (admit, append, claim, settle, release) go through the [`journal`]: batches, one synced transaction each.
//! - Rare writes (a mesh, an invite, a join) are one transaction each, on the same single writer.
//! - Reads use connections of their own.
//!
//! An answer of `Ok` means that the commit is synced (D1). After each commit the bell is rung for whom it concerns.
#![warn(missing_docs)]

mod activity;
mod answer;
mod api_key;
mod audience;
mod audit;
mod audit_query;
mod audit_verify;
mod authority;
mod backlog;
mod ban;
mod batch;
mod checkpoint;
mod claim;
mod clock;
mod crash;
mod cursor;
mod database_url;
mod db;
mod delivery;
mod error;
mod grant;
mod group;
mod hand_over;
mod histogram;
mod id;
mod interner;
mod invite;
pub mod journal;
mod locked_file;
mod look_up;
mod member;
mod mesh;
mod mesh_heads;
mod message;
mod node;
mod notification;
mod peer_pubkey;
mod peer_state;
#[cfg(test)]
mod plans;
mod post;
mod recipient;
mod request;
mod session;
mod settle;
mod sql;
mod standing;
mod status;
mod topic;
mod topic_history;
mod topic_key;
mod topic_member;
mod unread;
mod upkeep;
mod write_batch;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use claudemesh_proto::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use activity::WrittenMessage;
pub use api_key::{
    Access, ApiKeyMade, ApiKeyRevoked, Candidate, MAX_API_KEYS, MAX_API_KEYS_PER_HOUR, NOTED_EVERY, NewApiKey,
};
pub use audit::Event;
pub use audit_verify::{Broken, Mark, Verified};
pub use authority::Authority;
pub use backlog::{
    MAX_MESH_QUEUED_BYTES, MAX_MESH_QUEUED_ROWS, MAX_MESH_TOPIC_BYTES, MAX_QUEUED_BYTES, MAX_QUEUED_ROWS,
    TOPIC_ROW_BYTES,
};
pub use ban::{Banned, BannedMember, Unbanned};
pub use batch::Ring;
pub use checkpoint::AuditHead;
pub use claim::{Claim, Reclaim, Withdraw};
pub use clock::Clock;
pub use database_url::DatabaseUrl;
pub use delivery::{Claimed, DeliveryId, Span, StoredMessage, TopicPart};
pub use error::{OpenError, StoreError};
pub use grant::{GrantsSet, MAX_GRANTS};
pub use group::Regrouped;
pub use histogram::{Histogram, MICROS, REQUESTS};
pub use invite::{NewInvite, Redeemed, Redemption};
pub use journal::{Bell, Meters, Pending};
pub use member::{Denied, Member, MemberChange, MemberChanged};
pub use mesh::{MadeMesh, Mesh, NewMesh};
pub use message::{Appended, NewMessage};
pub use notification::{MAX_NOTIFICATIONS, Notification, NotificationPage, ReadNow};
pub use peer_pubkey::{KeyChange, KeyChanged};
pub use peer_state::{Remembered, SaidGroups};
pub use post::Posted;
pub use recipient::Recipient;
pub use session::{Admission, Admitted, SessionClaim, Welcome, arrival};
pub use settle::{Front, Release, Settle, Settled};
pub use status::{Path, Step};
pub use topic::{Closed, NewTopic, OwnTopic, Topic, TopicMade};
pub use topic_history::HistoryPage;
pub use topic_key::{
    MAX_PENDING_SEALS, OwnCopy, PendingSeal, TopicKeyClaimed, TopicKeyCopy, TopicKeyFound, TopicKeyRejected,
    TopicKeySealed,
};
pub use topic_member::{TopicJoined, TopicMemberPut};
pub use unread::MAX_UNREAD;

use batch::Settings;
use crash::crash_point;
use db::{Db, PING};
use journal::{Journal, Tools};
use request::{Outcome, Request};
use sql::{Sql, sql};
use upkeep::Checkpoints;

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Which database.
    pub url: DatabaseUrl,
    /// The name of this node; two brokers on one PostgreSQL need two names.
    pub node: String,
    /// How long a message waits for its recipient.
    pub message_ttl: Duration,
    /// What tells the time.
    pub clock: Clock,
    /// What is told after each commit.
    pub bell: Bell,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("node", &self.node)
            .field("message_ttl", &self.message_ttl)
            .finish_non_exhaustive()
    }
}

/// An open store. Clones share it.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Db,
    journal: Journal,
    settings: Settings,
    clock: Clock,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Store {
    /// Opens the database, checks that what it commits survives a crash, brings its tables up to date, and voids every claim of
    /// this node's earlier incarnations.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let db = Db::open(&options.url).await?;
        let at = |source| OpenError::Open { what: "the journal".into(), source };
        let incarnation = node::begin(&db, &options.node).await.map_err(at)?;
        crash_point("open.begun");
        let settings = Settings { incarnation, message_ttl: options.message_ttl };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let clock = options.clock;
        let tools = Tools { db: db.clone(), settings, clock: clock.clone(), bell: options.bell, stop: stop.clone() };
        let journal = Journal::start(&tools, &tasks);
        let store = Self(Arc::new(Inner { db, journal, settings, clock, tasks, stop }));
        store.keep_up();
        Ok(store)
    }

    /// Admits a connection whose handshake is well signed, or says why not.
    pub async fn admit(&self, admission: Admission) -> Pending<Admitted> {
        self.0
            .journal
            .submit(Request::Admit(admission), |outcome| match outcome {
                Outcome::Admitted(admitted) => Some(admitted),
                _ => None,
            })
            .await
    }

    /// Accepts a message.
    pub async fn append(&self, message: NewMessage) -> Pending<Appended> {
        self.0
            .journal
            .submit(Request::Append(Box::new(message)), |outcome| match outcome {
                Outcome::Appended(appended) => Some(appended),
                _ => None,
            })
            .await
    }

    /// Hands a connection what is next.
    pub async fn claim(&self, claim: Claim) -> Pending<Vec<Claimed>> {
        self.0.journal.submit(Request::Claim(claim), claimed).await
    }

    /// Logs what happened, in a transaction of its own: it is there once this resolves (A1).
    pub async fn record(&self, event: Event) -> Pending<()> {
        self.0.journal.submit(Request::Record(event), done).await
    }

    /// Ends a connection's claim that waits. Its answer may be rows all the same: they were taken before.
    pub async fn withdraw(&self, withdraw: Withdraw) -> Pending<()> {
        self.0.journal.submit(Request::Withdraw(withdraw), done).await
    }

    /// Hands a connection again what it has not acknowledged in time.
    pub async fn reclaim(&self, again: Reclaim) -> Pending<Vec<Claimed>> {
        self.0.journal.submit(Request::Reclaim(again), claimed).await
    }

    /// Ends a delivery because its recipient has the message.
    pub async fn settle(&self, settle: Settle) -> Pending<()> {
        self.0.journal.submit(Request::Settle(settle), done).await
    }

    /// Frees what a closed connection held.
    pub async fn release(&self, release: Release) -> Pending<()> {
        self.0.journal.submit(Request::Release(release), done).await
    }

    /// Whether the database answers.
    pub async fn is_up(&self) -> bool {
        let Ok(mut reader) = self.db().read().await else { return false };
        reader.connection().row(PING, &[]).await.is_ok()
    }

    /// How many deliveries wait, over all meshes.
    pub async fn queue_depth(&self) -> Result<i64, StoreError> {
        const DEPTH: Sql = sql!("select cast(coalesce(sum(queued_rows), 0) as bigint) from backlog");
        let mut reader = self.db().read().await?;
        let row = reader.connection().row(DEPTH, &[]).await?;
        Ok(row.map_or(Ok(0), |row| row.int(0))?)
    }

    /// Resolves with the reason when a sync has failed and the process has to start again.
    pub async fn failed(&self) -> String {
        self.0.journal.failed().await
    }

    /// What the journal has done so far.
    pub fn meters(&self) -> &Meters {
        &self.0.journal.meters
    }

    /// Takes nothing more, writes what was taken, and closes the database.
    pub async fn close(self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.db.close().await;
    }

    /// Starts what the database needs all the time.
    fn keep_up(&self) {
        let Inner { db, journal, settings, clock, tasks, stop } = &*self.0;
        let checkpoints = Checkpoints { db: db.clone(), meters: Arc::clone(&journal.meters), clock: clock.clone() };
        let (stop, incarnation) = (stop.clone(), settings.incarnation);
        tasks.spawn(async move {
            let upkeep = async {
                match &checkpoints.db {
                    Db::Sqlite { .. } => checkpoints.make_for_ever().await,
                    db @ Db::Postgres(_) => node::beat_for_ever(db, incarnation).await,
                }
            };
            stop.run_until_cancelled(upkeep).await;
        });
    }

    /// The time by the clock that claims are judged by.
    pub(crate) async fn database_now(&self) -> Result<Timestamp, StoreError> {
        const NOW: Sql = sql!("select (extract(epoch from clock_timestamp()) * 1000)::bigint");
        let Db::Postgres(_) = self.db() else { return Ok(self.now()) };
        let mut reader = self.db().read().await?;
        let row = reader.connection().row(NOW, &[]).await?;
        Ok(row.map_or(Ok(self.now().as_millis()), |row| row.int(0)).map(Timestamp::from_millis)?)
    }

    pub(crate) fn db(&self) -> &Db {
        &self.0.db
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    pub(crate) fn settings(&self) -> Settings {
        self.0.settings
    }
}

impl Drop for Inner {
    /// A store that is dropped without [`Store::close`] leaves no task behind.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn claimed(outcome: Outcome) -> Option<Vec<Claimed>> {
    match outcome {
        Outcome::Claimed(rows) => Some(rows),
        _ => None,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that Pending reads with")]
fn done(_: Outcome) -> Option<()> {
    Some(())
}
