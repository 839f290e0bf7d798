//! The journal: everything hot is written here, by one task per shard, in batches that form by themselves.
//!
//! A shard writes everything that is in its queue in one transaction and then answers; what arrives meanwhile is the next batch,
//! so that a busy broker has large batches and an idle one no delay. Only what nobody waits for waits itself, a moment, for the
//! message that mostly follows. A large batch is synced, and then answered, while the next one is made (`answer`).
//!
//! SQLite has a single shard for its single writer. On PostgreSQL each mesh has its shard, and so keeps its order while others commit
//! beside it.
//!
//! A database that refuses a batch for its content gets it again in halves, down to the one request that is refused alone. Rows
//! handed to a connection that is gone are freed at once; a claim that found nothing waits (`standing`).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Clock;
use crate::answer::{Answerer, Batched, Syncer, UNSYNCED};
use crate::batch::{self, Committed, Ring, Settings};
use crate::claim::Withdraw;
use crate::crash::crash_point;
use crate::db::Db;
use crate::error::{Blame, Failure, StoreError, is_failed_sync};
use crate::histogram::{Histogram, MICROS, REQUESTS};
use crate::request::{Entry, Outcome, Request};
use crate::standing::Standing;

/// Most requests in one transaction.
const MAX_BATCH: usize = 4096;
/// About the most bytes in the statements of one transaction. PostgreSQL takes 256 MiB in one JSON value, SQLite 1 GB, and what
/// is in a statement is in memory several times.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// How long requests that may wait do wait for one that may not.
const MOMENT: Duration = Duration::from_millis(2);
/// From so many on they are a batch of their own.
const COMPANY: usize = 256;
/// How often a transaction is tried that gave way to another one.
const ATTEMPTS: u32 = 5;
/// Requests that may wait per shard; beyond it callers wait, and so do the sockets that they read from.
const QUEUE: usize = 4096;
/// Writers on PostgreSQL: enough to overlap the round trips of different meshes, few beside the cores of a small server.
const POSTGRES_SHARDS: usize = 4;

/// Told after each commit whom it concerns.
pub type Bell = Arc<dyn Fn(&[Ring]) + Send + Sync>;

/// The way into the journal.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    shards: Arc<[mpsc::Sender<Entry>]>,
    failed: watch::Receiver<Option<String>>,
    pub(crate) meters: Arc<Meters>,
}

/// What the journal has done so far.
#[derive(Debug)]
pub struct Meters {
    /// How many requests a transaction had.
    pub batch_sizes: Histogram,
    /// Microseconds from the start of a batch to the end of its commit.
    pub commits: Histogram,
    /// Transactions committed.
    pub batches: AtomicU64,
    /// Requests in them.
    pub requests: AtomicU64,
    /// Microseconds from the start of a batch to the end of its commit, added up.
    pub commit_micros: AtomicU64,
    /// Requests that the database refused for what they held.
    pub refused: AtomicU64,
    /// Batches that failed because the database could not be written or reached.
    pub unavailable: AtomicU64,
    /// Bytes of the SQLite WAL after the last checkpoint.
    pub wal_bytes: AtomicU64,
    /// Longest pause of the journal for a full checkpoint, in microseconds.
    pub longest_pause_micros: AtomicU64,
}

impl Meters {
    fn new() -> Self {
        Self {
            batch_sizes: Histogram::new(REQUESTS),
            commits: Histogram::new(MICROS),
            batches: AtomicU64::default(),
            requests: AtomicU64::default(),
            commit_micros: AtomicU64::default(),
            refused: AtomicU64::default(),
            unavailable: AtomicU64::default(),
            wal_bytes: AtomicU64::default(),
            longest_pause_micros: AtomicU64::default(),
        }
    }
}

/// The answer to a request, once its batch is committed.
#[derive(Debug)]
pub struct Pending<T> {
    answer: oneshot::Receiver<Result<Outcome, StoreError>>,
    read: fn(Outcome) -> Option<T>,
    /// Where rows go back to that arrive when nobody waits for them any more.
    way_back: Option<(mpsc::Sender<Entry>, Box<Request>)>,
}

