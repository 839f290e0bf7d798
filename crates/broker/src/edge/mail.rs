//! The mail of one connection: when to ask the store for it, what to do with the answer, what to ask for again.
//!
//! While there is room, one question for what is next is always out: the store answers it once there is something. It is put anew
//! when other mail is this connection's to take, when older mail came free, and when its presence becomes busy or idle: who is
//! busy is handed only what is urgent. A question that got an error is put again a second
//! later: rows that it took all the same are handed out then, in their order.

use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use claudemesh_proto::Priority;
use claudemesh_proto::message::ClientAck;
use claudemesh_store::{
    Claim, Claimed, DeliveryId, Front, Pending, Recipient, Reclaim, Release, Settle, Settled, StoreError, Withdraw,
};

use crate::app::App;
use crate::calls::Live;
use crate::session::mailbox::Mailbox;

/// Clients that say nothing of themselves need this long after hello_ack before they can take a push.
const A_MOMENT: Duration = Duration::from_millis(50);
/// How long to wait before a store that could not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// A lease that has ended is not looked at more often than this.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

pub(crate) struct Mail {
    mailbox: Mailbox,
    next: Option<Next>,
    again: Option<Again>,
    /// What is asked for may not be what should be.
    look: bool,
    /// There may be mail that is older than what was claimed last.
    from_start: bool,
    /// A question got no answer, and may have taken rows all the same.
    is_unanswered: bool,
    /// Nothing is asked before this.
    look_from: Instant,
}

/// What a connection that is gone could not give back.
pub(crate) struct Leftover(Release);

/// The question for what is next.
struct Next {
    recipients: Vec<Recipient>,
    urgent_only: bool,
    is_withdrawn: bool,
    answer: Pending<Vec<Claimed>>,
}

/// The question for what was held and not acknowledged in time.
struct Again {
    rows: Vec<DeliveryId>,
    answer: Pending<Vec<Claimed>>,
}

/// What the store says to one of the two questions.
pub(crate) enum Answer {
    Next(Result<Vec<Claimed>, StoreError>),
    Again(Result<Vec<Claimed>, StoreError>),
}

impl Mail {
    pub(crate) fn new(app: &App, needs_a_moment: bool) -> Self {
        let now = app.clock.instant();
        Self {
            mailbox: Mailbox::new(app.settings.config.claim_lease),
            next: None,
            again: None,
            look: true,
            from_start: false,
            is_unanswered: false,
            look_from: if needs_a_moment { now + A_MOMENT } else { now },
        }
    }

    /// Somebody rang.
    pub(crate) fn rung(&mut self, from_start: bool) {
        self.from_start |= from_start;
        self.look = true;
    }

    /// Sees to it that the right question for what is next is out, when there is room for an answer.
    pub(crate) async fn ask(&mut self, app: &App, live: &Live) {
        if !self.look || app.clock.instant() < self.look_from {
            return;
        }
        let Some(room) = self.mailbox.room() else { return };
        self.look = false;
        let (recipients, urgent_only) = (recipients(app, live), live.seat.doorbell().is_busy());
        if let Some(next) = &mut self.next {
            let is_another = next.recipients != recipients || next.urgent_only != urgent_only;
            // The answer, rows or none, makes it look again.
            if !next.is_withdrawn && (self.from_start || is_another) {
                next.is_withdrawn = true;
                drop(app.store.withdraw(withdrawal(live)).await);
            }
            return;
        }
        if recipients.is_empty() {
            return;
        }
        if std::mem::take(&mut self.from_start) {
            self.mailbox.look_from_start();
        }
        let claim = Claim {
            mesh_id: live.mesh_id.clone(),
            recipients: recipients.clone(),
            connection: live.seat.connection().clone(),
            after_seq: self.mailbox.after(),
            urgent_only,
            max_rows: room.rows,
            max_bytes: room.bytes,
            lease: self.mailbox.lease(),
            is_retry: std::mem::take(&mut self.is_unanswered),
            waits: true,
            knows_topics: live.knows_topics,
        };
        let answer = app.store.claim(claim).await;
        self.next = Some(Next { recipients, urgent_only, is_withdrawn: false, answer });
    }

    /// Asks again for what was not acknowledged in time.
    pub(crate) async fn ask_again(&mut self, app: &App, live: &Live) {
        if self.again.is_some() || app.clock.instant() < self.look_from {
            return;
        }
        let rows = self.mailbox.overdue(app.clock.now());
        if rows.is_empty() {
            return;
        }
        let connection = live.seat.connection().clone();
        let asked = rows.iter().map(|(delivery, _)| *delivery).collect();
        let answer = app.store.reclaim(Reclaim { mesh_id: live.mesh_id.clone(), connection, rows }).await;
        self.again = Some(Again { rows: asked, answer });
    }

