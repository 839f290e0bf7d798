//! A client of the load: it sends, receives, forgets to acknowledge, breaks off, comes back and tries again, and writes down what it
//! knows before it acts on it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claudemesh_client::{Body, Cipher, Connection, Dial, Draft, Error, Post, Pushes, here};
use claudemesh_keys::sha256_hex;
use claudemesh_proto::hello::Place;
use claudemesh_proto::message::{Ack, Push, Send};
use claudemesh_proto::{MessageId, Priority, PublicKey, TopicId};
use claudemesh_testkit::ledger::{Entry, Ledger, Target};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::seed::Seed;

/// What the clients are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Send, and come and go.
    Load,
    /// Stay, bring to an end what was begun, acknowledge everything.
    Drain,
    /// Say goodbye.
    End,
}

/// What all clients of a run know together: when it is drained. It decides nothing but when to look at the ledgers.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// With each member that it is for.
    acked: HashSet<(MessageId, PublicKey)>,
    received: HashSet<(MessageId, PublicKey)>,
    /// Messages sent that have no answer yet.
    open: usize,
}

impl Progress {
    pub(crate) fn is_drained(&self) -> bool {
        self.open == 0 && self.acked.is_subset(&self.received)
    }

    pub(crate) fn missing(&self) -> (usize, usize) {
        (self.open, self.acked.difference(&self.received).count())
    }
}

pub(crate) struct Client {
    pub(crate) dial: Dial,
    pub(crate) cipher: Cipher,
    /// A session is handed its member's mail as well.
    pub(crate) member_cipher: Cipher,
    pub(crate) ledger: Ledger,
    /// Its member's key.
    pub(crate) member: PublicKey,
    /// Every key in its mesh, and whose it is.
    pub(crate) keys: HashMap<PublicKey, PublicKey>,
    /// Of its mesh.
    pub(crate) general: TopicId,
    pub(crate) targets: Vec<Target>,
    pub(crate) seed: Seed,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) progress: Arc<Mutex<Progress>>,
    /// Counts its connections.
    pub(crate) connection: u32,
    /// Sent and not answered, in the order of sending.
    pub(crate) open: VecDeque<Message>,
    /// Received and not acknowledged on purpose.
    pub(crate) withheld: VecDeque<Box<Push>>,
}

#[derive(Clone)]
pub(crate) struct Message {
    id: String,
    target: Target,
    priority: Priority,
    text: String,
    send: Send,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parting {
    Lost,
    BrokenOff,
    Goodbye,
}

type Answers =
    FuturesUnordered<std::pin::Pin<Box<dyn Future<Output = (String, Result<Ack, Error>)> + std::marker::Send>>>;

impl Client {
    /// Until the end of the run.
    pub(crate) async fn run(mut self) {
        while *self.phase.borrow() != Phase::End {
            let Ok((connection, pushes)) = self.dial.open().await else {
                sleep(self.seed.millis(5, 40)).await;
                continue;
            };
            self.connection += 1;
            self.give_up_some();
            let parting = self.converse(&connection, pushes).await;
            match parting {
                Parting::Goodbye => connection.close().await,
                Parting::BrokenOff | Parting::Lost => drop(connection),
            }
            if parting != Parting::Lost && *self.phase.borrow() == Phase::Load {
                if self.seed.percent(60) {
                    sleep(self.seed.millis(0, 500)).await;
                }
                if self.seed.percent(30) {
                    // As another process of the same user: nothing is taken up.
                    let Place { session_id, .. } = here(claudemesh_client::MAIL).unwrap();
                    self.dial.place.session_id = session_id;
                }
            }
        }
        self.ledger.sync().unwrap();
    }

    /// Some people never try again: what they sent may be there or not.
    fn give_up_some(&mut self) {
        if *self.phase.borrow() == Phase::Load && self.seed.percent(20) {
            let (seed, before) = (&mut self.seed, self.open.len());
            self.open.retain(|_| !seed.percent(20));
            self.progress.lock().unwrap().open -= before - self.open.len();
        }
    }

