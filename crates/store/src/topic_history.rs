//! What was written in a topic, read back by its members. Messages are numbered without gaps, and a page is cut by number: nothing is
//! shown twice or left out, however many were written in one millisecond.

use claudemesh_proto::limits::MAX_HISTORY_PAGE;
use claudemesh_proto::topic::TopicMessage;
use claudemesh_proto::{MemberId, MeshId, MessageId, Timestamp, TopicId, TopicSought};

use crate::Store;
use crate::error::StoreError;
use crate::sql::{Connection, Row, Sql, sql};
use crate::topic::{self, Closed, Topic};

/// Bytes of bodies beyond which a page ends before its limit; it always has one message.
const PAGE_BYTES: i64 = 1 << 20;

/// Which page of a topic's history.
#[derive(Debug, Clone, Copy)]
pub struct HistoryPage<'a> {
    /// Only messages before the one with this id.
    pub before: Option<&'a str>,
    /// At most so many, and 200 at the very most.
    pub limit: i64,
}

impl Store {
    /// Messages of a topic that the member is in, newest first; `None` instead of them when `before` is no message of the topic.
    pub async fn topic_history(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
        page: HistoryPage<'_>,
    ) -> Result<Result<(Topic, Option<Vec<TopicMessage>>), Closed>, StoreError> {
        let mut reader = self.db().read().await?;
        let mut connection = reader.connection();
        let topic = match topic::open(&mut connection, whose, sought).await? {
            Ok(seen) => seen.topic,
            Err(closed) => return Ok(Err(closed)),
        };
        let before = match page.before {
            None => Some(i64::MAX),
            Some(id) => seq_of(&mut connection, whose.0, &topic.id, id).await?,
        };
        let Some(before) = before else { return Ok(Ok((topic, None))) };
        let messages = read_before(&mut connection, (whose.0, &topic.id), before, page.limit).await?;
        Ok(Ok((topic, Some(messages))))
    }

    /// Messages of a topic that the member is in from the one after this number on, oldest first.
    pub async fn topic_messages_after(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
        (after_seq, limit): (i64, i64),
    ) -> Result<Result<(Topic, Vec<TopicMessage>), Closed>, StoreError> {
        let mut reader = self.db().read().await?;
        let mut connection = reader.connection();
        let topic = match topic::open(&mut connection, whose, sought).await? {
            Ok(seen) => seen.topic,
            Err(closed) => return Ok(Err(closed)),
        };
        let messages = read_after(&mut connection, (whose.0, &topic.id), after_seq, limit).await?;
        Ok(Ok((topic, messages)))
    }

    /// The number in the topic of the message with this id; `None` when the topic has none.
    pub async fn topic_message_seq(
        &self,
        mesh_id: &MeshId,
        topic_id: &TopicId,
        message_id: &str,
    ) -> Result<Option<i64>, StoreError> {
        let mut reader = self.db().read().await?;
        Ok(seq_of(&mut reader.connection(), mesh_id, topic_id, message_id).await?)
    }
}

/// The columns of a message `q`, as [`read`] reads them, and what else is asked.
macro_rules! messages {
    ($tail:literal) => {
        $crate::topic_history::messages!(@text concat!(
            "select q.id, q.sender_pubkey, q.sender_member_id, q.sender_name, q.nonce, q.ciphertext, q.body_version, \
             q.reply_to_id, q.created_at, q.seq, q.mentions, q.ext, q.plaintext",
            $tail
        ))
    };
    (@text $text:expr) => {
        $crate::sql::sql!(sqlite: $text, postgres: $text)
    };
}
pub(crate) use messages;

