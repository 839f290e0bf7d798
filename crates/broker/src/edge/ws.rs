//! One connection, from hello to goodbye. It waits for five things at once, and for nothing else:
//!
//! - a frame from the client,
//! - the store's answer to the oldest message sent (acks go out in the order of the sends),
//! - mail that was claimed,
//! - the doorbell: there may be mail, or the hub wants the connection closed,
//! - the clock: pings, leases that end, the moment after hello.
//!
//! Frames are processed in order. Sends and acks are handed to the journal without waiting for its commit; any other request
//! waits until every send before it is answered, so that what it reads includes them.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use claudemesh_proto::message::{Ack, ClientAck, Push};
use claudemesh_proto::{Addressed, BrokerFrame, ClientFrame, ErrorCode, Peek, Priority};
use claudemesh_store::{
    Appended, Claim, Claimed, DeliveryId, Pending, Recipient, Reclaim, Release, Settle, Settled, StoreError,
};
use futures_util::FutureExt as _;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;

use crate::app::App;
use crate::calls::{self, Live, message};
use crate::edge::greet::{self, Greeted};
use crate::edge::limit::Stranger;
use crate::edge::line::{Incoming, Line, Stuck};
use crate::edge::server::Running;
use crate::fault::Fault;
use crate::hub::Parting;
use crate::session::handshake::OpenedAs;
use crate::session::liveness::Liveness;
use crate::session::mailbox::{Mailbox, Slot};

/// Frames taken in one go before anything is written.
const FRAMES_AT_ONCE: usize = 64;
/// Sends whose ack is outstanding; beyond it the socket is not read.
const SENDS_AT_ONCE: usize = 1024;
/// Clients that say nothing of themselves need this long after hello_ack before they can take a push.
const A_MOMENT: Duration = Duration::from_millis(50);
/// How long to wait before a store that could not answer is asked for mail again.
const RETRY: Duration = Duration::from_secs(1);