    async fn converse(&mut self, connection: &Connection, mut pushes: Pushes) -> Parting {
        let mut answers = Answers::new();
        if self.send_again(connection, &mut answers).await.is_err() {
            return Parting::Lost;
        }
        let mut rounds = if self.seed.percent(30) { 5 + self.seed.below(20) } else { 20 + self.seed.below(150) };
        loop {
            let phase = *self.phase.borrow_and_update();
            match phase {
                Phase::End => return Parting::Goodbye,
                Phase::Drain if self.acknowledge_withheld(connection).await.is_err() => return Parting::Lost,
                Phase::Drain | Phase::Load => {}
            }
            let pause = self.seed.millis(5, 40);
            tokio::select! {
                came = pushes.next_many(64) => {
                    if came.is_empty() || self.receive(connection, came.into_iter(), phase).await.is_err() {
                        return Parting::Lost;
                    }
                }
                Some((id, answer)) = answers.next() => {
                    let Ok(ack) = answer else { return Parting::Lost };
                    self.answered(&id, ack);
                }
                () = sleep(pause) => {
                    if phase == Phase::Load {
                        if rounds == 0 {
                            return if self.seed.percent(50) { Parting::Goodbye } else { Parting::BrokenOff };
                        }
                        rounds -= 1;
                        if self.send_some(connection, &mut answers).await.is_err() {
                            return Parting::Lost;
                        }
                    } else if answers.is_empty() && self.send_again(connection, &mut answers).await.is_err() {
                        // What was refused for the moment is tried again.
                        return Parting::Lost;
                    }
                }
                _ = self.phase.changed() => {}
            }
        }
    }

    /// Everything that was not answered, in its order, under the same ids.
    async fn send_again(&mut self, connection: &Connection, answers: &mut Answers) -> Result<(), Error> {
        for index in 0..self.open.len() {
            let message = &mut self.open[index];
            if let Target::Key(key) = message.target
                && self.seed.percent(30)
            {
                // Sealed anew, it is still the same message: the fingerprint says so.
                let (nonce, ciphertext) = self.cipher.seal(&key, &message.text).unwrap();
                (message.send.nonce, message.send.ciphertext) = (nonce, ciphertext);
            }
        }
        let messages: Vec<Message> = self.open.iter().cloned().collect();
        self.submit(connection, &messages, answers).await
    }

    async fn send_some(&mut self, connection: &Connection, answers: &mut Answers) -> Result<(), Error> {
        let room = IN_FLIGHT.saturating_sub(self.open.len());
        let count = (1 + self.seed.below(8)).min(room);
        let mut messages: Vec<Message> = (0..count).map(|_| self.compose()).collect();
        self.progress.lock().unwrap().open += messages.len();
        self.open.extend(messages.iter().cloned());
        if count > 0 && self.seed.percent(5) {
            // The same again, before the answer.
            messages.push(messages[0].clone());
        }
        self.submit(connection, &messages, answers).await
    }

    fn compose(&mut self) -> Message {
        let target = *self.seed.one_of(&self.targets);
        let priority =
            *self.seed.one_of(&[Priority::Next, Priority::Next, Priority::Next, Priority::Now, Priority::Low]);
        let size = if self.seed.percent(3) { 20_000 } else { 10 + self.seed.below(400) };
        let text = format!("{:016x}{}", self.seed.below(usize::MAX), "x".repeat(size));
        let send = match target {
            Target::Key(to) => self.cipher.compose(&Draft { to: &to, reference: "crash", priority, text: &text }),
            Target::General => {
                Post { topic: &self.general, key: None, priority, reply_to: None, text: &text }.compose()
            }
        };
        let send = send.unwrap();
        Message { id: send.client_message_id.clone().unwrap(), target, priority, text, send }
    }

