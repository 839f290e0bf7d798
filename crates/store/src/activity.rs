//! What happened lately in the topics that a member is in.

use claudemesh_proto::topic::TopicMessage;
use claudemesh_proto::{MemberId, MeshId, Timestamp, TopicId, TopicName};

use crate::Store;
use crate::error::StoreError;
use crate::sql::{Sql, sql};
use crate::topic_history::{self, messages};

/// Messages of a mesh that are looked at, the newest.
const LOOKED_AT: i64 = 5000;

/// A message, and where it was written.
#[derive(Debug, Clone)]
pub struct WrittenMessage {
    /// The topic.
    pub topic_id: TopicId,
    /// Its name.
    pub topic: TopicName,
    /// The message.
    pub message: TopicMessage,
}

impl Store {
    /// What others wrote since then in the topics that the member is in, newest first: of the mesh's last 5,000 messages, and with bodies
    /// of about 4 MiB together.
    pub async fn recent_messages(
        &self,
        (mesh_id, member_id): (&MeshId, &MemberId),
        since: Timestamp,
        limit: i64,
    ) -> Result<Vec<WrittenMessage>, StoreError> {
        const SIZES: Sql = sql!(
            "select t.message_seq, t.size_bytes from ( \
              select message_seq, topic_id, sender_member_id, created_at, \
               cast(octet_length(ciphertext) + coalesce(octet_length(ext), 0) as bigint) as size_bytes from topic_message \
              where mesh_id = $1 order by message_seq desc limit $5) t \
             join topic_member c on c.mesh_id = $1 and c.topic_id = t.topic_id and c.member_id = $2 \
             join topic o on o.mesh_id = c.mesh_id and o.id = c.topic_id and o.archived_at is null \
             where t.created_at >= $3 and t.sender_member_id <> $2 order by t.message_seq desc limit $4"
        );
        const MESSAGES: Sql = messages!(
            ", q.topic_id, t.name from topic_message q \
             join topic_member c on c.mesh_id = q.mesh_id and c.topic_id = q.topic_id and c.member_id = $2 \
             join topic t on t.mesh_id = c.mesh_id and t.id = c.topic_id and t.archived_at is null \
             where q.mesh_id = $1 and q.message_seq >= $3 and q.created_at >= $4 and q.sender_member_id <> $2 \
             order by q.message_seq desc limit $5"
        );
        let (mesh, member) = (mesh_id.as_str(), member_id.as_str());
        let mut reader = self.db().read().await?;
        let mut connection = reader.connection();
        let values = [mesh.into(), member.into(), since.as_millis().into(), limit.into(), LOOKED_AT.into()];
        let sizes = connection.rows(SIZES, &values).await?;
        let Some((first, count)) = topic_history::that_fit(&sizes, 4 << 20)? else { return Ok(Vec::new()) };
        let values = [mesh.into(), member.into(), first.into(), since.as_millis().into(), count.into()];
        let rows = connection.rows(MESSAGES, &values).await?;
        let written = rows.iter().map(|row| {
            Ok(WrittenMessage { topic_id: row.parsed(13)?, topic: row.parsed(14)?, message: topic_history::read(row)? })
        });
        Ok(written.collect::<sqlx::Result<_>>()?)
    }
}
