//! Accepting messages: one immutable row each, one delivery per recipient, in the sender's order.
//!
//! Who may send to whom is decided here, from what the batch has read inside the transaction that writes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock};

use claudemesh_proto::post::{BodyVersion, Post};
use claudemesh_proto::text::Verbatim;
use claudemesh_proto::{
    ConnectionId, DisplayName, MemberId, MeshId, MessageId, Priority, PublicKey, Target, Timestamp,
};

use crate::audience::{Addressee, Addresses, Listening, Recipients};
use crate::backlog::Change;
use crate::batch::Batch;
use crate::cursor::Cursors;
use crate::delivery::{DeliveryId, Span, StoredMessage, TopicPart};
use crate::hand_over::{Offered, Offers};
use crate::look_up::Earlier;
use crate::post::{self, FoundPosts, NewPost, PostQuestions, Posted, Subscriber};
use crate::recipient::Recipient;
use crate::sql::json;

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
    /// What it has as a topic's message; nothing for any other target.
    pub post: Option<Post>,
    /// Whether its sender can seal for an encrypted topic, and so must.
    pub knows_topics: bool,
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
    /// The topics of the mesh hold too much.
    TopicsFull,
    /// The sender was removed from the mesh.
    SenderRevoked,
    /// It is kept in its topic.
    Posted(Box<Posted>),
    /// The mesh has no such topic, or the sender is not in it.
    NoTopic,
    /// It is a plaintext, and the topic has a key.
    TopicEncrypted,
}

/// One message of a batch on its way to becoming rows.
pub(crate) struct Accepted<'a> {
    message: &'a NewMessage,
    id: MessageId,
    seq: i64,
    reach: Reach,
}