    async fn submit(
        &mut self,
        connection: &Connection,
        messages: &[Message],
        answers: &mut Answers,
    ) -> Result<(), Error> {
        for Message { id, target, priority, text, .. } in messages {
            let (id, digest) = (id.clone(), sha256_hex(text));
            let (target, priority) = (*target, *priority);
            self.note(&Entry::Sent { id, target, priority, digest, connection: self.connection });
        }
        self.ledger.sync().unwrap();
        for message in messages {
            let submitted = connection.submit(message.send.clone()).await?;
            let id = message.id.clone();
            answers.push(Box::pin(async move { (id, submitted.ack().await) }));
        }
        Ok(())
    }

    fn answered(&mut self, id: &str, ack: Ack) {
        let (id, connection) = (id.to_owned(), self.connection);
        if !ack.queued {
            let why = ack.error.unwrap_or_default();
            assert!(!claudemesh_client::is_permanent(&why), "{why}");
            self.note(&Entry::Refused { id, why, connection });
            return;
        }
        let message: MessageId = ack.message_id.parse().unwrap();
        self.note(&Entry::Acked { id: id.clone(), message: message.clone(), connection });
        self.ledger.sync().unwrap();
        let mut progress = self.progress.lock().unwrap();
        let keys = &self.keys;
        self.open.retain(|open| {
            if open.id != id {
                return true;
            }
            progress.open -= 1;
            match open.target {
                Target::Key(key) => drop(progress.acked.insert((message.clone(), keys[&key]))),
                Target::General => {
                    let others = keys.values().filter(|member| **member != self.member);
                    progress.acked.extend(others.map(|member| (message.clone(), *member)));
                }
            }
            false
        });
    }

    async fn receive(
        &mut self,
        connection: &Connection,
        came: impl Iterator<Item = Box<Push>>,
        phase: Phase,
    ) -> Result<(), Error> {
        let came: VecDeque<Box<Push>> = came.collect();
        for push in &came {
            let opened = [&self.cipher, &self.member_cipher].map(|cipher| cipher.open(push));
            let text = opened.into_iter().find_map(|body| match body {
                Body::Text(text) => Some(text),
                // A post is not sealed: `general` has no key.
                Body::Plaintext(text) if push.topic_id.as_ref() == Some(&self.general) => Some(text),
                Body::Plaintext(_) | Body::Unopened { .. } => None,
            });
            self.note(&Entry::Received {
                message: push.message_id.clone(),
                id: push.client_message_id.clone(),
                sender: push.sender_pubkey.parse().unwrap(),
                priority: push.priority,
                digest: sha256_hex(text.unwrap_or_default()),
                connection: self.connection,
            });
        }
        self.ledger.sync().unwrap();
        let received = came.iter().map(|push| (push.message_id.clone(), self.member));
        self.progress.lock().unwrap().received.extend(received);
        for push in came {
            if phase == Phase::Load && self.seed.percent(15) {
                self.withheld.push_back(push);
                continue;
            }
            self.acknowledge(connection, &push).await?;
        }
        Ok(())
    }

    async fn acknowledge_withheld(&mut self, connection: &Connection) -> Result<(), Error> {
        for push in std::mem::take(&mut self.withheld) {
            self.acknowledge(connection, &push).await?;
        }
        Ok(())
    }

    async fn acknowledge(&mut self, connection: &Connection, push: &Push) -> Result<(), Error> {
        self.note(&Entry::ClientAcked { message: push.message_id.clone(), connection: self.connection });
        connection.ack(push).await
    }

    fn note(&mut self, entry: &Entry) {
        self.ledger.note(entry).unwrap();
    }
}

/// Messages of one client without an answer.
const IN_FLIGHT: usize = 64;

/// How long clients are given to bring everything to its end.
pub(crate) const DRAIN_DEADLINE: Duration = Duration::from_secs(40);
