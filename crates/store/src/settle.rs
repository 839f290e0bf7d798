//! Giving back what was handed over: settled because its recipient has it, or released because the connection is gone.

use std::collections::HashSet;

use claudemesh_proto::{ConnectionId, MemberId, MeshId, MessageId};

use crate::batch::Batch;
use crate::cursor;
use crate::delivery::DeliveryId;
use crate::look_up::Endable;
use crate::recipient::Recipient;
use crate::sql::{Sql, sql};

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
    /// The acknowledging connection has everything of a topic up to a message.
    Posts(Front),
    /// By the message's id, for one of the recipients that the acknowledging connection speaks for.
    Message(MessageId, Vec<Recipient>),
}

/// How far a connection has a topic's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Front {
    /// The member's cursor in the topic.
    pub cursor: i64,
    /// The number of the last message of those that are acknowledged without a gap.
    pub seq: i64,
    /// The connection.
    pub connection: ConnectionId,
    /// It holds nothing more of that topic: who comes next may claim.
    pub is_done: bool,
}

/// A connection is gone: what it held is free again.
#[derive(Debug, Clone)]
pub struct Release {
    /// The mesh.
    pub mesh_id: MeshId,
    /// The connection.
    pub connection: ConnectionId,
    /// What it held, and for whom.
    pub held: Vec<(DeliveryId, Recipient)>,
    /// Whose mail it may hold besides, because a claim for them got no answer.
    pub unanswered: Vec<Recipient>,
}

/// Frees what connections that are gone may hold without knowing it.
pub(crate) async fn release_unanswered(batch: &mut Batch, releases: &[&Release]) -> sqlx::Result<()> {
    const FREE: Sql = sql!(
        "update delivery set claim_incarnation = null, claim_connection = null, claim_until = null \
         where mesh_id = $1 and recipient = $2 and state = 'queued' and claim_connection = $3"
    );
    for release in releases {
        for recipient in &release.unanswered {
            let text = recipient.to_string();
            let values = [release.mesh_id.as_str().into(), (&text).into(), release.connection.as_str().into()];
            batch.connection().later(FREE, &values).await?;
            let mesh_id = &release.mesh_id;
            cursor::release_unanswered(&mut batch.connection(), mesh_id, (recipient, &release.connection)).await?;
        }
    }
    Ok(())
}

/// Acknowledgements as the rows that [`LOOK_UP`](crate::look_up::LOOK_UP) reads: by delivery, and by message.
pub(crate) fn rows(settles: &[&Settle]) -> (Vec<impl serde::Serialize>, Vec<impl serde::Serialize>) {
    let mut held = Vec::new();
    let mut by_message = Vec::new();
    for settle in settles {
        match &settle.which {
            Settled::Held(delivery) => {
                held.extend(delivery.row().map(|row| (row, settle.mesh_id.clone(), settle.by.clone())));
            }
            Settled::Posts(_) => {}
            Settled::Message(id, recipients) => {
                let Some(seq) = MessageId::seq_of(id.as_str()) else { continue };
                let row = |to: &Recipient| (settle.mesh_id.clone(), seq, to.to_string(), id.clone(), settle.by.clone());
                by_message.extend(recipients.iter().map(row));
            }
        }
    }
    (held, by_message)
}

/// Ends deliveries because their recipients have them. Ids that are unknown, settled before, or somebody else's were not found.
pub(crate) fn settle(batch: &mut Batch, found: impl IntoIterator<Item = Endable>) {
    for Endable { delivery, mesh_id, recipient, size_bytes } in found {
        let Ok(recipient) = recipient.parse() else { continue };
        if batch.ended.insert(delivery) {
            let change = batch.backlog.change(&mesh_id, &recipient);
            change.rows -= 1;
            change.bytes -= size_bytes;
        }
    }
}

/// Frees what connections held that are gone, and rings for it.
pub(crate) fn release(batch: &mut Batch, releases: &[&Release]) {
    for release in releases {
        for (delivery, _) in &release.held {
            match delivery {
                DeliveryId::Row(row) => batch.freed.push((*row, release.connection.clone())),
                DeliveryId::Post { cursor, .. } => batch.cursors.free((*cursor, i64::MAX), &release.connection),
            }
        }
        let known = release.held.iter().map(|(_, recipient)| recipient);
        let recipients: HashSet<&Recipient> = known.chain(&release.unanswered).collect();
        for recipient in recipients {
            batch.ring_again(&release.mesh_id, recipient);
        }
    }
}
