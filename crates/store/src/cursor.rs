//! How far each member has a topic's messages: a cursor instead of a row for each.
//!
//! A cursor is claimed as a whole, by the one connection that takes the member's mail; which messages that holds is known there. What
//! is acknowledged without a gap moves the cursor. A gap is remembered by the connection alone, and what came after it is handed over
//! once more to the next.

use std::collections::HashMap;

use claudemesh_proto::{ConnectionId, MeshId, MessageId, Timestamp};
use serde::Deserialize;

use crate::batch::Batch;
use crate::recipient::Recipient;
use crate::settle::{Front, Settle, Settled};
use crate::sql::{Connection, Sql, json, sql};

/// What a batch changes about cursors, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Cursors(HashMap<i64, Change>);

#[derive(Debug, Default)]
struct Change {
    delivered_seq: i64,
    claim: Option<ClaimChange>,
}

#[derive(Debug)]
enum ClaimChange {
    /// Up to the message of this number.
    Held(ConnectionId, Timestamp, i64),
    /// If it was this connection's, and nothing was handed to it beyond this number.
    Freed(ConnectionId, i64),
}

/// A cursor that a connection of its member may move, with what an acknowledgement says.
#[derive(Debug, Deserialize)]
pub(crate) struct Movable {
    /// Which acknowledgement.
    place: usize,
    cursor: i64,
    /// How far everything is acknowledged.
    seq: i64,
    /// Of the last message in the topic.
    head_seq: i64,
    /// Of the last message that was handed to whoever has the claim.
    claimed_seq: i64,
}

impl Cursors {
    /// Everything up to a message is acknowledged, or not for this member's connections.
    pub(crate) fn advance(&mut self, cursor: i64, to: i64) {
        let change = self.0.entry(cursor).or_default();
        change.delivered_seq = change.delivered_seq.max(to);
    }

    /// A connection is handed the message of this number.
    pub(crate) fn claim(&mut self, (cursor, seq): (i64, i64), connection: &ConnectionId, until: Timestamp) {
        let change = self.0.entry(cursor).or_default();
        let (until, seq) = match &change.claim {
            Some(ClaimChange::Held(holder, before, last)) if holder == connection => {
                (until.max(*before), seq.max(*last))
            }
            _ => (until, seq),
        };
        change.claim = Some(ClaimChange::Held(connection.clone(), until, seq));
    }

    /// A connection gives up its claim, unless it was handed something beyond this number.
    pub(crate) fn free(&mut self, (cursor, seq): (i64, i64), connection: &ConnectionId) {
        self.0.entry(cursor).or_default().claim = Some(ClaimChange::Freed(connection.clone(), seq));
    }

    /// Writes the changes, and forgets them.
    pub(crate) async fn write(&mut self, connection: &mut Connection<'_>, incarnation: i64) -> sqlx::Result<()> {
        const WRITE: Sql = sql!(
            "update topic_member set \
             delivered_seq = case when cast(r.value ->> 1 as bigint) > topic_member.delivered_seq \
              then cast(r.value ->> 1 as bigint) else topic_member.delivered_seq end, \
             claim_incarnation = case when r.value ->> 2 = 'held' then cast($2 as bigint) \
              when r.value ->> 2 = 'freed' and coalesce(topic_member.claim_connection, '') = r.value ->> 3 \
               and topic_member.claimed_seq <= cast(r.value ->> 5 as bigint) then null \
              else topic_member.claim_incarnation end, \
             claim_until = case when r.value ->> 2 = 'held' then cast(r.value ->> 4 as bigint) \
              when r.value ->> 2 = 'freed' and coalesce(topic_member.claim_connection, '') = r.value ->> 3 \
               and topic_member.claimed_seq <= cast(r.value ->> 5 as bigint) then null \
              else topic_member.claim_until end, \
             claim_connection = case when r.value ->> 2 = 'held' then r.value ->> 3 \
              when r.value ->> 2 = 'freed' and coalesce(topic_member.claim_connection, '') = r.value ->> 3 \
               and topic_member.claimed_seq <= cast(r.value ->> 5 as bigint) then null \
              else topic_member.claim_connection end, \
             claimed_seq = case when r.value ->> 2 = 'held' and (coalesce(topic_member.claim_connection, '') <> r.value ->> 3 \
               or topic_member.claimed_seq < cast(r.value ->> 5 as bigint)) then cast(r.value ->> 5 as bigint) \
              else topic_member.claimed_seq end from ",
            rows " where topic_member.id = cast(r.value ->> 0 as bigint)"
        );
        if self.0.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = self.0.drain().map(|(cursor, change)| change.row(cursor)).collect();
        connection.later(WRITE, &[(&json(&rows)?).into(), incarnation.into()]).await
    }
}

