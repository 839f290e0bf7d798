//! How much of its topics a member has not read.

use std::collections::BTreeMap;

use claudemesh_proto::{MemberId, MeshId, TopicId};

use crate::Store;
use crate::error::StoreError;
use crate::sql::{Sql, Value, sql};

/// So many of the last messages of a topic are looked through: beyond that nobody counts.
pub const MAX_UNREAD: i64 = 1000;

impl Store {
    /// Of each topic that a member is in: how many of its last thousand messages others wrote since the member said that it read the
    /// topic, or since it is in it.
    pub async fn unread(&self, mesh_id: &MeshId, member_id: &MemberId) -> Result<BTreeMap<TopicId, i64>, StoreError> {
        const UNREAD: Sql = sql!(
            "select s.topic_id, (select count(*) from topic_message x where x.mesh_id = s.mesh_id and x.topic_id = s.topic_id \
             and x.seq > t.head_seq - $3 and x.seq >= s.joined_seq and x.sender_member_id <> s.member_id \
             and (s.last_read_at is null or x.created_at > s.last_read_at)) \
             from topic_member s left join topic t on t.mesh_id = s.mesh_id and t.id = s.topic_id \
             where s.mesh_id = $1 and s.member_id = $2"
        );
        let values: [Value<'_>; 3] = [mesh_id.as_str().into(), member_id.as_str().into(), MAX_UNREAD.into()];
        let mut reader = self.db().read().await?;
        let rows = reader.connection().rows(UNREAD, &values).await?;
        Ok(rows.iter().map(|row| Ok((row.parsed(0)?, row.int(1)?))).collect::<sqlx::Result<_>>()?)
    }
}