/// Serves a WebSocket until it ends.
pub(crate) async fn serve(
    running: Arc<Running>,
    socket: WebSocketStream<TokioIo<Upgraded>>,
    (address, stranger): (IpAddr, Stranger),
) {
    let line = Line::new(socket, running.app.settings.config.write_timeout);
    let greeted = Box::pin(greet::greet(&running.app, line, address, &running.stop)).await;
    drop(stranger);
    let Some((line, greeted)) = greeted else { return };
    let mut connection = Connection::new(Arc::clone(&running.app), line, *greeted);
    let end = connection.run().await;
    Box::pin(connection.leave(end)).await;
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Goodbye,
    /// We close it.
    Close(u16, &'static str),
    Broken,
}

impl From<Stuck> for End {
    fn from(_: Stuck) -> Self {
        Self::Broken
    }
}

struct Connection {
    app: Arc<App>,
    line: Line,
    live: Live,
    opened_as: OpenedAs,
    mailbox: Mailbox,
    liveness: Liveness,
    sends: VecDeque<Sent>,
    claims: VecDeque<Asked>,
    /// There may be mail that was not asked for yet.
    look: bool,
    /// No mail before this.
    look_from: Instant,
    next_ping: Instant,
}

/// A send on its way.
struct Sent {
    id: String,
    request_id: Option<String>,
    priority: Priority,
    answer: Pending<Appended>,
}

/// A claim on its way.
struct Asked {
    kind: Kind,
    answer: Pending<Vec<Claimed>>,
}

enum Kind {
    /// What is next, within this window.
    Next(Slot, usize, i64),
    /// What was held and not acknowledged in time.
    Again(Vec<DeliveryId>),
}

impl Connection {
    fn new(app: Arc<App>, line: Line, greeted: Greeted) -> Self {
        let Greeted { live, opened_as, needs_a_moment } = greeted;
        let now = app.clock.instant();
        let config = &app.settings.config;
        Self {
            mailbox: Mailbox::new(config.claim_lease),
            liveness: Liveness::new(now, config.ping_every),
            next_ping: now + config.ping_every,
            look_from: if needs_a_moment { now + A_MOMENT } else { now },
            look: true,
            sends: VecDeque::new(),
            claims: VecDeque::new(),
            app,
            line,
            live,
            opened_as,
        }
    }

    async fn run(&mut self) -> End {
        let timer = tokio::time::sleep_until(self.next_deadline().into());
        let mut timer = Box::pin(timer);
        loop {
            let step = self.step(timer.as_mut()).await;
            let deadline = self.next_deadline();
            if timer.is_elapsed() || deadline < timer.deadline().into_std() {
                timer.as_mut().reset(deadline.into());
            }
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Asks for mail, writes, and waits for the next thing to happen.
    async fn step(&mut self, timer: std::pin::Pin<&mut tokio::time::Sleep>) -> Result<(), End> {
        self.answer_ready_sends().await?;
        self.ask_for_mail().await;
        self.line.flush().await?;
        tokio::select! {
            incoming = self.line.next(), if self.sends.len() < SENDS_AT_ONCE => {
                self.take(incoming).await?;
                for _ in 0..FRAMES_AT_ONCE {
                    let Some(incoming) = self.line.next().now_or_never() else { break };
                    self.take(incoming).await?;
                }
            }
            appended = first(&mut self.sends, |sent| &mut sent.answer) => self.answer_send(appended).await?,
            claimed = first(&mut self.claims, |asked| &mut asked.answer) => self.on_claimed(claimed).await?,
            () = self.live.seat.doorbell().rung() => self.on_ring()?,
            () = timer => self.on_time().await?,
        }
        Ok(())
    }

    async fn take(&mut self, incoming: Incoming) -> Result<(), End> {
        self.liveness.heard(self.app.clock.instant());
        match incoming {
            Incoming::Text(text) => Ok(self.on_text(&text).await?),
            Incoming::NotText => Ok(self.on_text("").await?),
            Incoming::Alive => Ok(()),
            Incoming::Goodbye => Err(End::Goodbye),
            Incoming::Unreadable(code, reason) => Err(End::Close(code, reason)),
            Incoming::Broken => Err(End::Broken),
        }
    }

    async fn on_text(&mut self, text: &str) -> Result<(), Stuck> {
        let Ok(peek) = Peek::at(text) else {
            return self.say_fault(Fault::new(ErrorCode::Malformed, "invalid JSON"), None).await;
        };
        let Some(kind) = &peek.kind else {
            return self.say_fault(Fault::invalid("type must be a string"), peek.request_id).await;
        };
        match ClientFrame::read(kind, text) {
            None => {
                let kind: String = claudemesh_proto::text::one_line(kind).chars().take(64).collect();
                let fault = Fault::new(ErrorCode::NotSupported, format!("this broker does not know \"{kind}\""));
                self.say_fault(fault, peek.request_id).await
            }
            Some(Ok(ClientFrame::Send(send))) => self.on_send(*send, peek).await,
            Some(Err(bad_field)) if kind == "send" => {
                let ack = message::refuse(peek.id.unwrap_or_default(), format!("invalid: {bad_field}"));
                self.say_ack(ack, peek.request_id).await
            }
            Some(Err(bad_field)) => self.say_fault(Fault::invalid(bad_field.to_string()), peek.request_id).await,
            Some(Ok(ClientFrame::ClientAck(ack))) => {
                self.on_ack(&ack).await;
                Ok(())
            }
            Some(Ok(request)) => Box::pin(self.on_request(request, peek.request_id)).await,
        }
    }

    async fn on_send(&mut self, send: claudemesh_proto::message::Send, peek: Peek) -> Result<(), Stuck> {
        let id = peek.id.unwrap_or_default();
        match message::check(&self.app, &self.live, send) {
            Ok(new) => {
                let priority = new.priority;
                let answer = self.app.store.append(new).await;
                self.sends.push_back(Sent { id, request_id: peek.request_id, priority, answer });
                Ok(())
            }
            Err(words) => {
                self.finish_sends().await?;
                self.say_ack(message::refuse(id, words), peek.request_id).await
            }
        }
    }

    async fn on_ack(&mut self, ack: &ClientAck) {
        self.app.metrics.delivered();
        let held = self.mailbox.acknowledge(ack);
        let settle = match held {
            Some(delivery) => Some(Settle { mesh_id: self.live.mesh_id.clone(), which: Settled::Held(delivery) }),
            None => message::settle_unheld(
                &self.live,
                self.app.hub.takes(&self.live.mesh_id, self.live.seat.presence_id()).session,
                ack,
            ),
        };
        if let Some(settle) = settle {
            // The client expects no answer. Should the commit fail, the lease ends and the row comes again.
            drop(self.app.store.settle(settle).await);
        }
    }

    async fn on_request(&mut self, request: ClientFrame, request_id: Option<String>) -> Result<(), Stuck> {
        self.finish_sends().await?;
        match calls::answer(&self.app, &self.live, request).await {
            Ok(frame) => self.line.feed(Addressed { frame, request_id }.to_json()).await,
            Err(fault) => self.say_fault(fault, request_id).await,
        }
    }

    fn on_ring(&mut self) -> Result<(), End> {
        let doorbell = self.live.seat.doorbell();
        if let Some((code, reason)) = doorbell.wants_close() {
            return Err(End::Close(code, reason));
        }
        if doorbell.take_from_start() {
            self.mailbox.look_from_start();
        }
        self.look = true;
        Ok(())
    }

    async fn on_time(&mut self) -> Result<(), End> {
        let now = self.app.clock.instant();
        if now >= self.next_ping {
            if self.liveness.is_dead(now) {
                return Err(End::Broken);
            }
            self.next_ping = now + self.app.settings.config.ping_every;
            self.line.ping().await?;
        }
        let overdue = self.mailbox.overdue(self.app.clock.now());
        if now >= self.look_from
            && !overdue.is_empty()
            && !self.claims.iter().any(|asked| matches!(asked.kind, Kind::Again(_)))
        {
            let kind = Kind::Again(overdue.iter().map(|(delivery, _)| *delivery).collect());
            let connection = self.live.seat.connection().clone();
            let again = Reclaim { mesh_id: self.live.mesh_id.clone(), connection, rows: overdue };
            let answer = self.app.store.reclaim(again).await;
            self.claims.push_back(Asked { kind, answer });
        }
        Ok(())
    }

    fn next_deadline(&self) -> Instant {
        let now = (self.app.clock.instant(), self.app.clock.now());
        let lease_end = self.mailbox.next_lease_end().map(|end| {
            let left = if end > now.1 { end.distance(now.1) } else { Duration::ZERO };
            (now.0 + left.max(Duration::from_millis(10))).max(self.look_from)
        });
        let first_look = (self.look && self.look_from > now.0).then_some(self.look_from);
        [lease_end, first_look].into_iter().flatten().fold(self.next_ping, Instant::min)
    }

    /// Asks the store for what is next, when there may be something and there is room for it.
    async fn ask_for_mail(&mut self) {
        let is_time = self.look && self.claims.is_empty() && self.app.clock.instant() >= self.look_from;
        let Some(room) = self.mailbox.room().filter(|_| is_time) else { return };
        self.look = false;
        let takes = self.app.hub.takes(&self.live.mesh_id, self.live.seat.presence_id());
        let member = takes.member.then(|| (Slot::Member, Recipient::Member(self.live.member_id.clone())));
        let session = takes.session.map(|key| (Slot::Session, Recipient::Session(key)));
        for (slot, recipient) in member.into_iter().chain(session) {
            let claim = Claim {
                mesh_id: self.live.mesh_id.clone(),
                recipient,
                connection: self.live.seat.connection().clone(),
                after_seq: self.mailbox.after(slot),
                urgent_only: false,
                max_rows: room.rows,
                max_bytes: room.bytes,
                lease: self.mailbox.lease(),
            };
            let answer = self.app.store.claim(claim).await;
            self.claims.push_back(Asked { kind: Kind::Next(slot, room.rows, room.bytes), answer });
        }
    }

    async fn on_claimed(&mut self, claimed: Result<Vec<Claimed>, StoreError>) -> Result<(), Stuck> {
        let Some(Asked { kind, .. }) = self.claims.pop_front() else { return Ok(()) };
        if let Ok(claimed) = claimed {
            return self.hand_over(kind, claimed).await;
        }
        self.look = true;
        self.look_from = self.app.clock.instant() + RETRY;
        Ok(())
    }

    /// Pushes what was claimed.
    async fn hand_over(&mut self, kind: Kind, claimed: Vec<Claimed>) -> Result<(), Stuck> {
        let now = self.app.clock.now();
        let slot = match &kind {
            Kind::Next(slot, rows, bytes) => {
                let taken: i64 = claimed.iter().map(|row| row.size_bytes).sum();
                // The window was the limit: there may be more.
                self.look |= claimed.len() >= *rows || taken >= bytes / 2;
                Some(*slot)
            }
            Kind::Again(asked) => {
                let gone = |delivery: &DeliveryId| claimed.iter().all(|row| row.delivery != *delivery);
                let ended: Vec<DeliveryId> = asked.iter().copied().filter(gone).collect();
                self.mailbox.forget(&ended);
                None
            }
        };
        for row in claimed {
            self.mailbox.take(slot, &row, now);
            self.app.metrics.pushed();
            let push = self.push(row);
            self.line.feed(Addressed { frame: BrokerFrame::Push(Box::new(push)), request_id: None }.to_json()).await?;
        }
        Ok(())
    }

    fn push(&self, row: Claimed) -> Push {
        // A daemon drops what its own member sent, without an ack, if it can tell.
        let from_oneself = row.sender_member_id == self.live.member_id && self.opened_as == OpenedAs::Member;
        Push {
            message_id: row.message_id,
            mesh_id: self.live.mesh_id.clone(),
            sender_pubkey: row.sender_pubkey.to_string(),
            sender_member_pubkey: (!from_oneself).then_some(row.sender_member_pubkey),
            sender_member_id: Some(row.sender_member_id),
            sender_name: Some(row.sender_name),
            priority: row.priority,
            nonce: row.nonce,
            ciphertext: row.ciphertext,
            created_at: row.created_at,
            client_message_id: row.client_message_id,
            request_fingerprint: row.request_fingerprint,
            ext: row.ext,
            subtype: None,
        }
    }

    async fn answer_ready_sends(&mut self) -> Result<(), Stuck> {
        while let Some(appended) = first(&mut self.sends, |sent| &mut sent.answer).now_or_never() {
            self.answer_send(appended).await?;
        }
        Ok(())
    }

    /// Waits until every send is answered.
    async fn finish_sends(&mut self) -> Result<(), Stuck> {
        while !self.sends.is_empty() {
            let appended = first(&mut self.sends, |sent| &mut sent.answer).await;
            self.answer_send(appended).await?;
        }
        Ok(())
    }

    async fn answer_send(&mut self, appended: Result<Appended, StoreError>) -> Result<(), Stuck> {
        let Some(Sent { id, request_id, priority, .. }) = self.sends.pop_front() else { return Ok(()) };
        self.say_ack(message::acknowledge(&self.app, (id, priority), appended), request_id).await
    }

    async fn say_ack(&mut self, ack: Ack, request_id: Option<String>) -> Result<(), Stuck> {
        self.line.feed(Addressed { frame: BrokerFrame::Ack(ack), request_id }.to_json()).await
    }

    async fn say_fault(&mut self, fault: Fault, request_id: Option<String>) -> Result<(), Stuck> {
        self.finish_sends().await?;
        self.line.feed(Addressed { frame: BrokerFrame::Error(fault.frame()), request_id }.to_json()).await
    }

    /// Gives the seat back, lets go of all mail, and says goodbye if there is somebody to say it to.
    async fn leave(mut self, end: End) {
        if let End::Close(..) = end {
            // What was sent before is answered before the Close.
            let _ = self.finish_sends().await;
            let _ = self.line.flush().await;
        }
        let Self { app, line, live, mut mailbox, claims, .. } = self;
        let connection = live.seat.connection().clone();
        let parting = if matches!(end, End::Broken) { Parting::Broken } else { Parting::Closed };
        live.seat.leave(parting, app.clock.now());
        for Asked { answer, .. } in claims {
            answer.await.unwrap_or_default().iter().for_each(|row| mailbox.take(None, row, app.clock.now()));
        }
        let release = Release { mesh_id: live.mesh_id, connection, held: mailbox.into_held() };
        if !release.held.is_empty() {
            // Should this fail, the claims end with their leases.
            let _ = app.store.release(release).await.await;
        }
        match end {
            End::Goodbye => line.finish().await,
            End::Close(code, reason) => line.close(code, reason).await,
            End::Broken => {}
        }
    }
}

/// The answer to the oldest in a queue; never, when the queue is empty. Dropping the future loses nothing: an answer stays in its
/// place until the entry is taken from the queue.
async fn first<E, T>(queue: &mut VecDeque<E>, answer: fn(&mut E) -> &mut Pending<T>) -> Result<T, StoreError> {
    match queue.front_mut() {
        Some(entry) => answer(entry).await,
        None => std::future::pending().await,
    }
}
