//! The mail of one connection: when to ask the store for it, what to do with the answer, what to ask for again.
//!
//! It asks when somebody rang and there is room, one question per kind of mail at a time. Two answers are on their way at most, and
//! a question without an answer is put again a second later: rows that it took all the same are handed out then, in their order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use claudemesh_proto::limits::MAX_EXT_BYTES;
use claudemesh_proto::message::ClientAck;
use claudemesh_store::{Claim, Claimed, DeliveryId, Pending, Recipient, Reclaim, Release, Ring, StoreError};

use crate::app::App;
use crate::calls::Live;
use crate::session::mailbox::{Mailbox, Slot};

/// Clients that say nothing of themselves need this long after hello_ack before they can take a push.
const A_MOMENT: Duration = Duration::from_millis(50);
/// How long to wait before a store that could not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// A lease that has ended is not looked at more often than this.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

pub(crate) struct Mail {
    mailbox: Mailbox,
    asked: VecDeque<Asked>,
    /// There may be mail that was not asked for yet.
    look: bool,
    /// Some of it may be older than what was claimed last.
    from_start: bool,
    /// A question got no answer, and may have taken rows all the same.
    is_unanswered: bool,
    /// Nothing is asked before this.
    look_from: Instant,
}

/// What a connection that is gone could not give back.
pub(crate) struct Leftover {
    release: Release,
    is_unanswered: bool,
    lease: Duration,
    recipients: Vec<Recipient>,
}

/// A question on its way.
struct Asked {
    question: Question,
    answer: Pending<Vec<Claimed>>,
}

enum Question {
    /// What is next, within this window.
    Next { slot: Slot, max_rows: usize, max_bytes: i64 },
    /// What was held and not acknowledged in time.
    Again(Vec<DeliveryId>),
}

impl Mail {
    pub(crate) fn new(app: &App, needs_a_moment: bool) -> Self {
        let now = app.clock.instant();
        Self {
            mailbox: Mailbox::new(app.settings.config.claim_lease),
            asked: VecDeque::new(),
            look: true,
            from_start: false,
            is_unanswered: false,
            look_from: if needs_a_moment { now + A_MOMENT } else { now },
        }
    }

    /// Somebody rang.
    pub(crate) fn rung(&mut self, from_start: bool) {
        // An answer that is on its way moves the cursor on: it is only set back when the next question is put.
        self.from_start |= from_start;
        self.look = true;
    }

    /// Asks for what is next, when there may be something and there is room for it.
    pub(crate) async fn ask(&mut self, app: &App, live: &Live) {
        let is_time = self.look && self.asked.is_empty() && app.clock.instant() >= self.look_from;
        let Some(room) = self.mailbox.room().filter(|_| is_time) else { return };
        self.look = false;
        if std::mem::take(&mut self.from_start) {
            self.mailbox.look_from_start();
        }
        let is_retry = std::mem::take(&mut self.is_unanswered);
        let takes = app.hub.takes(&live.mesh_id, live.seat.presence_id());
        let member = takes.member.then(|| (Slot::Member, Recipient::Member(live.member_id.clone())));
        let session = takes.session.map(|key| (Slot::Session, Recipient::Session(key)));
        // Two kinds of mail share the window.
        let shares = if member.is_some() && session.is_some() { 2 } else { 1 };
        let (max_rows, max_bytes) = (room.rows / shares, room.bytes / i64::try_from(shares).unwrap_or(1));
        for (slot, recipient) in member.into_iter().chain(session) {
            let claim = Claim {
                mesh_id: live.mesh_id.clone(),
                recipient,
                connection: live.seat.connection().clone(),
                after_seq: self.mailbox.after(slot),
                urgent_only: false,
                max_rows,
                max_bytes,
                lease: self.mailbox.lease(),
                is_retry,
            };
            let answer = app.store.claim(claim).await;
            let question = Question::Next { slot, max_rows, max_bytes };
            self.asked.push_back(Asked { question, answer });
        }
    }

    /// Asks again for what was not acknowledged in time.
    pub(crate) async fn ask_again(&mut self, app: &App, live: &Live) {
        let is_asked = self.asked.iter().any(|asked| matches!(asked.question, Question::Again(_)));
        if is_asked || app.clock.instant() < self.look_from {
            return;
        }
        let rows = self.mailbox.overdue(app.clock.now());
        if rows.is_empty() {
            return;
        }
        let question = Question::Again(rows.iter().map(|(delivery, _)| *delivery).collect());
        let connection = live.seat.connection().clone();
        let answer = app.store.reclaim(Reclaim { mesh_id: live.mesh_id.clone(), connection, rows }).await;
        self.asked.push_back(Asked { question, answer });
    }

