//! Notifications: whom a message of a topic mentions is told so, whether or not anybody here could read the message.

use std::collections::BTreeSet;

use claudemesh_proto::{
    DisplayName, MemberId, MeshId, MessageId, NotificationId, PublicKey, Timestamp, TopicId, TopicName,
};

use crate::Store;
use crate::error::StoreError;
use crate::sql::{Row, Sql, json, sql};

/// Most notifications of one page.
pub const MAX_NOTIFICATIONS: i64 = 100;

/// Somebody was mentioned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The notification.
    pub id: NotificationId,
    /// The message that mentions.
    pub message_id: MessageId,
    /// Its topic.
    pub topic_id: TopicId,
    /// The topic's name.
    pub topic: TopicName,
    /// The sender's name at the time.
    pub sender_name: DisplayName,
    /// The key that its sender spoke with.
    pub sender_pubkey: PublicKey,
    /// The body's nonce.
    pub nonce: String,
    /// The body; none for whoever is not in the topic.
    pub ciphertext: Option<String>,
    /// 1 or 2.
    pub body_version: i64,
    /// The message's number in the topic.
    pub seq: i64,
    /// `mention`.
    pub kind: String,
    /// When it was read.
    pub read_at: Option<Timestamp>,
    /// When it was written.
    pub created_at: Timestamp,
}

/// Which notifications.
#[derive(Debug, Clone, Copy)]
pub struct NotificationPage {
    /// Not those from before.
    pub since: Timestamp,
    /// Only those that are unread.
    pub unread_only: bool,
    /// At most so many, the newest.
    pub limit: i64,
}

/// Which notifications are read now.
#[derive(Debug, Clone)]
pub enum ReadNow {
    /// These.
    These(Vec<NotificationId>),
    /// All from before this moment.
    Before(Timestamp),
}

/// The notifications of a member, as [`read`] reads them: all, or those that another condition leaves, by an index of their own.
macro_rules! notifications {
    ($which:literal) => {
        notifications!(@text concat!(
            "select n.id, q.id, q.topic_id, t.name, q.sender_name, q.sender_pubkey, q.nonce, \
             case when c.id is null then null else q.ciphertext end, q.body_version, q.seq, n.kind, n.read_at, n.created_at \
             from notification n \
             join topic_message q on q.mesh_id = n.mesh_id and q.message_seq = n.message_seq \
             join topic t on t.mesh_id = n.mesh_id and t.id = n.topic_id and t.archived_at is null \
             left join topic_member c on c.mesh_id = n.mesh_id and c.topic_id = n.topic_id and c.member_id = n.recipient_member_id \
             where n.mesh_id = $1 and n.recipient_member_id = $2 and n.created_at >= $3",
            $which,
            " and (c.id is not null or t.visibility = 'public') order by n.created_at desc, n.message_seq desc limit $4"
        ))
    };
    (@text $text:expr) => {
        sql!(sqlite: $text, postgres: $text)
    };
}

impl Store {
    /// What a member was notified of, newest first. Bodies are for those who are in the topic (R7).
    pub async fn notifications(
        &self,
        (mesh_id, member_id): (&MeshId, &MemberId),
        page: NotificationPage,
    ) -> Result<Vec<Notification>, StoreError> {
        const ALL: Sql = notifications!("");
        const UNREAD: Sql = notifications!(" and n.read_at is null");
        let values = [
            mesh_id.as_str().into(),
            member_id.as_str().into(),
            page.since.as_millis().into(),
            page.limit.clamp(1, MAX_NOTIFICATIONS).into(),
        ];
        let mut reader = self.db().read().await?;
        let rows = reader.connection().rows(if page.unread_only { UNREAD } else { ALL }, &values).await?;
        Ok(rows.iter().map(read).collect::<sqlx::Result<_>>()?)
    }

    /// Marks notifications of a member as read, and says when; those that are read stay as they are. With `topics`, only those of topics of
    /// these names.
    pub async fn read_notifications(
        &self,
        (mesh_id, member_id): (&MeshId, &MemberId),
        which: &ReadNow,
        topics: Option<&BTreeSet<TopicName>>,
    ) -> Result<Timestamp, StoreError> {
        const THESE: Sql = sql!(
            "update notification set read_at = $4 from ",
            rows " where notification.mesh_id = $2 and notification.id = r.value ->> 0 \
             and notification.recipient_member_id = $3 and notification.read_at is null \
             and ($5 = '' or notification.topic_id in (select t.id from topic t where t.mesh_id = $2 and replace($5, '\"' || t.name || '\"', '') <> $5))"
        );
        const BEFORE: Sql = sql!(
            "update notification set read_at = $4 \
             where mesh_id = $1 and recipient_member_id = $2 and created_at < $3 and read_at is null \
             and ($5 = '' or topic_id in (select t.id from topic t where t.mesh_id = $1 and replace($5, '\"' || t.name || '\"', '') <> $5))"
        );
        let now = self.now();
        // A JSON array, in which each name stands between quotation marks.
        let topics = topics.map_or_else(|| Ok(String::new()), json)?;
        let (mesh, member) = (mesh_id.as_str().into(), member_id.as_str().into());
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        match which {
            ReadNow::These(ids) => {
                let ids: Vec<_> = ids.iter().map(|id| (id,)).collect();
                let ids = json(&ids)?;
                let values = [(&ids).into(), mesh, member, now.as_millis().into(), (&topics).into()];
                connection.execute(THESE, &values).await?;
            }
            ReadNow::Before(before) => {
                let values = [mesh, member, before.as_millis().into(), now.as_millis().into(), (&topics).into()];
                connection.execute(BEFORE, &values).await?;
            }
        }
        tx.commit().await?;
        Ok(now)
    }
}

fn read(row: &Row) -> sqlx::Result<Notification> {
    Ok(Notification {
        id: row.parsed(0)?,
        message_id: row.parsed(1)?,
        topic_id: row.parsed(2)?,
        topic: row.parsed(3)?,
        sender_name: row.parsed(4)?,
        sender_pubkey: row.parsed(5)?,
        nonce: row.text(6)?,
        ciphertext: row.maybe_text(7)?,
        body_version: row.int(8)?,
        seq: row.int(9)?,
        kind: row.text(10)?,
        read_at: row.maybe_int(11)?.map(Timestamp::from_millis),
        created_at: Timestamp::from_millis(row.int(12)?),
    })
}
