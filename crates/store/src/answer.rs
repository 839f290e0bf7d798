//! Answering what a batch was asked, once it is on the disk.
//!
//! A small batch is synced within its commit and answered at once. A large one is synced here while the journal makes the next:
//! under load the disk and the processor work at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};

use crate::Clock;
use crate::claim::Withdraw;
use crate::crash::crash_point;
use crate::error::StoreError;
use crate::journal::Meters;
use crate::request::{Entry, Outcome, Request};
use crate::standing::Standing;
use crate::writer::Unsynced;

/// Batches that may wait for a sync.
pub(crate) const UNSYNCED: usize = 4;

/// A committed batch whose requests are to be answered.
#[derive(Debug)]
pub(crate) struct Batched {
    answers: Vec<(Entry, Outcome)>,
    pub(crate) unsynced: Unsynced,
    /// How many requests it was begun with, and when.
    size: usize,
    started: Instant,
}

impl Batched {
    /// Lets claims wait that found nothing. Everybody else is to be answered.
    pub(crate) fn new(
        (entries, outcomes): (Vec<Entry>, Vec<Outcome>),
        unsynced: Unsynced,
        (size, started): (usize, Instant),
        standing: &mut Standing,
    ) -> Self {
        let mut answers = Vec::with_capacity(entries.len());
        let mut withdrawn = Vec::new();
        for (entry, outcome) in entries.into_iter().zip(outcomes) {
            if matches!(outcome, Outcome::Nothing) {
                standing.park(entry);
                continue;
            }
            if let Request::Withdraw(Withdraw { connection, .. }) = &entry.0 {
                withdrawn.push(connection.clone());
            }
            answers.push((entry, outcome));
        }
        // A claim may have been taken from the queue together with its withdrawal.
        for connection in &withdrawn {
            standing.withdraw(connection);
        }
        Self { answers, unsynced, size, started }
    }
}

/// Tells everybody what became of their requests.
#[derive(Debug, Clone)]
pub(crate) struct Answerer {
    pub(crate) clock: Clock,
    pub(crate) meters: Arc<Meters>,
    pub(crate) failed: watch::Receiver<Option<String>>,
}

impl Answerer {
    /// The releases of rows for which nobody waits any more. Once a sync has failed, nobody is told that anything is kept: what a
    /// batch has read may be what was not synced.
    pub(crate) fn answer(&self, batch: Batched) -> Vec<Entry> {
        let synced = match &*self.failed.borrow() {
            None => Ok(()),
            Some(why) => Err(StoreError::Unavailable(why.clone())),
        };
        let Batched { answers, size, started, .. } = batch;
        let requests = u64::try_from(size).unwrap_or(0);
        let now = self.clock.instant();
        let micros = u64::try_from(now.duration_since(started).as_micros()).unwrap_or(u64::MAX);
        self.meters.batch_sizes.observe(requests);
        self.meters.commits.observe(micros);
        self.meters.batches.fetch_add(1, Ordering::Relaxed);
        self.meters.requests.fetch_add(requests, Ordering::Relaxed);
        self.meters.commit_micros.fetch_add(micros, Ordering::Relaxed);
        let mut abandoned = Vec::new();
        for ((request, answer), mut outcome) in answers {
            if let Outcome::Claimed(rows) = &mut outcome {
                for row in rows {
                    row.committed_at = Some(now);
                }
            }
            // Whoever asked may be gone; what was asked is done all the same.
            if let Err(Ok(outcome)) = answer.send(synced.clone().map(|()| outcome))
                && let Some(release) = request.undo(outcome)
            {
                abandoned.push((release, oneshot::channel().0));
            }
        }
        crash_point("journal.answered");
        abandoned
    }
}

/// Syncs the batches of a shard while it makes the next ones, and answers them.
pub(crate) struct Syncer {
    pub(crate) outstanding: Arc<AtomicUsize>,
    pub(crate) answerer: Answerer,
    pub(crate) way_back: mpsc::WeakSender<Entry>,
}

impl Syncer {
    /// Ends when the shard has.
    pub(crate) async fn run(self, mut batches: mpsc::Receiver<Batched>) {
        let mut taken = Vec::with_capacity(UNSYNCED);
        while batches.recv_many(&mut taken, UNSYNCED).await > 0 {
            // What the last of them syncs is on the disk for all of them.
            let last = taken.iter_mut().rev().find(|batch| !batch.unsynced.is_synced());
            let unsynced = last.map(|batch| std::mem::take(&mut batch.unsynced)).unwrap_or_default();
            if let Err(error) = unsynced.sync().await {
                tracing::error!(error = %error, "a large batch was not synced; nothing of it is acknowledged");
            }
            for batch in taken.drain(..) {
                for release in self.answerer.answer(batch) {
                    if let Some(queue) = self.way_back.upgrade() {
                        // A full queue leaves the rows to the end of their lease.
                        let _ = queue.try_send(release);
                    }
                }
                self.outstanding.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}