/// Whom it reaches.
enum Reach {
    /// Those in whose queues it is.
    Queues(Vec<Place>),
    /// Those who are in its topic.
    Topic(Box<NewPost>),
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
    fn stored(&self, id: &MessageId, post: Option<&NewPost>, now: Timestamp) -> StoredMessage {
        StoredMessage {
            post: post.map(|post| post.part.clone()),
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
    pub(crate) posts: PostQuestions<'a>,
}

impl<'a> Questions<'a> {
    pub(crate) fn of(messages: &[&'a NewMessage]) -> Self {
        let retries = messages.iter().filter_map(|message| message.dedupe_key()).collect();
        Self { retries, addresses: Addresses::of(messages), posts: PostQuestions::of(messages) }
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
    (earlier, found, posts): (Vec<Earlier>, &Recipients, &FoundPosts),
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
            for Subscriber { member, .. } in posts.subscribers(&questions.posts, message).unwrap_or_default() {
                batch.ring_again(&message.mesh_id, &Recipient::Member(member.clone()));
            }
            outcomes.push(first.get().answers(message));
            continue;
        }
        let admitted = match &message.target {
            Target::Topic(_) => admit_post(batch, message, addressee, (questions, posts), random)?,
            _ => admit(batch, message, (addressee, listening), random),
        };
        let outcome = match admitted {
            Ok(admitted) => {
                let outcome = admitted.outcome();
                if let Some(Entry::Vacant(first)) = slot.take() {
                    let kept = Appended::Kept(admitted.id.clone());
                    first.insert(First { outcome: kept, message: Original::InThisBatch(message) });
                }
                accepted.push(admitted);
                outcome
            }
            Err(refused) => refused,
        };
        outcomes.push(outcome);
    }
    Ok((outcomes, accepted))
}

impl Accepted<'_> {
    fn outcome(&self) -> Appended {
        match &self.reach {
            Reach::Queues(_) => Appended::Kept(self.id.clone()),
            Reach::Topic(post) => post.outcome(&self.id),
        }
    }

    fn places(&self) -> &[Place] {
        if let Reach::Queues(places) = &self.reach { places } else { &[] }
    }

    fn post(&self) -> Option<&NewPost> {
        if let Reach::Topic(post) = &self.reach { Some(post) } else { None }
    }

    /// The columns of its `message`, as the batch writes them; none for a topic's message.
    pub(crate) fn message_row(&self) -> Option<impl serde::Serialize> {
        let Self { message, id, seq, reach: Reach::Queues(_) } = self else { return None };
        #[rustfmt::skip]
        let columns = (
            &message.mesh_id, seq, id, &message.sender_member_id, &message.sender_pubkey, &message.sender_name,
            message.target.to_string(), message.priority, &message.nonce, &message.ciphertext,
            message.ext.as_ref().map(|ext| ext.get()), &message.client_message_id, &message.request_fingerprint,
        );
        Some(columns)
    }

    /// The columns of its `topic_message`; none for any other message.
    pub(crate) fn post_row(&self) -> Option<sqlx::Result<impl serde::Serialize>> {
        let (Self { message, id, seq, .. }, post) = (self, self.post()?);
        let TopicPart { topic_id, seq: number, body_version, plaintext, reply_to_id, mentions, .. } = &post.part;
        let mentions = (!mentions.is_empty()).then(|| json(mentions)).transpose();
        // More columns than a tuple can have.
        #[rustfmt::skip]
        let columns = |mentions: Option<String>| serde_json::json!([
            &message.mesh_id, topic_id, number, seq, id, &message.sender_member_id, &message.sender_pubkey,
            &message.sender_name, message.priority, &message.nonce, &message.ciphertext, body_version,
            i64::from(*plaintext), reply_to_id, mentions, message.ext.as_ref().map(|ext| ext.get()),
            &message.client_message_id, &message.request_fingerprint,
        ]);
        Some(mentions.map(columns))
    }

    /// The columns of each `notification` of it.
    pub(crate) fn notification_rows(&self) -> impl Iterator<Item = impl serde::Serialize> {
        self.post().into_iter().flat_map(|post| post.notification_rows((self.message, self.seq)))
    }

    /// The columns of each `delivery`. What found a full queue is there too, at its end: it must not vanish without a word.
    pub(crate) fn delivery_rows(&self) -> impl Iterator<Item = impl serde::Serialize> {
        let Self { message, seq, .. } = *self;
        let size = message.size_bytes();
        self.places().iter().map(move |place| {
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
    pub(crate) fn hand_over(
        &mut self,
        (offers, cursors): (&mut Offers, &mut Cursors),
        last_delivery: &mut i64,
        now: Timestamp,
    ) {
        let mut written: Option<Arc<StoredMessage>> = None;
        let (message, id) = (self.message, &self.id);
        let (mesh_id, size_bytes, seq) = (&self.message.mesh_id, self.message.size_bytes(), self.seq);
        let offered =
            |delivery| Offered { delivery, seq, size_bytes, priority: message.priority, is_sealed: false, span: None };
        match &mut self.reach {
            Reach::Queues(places) => {
                for place in places {
                    *last_delivery += 1;
                    place.delivery = Some(*last_delivery);
                    if !place.is_full {
                        let key = (mesh_id.clone(), place.recipient.clone());
                        place.claimed = offers.take(&key, offered(DeliveryId::Row(*last_delivery)), || {
                            Arc::clone(written.get_or_insert_with(|| Arc::new(message.stored(id, None, now))))
                        });
                    }
                }
            }
            Reach::Topic(post) => {
                let is_sealed = post.part.body_version == BodyVersion::Sealed;
                for Subscriber { member, cursor, holder, delivered_seq, .. } in &post.subscribers {
                    let key = (mesh_id.clone(), Recipient::Member(member.clone()));
                    if !offers.may_hold(&key, holder.as_deref()) {
                        continue;
                    }
                    let delivery = DeliveryId::Post { cursor: *cursor, seq: post.part.seq };
                    let span = Some(Span { delivered: *delivered_seq, after: post.part.seq - 1 });
                    let claimed = offers.take(&key, Offered { is_sealed, span, ..offered(delivery) }, || {
                        Arc::clone(written.get_or_insert_with(|| Arc::new(message.stored(id, Some(post), now))))
                    });
                    if let Some((connection, until)) = claimed {
                        cursors.claim((*cursor, post.part.seq), &connection, until);
                    }
                }
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
    Ok(Accepted { message, id, seq, reach: Reach::Queues(recipients) })
}

/// The same for a message of a topic.
fn admit_post<'a>(
    batch: &mut Batch,
    message: &'a NewMessage,
    addressee: Option<&Addressee>,
    (questions, found): (&Questions<'a>, &FoundPosts),
    random: [u8; 24],
) -> sqlx::Result<Result<Accepted<'a>, Appended>> {
    // It stands for the sender: it is an audience's.
    let Some(sender) = addressee.and_then(|sender| sender.sender_name.as_ref()) else {
        return Ok(Err(Appended::SenderRevoked));
    };
    let seq = batch.heads.next_message_seq(&message.mesh_id);
    let post = match post::admit(batch, message, (&questions.posts, found), seq)? {
        Ok(post) => post,
        Err(refused) => return Ok(Err(refused)),
    };
    batch.sent(message, sender);
    let id = MessageId::new(seq.unsigned_abs(), random);
    Ok(Ok(Accepted { message, id, seq, reach: Reach::Topic(Box::new(post)) }))
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