impl Change {
    /// Cursor, how far it is, what becomes of its claim, connection, until when, up to which number.
    fn row(self, cursor: i64) -> impl serde::Serialize {
        let delivered = self.delivered_seq;
        match self.claim {
            Some(ClaimChange::Held(connection, until, seq)) => {
                (cursor, delivered, "held", Some(connection), Some(until.as_millis()), seq)
            }
            Some(ClaimChange::Freed(connection, seq)) => (cursor, delivered, "freed", Some(connection), None, seq),
            None => (cursor, delivered, "", None, None, 0),
        }
    }
}

/// Acknowledgements of a topic's messages as rows: place, cursor, mesh, member, number.
pub(crate) fn front_rows(settles: &[&Settle]) -> Vec<impl serde::Serialize> {
    let rows = settles.iter().enumerate().filter_map(|(place, settle)| {
        let Settled::Posts(front) = &settle.which else { return None };
        Some((place, front.cursor, settle.mesh_id.clone(), settle.by.clone(), front.seq))
    });
    rows.collect()
}

/// Acknowledgements by a message's id as rows: place, mesh, number in the mesh, id, member.
pub(crate) fn message_rows(settles: &[&Settle]) -> Vec<impl serde::Serialize> {
    let rows = settles.iter().enumerate().filter_map(|(place, settle)| {
        let Settled::Message(id, _) = &settle.which else { return None };
        Some((place, settle.mesh_id.clone(), MessageId::seq_of(id.as_str())?, id.clone(), settle.by.clone()))
    });
    rows.collect()
}

/// Moves cursors as far as their members' connections have the messages.
pub(crate) fn settle(batch: &mut Batch, settles: &[&Settle], found: Vec<Movable>) {
    for Movable { place, cursor, seq, head_seq, claimed_seq } in found {
        let Some(settle) = settles.get(place) else { continue };
        batch.cursors.advance(cursor, seq);
        if let Settled::Posts(Front { connection, is_done: true, .. }) = &settle.which {
            batch.cursors.free((cursor, seq), connection);
            if head_seq > seq && claimed_seq <= seq {
                // Whoever took the turn meanwhile was not handed what came while the cursor was held.
                batch.ring_again(&settle.mesh_id, &Recipient::Member(settle.by.clone()));
            }
        }
    }
}

/// Frees what a connection that is gone may hold of a member's topics without knowing it.
pub(crate) async fn release_unanswered(
    connection: &mut Connection<'_>,
    mesh_id: &MeshId,
    (recipient, holder): (&Recipient, &ConnectionId),
) -> sqlx::Result<()> {
    const FREE: Sql = sql!(
        "update topic_member set claim_incarnation = null, claim_connection = null, claim_until = null \
         where mesh_id = $1 and member_id = $2 and claim_connection = $3"
    );
    let Recipient::Member(member) = recipient else { return Ok(()) };
    connection.later(FREE, &[mesh_id.as_str().into(), member.as_str().into(), holder.as_str().into()]).await
}
