//! Accepting messages: one immutable row each, one delivery per recipient, in the sender's order.
//!
//! Who may send to whom is decided here, from what the batch has read inside the transaction that writes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock};

use claudemesh_proto::text::Verbatim;
use claudemesh_proto::{
    ConnectionId, DisplayName, MemberId, MeshId, MessageId, Priority, PublicKey, Target, Timestamp,
};

use crate::audience::{Addressee, Addresses, Listening, Recipients};
use crate::backlog::Change;
use crate::batch::Batch;
use crate::delivery::Letter;
use crate::hand_over::Offers;
use crate::look_up::Earlier;
use crate::recipient::Recipient;

/// A message to accept.
#[derive(Debug)]
pub struct NewMessage {
    /// The mesh of the sender's connection.
    pub mesh_id: MeshId,
    /// The sending member.
    pub sender_member_id: MemberId,
    /// The sending member's key.
    pub sender_member_pubkey: PublicKey,
    /// The key that sealed it: the session's, else the member's.
    pub sender_pubkey: PublicKey,
    /// The name shown with it.
    pub sender_name: DisplayName,
    /// Whom it is for.
    pub target: Target,
    /// Whether a connection holds the target right now as a session key that it has not proven.
    pub target_is_open: bool,
    /// How urgent it is.
    pub priority: Priority,
    /// Carried as it is.
    pub nonce: String,
    /// Carried as it is.
    pub ciphertext: String,
    /// Carried as it is.
    pub ext: Option<Verbatim>,
    /// Makes a retry the same message.
    pub client_message_id: Option<String>,
    /// Tells a retry from another message under the same id.
    pub request_fingerprint: Option<String>,
}

/// What became of a [`NewMessage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is kept, now or since its first try.
    Kept(MessageId),
    /// Its client id was used for another message.
    Reused,
    /// The target is no member and no session that could come back.
    NoRecipient,
    /// The recipient does not want direct messages of this sender.
    Blocked,
    /// The recipient has too much waiting.
    QueueFull,
    /// The whole mesh has too much waiting.
    MeshFull,
    /// The sender was removed from the mesh.
    SenderRevoked,
}

/// One message of a batch on its way to becoming rows.
pub(crate) struct Accepted<'a> {
    message: &'a NewMessage,
    id: MessageId,
    seq: i64,
    recipients: Vec<Place>,
}

/// A recipient's place: in its queue, or not, when that is full.
struct Place {
    recipient: Recipient,
    owner: MemberId,
    is_full: bool,
    /// The delivery's number, where the batch gives it.
    delivery: Option<i64>,
    /// Who has it from the beginning, and until when.
    claimed: Option<(ConnectionId, Timestamp)>,
}

type DedupeKey<'a> = (&'a MeshId, &'a MemberId, &'a str);
/// The first message under a client id, as far as it decides what a second one is.
struct First<'a> {
    outcome: Appended,
    message: Original<'a>,
}

/// What the first message was.
enum Original<'a> {
    Stored(Earlier),
    InThisBatch(&'a NewMessage),
}

impl First<'_> {
    fn answers(&self, retry: &NewMessage) -> Appended {
        if self.message.is_repeated_by(retry) { self.outcome.clone() } else { Appended::Reused }
    }
}

impl Original<'_> {
    /// D6: the fingerprint decides when there is one; without, the message itself must be the same.
    fn is_repeated_by(&self, retry: &NewMessage) -> bool {
        let (fingerprint, is_same_text) = match self {
            Self::Stored(first) => (
                &first.fingerprint,
                first.target_spec == retry.target.to_string()
                    && first.nonce == retry.nonce
                    && first.ciphertext == retry.ciphertext,
            ),
            Self::InThisBatch(first) => (
                &first.request_fingerprint,
                first.target == retry.target && first.nonce == retry.nonce && first.ciphertext == retry.ciphertext,
            ),
        };
        *fingerprint == retry.request_fingerprint && (fingerprint.is_some() || is_same_text)
    }
}

impl NewMessage {
    /// Bytes that count against the recipient's queue.
    pub(crate) fn size_bytes(&self) -> i64 {
        let ext = self.ext.as_ref().map_or(0, |ext| ext.get().len());
        i64::try_from(self.ciphertext.len() + self.nonce.len() + ext).unwrap_or(i64::MAX)
    }

