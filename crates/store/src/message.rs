//! Accepting messages: one immutable row each, one delivery per recipient, in the sender's order.
//!
//! Who may send to whom is decided here, from what the batch has read inside the transaction that writes.

use std::collections::{HashMap, HashSet};

use claudemesh_proto::text::Verbatim;
use claudemesh_proto::{DisplayName, MemberId, MeshId, MessageId, Priority, PublicKey};

use crate::batch::Batch;
use crate::look_up::{Earlier, Named};
use crate::recipient::Recipient;

/// Most rows that may be queued for one recipient.
pub const MAX_QUEUED_ROWS: i64 = 10_000;
/// Most bytes that may be queued for one recipient.
pub const MAX_QUEUED_BYTES: i64 = 64 << 20;

/// A message to accept.
#[derive(Debug)]
pub struct NewMessage {
    /// The mesh of the sender's connection.
    pub mesh_id: MeshId,
    /// The sending member.
    pub sender_member_id: MemberId,
    /// The key that sealed it: the session's, else the member's.
    pub sender_pubkey: PublicKey,
    /// The name shown with it.
    pub sender_name: DisplayName,
    /// The key it is for.
    pub target: PublicKey,
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
    /// The recipient has too much waiting.
    QueueFull,
    /// The sender was removed from the mesh.
    SenderRevoked,
}

/// One message of a batch on its way to becoming rows.
pub(crate) struct Accepted<'a> {
    message: &'a NewMessage,
    id: MessageId,
    seq: i64,
    recipient: Recipient,
    owner: MemberId,
}

type DedupeKey<'a> = (&'a MeshId, &'a MemberId, &'a str);
/// The first message under a client id, as far as it decides what a second one is.
struct First {
    outcome: Appended,
    fingerprint: Option<String>,
    target: String,
    nonce: String,
    ciphertext: String,
}

impl First {
    /// D6: the fingerprint decides when there is one; without, the message itself must be the same.
    fn answers(&self, retry: &NewMessage) -> Appended {
        let same = self.fingerprint == retry.request_fingerprint
            && (self.fingerprint.is_some()
                || self.target == retry.target.to_string()
                    && self.nonce == retry.nonce
                    && self.ciphertext == retry.ciphertext);
        if same { self.outcome.clone() } else { Appended::Reused }
    }
}

impl NewMessage {
    /// Bytes that count against the recipient's queue.
    pub(crate) fn size_bytes(&self) -> i64 {
        let ext = self.ext.as_ref().map_or(0, |ext| ext.get().len());
        i64::try_from(self.ciphertext.len() + self.nonce.len() + ext).unwrap_or(i64::MAX)
    }

    fn dedupe_key(&self) -> Option<DedupeKey<'_>> {
        Some((&self.mesh_id, &self.sender_member_id, self.client_message_id.as_deref()?))
    }
}

/// What a batch of messages wants to know, in the order of the rows that [`LOOK_UP`](crate::look_up::LOOK_UP) reads.
#[derive(Debug, Default)]
pub(crate) struct Questions<'a> {
    retries: Vec<DedupeKey<'a>>,
    keys: Vec<TargetKey<'a>>,
}

impl<'a> Questions<'a> {
    pub(crate) fn of(messages: &[&'a NewMessage]) -> Self {
        let mut seen = HashSet::new();
        Self {
            retries: messages.iter().filter_map(|message| message.dedupe_key()).collect(),
            keys: messages.iter().map(|message| target_key(message)).filter(|key| seen.insert(*key)).collect(),
        }
    }

    /// Of which earlier messages these may be retries.
    pub(crate) fn retry_rows(&self) -> Vec<impl serde::Serialize> {
        self.retries.iter().enumerate().map(|(index, (mesh, sender, id))| (index, mesh, sender, id)).collect()
    }

    /// Whom the targets name, and whether the senders are members.
    pub(crate) fn target_rows(&self) -> Vec<impl serde::Serialize> {
        self.keys.iter().enumerate().map(|(index, (mesh, target, from))| (index, mesh, target, from)).collect()
    }
}

/// Decides a batch of messages; one outcome each, in order, and the rows to write.
pub(crate) fn decide<'a>(
    batch: &mut Batch,
    messages: &[&'a NewMessage],
    questions: &Questions<'a>,
    (earlier, named): (Vec<Earlier>, Vec<Named>),
) -> sqlx::Result<(Vec<Appended>, Vec<Accepted<'a>>)> {
    let mut firsts: HashMap<DedupeKey<'a>, First> = earlier
        .into_iter()
        .filter_map(|(index, id, fingerprint, target, nonce, ciphertext)| {
            let first = First { outcome: Appended::Kept(id), fingerprint, target, nonce, ciphertext };
            Some((*questions.retries.get(index)?, first))
        })
        .collect();
    let targets = targets(batch, questions, named);
    let mut outcomes = Vec::with_capacity(messages.len());
    let mut accepted: Vec<Accepted<'a>> = Vec::with_capacity(messages.len());
    for message in messages {
        let first = message.dedupe_key().and_then(|key| firsts.get(&key));
        let outcome = match first {
            Some(first) => {
                // The batch that kept it may have failed to say so, and then nobody was rung.
                if let Some((recipient, _)) = targets.get(&target_key(message)).and_then(|to| to.recipient.as_ref()) {
                    batch.ring_again(&message.mesh_id, recipient);
                }
                first.answers(message)
            }
            None => match admit(batch, &targets, message, Batch::random()?) {
                Ok(admitted) => {
                    batch.ring(&message.mesh_id, &admitted.recipient);
                    let kept = Appended::Kept(admitted.id.clone());
                    accepted.push(admitted);
                    kept
                }
                Err(refused) => refused,
            },
        };
        if let (Some(key), Appended::Kept(_)) = (message.dedupe_key(), &outcome) {
            firsts.entry(key).or_insert_with(|| First {
                outcome: outcome.clone(),
                fingerprint: message.request_fingerprint.clone(),
                target: message.target.to_string(),
                nonce: message.nonce.clone(),
                ciphertext: message.ciphertext.clone(),
            });
        }
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
            &message.target, message.priority, &message.nonce, &message.ciphertext,
            message.ext.as_ref().map(|ext| ext.get()), &message.client_message_id, &message.request_fingerprint,
        );
        columns
    }

