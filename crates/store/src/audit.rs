//! The audit log: what happened, in the transaction in which it happened (A1). Metadata only.
//!
//! Each mesh has one chain. An entry's hash covers the hash before it, so that nothing can be changed or left out in the middle
//! without every later hash changing. `hash` is that of the existing protocol; `hash2` covers every field, also those that
//! `hash` leaves out, in the encoding of everything newly signed.

use claudemesh_proto::canonical::{self, SigningBytes};
use claudemesh_proto::{DisplayName, MemberId, MeshId, Timestamp};
use data_encoding::HEXLOWER;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use crate::look_up::HeadRow;
use crate::message::NewMessage;
use crate::sql::{Connection, Sql, Value, sql};

/// Something that happened in a mesh.
#[derive(Debug)]
pub(crate) struct AuditEntry<'a> {
    pub(crate) mesh_id: &'a MeshId,
    pub(crate) event: &'static str,
    pub(crate) actor: Option<(&'a MemberId, Option<&'a DisplayName>)>,
    /// An object of ids, roles and numbers; never a body, a token or a name that a person chose for something secret.
    pub(crate) payload: Json,
}

/// Something that happened, on its way into the log with a batch of the journal.
#[derive(Debug, Clone)]
pub struct Event {
    /// The mesh.
    pub mesh_id: MeshId,
    /// What happened.
    pub event: &'static str,
    /// Who did it, with the member's own name.
    pub actor: Option<(MemberId, DisplayName)>,
    /// An object of metadata.
    pub payload: Json,
}

/// The columns of an entry, but the time: mesh, number, event, actor, its name, payload, previous hash, hash, second hash.
pub(crate) type AuditRow =
    (MeshId, i64, &'static str, Option<MemberId>, Option<DisplayName>, String, String, String, String);

impl Event {
    /// A message was accepted. Group names and keys are metadata; what is in the message is not said. The name is the member's own:
    /// that of its connection may be anybody's.
    pub(crate) fn sent(message: &NewMessage, sender: &DisplayName) -> Self {
        Self {
            mesh_id: message.mesh_id.clone(),
            event: "message_sent",
            actor: Some((message.sender_member_id.clone(), sender.clone())),
            payload: serde_json::json!({"priority": message.priority, "targetSpec": message.target.to_string()}),
        }
    }

    /// Its columns as the next entry of the chain, whose head moves on. `now` is the time as it is shown.
    pub(crate) fn chain(self, head: &mut HeadRow, now: &str) -> AuditRow {
        let payload = canonical::json(&self.payload);
        head.audit_seq += 1;
        let hashed = Hashed {
            mesh_id: self.mesh_id.as_str(),
            seq: head.audit_seq,
            event: self.event,
            actor: self.actor.as_ref().map(|(id, _)| id.as_str()),
            name: self.actor.as_ref().map_or("", |(_, name)| name.as_str()),
            payload: &payload,
            created_at: now,
        };
        let (hash, hash2) = (hashed.hash(&head.audit_hash), hashed.hash2(&head.audit_hash2));
        let previous = std::mem::replace(&mut head.audit_hash, hash.clone());
        head.audit_hash2.clone_from(&hash2);
        let (actor, name) = self.actor.unzip();
        (self.mesh_id, head.audit_seq, self.event, actor, name, payload, previous, hash, hash2)
    }
}

/// Locks the mesh until the transaction ends. Taken before any other row of the mesh, so that two transactions never wait for each
/// other. SQLite has one writer, which is lock enough.
pub(crate) async fn lock(connection: &mut Connection<'_>, mesh_id: &MeshId) -> sqlx::Result<()> {
    const LOCK: Sql = sql!(
        sqlite: "select message_seq from mesh_head where mesh_id = $1",
        postgres: "select message_seq from mesh_head where mesh_id = $1 for update",
    );
    connection.row(LOCK, &[mesh_id.as_str().into()]).await.map(drop)
}

/// Appends an entry to its mesh's chain. The chain's head is locked until the transaction ends, so that it never forks (A2).
pub(crate) async fn record(
    connection: &mut Connection<'_>,
    entry: &AuditEntry<'_>,
    now: Timestamp,
) -> sqlx::Result<()> {
    const HEAD: Sql = sql!(
        sqlite: "select audit_seq, audit_hash, audit_hash2 from mesh_head where mesh_id = $1",
        postgres: "select audit_seq, audit_hash, audit_hash2 from mesh_head where mesh_id = $1 for update",
    );
    const ENTRY: Sql = sql!(
        "insert into audit_log (mesh_id, seq, event_type, actor_member_id, actor_display_name, payload, prev_hash, hash, \
         hash2, created_at) values ($1, $2, $3, nullif($4, ''), nullif($5, ''), $6, $7, $8, $9, $10)"
    );
    const ADVANCE: Sql =
        sql!("update mesh_head set audit_seq = $2, audit_hash = $3, audit_hash2 = $4 where mesh_id = $1");
    let mesh: Value<'_> = entry.mesh_id.as_str().into();
    let head = connection.row(HEAD, std::slice::from_ref(&mesh)).await?.ok_or(sqlx::Error::RowNotFound)?;
    let (seq, previous, previous2) = (head.int(0)? + 1, head.text(1)?, head.text(2)?);
    let (payload, shown_now) = (canonical::json(&entry.payload), now.to_string());
    let hashed = entry.hashed(seq, (&payload, &shown_now));
    let (hash, hash2) = (hashed.hash(&previous), hashed.hash2(&previous2));
    let (actor, name) = entry.actor_texts();
    let values = [
        mesh.clone(),
        seq.into(),
        entry.event.into(),
        actor.into(),
        name.into(),
        (&payload).into(),
        (&previous).into(),
        (&hash).into(),
        (&hash2).into(),
        now.as_millis().into(),
    ];
    connection.execute(ENTRY, &values).await?;
    connection.execute(ADVANCE, &[mesh, seq.into(), (&hash).into(), (&hash2).into()]).await?;
    Ok(())
}

impl AuditEntry<'_> {
    /// What its hashes cover when it is the entry of this number, with its payload and its time as texts.
    fn hashed<'a>(&'a self, seq: i64, (payload, created_at): (&'a str, &'a str)) -> Hashed<'a> {
        Hashed {
            mesh_id: self.mesh_id.as_str(),
            seq,
            event: self.event,
            actor: self.actor.map(|(id, _)| id.as_str()),
            name: self.actor_texts().1,
            payload,
            created_at,
        }
    }

    /// The actor's id and name; empty where there is none, which no id or name is.
    fn actor_texts(&self) -> (&str, &str) {
        let actor = self.actor.map_or("", |(id, _)| id.as_str());
        (actor, self.actor.and_then(|(_, name)| name).map_or("", DisplayName::as_str))
    }
}