impl<T> Future for Pending<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let read = self.read;
        Pin::new(&mut self.answer).poll(context).map(|answer| {
            answer
                .unwrap_or_else(|_| Err(StoreError::stopped()))
                .and_then(|outcome| read(outcome).ok_or_else(StoreError::stopped))
        })
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        self.answer.close();
        let Ok(Ok(outcome)) = self.answer.try_recv() else { return };
        let Some((shard, request)) = self.way_back.take() else { return };
        if let Some(release) = request.undo(outcome) {
            // A full queue leaves the rows to the end of their lease.
            let _ = shard.try_send((release, oneshot::channel().0));
        }
    }
}

/// Everything a shard needs.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) db: Db,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) bell: Bell,
    pub(crate) stop: CancellationToken,
}

impl Journal {
    /// Starts the shards on `tasks`. They end when the store is closed, with everything written that was taken.
    pub(crate) fn start(tools: &Tools, tasks: &TaskTracker) -> Self {
        let shards = if tools.db.is_postgres() { POSTGRES_SHARDS } else { 1 };
        let meters = Arc::new(Meters::new());
        let fail = tools.db.failed_sync();
        let failed = fail.subscribe();
        let shards = (0..shards).map(|_| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let (unsynced, to_sync) = mpsc::channel(UNSYNCED);
            let outstanding = Arc::default();
            let (clock, failed) = (tools.clock.clone(), fail.subscribe());
            let answerer = Answerer { clock, meters: Arc::clone(&meters), failed };
            let way_back = sender.downgrade();
            let syncer = Syncer { outstanding: Arc::clone(&outstanding), answerer: answerer.clone(), way_back };
            let shard = Shard { tools: tools.clone(), answerer, fail: fail.clone(), unsynced, outstanding };
            tasks.spawn(shard.run(receiver));
            tasks.spawn(syncer.run(to_sync));
            sender
        });
        Self { shards: shards.collect(), failed, meters }
    }

    /// Hands a request over, waiting while the queue is full. Requests of one mesh keep their order.
    pub(crate) async fn submit<T>(&self, request: Request, read: fn(Outcome) -> Option<T>) -> Pending<T> {
        let (answer, receiver) = oneshot::channel();
        let mut way_back = None;
        if let Some(shard) = self.shard(&request) {
            way_back = request.without_rows().map(|request| (shard.clone(), Box::new(request)));
            // A stopped shard drops the sender, which the receiver sees.
            let _ = shard.send((request, answer)).await;
        }
        Pending { answer: receiver, read, way_back }
    }

    /// Hands over a request for which nobody waits; it is dropped while the queue is full.
    pub(crate) fn leave(&self, request: Request) {
        if let Some(shard) = self.shard(&request) {
            let _ = shard.try_send((request, oneshot::channel().0));
        }
    }

    /// Resolves with the reason when a sync has failed: the process has to start again.
    pub(crate) async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    fn shard(&self, request: &Request) -> Option<&mpsc::Sender<Entry>> {
        let mut hasher = DefaultHasher::new();
        request.mesh_id().hash(&mut hasher);
        let shards = u64::try_from(self.shards.len()).unwrap_or(1).max(1);
        self.shards.get(usize::try_from(hasher.finish() % shards).unwrap_or_default())
    }
}

struct Shard {
    tools: Tools,
    answerer: Answerer,
    fail: watch::Sender<Option<String>>,
    /// Where batches go whose answers have to wait for a sync.
    unsynced: mpsc::Sender<Batched>,
    /// How many are there.
    outstanding: Arc<AtomicUsize>,
}

impl Shard {
    /// Ends once it was told to stop and everything taken is written.
    async fn run(self, mut queue: mpsc::Receiver<Entry>) {
        let mut standing = Standing::default();
        while let Some(entries) = self.next(&mut queue).await {
            crash_point("journal.taken");
            self.write(entries, &mut standing).await;
        }
    }