    /// The columns of its `delivery`.
    pub(crate) fn delivery_row(&self) -> impl serde::Serialize {
        let Self { message, seq, recipient, owner, .. } = self;
        (&message.mesh_id, seq, recipient.to_string(), owner, message.priority, message.size_bytes())
    }
}

/// Whom a key names, and whether they can be sent to.
struct Target {
    recipient: Option<(Recipient, MemberId)>,
    /// The session's key was never proven, or too long ago: it takes mail only while a connection holds it.
    only_while_open: bool,
    backlog_rows: i64,
    backlog_bytes: i64,
    sender_is_member: bool,
}

type TargetKey<'a> = (&'a MeshId, PublicKey, &'a MemberId);

fn targets<'a>(batch: &mut Batch, questions: &Questions<'a>, named: Vec<Named>) -> HashMap<TargetKey<'a>, Target> {
    let oldest = batch.now.minus(batch.settings.message_ttl).as_millis();
    let targets = named.into_iter().filter_map(|found| {
        let (index, member, owner, proven, last_seen, backlog_rows, backlog_bytes, sender, last) = found;
        let key = questions.keys.get(index)?;
        batch.learn_head(key.0, last);
        let by_member = member.map(|id| (Recipient::Member(id.clone()), id));
        let by_session = owner.map(|id| (Recipient::Session(key.1), id));
        let lasting = by_member.is_some() || proven.is_some() && last_seen.is_some_and(|seen| seen >= oldest);
        let target = Target {
            recipient: by_member.or(by_session),
            only_while_open: !lasting,
            backlog_rows,
            backlog_bytes,
            sender_is_member: sender.is_some(),
        };
        Some((*key, target))
    });
    targets.collect()
}

fn target_key(message: &NewMessage) -> TargetKey<'_> {
    (&message.mesh_id, message.target, &message.sender_member_id)
}

/// Decides one message, and gives it its number and its place in the recipient's queue.
fn admit<'a>(
    batch: &mut Batch,
    targets: &HashMap<TargetKey<'a>, Target>,
    message: &'a NewMessage,
    random: [u8; 24],
) -> Result<Accepted<'a>, Appended> {
    let target = targets.get(&target_key(message)).ok_or(Appended::NoRecipient)?;
    if !target.sender_is_member {
        return Err(Appended::SenderRevoked);
    }
    let (recipient, owner) = target.recipient.clone().ok_or(Appended::NoRecipient)?;
    if target.only_while_open && !message.target_is_open {
        return Err(Appended::NoRecipient);
    }
    let size = message.size_bytes();
    let change = batch.backlog.change(&message.mesh_id, &recipient);
    let full = target.backlog_rows + change.rows + 1 > MAX_QUEUED_ROWS
        || target.backlog_bytes.saturating_add(change.bytes).saturating_add(size) > MAX_QUEUED_BYTES;
    if full {
        return Err(Appended::QueueFull);
    }
    change.rows += 1;
    change.bytes = change.bytes.saturating_add(size);
    let seq = batch.next_message_seq(&message.mesh_id);
    let id = MessageId::new(seq.unsigned_abs(), random);
    Ok(Accepted { message, id, seq, recipient, owner })
}
