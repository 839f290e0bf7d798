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

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use claudemesh_proto::message::{Ack, ClientAck, Push};
use claudemesh_proto::presence::PeerRole;
use claudemesh_proto::{Addressed, BrokerFrame, ClientFrame, ErrorCode, MeshId, Peek};
use claudemesh_store::{DeliveryId, Settle, Settled, StoredMessage};
use futures_util::FutureExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;

use crate::app::App;
use crate::calls::{self, Live, message};
use crate::close::Close;
use crate::edge::greet::{self, Greeted};
use crate::edge::guests::Guest;
use crate::edge::line::{Incoming, Line, Stuck};
use crate::edge::mail::{Answer, Leftover, Mail};
use crate::edge::sends::{Answered, Sends, Sent};
use crate::edge::server::Running;
use crate::fault::Fault;
use crate::hub::Parting;
use crate::metrics::Refused;
use crate::session::liveness::Liveness;

/// Frames taken in one go before anything is written.
const FRAMES_AT_ONCE: usize = 64;

/// Longest answer: who is a member, of some ten thousand. Lists whose entries may be large are kept shorter than that by leaving
/// things out; of what is longer all the same only that is said.
pub(crate) const MAX_ANSWER_BYTES: usize = 4 << 20;

/// The first news is told at once, and what follows within this time together: a crowd that comes is not written to for each.
const NEWS_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection waits for the one that it replaces to let go of its mail.
const HANDOVER: Duration = Duration::from_secs(1);

/// Serves a WebSocket until it ends.
pub(crate) async fn serve(running: Arc<Running>, socket: WebSocketStream<TcpStream>, whence: (Option<IpAddr>, Guest)) {
    let line = Line::new(socket, running.app.settings.config.write_timeout);
    let greeted = Box::pin(greet::greet(&running.app, line, whence, &running.stop)).await;
    let Some((line, greeted)) = greeted else { return };
    if running.stop.is_cancelled() {
        // It came in after everybody was told to go.
        greeted.live.seat.doorbell().close(Close::SHUTTING_DOWN);
    }
    if let Some(predecessor) = &greeted.predecessor {
        // What it held comes before what is newer (D5). One that hangs is not waited for: its claims end with their leases.
        let _ = tokio::time::timeout(HANDOVER, predecessor.gone()).await;
    }
    let mut connection = Connection::new(Arc::clone(&running.app), line, *greeted);
    let end = connection.run().await;
    if let Some(leftover) = Box::pin(connection.leave(end)).await {
        running.stop.run_until_cancelled(leftover.give_back(&running.app)).await;
    }
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Goodbye,
    /// We close it.
    Close(Close),
    /// It takes nothing that is written.
    Stuck,
    Broken,
}

impl From<Stuck> for End {
    fn from(_: Stuck) -> Self {
        Self::Stuck
    }
}

struct Connection {
    app: Arc<App>,
    line: Line,
    live: Live,
    mail: Mail,
    liveness: Liveness,
    sends: Sends,
    next_ping: Instant,
    /// No news before this, unless an answer is due.
    next_news: Instant,
}

