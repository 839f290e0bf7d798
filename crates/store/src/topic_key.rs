//! The key of a topic, as the copies that are sealed for its members. What is in a copy nobody here can tell.
//!
//! - A topic without a key gets one from the first member who makes one ([`Store::claim_topic_key`]).
//! - Whoever holds a copy seals for those who have none ([`Store::pending_seals`], [`Store::seal_topic_key`]).
//! - A copy is never replaced by another (R8), unless its member rejected it ([`Store::reject_topic_key`]).
//! - A key that nobody but one member can have used is replaced by whoever is responsible for the topic
//!   ([`Store::replace_topic_key`]): it may be none.

use claudemesh_proto::id::TopicKeyId;
use claudemesh_proto::{DisplayName, MemberId, MeshId, PublicKey, Timestamp, TopicId, TopicRole, TopicSought};
use serde_json::json;

use crate::error::StoreError;
use crate::sql::{Connection, Sql, Value, sql};
use crate::topic::{self, Closed, Seen, Topic};
use crate::{Store, audit, id};

/// Most members that are shown as waiting for a copy.
pub const MAX_PENDING_SEALS: i64 = 50;

/// A new key of a topic, sealed by who made it for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCopy {
    /// The X25519 public key that it was sealed with, in hex.
    pub encrypted_key_pubkey: String,
    /// The sealed key in base64.
    pub encrypted_key: String,
    /// Its nonce in base64.
    pub nonce: String,
}

/// A copy of a topic's key, as its member gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicKeyCopy {
    /// The sealed key in base64.
    pub encrypted_key: String,
    /// Its nonce in base64.
    pub nonce: String,
    /// When the member's first copy was made.
    pub created_at: Timestamp,
}

/// What there is of a topic's key for a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicKeyFound {
    /// This copy.
    Copy(Topic, TopicKeyCopy),
    /// Nobody has sealed the key for the member yet, or it rejected the copy.
    NotSealed(Topic),
    /// The topic has no key.
    Unencrypted(Topic),
    /// The topic is closed to the member.
    Closed(Closed),
}

/// What became of giving a topic its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicKeyClaimed {
    /// The topic has this key.
    Done(Topic),
    /// It has another one, which this one may not replace.
    AlreadyEncrypted(Topic),
    /// The topic is closed to the member.
    Closed(Closed),
}

/// Who waits for a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingSeal {
    /// The member.
    pub member_id: MemberId,
    /// The key to seal for.
    pub pubkey: PublicKey,
    /// The member's name.
    pub display_name: DisplayName,
}

/// What became of storing a copy for a member, in the order in which the checks are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicKeySealed {
    /// The member has it since this time.
    Done(Topic, Timestamp),
    /// The topic is closed to whoever seals.
    Closed(Closed),
    /// The topic has no key.
    Unencrypted(Topic),
    /// Whoever seals has no copy itself.
    SealerHasNoKey(Topic),
    /// The recipient is not in the topic.
    RecipientNotInTopic(Topic),
    /// The recipient has a copy, and did not reject it.
    AlreadySealed(Topic),
}

/// What became of rejecting a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicKeyRejected {
    /// It counts as missing since this time.
    Done(Topic, Timestamp),
    /// The topic is closed to the member.
    Closed(Closed),
    /// The topic has no key.
    Unencrypted(Topic),
    /// The member has no copy, or rejected it before.
    NotSealed(Topic),
    /// Nobody else in the topic has a copy: the key would be lost.
    LastCopy(Topic),
}

/// Why there is nothing to do with a topic's key.
enum Keyless {
    Closed(Closed),
    Unencrypted(Topic),
}

macro_rules! from_keyless {
    ($($outcome:ident),*) => {
        $(impl From<Keyless> for $outcome {
            fn from(why: Keyless) -> Self {
                match why {
                    Keyless::Closed(closed) => Self::Closed(closed),
                    Keyless::Unencrypted(topic) => Self::Unencrypted(topic),
                }
            }
        })*
    };
}
from_keyless!(TopicKeyFound, TopicKeySealed, TopicKeyRejected);

