//! Giving back what was handed over: settled because its recipient has it, or released because the connection is gone.

use std::collections::HashSet;

use claudemesh_proto::{MemberId, MeshId, MessageId, PresenceId};

use crate::batch::Batch;
use crate::crash::crash_point;
use crate::delivery::DeliveryId;
use crate::recipient::Recipient;
use crate::sql::{Sql, folded, json, sql};

/// A recipient has a message.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The mesh.
    pub mesh_id: MeshId,
    /// The member whose connection acknowledges. A row that has passed to another member meanwhile is not settled.
    pub by: MemberId,
    /// Which one.
    pub which: Settled,
}

/// How a settled delivery is known.
#[derive(Debug, Clone)]
pub enum Settled {
    /// The acknowledging connection held it.
    Held(DeliveryId),
    /// By the message's id, for one of the recipients that the acknowledging connection speaks for.
    Message(MessageId, Vec<Recipient>),
}

/// A connection is gone: what it held is free again.
#[derive(Debug, Clone)]
pub struct Release {
    /// The mesh.
    pub mesh_id: MeshId,
    /// The connection.
    pub connection: PresenceId,
    /// What it held, and for whom.
    pub held: Vec<(DeliveryId, Recipient)>,
}

/// Ends deliveries because their recipient has them. Ids that are unknown, settled before, or somebody else's are ignored.
pub(crate) async fn settle(batch: &mut Batch, settles: &[&Settle]) -> sqlx::Result<()> {
    const HELD: Sql = folded!(
        "d.id, d.mesh_id, d.recipient, d.size_bytes",
        " cross join delivery d cross join member k \
         where d.id = cast(r.value ->> 0 as bigint) and d.mesh_id = r.value ->> 1 and d.member_id = r.value ->> 2 \
         and d.state = 'queued' and k.mesh_id = d.mesh_id and k.id = d.member_id and k.revoked_at is null"
    );
    const BY_MESSAGE: Sql = folded!(
        "d.id, d.mesh_id, d.recipient, d.size_bytes",
        " cross join delivery d cross join message m cross join member k where d.mesh_id = r.value ->> 0 \
         and d.message_seq = cast(r.value ->> 1 as bigint) and d.recipient = r.value ->> 2 and d.state = 'queued' \
         and m.mesh_id = d.mesh_id and m.seq = d.message_seq and m.id = r.value ->> 3 and d.member_id = r.value ->> 4 \
         and k.mesh_id = d.mesh_id and k.id = d.member_id and k.revoked_at is null"
    );
    const END: Sql = sql!(
        "update delivery set state = 'delivered', ended_at = $2, claim_incarnation = null, claim_connection = null, \
         claim_until = null from ",
        rows " where delivery.id = cast(r.value ->> 0 as bigint)"
    );
    type Found = (i64, MeshId, String, i64);
    let mut held = Vec::new();
    let mut by_message = Vec::new();
    for settle in settles {
        match &settle.which {
            Settled::Held(delivery) => held.push((delivery.0, &settle.mesh_id, &settle.by)),
            Settled::Message(id, recipients) => {
                let Some(seq) = MessageId::seq_of(id.as_str()) else { continue };
                by_message.extend(recipients.iter().map(|to| (&settle.mesh_id, seq, to.to_string(), id, &settle.by)));
            }
        }
    }
    let mut found: Vec<Found> = Vec::new();
    if !held.is_empty() {
        found.extend(batch.connection().folded::<Found>(HELD, &[(&json(&held)?).into()]).await?);
    }
    if !by_message.is_empty() {
        found.extend(batch.connection().folded::<Found>(BY_MESSAGE, &[(&json(&by_message)?).into()]).await?);
    }
    let mut ended = HashSet::new();
    for (delivery, mesh_id, recipient, size_bytes) in found {
        let Ok(recipient) = recipient.parse() else { continue };
        if ended.insert((delivery,)) {
            let change = batch.backlog.change(&mesh_id, &recipient);
            change.rows -= 1;
            change.bytes -= size_bytes;
        }
    }
    if !ended.is_empty() {
        let now = batch.now.as_millis();
        batch.connection().execute(END, &[(&json(&ended)?).into(), now.into()]).await?;
    }
    Ok(())
}

/// Frees what connections held that are gone, and rings for it.
pub(crate) async fn release(batch: &mut Batch, releases: &[&Release]) -> sqlx::Result<()> {
    const FREE: Sql = sql!(
        "update delivery set claim_incarnation = null, claim_connection = null, claim_until = null from ",
        rows " where delivery.id = cast(r.value ->> 0 as bigint) and delivery.state = 'queued' \
               and delivery.claim_connection = r.value ->> 1"
    );
    let rows: Vec<_> = releases
        .iter()
        .flat_map(|release| release.held.iter().map(|(delivery, _)| (delivery.0, &release.connection)))
        .collect();
    if !rows.is_empty() {
        batch.connection().execute(FREE, &[(&json(&rows)?).into()]).await?;
        crash_point("release.done");
    }
    for release in releases {
        let recipients: HashSet<&Recipient> = release.held.iter().map(|(_, recipient)| recipient).collect();
        for recipient in recipients {
            batch.ring_again(&release.mesh_id, recipient);
        }
    }
    Ok(())
}