async fn read_before(
    connection: &mut Connection<'_>,
    (mesh_id, topic_id): (&MeshId, &TopicId),
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<TopicMessage>> {
    const SIZES: Sql = sql!(
        "select seq, cast(octet_length(ciphertext) + coalesce(octet_length(ext), 0) as bigint) from topic_message \
         where mesh_id = $1 and topic_id = $2 and seq < $3 order by seq desc limit $4"
    );
    const MESSAGES: Sql = messages!(
        " from topic_message q where q.mesh_id = $1 and q.topic_id = $2 and q.seq >= $3 and q.seq < $4 order by q.seq desc"
    );
    let limit = limit.clamp(1, MAX_HISTORY_PAGE);
    let ids = [mesh_id.as_str().into(), topic_id.as_str().into()];
    let [mesh, topic] = ids.clone();
    let sizes = connection.rows(SIZES, &[mesh, topic, before.into(), limit.into()]).await?;
    let Some(first) = last_that_fits(&sizes)? else { return Ok(Vec::new()) };
    let [mesh, topic] = ids;
    let rows = connection.rows(MESSAGES, &[mesh, topic, first.into(), before.into()]).await?;
    rows.iter().map(read).collect()
}

async fn read_after(
    connection: &mut Connection<'_>,
    (mesh_id, topic_id): (&MeshId, &TopicId),
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<TopicMessage>> {
    const SIZES: Sql = sql!(
        "select seq, cast(octet_length(ciphertext) + coalesce(octet_length(ext), 0) as bigint) from topic_message \
         where mesh_id = $1 and topic_id = $2 and seq > $3 order by seq limit $4"
    );
    const MESSAGES: Sql = messages!(
        " from topic_message q where q.mesh_id = $1 and q.topic_id = $2 and q.seq > $3 and q.seq <= $4 order by q.seq"
    );
    let limit = limit.clamp(1, MAX_HISTORY_PAGE);
    let ids = [mesh_id.as_str().into(), topic_id.as_str().into()];
    let [mesh, topic] = ids.clone();
    let sizes = connection.rows(SIZES, &[mesh, topic, after.into(), limit.into()]).await?;
    let Some(last) = last_that_fits(&sizes)? else { return Ok(Vec::new()) };
    let [mesh, topic] = ids;
    let rows = connection.rows(MESSAGES, &[mesh, topic, after.into(), last.into()]).await?;
    rows.iter().map(read).collect()
}

/// The number of the last of these messages that a page has room for; rows of number and size.
fn last_that_fits(sizes: &[Row]) -> sqlx::Result<Option<i64>> {
    Ok(that_fit(sizes, PAGE_BYTES)?.map(|(last, _)| last))
}

/// The number of the last of these messages that fit into so many bytes, and how many there are up to it.
pub(crate) fn that_fit(sizes: &[Row], room: i64) -> sqlx::Result<Option<(i64, i64)>> {
    let (mut last, mut count, mut bytes) = (None, 0, 0_i64);
    for row in sizes {
        bytes = bytes.saturating_add(row.int(1)?);
        if last.is_some() && bytes > room {
            break;
        }
        count += 1;
        last = Some((row.int(0)?, count));
    }
    Ok(last)
}

/// A message is found by the number in its id, and is meant only when all of the id agrees.
async fn seq_of(
    connection: &mut Connection<'_>,
    mesh_id: &MeshId,
    topic_id: &TopicId,
    id: &str,
) -> sqlx::Result<Option<i64>> {
    // `topic_id || ''` leaves the index by number to be used: the other one could read all of a topic.
    const SEQ: Sql = sql!(
        "select seq from topic_message where mesh_id = $1 and message_seq = $2 and id = $3 and topic_id || '' = $4"
    );
    let Some(seq) = MessageId::seq_of(id).and_then(|seq| i64::try_from(seq).ok()) else { return Ok(None) };
    let Ok(id) = id.parse::<MessageId>() else { return Ok(None) };
    let values = [mesh_id.as_str().into(), seq.into(), id.as_str().into(), topic_id.as_str().into()];
    connection.row(SEQ, &values).await?.map(|row| row.int(0)).transpose()
}

pub(crate) fn read(row: &Row) -> sqlx::Result<TopicMessage> {
    let decoded = |error: serde_json::Error| sqlx::Error::Decode(Box::new(error));
    let mentions = row.maybe_text(10)?.map_or_else(|| Ok(Vec::new()), |json| serde_json::from_str(&json));
    let ext = row.maybe_text(11)?.map(serde_json::value::RawValue::from_string).transpose();
    Ok(TopicMessage {
        id: row.parsed(0)?,
        sender_pubkey: row.parsed(1)?,
        sender_member_id: row.parsed(2)?,
        sender_name: row.parsed(3)?,
        nonce: row.text(4)?,
        ciphertext: row.text(5)?,
        body_version: if row.int(6)? == 1 { 1 } else { 2 },
        reply_to_id: row.maybe_text(7)?.map(|_| row.parsed(7)).transpose()?,
        created_at: Timestamp::from_millis(row.int(8)?),
        seq: row.int(9)?,
        mentions: mentions.map_err(decoded)?,
        ext: ext.map_err(decoded)?,
        plaintext: row.int(12)? != 0,
    })
}