impl Store {
    /// The copy that was sealed for a member.
    pub async fn topic_key(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
    ) -> Result<TopicKeyFound, StoreError> {
        let mut reader = self.db().read().await?;
        let mut connection = reader.connection();
        let topic = match keyed(&mut connection, whose, sought).await? {
            Ok(seen) => seen.topic,
            Err(why) => return Ok(why.into()),
        };
        let copy = copy_of(&mut connection, whose, &topic.id).await?;
        Ok(copy
            .map_or_else(|| TopicKeyFound::NotSealed(topic.clone()), |copy| TopicKeyFound::Copy(topic.clone(), copy)))
    }

    /// Gives a topic that has none its key, with the copy of the member who made it.
    pub async fn claim_topic_key(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
        key: &OwnCopy,
    ) -> Result<TopicKeyClaimed, StoreError> {
        self.give_key(whose, sought, key, false).await
    }

    /// Does the same when the topic has a key of which there is no trace but one member's copy and messages: then for admins, and for
    /// who leads the topic. That copy goes.
    pub async fn replace_topic_key(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
        key: &OwnCopy,
    ) -> Result<TopicKeyClaimed, StoreError> {
        self.give_key(whose, sought, key, true).await
    }

    async fn give_key(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
        key: &OwnCopy,
        may_replace: bool,
    ) -> Result<TopicKeyClaimed, StoreError> {
        const CLAIM: Sql = sql!("update topic set encrypted_key_pubkey = $3 where mesh_id = $1 and id = $2");
        const FORGET: Sql = sql!("delete from topic_member_key where mesh_id = $1 and topic_id = $2");
        let now = self.now();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, whose.0).await?;
        let seen = match topic::open(&mut connection, whose, sought).await? {
            Ok(seen) => seen,
            Err(closed) => return Ok(TopicKeyClaimed::Closed(closed)),
        };
        let is_responsible = seen.is_admin || seen.role == Some(TopicRole::Lead);
        let (mut topic, name) = (seen.topic, seen.name);
        let [mesh, id]: [Value<'_>; 2] = [whose.0.as_str().into(), topic.id.as_str().into()];
        if topic.encrypted_key_pubkey.is_some() {
            let may_replace = may_replace && is_responsible && is_unused(&mut connection, whose.0, &topic.id).await?;
            if !may_replace {
                return Ok(TopicKeyClaimed::AlreadyEncrypted(topic));
            }
            connection.execute(FORGET, &[mesh.clone(), id.clone()]).await?;
        }
        connection.execute(CLAIM, &[mesh, id, (&key.encrypted_key_pubkey).into()]).await?;
        put(&mut connection, (whose, &topic.id), whose.1, (&key.encrypted_key, &key.nonce), now).await?;
        let payload = json!({"topic": topic.name, "topicId": topic.id});
        topic::record(&mut connection, whose, ("topic_key_claimed", &name, payload), now).await?;
        tx.commit().await?;
        topic.encrypted_key_pubkey = Some(key.encrypted_key_pubkey.clone());
        Ok(TopicKeyClaimed::Done(topic))
    }

    /// Who in a topic waits for a copy of its key, whoever has been in it longest first. Nobody while it has no key.
    pub async fn pending_seals(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
    ) -> Result<Result<(Topic, Vec<PendingSeal>), Closed>, StoreError> {
        const PENDING: Sql = sql!(
            "select m.id, m.peer_pubkey, m.display_name from topic_member s \
             left join member m on m.id = s.member_id and m.mesh_id || '' = s.mesh_id \
             left join topic_member_key k on k.mesh_id = s.mesh_id and k.topic_id = s.topic_id and k.member_id = s.member_id \
             where s.mesh_id = $1 and s.topic_id = $2 and m.revoked_at is null \
             and (k.id is null or k.rejected_at is not null) order by s.joined_at, s.id limit $3"
        );
        let mut reader = self.db().read().await?;
        let mut connection = reader.connection();
        let topic = match topic::open(&mut connection, whose, sought).await? {
            Ok(seen) => seen.topic,
            Err(closed) => return Ok(Err(closed)),
        };
        if topic.encrypted_key_pubkey.is_none() {
            return Ok(Ok((topic, Vec::new())));
        }
        let values = [whose.0.as_str().into(), topic.id.as_str().into(), MAX_PENDING_SEALS.into()];
        let rows = connection.rows(PENDING, &values).await?;
        let pending = rows.iter().map(|row| -> sqlx::Result<PendingSeal> {
            Ok(PendingSeal { member_id: row.parsed(0)?, pubkey: row.parsed(1)?, display_name: row.parsed(2)? })
        });
        Ok(Ok((topic, pending.collect::<sqlx::Result<_>>()?)))
    }