impl Connection {
    fn new(app: Arc<App>, line: Line, greeted: Greeted) -> Self {
        let Greeted { live, needs_a_moment, .. } = greeted;
        let now = app.clock.instant();
        let config = &app.settings.config;
        Self {
            mail: Mail::new(&app, needs_a_moment),
            liveness: Liveness::new(now, config.ping_every),
            next_ping: now + config.ping_every,
            next_news: now,
            sends: Sends::default(),
            app,
            line,
            live,
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
        self.mail.ask(&self.app, &self.live).await;
        self.line.flush().await?;
        tokio::select! {
            incoming = self.line.next(), if !self.sends.is_full() => {
                self.take(incoming).await?;
                for _ in 0..FRAMES_AT_ONCE {
                    let Some(incoming) = self.line.next().now_or_never() else { break };
                    self.take(incoming).await?;
                }
            }
            answered = self.sends.answered() => self.answer_send(answered).await?,
            answer = self.mail.answered() => self.hand_over(answer).await?,
            () = self.live.seat.doorbell().rung() => self.on_ring().await?,
            () = timer => self.on_time().await?,
        }
        Ok(())
    }

    async fn take(&mut self, incoming: Incoming) -> Result<(), End> {
        if !matches!(incoming, Incoming::Broken) {
            self.liveness.heard(self.app.clock.instant());
            self.live.seat.doorbell().hear(self.app.clock.now());
        }
        if let Some(close) = self.live.seat.doorbell().wants_close().filter(|close| close.is_at_once()) {
            // R10.
            return Err(End::Close(close));
        }
        match incoming {
            Incoming::Text(text) => Ok(self.on_text(&text).await?),
            Incoming::NotText => Ok(self.on_text("").await?),
            Incoming::Alive => Ok(()),
            Incoming::Goodbye => Err(End::Goodbye),
            Incoming::Unreadable(close) => Err(End::Close(close)),
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
                self.finish_sends().await?;
                self.app.metrics.refused(Refused::Invalid);
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
                self.sends.push(Sent { id, request_id: peek.request_id, priority, answer });
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
        let held = self.mail.acknowledge(ack);
        let settle = match held {
            Some(DeliveryId::Post { .. }) => return self.mail.tell_progress(&self.app, &self.live).await,
            Some(delivery) => Some(Settle {
                mesh_id: self.live.mesh_id.clone(),
                by: self.live.member_id.clone(),
                which: Settled::Held(delivery),
            }),
            None => message::settle_unheld(
                &self.live,
                self.app.hub.takes(&self.live.mesh_id, self.live.seat.presence_id()).session,
                ack,
            ),
        };
        if let Some(settle) = settle {
            // The client has it and expects no answer. Should the commit fail, the row comes again to its next connection.
            drop(self.app.store.settle(settle).await);
        }
    }

    async fn on_request(&mut self, request: ClientFrame, request_id: Option<String>) -> Result<(), Stuck> {
        self.finish_sends().await?;
        if !self.app.limits.may_ask(&self.live.mesh_id, &self.live.member_id, self.app.clock.now()) {
            let config = &self.app.settings.config;
            let (rate, burst) = (config.request_rate_per_min, config.request_burst);
            let fault = Fault::new(ErrorCode::RateLimit, format!("max {rate} requests/min (burst {burst}), slow down"));
            return self.say_fault(fault, request_id).await;
        }
        // A long answer is made in one go: others get their turn before the next.
        tokio::task::yield_now().await;
        let answer = calls::answer(&self.app, &self.live, request, request_id.as_deref()).await;
        // What happened before the answer is told before it.
        self.say_news().await?;
        match answer {
            Ok(Some(frame)) => {
                let answer = Addressed { frame, request_id };
                let text = answer.to_json();
                if text.len() > MAX_ANSWER_BYTES {
                    let fault = Fault::new(ErrorCode::NotSupported, "the answer would be longer than 4 MiB");
                    return self.say_fault(fault, answer.request_id).await;
                }
                self.line.feed(text).await
            }
            Ok(None) => Ok(()),
            Err(fault) => self.say_fault(fault, request_id).await,
        }
    }

    async fn on_ring(&mut self) -> Result<(), End> {
        let doorbell = self.live.seat.doorbell();
        if let Some(close) = doorbell.wants_close() {
            return Err(End::Close(close));
        }
        if let Some(from_start) = doorbell.take_ring() {
            self.mail.rung(from_start);
        }
        if self.app.clock.instant() < self.next_news {
            return Ok(());
        }
        Ok(self.say_news().await?)
    }

    async fn say_news(&mut self) -> Result<(), Stuck> {
        let said = self.live.seat.doorbell().take_said();
        if !said.is_empty() {
            self.next_news = self.app.clock.instant() + NEWS_PAUSE;
        }
        for text in said {
            self.line.feed(text).await?;
        }
        Ok(())
    }

    async fn on_time(&mut self) -> Result<(), End> {
        let now = self.app.clock.instant();
        if self.liveness.is_dead(now) {
            self.listen_once_more(now).await?;
        }
        if now >= self.next_ping {
            self.next_ping = now + self.app.settings.config.ping_every;
            self.line.ping().await?;
        }
        if now >= self.next_news {
            self.say_news().await?;
        }
        self.mail.ask_again(&self.app, &self.live).await;
        Ok(())
    }

    /// Nothing has come for too long. But what has come and was not looked at counts, and so does what cannot be looked at because
    /// answers are due first.
    async fn listen_once_more(&mut self, now: Instant) -> Result<(), End> {
        if self.sends.is_full() {
            self.liveness.heard(now);
            return Ok(());
        }
        match self.line.next().now_or_never() {
            Some(incoming) => self.take(incoming).await,
            None => Err(End::Broken),
        }
    }

    fn next_deadline(&self) -> Instant {
        let own = self.next_ping.min(self.liveness.deadline());
        let news = self.live.seat.doorbell().has_said().then_some(self.next_news);
        self.mail.deadline(&self.app).into_iter().chain(news).fold(own, Instant::min)
    }

    /// Pushes what was claimed.
    async fn hand_over(&mut self, answer: Answer) -> Result<(), Stuck> {
        for row in self.mail.take(&self.app, &self.live, answer).await {
            if self.live.seat.doorbell().is_sent_away() {
                // D9: it may read so slowly that writing takes long.
                break;
            }
            self.app.metrics.pushed(&row, (self.app.clock.now(), self.app.clock.instant()));
            let text = self.push(&row.message);
            self.line.feed(text).await?;
        }
        Ok(())
    }

    /// The push of a message. Its text is made once for all its recipients, but for the sender's own.
    fn push(&self, message: &StoredMessage) -> String {
        // A daemon drops what its own member sent, without an ack, if it can tell.
        let from_oneself =
            message.sender_member_id == self.live.member_id && self.live.peer_role == PeerRole::ControlPlane;
        let write = || {
            let push = BrokerFrame::Push(Box::new(push_of(&self.live.mesh_id, message, !from_oneself)));
            Addressed { frame: push, request_id: None }.to_json()
        };
        if from_oneself { write() } else { message.written.get_or_init(write).clone() }
    }

    async fn answer_ready_sends(&mut self) -> Result<(), Stuck> {
        while let Some(answered) = self.sends.answered().now_or_never() {
            self.answer_send(answered).await?;
        }
        Ok(())
    }

    /// Waits until every send is answered.
    async fn finish_sends(&mut self) -> Result<(), Stuck> {
        while !self.sends.is_empty() {
            let answered = self.sends.answered().await;
            self.answer_send(answered).await?;
        }
        Ok(())
    }

    async fn answer_send(&mut self, answered: Answered) -> Result<(), Stuck> {
        let Answered { id, request_id, priority, appended } = answered;
        self.say_ack(message::acknowledge((&self.app, &self.live), (id, priority), appended), request_id).await
    }

    async fn say_ack(&mut self, ack: Ack, request_id: Option<String>) -> Result<(), Stuck> {
        self.line.feed(Addressed { frame: BrokerFrame::Ack(ack), request_id }.to_json()).await
    }

    async fn say_fault(&mut self, fault: Fault, request_id: Option<String>) -> Result<(), Stuck> {
        self.finish_sends().await?;
        self.line.feed(Addressed { frame: BrokerFrame::Error(fault.frame()), request_id }.to_json()).await
    }

    /// Lets go of all mail, gives the seat back, and says goodbye if there is somebody to say it to.
    async fn leave(mut self, end: End) -> Option<Leftover> {
        // Whoever takes the mail next is told by the seat; what was held here is free by then, and comes before what is newer.
        let leftover = self.mail.release(&self.app, &self.live).await;
        if let Some((name, stats)) = self.app.hub.sum_up(&self.live.mesh_id, self.live.seat.presence_id()) {
            self.app.store.note_parting((&self.live.mesh_id, &self.live.member_id), &name, stats);
        }
        let silence = self.liveness.silence(self.app.clock.instant());
        let heard = self.app.clock.now().minus(silence);
        let is_broken = matches!(end, End::Broken | End::Stuck);
        self.live.seat.leave(if is_broken { Parting::Broken(heard) } else { Parting::Closed });
        match end {
            End::Goodbye => self.line.finish().await,
            End::Close(close) => {
                // What was sent before is answered before the Close.
                let _ = self.finish_sends().await;
                let _ = self.line.flush().await;
                self.line.close(close).await;
            }
            End::Stuck => self.line.close(Close::SLOW_CONSUMER).await,
            End::Broken => {}
        }
        leftover
    }
}

fn push_of(mesh_id: &MeshId, message: &StoredMessage, names_member: bool) -> Push {
    let post = message.post.as_ref();
    Push {
        message_id: message.message_id.clone(),
        mesh_id: mesh_id.clone(),
        sender_pubkey: message.sender_pubkey.to_string(),
        sender_member_pubkey: names_member.then_some(message.sender_member_pubkey),
        sender_member_id: Some(message.sender_member_id.clone()),
        sender_name: Some(message.sender_name.clone()),
        priority: message.priority,
        nonce: message.nonce.clone(),
        ciphertext: message.ciphertext.clone(),
        created_at: message.created_at,
        client_message_id: message.client_message_id.clone(),
        request_fingerprint: message.request_fingerprint.clone(),
        ext: message.ext.clone(),
        topic: post.map(|post| post.topic.clone()),
        topic_id: post.map(|post| post.topic_id.clone()),
        body_version: post.map(|post| post.body_version),
        seq: post.map(|post| post.seq),
        reply_to_id: post.and_then(|post| post.reply_to_id.clone()),
        mentions: post.map(|post| post.mentions.clone()).unwrap_or_default(),
        plaintext: post.is_some_and(|post| post.plaintext),
        subtype: None,
    }
}