    /// What the store says next; never, when nothing is asked. Dropping the future loses nothing.
    pub(crate) async fn answered(&mut self) -> Answer {
        std::future::poll_fn(|context| {
            if let Some(again) = &mut self.again
                && let Poll::Ready(answer) = Pin::new(&mut again.answer).poll(context)
            {
                return Poll::Ready(Answer::Again(answer));
            }
            match &mut self.next {
                Some(next) => Pin::new(&mut next.answer).poll(context).map(Answer::Next),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Takes an answer into the mailbox; what is to be pushed.
    pub(crate) async fn take(&mut self, app: &App, live: &Live, answer: Answer) -> Vec<Claimed> {
        match answer {
            Answer::Next(answer) => {
                self.next = None;
                self.look = true;
                let Ok(claimed) = answer else {
                    self.is_unanswered = true;
                    self.look_from = app.clock.instant() + RETRY;
                    return Vec::new();
                };
                let new = self.mailbox.take(claimed, app.clock.now());
                self.tell_progress(app, live).await;
                self.hold_back(app, live, new).await
            }
            Answer::Again(answer) => {
                let asked = self.again.take().map(|again| again.rows).unwrap_or_default();
                let Ok(claimed) = answer else {
                    self.look_from = app.clock.instant() + RETRY;
                    return Vec::new();
                };
                let is_gone = |delivery: &DeliveryId| claimed.iter().all(|row| row.delivery != *delivery);
                let gone: Vec<DeliveryId> = asked.into_iter().filter(is_gone).collect();
                self.mailbox.forget(&gone);
                let now = app.clock.now();
                for row in &claimed {
                    self.mailbox.hold(row, now);
                }
                self.hold_back(app, live, claimed).await
            }
        }
    }

    /// Gives back what must not be pushed now: the presence may have become busy after the question was put. Where the store cannot
    /// take it back the rows stay held, and are looked at again when their leases end.
    async fn hold_back(&mut self, app: &App, live: &Live, claimed: Vec<Claimed>) -> Vec<Claimed> {
        if !live.seat.doorbell().is_busy() {
            return claimed;
        }
        let (urgent, others): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|row| row.priority == Priority::Now);
        if !others.is_empty() {
            let rows: Vec<DeliveryId> = others.iter().map(|row| row.delivery).collect();
            let held = others.into_iter().map(|row| (row.delivery, row.recipient)).collect();
            let (mesh_id, connection) = (live.mesh_id.clone(), live.seat.connection().clone());
            let release = Release { mesh_id, connection, held, unanswered: Vec::new() };
            if app.store.release(release).await.await.is_ok() {
                self.mailbox.forget(&rows);
            }
        }
        urgent
    }

    /// The delivery that an ack ends, if this connection holds it.
    pub(crate) fn acknowledge(&mut self, ack: &ClientAck) -> Option<DeliveryId> {
        self.mailbox.acknowledge(ack)
    }

    /// Tells the store how far the connection is in topics.
    pub(crate) async fn tell_progress(&mut self, app: &App, live: &Live) {
        for progress in self.mailbox.progress() {
            let connection = live.seat.connection().clone();
            let front = Front { cursor: progress.cursor, seq: progress.seq, connection, is_done: progress.is_done };
            let (mesh_id, by) = (live.mesh_id.clone(), live.member_id.clone());
            drop(app.store.settle(Settle { mesh_id, by, which: Settled::Posts(front) }).await);
        }
        // A busy connection gets what is urgent before the rest, and looks from the start when it is idle.
        if !live.seat.doorbell().is_busy() && self.mailbox.has_new_gap() {
            self.rung(true);
        }
    }

    /// When something has to be asked, if nothing happens before.
    pub(crate) fn deadline(&self, app: &App) -> Option<Instant> {
        let (now, time) = (app.clock.instant(), app.clock.now());
        // While the store is asked for what is overdue, there is nothing to do about it.
        let lease_end = self.mailbox.next_lease_end().filter(|_| self.again.is_none()).map(|end| {
            let left = if end > time { end.distance(time) } else { Duration::ZERO };
            (now + left.max(SHORTEST_WAIT)).max(self.look_from)
        });
        let first_look = (self.look && self.look_from > now).then_some(self.look_from);
        lease_end.into_iter().chain(first_look).min()
    }

    /// Lets go of everything, also of what is still being claimed; what the store did not take back.
    pub(crate) async fn release(&mut self, app: &App, live: &Live) -> Option<Leftover> {
        if let Some(again) = self.again.take() {
            // Whatever the answer is, the rows are held already.
            let _ = again.answer.await;
        }
        if let Some(next) = self.next.take() {
            if !next.is_withdrawn {
                drop(app.store.withdraw(withdrawal(live)).await);
            }
            match next.answer.await {
                Ok(rows) => drop(self.mailbox.take(rows, app.clock.now())),
                Err(_) => self.is_unanswered = true,
            }
        }
        let session = (live.sender_pubkey != live.member_pubkey).then_some(Recipient::Session(live.sender_pubkey));
        let recipients = std::iter::once(Recipient::Member(live.member_id.clone())).chain(session);
        let unanswered = if self.is_unanswered { recipients.collect() } else { Vec::new() };
        let (mesh_id, connection) = (live.mesh_id.clone(), live.seat.connection().clone());
        let leftover = Leftover(Release { mesh_id, connection, held: self.mailbox.give_back(), unanswered });
        (!leftover.is_given_back(app).await).then_some(leftover)
    }
}

/// Whose mail the connection takes now.
fn recipients(app: &App, live: &Live) -> Vec<Recipient> {
    let takes = app.hub.takes(&live.mesh_id, live.seat.presence_id());
    let member = takes.member.then(|| Recipient::Member(live.member_id.clone()));
    member.into_iter().chain(takes.session.map(Recipient::Session)).collect()
}

fn withdrawal(live: &Live) -> Withdraw {
    Withdraw { mesh_id: live.mesh_id.clone(), connection: live.seat.connection().clone() }
}

impl Leftover {
    /// Gives it back once the store can take it. Nobody would look for it otherwise: a lease that ends rings for nobody.
    pub(crate) async fn give_back(self, app: &App) {
        while !self.is_given_back(app).await {
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn is_given_back(&self, app: &App) -> bool {
        let Self(release) = self;
        release.held.is_empty() && release.unanswered.is_empty()
            || app.store.release(release.clone()).await.await.is_ok()
    }
}
