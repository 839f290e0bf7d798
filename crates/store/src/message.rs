//! Accepting messages: one immutable row each, one delivery per recipient, in the sender's order.
//!
//! A batch of them goes in four steps, each one statement: what is a retry, whom do the targets name, the messages, the
//! deliveries. Who may send to whom is decided here from what the second step read, inside the transaction that writes.

use std::collections::HashMap;

use claudemesh_proto::text::Verbatim;
use claudemesh_proto::{DisplayName, MemberId, MeshId, MessageId, Priority, PublicKey};

use crate::batch::Batch;
use crate::recipient::Recipient;
use crate::sql::{Sql, folded, json, sql};

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
struct Accepted<'a> {
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

/// Accepts a batch; one outcome per message, in order.
pub(crate) async fn append(batch: &mut Batch, messages: &[&NewMessage]) -> sqlx::Result<Vec<Appended>> {
    let mut firsts = earlier(batch, messages).await?;
    let targets = targets(batch, messages).await?;
    let mut outcomes = Vec::with_capacity(messages.len());
    let mut accepted = Vec::with_capacity(messages.len());
    for message in messages {
        let random = Batch::random()?;
        let first = message.dedupe_key().and_then(|key| firsts.get(&key));
        let outcome = match first {
            Some(first) => first.answers(message),
            None => match admit(batch, &targets, message, random) {
                Ok(admitted) => {
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
    write(batch, &accepted).await?;
    Ok(outcomes)
}

/// The earlier messages that some of these are retries of.
async fn earlier<'a>(batch: &mut Batch, messages: &[&'a NewMessage]) -> sqlx::Result<HashMap<DedupeKey<'a>, First>> {
    // PostgreSQL would find the messages of a mesh by its primary key and look through them all; comparing an expression of the
    // mesh's id leaves it only the index that begins with the client's id.
    const EARLIER: Sql = sql!(
        sqlite: "select json_group_array(json_array(cast(r.value ->> 0 as bigint), m.id, m.request_fingerprint, \
                 m.target_spec, m.nonce, m.ciphertext)) from jsonb_each($1) r cross join message m \
                 where m.mesh_id = r.value ->> 1 and m.sender_member_id = r.value ->> 2 \
                 and m.client_message_id = r.value ->> 3",
        postgres: "select json_agg(json_build_array(cast(r.value ->> 0 as bigint), m.id, m.request_fingerprint, \
                   m.target_spec, m.nonce, m.ciphertext))::text \
                   from jsonb_array_elements($1::text::jsonb) r(value) cross join message m \
                   where m.mesh_id || '' = r.value ->> 1 and m.sender_member_id = r.value ->> 2 \
                   and m.client_message_id = r.value ->> 3",
    );
    type Found = (usize, MessageId, Option<String>, String, String, String);
    let keys: Vec<_> = messages.iter().filter_map(|message| message.dedupe_key()).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<_> = keys.iter().enumerate().map(|(index, (mesh, sender, id))| (index, mesh, sender, id)).collect();
    let found: Vec<Found> = batch.connection().folded(EARLIER, &[(&json(&rows)?).into()]).await?;
    let firsts = found.into_iter().filter_map(|(index, id, fingerprint, target, nonce, ciphertext)| {
        let first = First { outcome: Appended::Kept(id), fingerprint, target, nonce, ciphertext };
        Some((*keys.get(index)?, first))
    });
    Ok(firsts.collect())
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

async fn targets<'a>(batch: &mut Batch, messages: &[&'a NewMessage]) -> sqlx::Result<HashMap<TargetKey<'a>, Target>> {
    // The removed are as if they were not there.
    const TARGETS: Sql = folded!(
        "cast(r.value ->> 0 as bigint), case when m.revoked_at is null then m.id end, o.id, s.proven_at, s.last_seen_at, \
         coalesce(b.queued_rows, 0), coalesce(b.queued_bytes, 0), f.id, coalesce(h.message_seq, 0)",
        " left join member m on m.mesh_id = r.value ->> 1 and m.peer_pubkey = r.value ->> 2 \
          left join session s on s.mesh_id = r.value ->> 1 and s.session_pubkey = r.value ->> 2 \
          left join member o on o.mesh_id = s.mesh_id and o.id = s.member_id and o.revoked_at is null \
          left join member f on f.mesh_id = r.value ->> 1 and f.id = r.value ->> 3 and f.revoked_at is null \
          left join backlog b on b.mesh_id = r.value ->> 1 and b.recipient = coalesce(m.id, r.value ->> 2) \
          left join mesh_head h on h.mesh_id = r.value ->> 1"
    );
    /// Member, owner of the session, when it was proven and last seen, queued rows and bytes, sender, the mesh's last number.
    type Found = (usize, Option<MemberId>, Option<MemberId>, Option<i64>, Option<i64>, i64, i64, Option<MemberId>, i64);
    let mut keys: Vec<TargetKey<'a>> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for message in messages {
        let key = (&message.mesh_id, message.target, &message.sender_member_id);
        if seen.insert(key) {
            keys.push(key);
        }
    }
    let rows: Vec<_> =
        keys.iter().enumerate().map(|(index, (mesh, target, from))| (index, mesh, target, from)).collect();
    let found: Vec<Found> = batch.connection().folded(TARGETS, &[(&json(&rows)?).into()]).await?;
    let oldest = batch.now.minus(batch.settings.message_ttl).as_millis();
    let targets = found.into_iter().filter_map(|found| {
        let (index, member, owner, proven, last_seen, backlog_rows, backlog_bytes, sender, last) = found;
        let key = keys.get(index)?;
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
    Ok(targets.collect())
}

/// Decides one message, and gives it its number and its place in the recipient's queue.
fn admit<'a>(
    batch: &mut Batch,
    targets: &HashMap<TargetKey<'a>, Target>,
    message: &'a NewMessage,
    random: [u8; 24],
) -> Result<Accepted<'a>, Appended> {
    let key = (&message.mesh_id, message.target, &message.sender_member_id);
    let target = targets.get(&key).ok_or(Appended::NoRecipient)?;
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