    /// Stores a copy for a member who has none, in the name of one who has: the sealed key and its nonce in base64.
    pub async fn seal_topic_key(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
        (recipient, encrypted_key, nonce): (&MemberId, &str, &str),
    ) -> Result<TopicKeySealed, StoreError> {
        const IS_IN: Sql = sql!(
            "select s.member_id from topic_member s left join member m on m.id = s.member_id and m.mesh_id || '' = s.mesh_id \
             where s.mesh_id = $1 and s.topic_id = $2 and s.member_id = $3 and m.revoked_at is null"
        );
        let now = self.now();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, whose.0).await?;
        let (topic, name) = match keyed(&mut connection, whose, sought).await? {
            Ok(seen) => (seen.topic, seen.name),
            Err(why) => return Ok(why.into()),
        };
        if copy_of(&mut connection, whose, &topic.id).await?.is_none() {
            return Ok(TopicKeySealed::SealerHasNoKey(topic));
        }
        let values = [whose.0.as_str().into(), topic.id.as_str().into(), recipient.as_str().into()];
        if connection.row(IS_IN, &values).await?.is_none() {
            return Ok(TopicKeySealed::RecipientNotInTopic(topic));
        }
        if !put(&mut connection, (whose, &topic.id), recipient, (encrypted_key, nonce), now).await? {
            return Ok(TopicKeySealed::AlreadySealed(topic));
        }
        let payload = json!({"topic": topic.name, "topicId": topic.id, "memberId": recipient});
        topic::record(&mut connection, whose, ("topic_key_sealed", &name, payload), now).await?;
        tx.commit().await?;
        Ok(TopicKeySealed::Done(topic, now))
    }

    /// Takes a member's copy for missing because it is of no use to it: others may seal for it again.
    pub async fn reject_topic_key(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
    ) -> Result<TopicKeyRejected, StoreError> {
        const REJECT: Sql = sql!(
            "update topic_member_key set rejected_at = $4 where mesh_id = $1 and topic_id = $2 and member_id = $3"
        );
        const OTHERS: Sql = sql!(
            "select k.member_id from topic_member_key k \
             left join topic_member s on s.mesh_id = k.mesh_id and s.topic_id = k.topic_id and s.member_id = k.member_id \
             left join member m on m.id = k.member_id and m.mesh_id || '' = k.mesh_id \
             where k.mesh_id = $1 and k.topic_id = $2 and k.member_id <> $3 and k.rejected_at is null \
             and s.id is not null and m.revoked_at is null limit 1"
        );
        let now = self.now();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, whose.0).await?;
        let (topic, name) = match keyed(&mut connection, whose, sought).await? {
            Ok(seen) => (seen.topic, seen.name),
            Err(why) => return Ok(why.into()),
        };
        if copy_of(&mut connection, whose, &topic.id).await?.is_none() {
            return Ok(TopicKeyRejected::NotSealed(topic));
        }
        let ids: [Value<'_>; 3] = [whose.0.as_str().into(), topic.id.as_str().into(), whose.1.as_str().into()];
        if connection.row(OTHERS, &ids).await?.is_none() {
            return Ok(TopicKeyRejected::LastCopy(topic));
        }
        let [mesh, id, member] = ids;
        connection.execute(REJECT, &[mesh, id, member, now.as_millis().into()]).await?;
        let payload = json!({"topic": topic.name, "topicId": topic.id});
        topic::record(&mut connection, whose, ("topic_key_rejected", &name, payload), now).await?;
        tx.commit().await?;
        Ok(TopicKeyRejected::Done(topic, now))
    }
}

