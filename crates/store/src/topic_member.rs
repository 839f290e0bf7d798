//! Who is in a topic: joining, leaving, being added.

use claudemesh_proto::topic::{GENERAL, TopicMember};
use claudemesh_proto::{MemberId, MeshId, Timestamp, TopicId, TopicRole, TopicSought, Visibility};
use serde_json::json;

use crate::error::StoreError;
use crate::sql::{Connection, Sql, sql};
use crate::topic::{Closed, Seen, Topic, open, record, see};
use crate::{Store, audit};

/// What became of joining a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicJoined {
    /// The member is in it.
    Done,
    /// There is no such topic for the member to know of.
    NotFound,
    /// Who is in it is decided by its leads and by admins.
    NotOpen,
    /// Nobody makes itself a lead.
    NoLead,
}

/// What became of adding a member to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicMemberPut {
    /// The member is in it as this.
    Done(TopicRole),
    /// There is no such topic for whoever asks to know of.
    NotFound,
    /// Whoever asks neither leads it nor is an admin.
    Forbidden,
    /// The mesh has no such member.
    NoMember,
}

impl Store {
    /// Lets a member join a public topic. Who is in it already stays what it is.
    pub async fn join_topic(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
        role: TopicRole,
    ) -> Result<TopicJoined, StoreError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, whose.0).await?;
        let Some(seen) = see(&mut connection, whose, sought).await? else { return Ok(TopicJoined::NotFound) };
        if seen.role.is_some() {
            return Ok(TopicJoined::Done);
        }
        if seen.topic.visibility != Visibility::Public {
            return Ok(TopicJoined::NotOpen);
        }
        if role == TopicRole::Lead {
            return Ok(TopicJoined::NoLead);
        }
        join(&mut connection, whose, &seen, role, now).await?;
        tx.commit().await?;
        Ok(TopicJoined::Done)
    }

    /// Lets a member leave a topic. Its copy of the key is kept. Which topic it is, if it is one to know of; leaving what one is not
    /// in changes nothing.
    pub async fn leave_topic(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
    ) -> Result<Option<TopicId>, StoreError> {
        const LEAVE: Sql = sql!("delete from topic_member where mesh_id = $1 and topic_id = $2 and member_id = $3");
        let now = self.now();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, whose.0).await?;
        let Some(seen) = see(&mut connection, whose, sought).await? else { return Ok(None) };
        if seen.role.is_none() {
            return Ok(Some(seen.topic.id));
        }
        let values = [whose.0.as_str().into(), seen.topic.id.as_str().into(), whose.1.as_str().into()];
        connection.execute(LEAVE, &values).await?;
        let payload = json!({"topic": seen.topic.name, "topicId": seen.topic.id});
        record(&mut connection, whose, ("topic_member_left", &seen.name, payload), now).await?;
        tx.commit().await?;
        Ok(Some(seen.topic.id))
    }

    /// Adds a member to a topic in the name of a lead or an admin. `None` as role leaves who is in it already what it is, and makes
    /// others members.
    pub async fn add_topic_member(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
        (whom, role): (&MemberId, Option<TopicRole>),
    ) -> Result<TopicMemberPut, StoreError> {
        const BEFORE: Sql = sql!(
            "select s.role from member m left join topic_member s \
             on s.mesh_id = m.mesh_id and s.topic_id = $3 and s.member_id = m.id \
             where m.mesh_id || '' = $1 and m.id = $2 and m.revoked_at is null"
        );
        const ROLE: Sql =
            sql!("update topic_member set role = $4 where mesh_id = $1 and topic_id = $2 and member_id = $3");
        let now = self.now();
        let mesh_id = whose.0;
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, mesh_id).await?;
        let Some(seen) = see(&mut connection, whose, sought).await? else { return Ok(TopicMemberPut::NotFound) };
        if !seen.is_admin && seen.role != Some(TopicRole::Lead) {
            return Ok(TopicMemberPut::Forbidden);
        }
        let topic_id = seen.topic.id;
        let values = [mesh_id.as_str().into(), whom.as_str().into(), topic_id.as_str().into()];
        let Some(row) = connection.row(BEFORE, &values).await? else { return Ok(TopicMemberPut::NoMember) };
        let before: Option<TopicRole> = row.maybe_text(0)?.map(|_| row.parsed(0)).transpose()?;
        let after = role.or(before).unwrap_or_default();
        if before == Some(after) {
            return Ok(TopicMemberPut::Done(after));
        }
        if before.is_none() {
            enter(&mut connection, (mesh_id, whom), (&topic_id, after), now).await?;
        } else {
            let [mesh, whom, topic] = values;
            connection.execute(ROLE, &[mesh, topic, whom, after.as_str().into()]).await?;
        }
        let payload = json!({"topic": seen.topic.name, "topicId": topic_id, "memberId": whom, "role": after});
        record(&mut connection, whose, ("topic_member_added", &seen.name, payload), now).await?;
        tx.commit().await?;
        Ok(TopicMemberPut::Done(after))
    }

    /// Who is in a topic that the member is in, by name.
    pub async fn topic_members(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
    ) -> Result<Result<Vec<TopicMember>, Closed>, StoreError> {
        const MEMBERS: Sql = sql!(
            "select m.id, m.peer_pubkey, m.display_name, s.role, s.joined_at, s.last_read_at from topic_member s \
             left join member m on m.id = s.member_id and m.mesh_id || '' = s.mesh_id \
             where s.mesh_id = $1 and s.topic_id = $2 and m.revoked_at is null order by lower(m.display_name), m.id"
        );
        let mut reader = self.db().read().await?;
        let mut connection = reader.connection();
        let topic = match open(&mut connection, whose, sought).await? {
            Ok(seen) => seen.topic,
            Err(closed) => return Ok(Err(closed)),
        };
        let rows = connection.rows(MEMBERS, &[whose.0.as_str().into(), topic.id.as_str().into()]).await?;
        let members = rows.iter().map(|row| -> sqlx::Result<TopicMember> {
            Ok(TopicMember {
                member_id: row.parsed(0)?,
                pubkey: row.parsed(1)?,
                display_name: row.parsed(2)?,
                role: row.parsed(3)?,
                joined_at: Timestamp::from_millis(row.int(4)?),
                last_read_at: row.maybe_int(5)?.map(Timestamp::from_millis),
            })
        });
        Ok(Ok(members.collect::<sqlx::Result<_>>()?))
    }

    /// Remembers that a member has read a topic that it is in: until when.
    pub async fn mark_topic_read(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
    ) -> Result<Result<(Topic, Timestamp), Closed>, StoreError> {
        const READ: Sql =
            sql!("update topic_member set last_read_at = $4 where mesh_id = $1 and topic_id = $2 and member_id = $3");
        let now = self.now();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, whose.0).await?;
        let topic = match open(&mut connection, whose, sought).await? {
            Ok(seen) => seen.topic,
            Err(closed) => return Ok(Err(closed)),
        };
        let ids = [whose.0.as_str().into(), topic.id.as_str().into(), whose.1.as_str().into()];
        let [mesh, id, member] = ids;
        connection.execute(READ, &[mesh, id, member, now.as_millis().into()]).await?;
        tx.commit().await?;
        Ok(Ok((topic, now)))
    }
}

