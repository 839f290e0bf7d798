//! What became of a message.

use claudemesh_proto::{DeliveryState, DisplayName, MemberId, MeshId, MessageId, Priority, PublicKey, Timestamp};

use crate::Store;
use crate::error::StoreError;
use crate::node::HEARTBEAT_TIMEOUT;
use crate::recipient::Recipient;
use crate::sql::{Sql, sql};

/// The path of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The message.
    pub message_id: MessageId,
    /// Who sent it.
    pub sender_member_id: MemberId,
    /// Whom it was addressed to.
    pub target_spec: String,
    /// How urgent it is.
    pub priority: Priority,
    /// One step per recipient.
    pub steps: Vec<Step>,
}

/// Where a message stands with one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The recipient.
    pub recipient: Recipient,
    /// The member behind it.
    pub member_id: MemberId,
    /// The member's name.
    pub display_name: DisplayName,
    /// The member's key.
    pub member_pubkey: PublicKey,
    /// Where it stands.
    pub state: DeliveryState,
    /// When it ended, if it did.
    pub ended_at: Option<Timestamp>,
}

const MESSAGE: Sql =
    sql!("select id, sender_member_id, target_spec, priority from message where mesh_id = $1 and seq = $2");
const STEPS: Sql = sql!(
    "select d.recipient, d.member_id, m.display_name, m.peer_pubkey, d.state, d.ended_at, \
     case when d.claim_until > $3 and exists (select 1 from node n where n.incarnation = d.claim_incarnation \
     and n.heartbeat_at > $4) then 'yes' else 'no' end \
     from delivery d join member m on m.id = d.member_id and m.mesh_id || '' = d.mesh_id \
     where d.mesh_id = $1 and d.message_seq = $2 order by d.recipient"
);
const POST: Sql = sql!(
    "select id, sender_member_id, '#' || topic_id, priority from topic_message where mesh_id = $1 and message_seq = $2"
);
// Whoever was not in the topic yet has it as history, and its sender has it.
const READERS: Sql = sql!(
    "select c.member_id, c.member_id, m.display_name, m.peer_pubkey, \
     case when c.delivered_seq >= q.seq then 'delivered' else 'queued' end, cast(null as bigint), \
     case when c.claimed_seq >= q.seq and c.claim_until > $3 and exists (select 1 from node n \
     where n.incarnation = c.claim_incarnation and n.heartbeat_at > $4) then 'yes' else 'no' end \
     from topic_message q join topic_member c on c.mesh_id = q.mesh_id and c.topic_id = q.topic_id \
     join member m on m.id = c.member_id and m.mesh_id || '' = c.mesh_id \
     where q.mesh_id = $1 and q.message_seq = $2 and c.joined_seq <= q.seq and c.member_id <> q.sender_member_id \
     and m.revoked_at is null order by c.member_id"
);

impl Store {
    /// The message of the mesh whose id starts with `prefix` (eight characters or more name at most one).
    pub async fn message_path(&self, mesh_id: &MeshId, prefix: &str) -> Result<Option<Path>, StoreError> {
        let Some(seq) = MessageId::seq_of(prefix).and_then(|seq| i64::try_from(seq).ok()) else { return Ok(None) };
        let mesh = mesh_id.as_str();
        let now = self.database_now().await?;
        let mut reader = self.db().read().await?;
        let mut connection = reader.connection();
        let key = [mesh.into(), seq.into()];
        let (message, steps) = match connection.row(MESSAGE, &key).await? {
            Some(message) => (message, STEPS),
            None => match connection.row(POST, &key).await? {
                Some(message) => (message, READERS),
                None => return Ok(None),
            },
        };
        let message_id: MessageId = message.parsed(0)?;
        if !message_id.as_str().starts_with(prefix) {
            return Ok(None);
        }
        let alive = now.minus(HEARTBEAT_TIMEOUT).as_millis();
        let rows = connection.rows(steps, &[mesh.into(), seq.into(), now.as_millis().into(), alive.into()]).await?;
        let steps = rows.into_iter().map(|row| -> sqlx::Result<Step> {
            let claimed = row.text(6)? == "yes";
            let state = match row.text(4)?.as_str() {
                "delivered" => DeliveryState::Delivered,
                "expired" => DeliveryState::Expired,
                "revoked" => DeliveryState::Revoked,
                _ if claimed => DeliveryState::Claimed,
                _ => DeliveryState::Queued,
            };
            Ok(Step {
                recipient: row.parsed(0)?,
                member_id: row.parsed(1)?,
                display_name: row.parsed(2)?,
                member_pubkey: row.parsed(3)?,
                state,
                ended_at: row.maybe_int(5)?.map(Timestamp::from_millis),
            })
        });
        Ok(Some(Path {
            message_id,
            sender_member_id: message.parsed(1)?,
            target_spec: message.text(2)?,
            priority: message.parsed(3)?,
            steps: steps.collect::<sqlx::Result<_>>()?,
        }))
    }
}