/// A topic that the member is in and that has a key.
async fn keyed(
    connection: &mut Connection<'_>,
    whose: (&MeshId, &MemberId),
    sought: &TopicSought,
) -> sqlx::Result<Result<Seen, Keyless>> {
    Ok(match topic::open(connection, whose, sought).await? {
        Ok(seen) if seen.topic.encrypted_key_pubkey.is_none() => Err(Keyless::Unencrypted(seen.topic)),
        seen => seen.map_err(Keyless::Closed),
    })
}

/// Whether at most one member has a copy of a topic's key, and nobody else has written anything that may be sealed with it.
async fn is_unused(connection: &mut Connection<'_>, mesh_id: &MeshId, topic_id: &TopicId) -> sqlx::Result<bool> {
    const HOLDERS: Sql = sql!(
        "select member_id from topic_member_key where mesh_id = $1 and topic_id = $2 and rejected_at is null \
         order by member_id limit 2"
    );
    const USED: Sql = sql!(
        "select seq from topic_message where mesh_id = $1 and topic_id = $2 and body_version = 2 \
         and sender_member_id <> $3 limit 1"
    );
    let ids: [Value<'_>; 2] = [mesh_id.as_str().into(), topic_id.as_str().into()];
    let holders = connection.rows(HOLDERS, &ids).await?;
    let holder = match holders.as_slice() {
        [] => String::new(),
        [holder] => holder.text(0)?,
        _ => return Ok(false),
    };
    let [mesh, id] = ids;
    Ok(connection.row(USED, &[mesh, id, (&holder).into()]).await?.is_none())
}

/// The copy that counts.
async fn copy_of(
    connection: &mut Connection<'_>,
    (mesh_id, member_id): (&MeshId, &MemberId),
    topic_id: &TopicId,
) -> sqlx::Result<Option<TopicKeyCopy>> {
    const COPY: Sql = sql!(
        "select encrypted_key, nonce, created_at from topic_member_key \
         where mesh_id = $1 and topic_id = $2 and member_id = $3 and rejected_at is null"
    );
    let values = [mesh_id.as_str().into(), topic_id.as_str().into(), member_id.as_str().into()];
    let row = connection.row(COPY, &values).await?;
    let copy = row.map(|row| {
        let created_at = Timestamp::from_millis(row.int(2)?);
        Ok(TopicKeyCopy { encrypted_key: row.text(0)?, nonce: row.text(1)?, created_at })
    });
    copy.transpose()
}

/// Stores a member's copy, sealed by another member or itself; whether there was room for it: none was there, or a rejected one.
pub(crate) async fn put(
    connection: &mut Connection<'_>,
    ((mesh_id, sealer), topic_id): ((&MeshId, &MemberId), &TopicId),
    recipient: &MemberId,
    (encrypted_key, nonce): (&str, &str),
    now: Timestamp,
) -> Result<bool, StoreError> {
    const PUT: Sql = sql!(
        "insert into topic_member_key (mesh_id, id, topic_id, member_id, encrypted_key, nonce, sealed_by_member_id, \
         created_at) values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (mesh_id, topic_id, member_id) do update set \
         encrypted_key = excluded.encrypted_key, nonce = excluded.nonce, rotated_at = excluded.created_at, \
         sealed_by_member_id = excluded.sealed_by_member_id, rejected_at = null \
         where topic_member_key.rejected_at is not null"
    );
    let copy_id = TopicKeyId::from_random(id::random()?);
    let values = [
        mesh_id.as_str().into(),
        copy_id.as_str().into(),
        topic_id.as_str().into(),
        recipient.as_str().into(),
        encrypted_key.into(),
        nonce.into(),
        sealer.as_str().into(),
        now.as_millis().into(),
    ];
    Ok(connection.execute(PUT, &values).await? > 0)
}

/// Deletes every copy that was sealed for a member's old key.
pub(crate) async fn forget_copies_of(
    connection: &mut Connection<'_>,
    (mesh_id, member_id): (&MeshId, &MemberId),
) -> sqlx::Result<()> {
    const FORGET: Sql = sql!(
        "delete from topic_member_key where mesh_id = $1 and member_id = $2 \
         and topic_id in (select id from topic where mesh_id = $1)"
    );
    connection.execute(FORGET, &[mesh_id.as_str().into(), member_id.as_str().into()]).await.map(drop)
}