    /// The answer to the oldest question; never, when there is none. Dropping the future loses nothing.
    pub(crate) async fn answered(&mut self) -> Result<Vec<Claimed>, StoreError> {
        match self.asked.front_mut() {
            Some(asked) => (&mut asked.answer).await,
            None => std::future::pending().await,
        }
    }

    /// Takes the answer to the oldest question into the mailbox; what is to be pushed.
    pub(crate) fn take(&mut self, app: &App, answer: Result<Vec<Claimed>, StoreError>) -> Vec<Claimed> {
        let Some(Asked { question, .. }) = self.asked.pop_front() else { return Vec::new() };
        let Ok(claimed) = answer else {
            self.is_unanswered |= matches!(question, Question::Next { .. });
            self.look = true;
            self.look_from = app.clock.instant() + RETRY;
            return Vec::new();
        };
        let slot = match question {
            Question::Next { slot, max_rows, max_bytes } => {
                let taken: i64 = claimed.iter().map(|row| row.size_bytes).sum();
                let largest = app.settings.config.max_message_bytes + MAX_EXT_BYTES;
                // The window was the limit, or may have been for a row of the largest size: there may be more.
                let is_full = taken.saturating_add(i64::try_from(largest).unwrap_or(i64::MAX)) > max_bytes;
                self.look |= claimed.len() >= max_rows || is_full && !claimed.is_empty();
                Some(slot)
            }
            Question::Again(asked) => {
                let is_gone = |delivery: &DeliveryId| claimed.iter().all(|row| row.delivery != *delivery);
                let gone: Vec<DeliveryId> = asked.into_iter().filter(is_gone).collect();
                self.mailbox.forget(&gone);
                None
            }
        };
        let now = app.clock.now();
        for row in &claimed {
            self.mailbox.take(slot, row, now);
        }
        claimed
    }

    /// The delivery that an ack ends, if this connection holds it.
    pub(crate) fn acknowledge(&mut self, ack: &ClientAck) -> Option<DeliveryId> {
        self.mailbox.acknowledge(ack)
    }

    /// When something has to be asked, if nothing happens before.
    pub(crate) fn deadline(&self, app: &App) -> Option<Instant> {
        let (now, time) = (app.clock.instant(), app.clock.now());
        let lease_end = self.mailbox.next_lease_end().map(|end| {
            let left = if end > time { end.distance(time) } else { Duration::ZERO };
            (now + left.max(SHORTEST_WAIT)).max(self.look_from)
        });
        let first_look = (self.look && self.look_from > now).then_some(self.look_from);
        lease_end.into_iter().chain(first_look).min()
    }

    /// Lets go of everything, also of what is still being claimed; what the store did not take back.
    pub(crate) async fn release(&mut self, app: &App, live: &Live) -> Option<Leftover> {
        for Asked { answer, question } in std::mem::take(&mut self.asked) {
            let now = app.clock.now();
            match answer.await {
                Ok(rows) => rows.iter().for_each(|row| self.mailbox.take(None, row, now)),
                Err(_) => self.is_unanswered |= matches!(question, Question::Next { .. }),
            }
        }
        let (mesh_id, connection) = (live.mesh_id.clone(), live.seat.connection().clone());
        let release = Release { mesh_id, connection, held: self.mailbox.give_back() };
        let is_released = release.held.is_empty() || app.store.release(release.clone()).await.await.is_ok();
        let session = (live.sender_pubkey != live.member_pubkey).then_some(Recipient::Session(live.sender_pubkey));
        let recipients = std::iter::once(Recipient::Member(live.member_id.clone())).chain(session).collect();
        let (is_unanswered, lease) = (self.is_unanswered, self.mailbox.lease());
        (!is_released || is_unanswered).then_some(Leftover { release, is_unanswered, lease, recipients })
    }
}

impl Leftover {
    /// Gives it back once the store can take it. Nobody would look for it otherwise: a lease that ends rings for nobody.
    pub(crate) async fn give_back(self, app: &App) {
        while !self.release.held.is_empty() && app.store.release(self.release.clone()).await.await.is_err() {
            tokio::time::sleep(RETRY).await;
        }
        if self.is_unanswered {
            // Which rows these are is not known; they are free when the lease has ended that they were asked for.
            tokio::time::sleep(self.lease).await;
            let ring = |recipient| Ring { mesh_id: self.release.mesh_id.clone(), recipient, from_start: true };
            let rings: Vec<Ring> = self.recipients.into_iter().map(ring).collect();
            app.hub.ring(&rings);
        }
    }
}