async fn write(batch: &mut Batch, accepted: &[Accepted<'_>]) -> sqlx::Result<()> {
    const MESSAGES: Sql = sql!(
        "insert into message (mesh_id, seq, id, sender_member_id, sender_pubkey, sender_name, target_spec, priority, \
         nonce, ciphertext, ext, client_message_id, request_fingerprint, created_at) \
         select r.value ->> 0, cast(r.value ->> 1 as bigint), r.value ->> 2, r.value ->> 3, r.value ->> 4, r.value ->> 5, \
         r.value ->> 6, r.value ->> 7, r.value ->> 8, r.value ->> 9, r.value ->> 10, r.value ->> 11, r.value ->> 12, \
         cast($2 as bigint) from ",
        rows ""
    );
    const DELIVERIES: Sql = sql!(
        "insert into delivery (mesh_id, message_seq, recipient, member_id, priority, size_bytes) \
         select r.value ->> 0, cast(r.value ->> 1 as bigint), r.value ->> 2, r.value ->> 3, r.value ->> 4, \
         cast(r.value ->> 5 as bigint) from ",
        rows ""
    );
    if accepted.is_empty() {
        return Ok(());
    }
    let messages: Vec<_> = accepted
        .iter()
        .map(|Accepted { message, id, seq, .. }| {
            #[rustfmt::skip]
            let columns = (
                &message.mesh_id, seq, id, &message.sender_member_id, &message.sender_pubkey, &message.sender_name,
                &message.target, message.priority, &message.nonce, &message.ciphertext,
                message.ext.as_ref().map(|ext| ext.get()), &message.client_message_id, &message.request_fingerprint,
            );
            columns
        })
        .collect();
    let now = batch.now.as_millis();
    batch.connection().execute(MESSAGES, &[(&json(&messages)?).into(), now.into()]).await?;
    let deliveries: Vec<_> = accepted
        .iter()
        .map(|Accepted { message, seq, recipient, owner, .. }| {
            (&message.mesh_id, seq, recipient.to_string(), owner, message.priority, message.size_bytes())
        })
        .collect();
    batch.connection().execute(DELIVERIES, &[(&json(&deliveries)?).into()]).await?;
    for Accepted { message, recipient, .. } in accepted {
        batch.ring(&message.mesh_id, recipient);
    }
    Ok(())
}