    /// As its recipients get it.
    fn letter(&self, id: &MessageId, now: Timestamp) -> Letter {
        Letter {
            message_id: id.clone(),
            sender_pubkey: self.sender_pubkey,
            sender_member_pubkey: self.sender_member_pubkey,
            sender_member_id: self.sender_member_id.clone(),
            sender_name: self.sender_name.clone(),
            priority: self.priority,
            nonce: self.nonce.clone(),
            ciphertext: self.ciphertext.clone(),
            ext: self.ext.clone(),
            client_message_id: self.client_message_id.clone(),
            request_fingerprint: self.request_fingerprint.clone(),
            created_at: now,
            written: OnceLock::new(),
        }
    }

    fn dedupe_key(&self) -> Option<DedupeKey<'_>> {
        Some((&self.mesh_id, &self.sender_member_id, self.client_message_id.as_deref()?))
    }
}

/// What a batch of messages wants to know.
#[derive(Debug, Default)]
pub(crate) struct Questions<'a> {
    retries: Vec<DedupeKey<'a>>,
    pub(crate) addresses: Addresses<'a>,
}

impl<'a> Questions<'a> {
    pub(crate) fn of(messages: &[&'a NewMessage]) -> Self {
        let retries = messages.iter().filter_map(|message| message.dedupe_key()).collect();
        Self { retries, addresses: Addresses::of(messages) }
    }

    /// Of which earlier messages these may be retries: place, mesh, sender, client's id.
    pub(crate) fn retry_rows(&self) -> Vec<impl serde::Serialize> {
        self.retries.iter().enumerate().map(|(place, (mesh, sender, id))| (place, mesh, sender, id)).collect()
    }

    fn firsts(&self, earlier: Vec<Earlier>) -> HashMap<DedupeKey<'a>, First<'a>> {
        let firsts = earlier.into_iter().filter_map(|stored| {
            let key = *self.retries.get(stored.place)?;
            Some((key, First { outcome: Appended::Kept(stored.id.clone()), message: Original::Stored(stored) }))
        });
        firsts.collect()
    }
}

/// Decides a batch of messages; one outcome each, in order, and the rows to write.
pub(crate) fn decide<'a>(
    batch: &mut Batch,
    messages: &[&'a NewMessage],
    questions: &Questions<'a>,
    (earlier, found): (Vec<Earlier>, &Recipients),
) -> sqlx::Result<(Vec<Appended>, Vec<Accepted<'a>>)> {
    let mut firsts = questions.firsts(earlier);
    let mut outcomes = Vec::with_capacity(messages.len());
    let mut accepted: Vec<Accepted<'a>> = Vec::with_capacity(messages.len());
    let random = Batch::random(messages.len())?;
    for (place, (message, random)) in messages.iter().zip(random).enumerate() {
        let addressee = questions.addresses.addressee(found, place);
        let listening = questions.addresses.listening(found, place);
        let mut slot = message.dedupe_key().map(|key| firsts.entry(key));
        if let Some(Entry::Occupied(first)) = &slot {
            // The batch that kept it may have failed to say so, and then nobody was rung.
            ring_again(batch, message, addressee, listening);
            outcomes.push(first.get().answers(message));
            continue;
        }
        let outcome = match admit(batch, message, (addressee, listening), random) {
            Ok(admitted) => {
                let kept = Appended::Kept(admitted.id.clone());
                accepted.push(admitted);
                if let Some(Entry::Vacant(first)) = slot.take() {
                    first.insert(First { outcome: kept.clone(), message: Original::InThisBatch(message) });
                }
                kept
            }
            Err(refused) => refused,
        };
        outcomes.push(outcome);
    }
    Ok((outcomes, accepted))
}

impl Accepted<'_> {
    /// The columns of its `message`, as the batch writes them.
    pub(crate) fn message_row(&self) -> impl serde::Serialize {
        let Self { message, id, seq, .. } = self;
        #[rustfmt::skip]
        let columns = (
            &message.mesh_id, seq, id, &message.sender_member_id, &message.sender_pubkey, &message.sender_name,
            message.target.to_string(), message.priority, &message.nonce, &message.ciphertext,
            message.ext.as_ref().map(|ext| ext.get()), &message.client_message_id, &message.request_fingerprint,
        );
        columns
    }