/// What the hashes of an entry cover, besides the hash before it. The bytes are FROZEN: old logs are verified with them.
#[derive(Debug)]
pub(crate) struct Hashed<'a> {
    pub(crate) mesh_id: &'a str,
    pub(crate) seq: i64,
    pub(crate) event: &'a str,
    pub(crate) actor: Option<&'a str>,
    /// Empty where there is none.
    pub(crate) name: &'a str,
    /// As [`canonical::json`] writes it.
    pub(crate) payload: &'a str,
    /// As it is shown.
    pub(crate) created_at: &'a str,
}

impl Hashed<'_> {
    /// That of the existing protocol.
    pub(crate) fn hash(&self, previous: &str) -> String {
        let entry = (self.payload, self.created_at);
        let line = canonical::audit_line(previous, self.mesh_id, self.event, self.actor, entry);
        HEXLOWER.encode(&Sha256::digest(line.as_bytes()))
    }

    /// Ours, over every column.
    pub(crate) fn hash2(&self, previous: &str) -> String {
        let bytes = SigningBytes::new("audit")
            .field(previous)
            .field(self.mesh_id)
            .field(self.seq.to_string())
            .field(self.event)
            .field(self.actor.unwrap_or_default())
            .field(self.name)
            .field(self.payload)
            .field(self.created_at)
            .finish();
        HEXLOWER.encode(&Sha256::digest(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_that_of_the_vectors() {
        let vectors: Json = serde_json::from_str(include_str!("../../testkit/data/vectors.json")).unwrap();
        let mesh_id: MeshId = "meshTEST000000000000000000000001".parse().unwrap();
        let member: MemberId = "memberTEST0000000000000000000001".parse().unwrap();
        let sent = AuditEntry {
            mesh_id: &mesh_id,
            event: "message_sent",
            actor: Some((&member, None)),
            payload: serde_json::json!({"targetSpec": "*", "priority": "next"}),
        };
        let payload = canonical::json(&sent.payload);
        let first = sent.hashed(1, (&payload, "2026-01-02T03:04:05.678Z")).hash("genesis");
        assert_eq!(first, vectors["audit_chain"][0]["hash"]);
        let left = AuditEntry { mesh_id: &mesh_id, event: "peer_left", actor: None, payload: serde_json::json!({}) };
        let second = left.hashed(2, ("{}", "2026-01-02T03:04:06.000Z")).hash(&first);
        assert_eq!(second, vectors["audit_chain"][1]["hash"]);
    }
}