    /// Everything that is in the queue, as soon as there is something that cannot wait.
    async fn next(&self, queue: &mut mpsc::Receiver<Entry>) -> Option<Vec<Entry>> {
        let mut entries = Vec::new();
        let moment = tokio::time::sleep(MOMENT);
        tokio::pin!(moment);
        loop {
            let seen = entries.len();
            tokio::select! {
                biased;
                () = self.tools.stop.cancelled(), if !queue.is_closed() => queue.close(),
                taken = queue.recv_many(&mut entries, MAX_BATCH - seen) => {
                    if taken == 0 {
                        return (!entries.is_empty()).then_some(entries);
                    }
                    let is_patient = |entries: &[Entry]| entries.iter().all(|(request, _)| request.is_patient());
                    if entries.len() >= COMPANY || !entries.get(seen..).is_some_and(is_patient) {
                        return Some(entries);
                    }
                    if seen == 0 {
                        moment.as_mut().reset(tokio::time::Instant::now() + MOMENT);
                    }
                }
                () = &mut moment, if seen > 0 => return Some(entries),
            }
        }
    }

    /// Writes what was taken; when the database refuses a batch for what it held, its halves, in order.
    async fn write(&self, entries: Vec<Entry>, standing: &mut Standing) {
        let mut waiting = cut(entries);
        while let Some(mut entries) = waiting.pop() {
            let begun = (entries.len(), self.tools.clock.instant());
            match self.commit(&mut entries, standing).await {
                Ok(Committed { outcomes, rings, unsynced }) => {
                    (self.tools.bell)(&rings);
                    let batch = Batched::new((entries, outcomes), unsynced, begun, standing);
                    // Answers keep their order: what a batch has read may be what the one before it has not synced.
                    if batch.unsynced.is_synced() && self.outstanding.load(Ordering::Acquire) == 0 {
                        let abandoned = self.answerer.answer(batch);
                        if !abandoned.is_empty() {
                            waiting.push(abandoned);
                        }
                    } else {
                        self.outstanding.fetch_add(1, Ordering::AcqRel);
                        // It ends after this.
                        let _ = self.unsynced.send(batch).await;
                    }
                }
                Err(failure) if entries.len() > 1 && failure.blame != Blame::Database => {
                    let rest = entries.split_off(entries.len() / 2);
                    waiting.push(rest);
                    waiting.push(entries);
                }
                Err(failure) => self.refuse(entries, &failure, standing),
            }
        }
    }

    async fn commit(&self, entries: &mut Vec<Entry>, standing: &mut Standing) -> Result<Committed, Failure> {
        if let Some(why) = &*self.fail.borrow() {
            // What a failed sync left on the disk is unknown until the process has started again.
            return Err(Failure::of_database(sqlx::Error::Io(std::io::Error::other(why.clone()))));
        }
        let mut attempt = 1;
        loop {
            let now = self.tools.clock.now();
            match batch::commit(&self.tools.db, self.tools.settings, now, entries, standing).await {
                Err(failure) if failure.gave_way() && attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    fn refuse(&self, entries: Vec<Entry>, failure: &Failure, standing: &mut Standing) {
        match StoreError::from(failure) {
            StoreError::Refused(why) => {
                self.answerer.meters.refused.fetch_add(1, Ordering::Relaxed);
                tracing::error!(error = why, "the database refused a single request; it is not stored");
            }
            StoreError::Unavailable(why) => {
                self.answerer.meters.unavailable.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    error = why,
                    requests = entries.len(),
                    "the database cannot be written; nothing of this batch is stored"
                );
            }
        }
        // Before anybody is answered, so that nobody's retry is written.
        if is_failed_sync(&failure.error) {
            self.fail.send_replace(Some(failure.error.to_string()));
        }
        for (request, answer) in entries {
            // It writes nothing, and whoever asked for it waits for the claim to end, not for this.
            let outcome = if let Request::Withdraw(Withdraw { connection, .. }) = &request {
                standing.withdraw(connection);
                Ok(Outcome::Done)
            } else {
                Err(StoreError::from(failure))
            };
            let _ = answer.send(outcome);
        }
    }
}

/// Cuts what was taken into batches that the database takes, the first one last.
fn cut(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut batches = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let weight = entry.0.weight();
        match batches.last_mut() {
            Some(batch) if bytes + weight <= MAX_BATCH_BYTES => {
                let batch: &mut Vec<Entry> = batch;
                batch.push(entry);
                bytes += weight;
            }
            _ => {
                batches.push(vec![entry]);
                bytes = weight;
            }
        }
    }
    batches.reverse();
    batches
}