/// Puts a member who asked for it into a topic that it is not in.
pub(crate) async fn join(
    connection: &mut Connection<'_>,
    whose: (&MeshId, &MemberId),
    seen: &Seen,
    role: TopicRole,
    now: Timestamp,
) -> sqlx::Result<()> {
    enter(connection, whose, (&seen.topic.id, role), now).await?;
    let payload = json!({"topic": seen.topic.name, "topicId": seen.topic.id, "role": role});
    record(connection, whose, ("topic_member_joined", &seen.name, payload), now).await
}

/// Puts a member into a topic. What was written before is history to it.
pub(crate) async fn enter(
    connection: &mut Connection<'_>,
    (mesh_id, member_id): (&MeshId, &MemberId),
    (topic_id, role): (&TopicId, TopicRole),
    now: Timestamp,
) -> sqlx::Result<()> {
    const ENTER: Sql = sql!(
        "insert into topic_member (mesh_id, topic_id, member_id, role, joined_at, joined_seq, delivered_seq) \
         select mesh_id, id, $3, $4, $5, head_seq + 1, head_seq from topic where mesh_id = $1 and id = $2"
    );
    let values = [
        mesh_id.as_str().into(),
        topic_id.as_str().into(),
        member_id.as_str().into(),
        role.as_str().into(),
        now.as_millis().into(),
    ];
    connection.execute(ENTER, &values).await.map(drop)
}

/// Puts a newcomer into the topic that every mesh has.
pub(crate) async fn enter_general(
    connection: &mut Connection<'_>,
    (mesh_id, member_id): (&MeshId, &MemberId),
    now: Timestamp,
) -> sqlx::Result<()> {
    const FIND: Sql = sql!("select id from topic where mesh_id = $1 and name = $2 and archived_at is null");
    let Some(row) = connection.row(FIND, &[mesh_id.as_str().into(), GENERAL.into()]).await? else { return Ok(()) };
    enter(connection, (mesh_id, member_id), (&row.parsed(0)?, TopicRole::Member), now).await
}

/// Takes everything written so far for delivered: what was written while a member was removed is not for it.
pub(crate) async fn skip_to_the_end(
    connection: &mut Connection<'_>,
    (mesh_id, member_id): (&MeshId, &MemberId),
) -> sqlx::Result<()> {
    const SKIP: Sql = sql!(
        "update topic_member set claim_incarnation = null, claim_connection = null, claim_until = null, delivered_seq = \
         (select t.head_seq from topic t where t.mesh_id = topic_member.mesh_id and t.id = topic_member.topic_id) \
         where mesh_id = $1 and member_id = $2"
    );
    connection.execute(SKIP, &[mesh_id.as_str().into(), member_id.as_str().into()]).await.map(drop)
}