    /// The columns of each `delivery`. What found a full queue is there too, at its end: it must not vanish without a word.
    pub(crate) fn delivery_rows(&self) -> impl Iterator<Item = impl serde::Serialize> {
        let Self { message, seq, .. } = *self;
        let size = message.size_bytes();
        self.recipients.iter().map(move |place| {
            let state = if place.is_full { "expired" } else { "queued" };
            let Place { recipient, owner, delivery, claimed, .. } = place;
            let (connection, until) =
                claimed.as_ref().map(|(connection, until)| (connection, until.as_millis())).unzip();
            (
                &message.mesh_id,
                seq,
                recipient.to_string(),
                owner,
                message.priority,
                size,
                state,
                connection,
                until,
                delivery,
            )
        })
    }

    /// Numbers its deliveries, and hands them to those who wait for them.
    pub(crate) fn hand_over(&mut self, offers: &mut Offers, last_delivery: &mut i64, now: Timestamp) {
        let mut written: Option<Arc<Letter>> = None;
        let (message, id) = (self.message, &self.id);
        let (mesh_id, size, seq) = (&self.message.mesh_id, self.message.size_bytes(), self.seq);
        for place in &mut self.recipients {
            *last_delivery += 1;
            place.delivery = Some(*last_delivery);
            if !place.is_full {
                let key = (mesh_id.clone(), place.recipient.clone());
                place.claimed = offers.take(&key, (*last_delivery, seq, size), message.priority, || {
                    Arc::clone(written.get_or_insert_with(|| Arc::new(message.letter(id, now))))
                });
            }
        }
    }
}

fn ring_again(batch: &mut Batch, message: &NewMessage, addressee: Option<&Addressee>, listening: Option<&[Listening]>) {
    if let Some(listening) = listening {
        for listener in listening {
            batch.ring_again(&message.mesh_id, &Recipient::Member(listener.member.clone()));
        }
    } else if let Some((recipient, _)) = addressee.and_then(|to| to.recipient.as_ref()) {
        batch.ring_again(&message.mesh_id, recipient);
    }
}

/// Decides one message, and gives it its number and its places in the queues.
fn admit<'a>(
    batch: &mut Batch,
    message: &'a NewMessage,
    (addressee, listening): (Option<&Addressee>, Option<&[Listening]>),
    random: [u8; 24],
) -> Result<Accepted<'a>, Appended> {
    let addressee = addressee.ok_or(Appended::NoRecipient)?;
    let sender = addressee.sender_name.as_ref().ok_or(Appended::SenderRevoked)?;
    let recipients = match listening {
        Some(listening) => join_queues(batch, message, listening)?,
        None => vec![join_queue(batch, message, addressee)?],
    };
    let seq = batch.heads.next_message_seq(&message.mesh_id);
    for place in recipients.iter().filter(|place| !place.is_full) {
        batch.ring(&message.mesh_id, &place.recipient);
    }
    batch.sent(message, sender);
    let id = MessageId::new(seq.unsigned_abs(), random);
    Ok(Accepted { message, id, seq, recipients })
}

fn join_queue(batch: &mut Batch, message: &NewMessage, to: &Addressee) -> Result<Place, Appended> {
    let (recipient, owner) = to.recipient.clone().ok_or(Appended::NoRecipient)?;
    if to.only_while_open && !message.target_is_open {
        return Err(Appended::NoRecipient);
    }
    if !to.takes_direct {
        return Err(Appended::Blocked);
    }
    let size = message.size_bytes();
    if !batch.heads.has_room(&message.mesh_id, Change { rows: 1, bytes: size }) {
        return Err(Appended::MeshFull);
    }
    let change = batch.backlog.change(&message.mesh_id, &recipient);
    if !change.add(size, (to.queued_rows, to.queued_bytes)) {
        return Err(Appended::QueueFull);
    }
    Ok(Place { recipient, owner, is_full: false, delivery: None, claimed: None })
}

fn join_queues(batch: &mut Batch, message: &NewMessage, listening: &[Listening]) -> Result<Vec<Place>, Appended> {
    let size = message.size_bytes();
    let rows = i64::try_from(listening.len()).unwrap_or(i64::MAX);
    if !batch.heads.has_room(&message.mesh_id, Change { rows, bytes: size.saturating_mul(rows) }) {
        return Err(Appended::MeshFull);
    }
    let places = listening.iter().map(|listener| {
        let recipient = Recipient::Member(listener.member.clone());
        let change = batch.backlog.change(&message.mesh_id, &recipient);
        let is_full = !change.add(size, (listener.queued_rows, listener.queued_bytes));
        Place { recipient, owner: listener.member.clone(), is_full, delivery: None, claimed: None }
    });
    Ok(places.collect())
}
