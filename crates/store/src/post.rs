//! Posting: a message of a topic is one row under the topic's next number, whoever reads it. Who is mentioned is notified in the same
//! transaction, whether or not anybody here could read the message.

use std::collections::{HashMap, HashSet};

use claudemesh_proto::limits::MAX_NOTIFIED;
use claudemesh_proto::post::{BodyVersion, Post};
use claudemesh_proto::{MemberId, MeshId, MessageId, NotificationId, Target, Timestamp, TopicId};
use serde::Deserialize;

use crate::backlog::TOPIC_ROW_BYTES;
use crate::batch::Batch;
use crate::cursor::{self, Movable};
use crate::delivery::TopicPart;
use crate::interner::Interner;
use crate::message::{Accepted, Appended, NewMessage};
use crate::recipient::Recipient;
use crate::settle::Settle;
use crate::sql::{Sql, Value, columns, json, together};

/// A message was posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// Its id, in its topic as in its mesh.
    pub message_id: MessageId,
    /// The topic.
    pub topic_id: TopicId,
    /// Its name.
    pub topic: String,
    /// Its number in the topic.
    pub seq: i64,
    /// The message that it answers, if that is one of the topic.
    pub reply_to_id: Option<String>,
    /// Who was notified.
    pub notified: Vec<(NotificationId, MemberId)>,
}

/// What a topic's message is on its way to becoming rows.
pub(crate) struct NewPost {
    pub(crate) part: TopicPart,
    pub(crate) subscribers: Vec<Subscriber>,
    notified: Vec<(NotificationId, MemberId)>,
}

/// A topic, as its sender finds it.
#[derive(Debug, Deserialize)]
struct Topic {
    place: usize,
    name: String,
    is_public: i64,
    is_encrypted: i64,
    head_seq: i64,
    /// The sender's cursor.
    cursor: i64,
    delivered_seq: i64,
    is_claimed: i64,
}

/// Somebody else in the topic.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Subscriber {
    place: usize,
    pub(crate) member: MemberId,
    pub(crate) cursor: i64,
    /// The connection that has claimed the cursor.
    pub(crate) holder: Option<String>,
    pub(crate) delivered_seq: i64,
}

type TopicAddress<'a> = (&'a MeshId, &'a TopicId, &'a MemberId);

/// What a batch's messages for topics want to know, in the order of the rows that [`LOOK_UP`] reads.
#[derive(Debug, Default)]
pub(crate) struct PostQuestions<'a> {
    topics: Interner<TopicAddress<'a>>,
    names: Interner<(&'a MeshId, &'a str)>,
    replies: Interner<(&'a MeshId, &'a TopicId, &'a str)>,
}

/// What became of the questions.
#[derive(Debug, Default)]
pub(crate) struct FoundPosts {
    topics: HashMap<usize, Topic>,
    subscribers: HashMap<usize, Vec<Subscriber>>,
    named: HashMap<usize, Vec<MemberId>>,
    replies: HashSet<usize>,
    pub(crate) movable: Vec<Movable>,
}

/// The last numbers in the topics that a batch writes to: in the topic and in the mesh.
pub(crate) type TopicHeads = HashMap<(MeshId, TopicId), (i64, i64)>;

/// Five columns, each a JSON array: [`Topic`] and [`Subscriber`] for (place, mesh, topic, sender); (place, member) for (place, mesh,
/// name); the place for (place, mesh, topic, number, id) of a message that may be answered; [`Movable`] for (place, cursor, mesh,
/// member, number) and for (place, mesh, number, id, member).
const LOOK_UP: Sql = columns!(
    read(
        "cast(r.value ->> 0 as bigint), t.name, case when t.visibility = 'public' then 1 else 0 end, \
         case when t.encrypted_key_pubkey is null then 0 else 1 end, t.head_seq, c.id, \
         c.delivered_seq, case when c.claim_connection is null then 0 else 1 end",
        "$1",
        " left join topic t on t.mesh_id = r.value ->> 1 and t.id = r.value ->> 2 \
          left join topic_member c on c.mesh_id = r.value ->> 1 and c.topic_id = r.value ->> 2 and c.member_id = r.value ->> 3 \
         where coalesce(c.id, 0) > 0 and t.archived_at is null"
    ),
    read(
        "cast(r.value ->> 0 as bigint), c.member_id, c.id, c.claim_connection, c.delivered_seq",
        "$1",
        " left join topic_member c on c.mesh_id = r.value ->> 1 and c.topic_id = r.value ->> 2 \
          left join member m on m.id = c.member_id and m.mesh_id || '' = c.mesh_id \
         where coalesce(c.member_id, r.value ->> 3) <> r.value ->> 3 and m.revoked_at is null"
    ),
    read(
        "cast(r.value ->> 0 as bigint), m.id",
        "$2",
        " left join member m on m.mesh_id = r.value ->> 1 and lower(m.display_name) = r.value ->> 2 \
         where coalesce(m.id, '') <> '' and m.revoked_at is null"
    ),
    read(
        "cast(r.value ->> 0 as bigint)",
        "$3",
        " left join topic_message q on q.mesh_id = r.value ->> 1 and q.message_seq = cast(r.value ->> 3 as bigint) \
         where coalesce(q.id, '') = r.value ->> 4 and coalesce(q.topic_id, '') = r.value ->> 2"
    ),
    read(
        "cast(r.value ->> 0 as bigint), c.id, cast(r.value ->> 4 as bigint), t.head_seq, c.claimed_seq",
        "$4",
        " left join topic_member c on c.id = cast(r.value ->> 1 as bigint) \
          left join topic t on t.mesh_id = c.mesh_id and t.id = c.topic_id \
          left join member k on k.id = c.member_id and k.mesh_id || '' = c.mesh_id \
         where coalesce(c.mesh_id, '') = r.value ->> 2 and coalesce(c.member_id, '') = r.value ->> 3 and k.revoked_at is null"
    ),
    read(
        "cast(r.value ->> 0 as bigint), c.id, q.seq, q.seq, c.claimed_seq",
        "$5",
        " left join topic_message q on q.mesh_id = r.value ->> 1 and q.message_seq = cast(r.value ->> 2 as bigint) \
          left join topic_member c on c.mesh_id = q.mesh_id and c.topic_id = q.topic_id and c.member_id = r.value ->> 4 \
          left join member k on k.id = c.member_id and k.mesh_id || '' = c.mesh_id \
         where coalesce(q.id, '') = r.value ->> 3 and coalesce(c.delivered_seq, -1) + 1 = q.seq and k.revoked_at is null"
    ),
);

impl<'a> PostQuestions<'a> {
    pub(crate) fn of(messages: &[&'a NewMessage]) -> Self {
        let mut questions = Self::default();
        for message in messages {
            let Some((topic, post)) = parts(message) else { continue };
            questions.topics.intern(address(message, topic));
            for name in &post.mentions {
                questions.names.intern((&message.mesh_id, name));
            }
            if let Some(reply) = &post.reply_to_id {
                questions.replies.intern((&message.mesh_id, topic, reply));
            }
        }
        questions
    }

    fn is_empty(&self) -> bool {
        self.topics.in_order.is_empty()
    }

    fn rows(&self) -> sqlx::Result<[String; 3]> {
        let topics = self.topics.in_order.iter().enumerate();
        let topics: Vec<_> = topics.map(|(place, (mesh, topic, sender))| (place, mesh, topic, sender)).collect();
        let names = self.names.in_order.iter().enumerate();
        let names: Vec<_> = names.map(|(place, (mesh, name))| (place, mesh, name)).collect();
        let replies = self
            .replies
            .in_order
            .iter()
            .enumerate()
            .filter_map(|(place, (mesh, topic, id))| Some((place, mesh, topic, MessageId::seq_of(id)?, id)));
        Ok([json(&topics)?, json(&names)?, json(&replies.collect::<Vec<_>>())?])
    }
}

/// Finds what the messages for topics and the acknowledgements of such messages want to know; nothing is asked where there are none.
pub(crate) async fn look_up(
    batch: &mut Batch,
    questions: &PostQuestions<'_>,
    settles: &[&Settle],
) -> sqlx::Result<FoundPosts> {
    let (fronts, by_message) = (cursor::front_rows(settles), cursor::message_rows(settles));
    if questions.is_empty() && fronts.is_empty() && by_message.is_empty() {
        return Ok(FoundPosts::default());
    }
    let [topics, names, replies] = questions.rows()?;
    let (fronts, by_message) = (json(&fronts)?, json(&by_message)?);
    let values: [Value<'_>; 5] = [&topics, &names, &replies, &fronts, &by_message].map(Into::into);
    let row = batch.connection().row(LOOK_UP, &values).await?.ok_or(sqlx::Error::RowNotFound)?;
    let mut found = FoundPosts {
        topics: row.folded::<Topic>(0)?.into_iter().map(|topic| (topic.place, topic)).collect(),
        replies: row.folded::<(usize,)>(3)?.into_iter().map(|(place,)| place).collect(),
        movable: row.folded(4)?,
        ..FoundPosts::default()
    };
    for subscriber in row.folded::<Subscriber>(1)? {
        found.subscribers.entry(subscriber.place).or_default().push(subscriber);
    }
    for (place, member) in row.folded::<(usize, MemberId)>(2)? {
        found.named.entry(place).or_default().push(member);
    }
    found.movable.extend(row.folded::<Movable>(5)?);
    Ok(found)
}

impl FoundPosts {
    /// Who else is in the topic of a message.
    pub(crate) fn subscribers<'m>(
        &self,
        questions: &PostQuestions<'m>,
        message: &'m NewMessage,
    ) -> Option<&[Subscriber]> {
        let (topic, _) = parts(message)?;
        let place = questions.topics.index_of(&address(message, topic))?;
        Some(self.subscribers.get(&place).map_or(&[], Vec::as_slice))
    }

    /// Whom a message mentions: of a topic that is not public nobody else may know (R7).
    fn notified<'m>(
        &self,
        questions: &PostQuestions<'m>,
        (message, post): (&'m NewMessage, &'m Post),
        topic: &Topic,
    ) -> sqlx::Result<Vec<(NotificationId, MemberId)>> {
        let in_topic = self.subscribers.get(&topic.place).into_iter().flatten();
        let may_know: Option<HashSet<&MemberId>> =
            (topic.is_public == 0).then(|| in_topic.map(|subscriber| &subscriber.member).collect());
        let mut members: Vec<&MemberId> = Vec::new();
        for name in &post.mentions {
            let place = questions.names.index_of(&(&message.mesh_id, name));
            let of_name = place.and_then(|place| self.named.get(&place)).into_iter().flatten();
            let others = of_name.filter(|member| **member != message.sender_member_id);
            let others = others.filter(|member| may_know.as_ref().is_none_or(|those| those.contains(member)));
            for member in others {
                if members.len() < MAX_NOTIFIED && !members.contains(&member) {
                    members.push(member);
                }
            }
        }
        let random = Batch::random::<32>(members.len())?;
        let ids = random.into_iter().map(NotificationId::from_random);
        Ok(ids.zip(members.into_iter().cloned()).collect())
    }
}

fn parts(message: &NewMessage) -> Option<(&TopicId, &Post)> {
    match (&message.target, &message.post) {
        (Target::Topic(topic), Some(post)) => Some((topic, post)),
        _ => None,
    }
}

fn address<'a>(message: &'a NewMessage, topic: &'a TopicId) -> TopicAddress<'a> {
    (&message.mesh_id, topic, &message.sender_member_id)
}

/// Decides whether a message may be posted, and gives it its number in the topic; `Err` is why not.
pub(crate) fn admit<'m>(
    batch: &mut Batch,
    message: &'m NewMessage,
    (questions, found): (&PostQuestions<'m>, &FoundPosts),
    message_seq: i64,
) -> sqlx::Result<Result<NewPost, Appended>> {
    let Some((topic_id, post)) = parts(message) else { return Ok(Err(Appended::NoTopic)) };
    let place = questions.topics.index_of(&address(message, topic_id));
    let Some(topic) = place.and_then(|place| found.topics.get(&place)) else { return Ok(Err(Appended::NoTopic)) };
    let plaintext = topic.is_encrypted == 1 && post.body_version == BodyVersion::Plain;
    if plaintext && message.knows_topics {
        return Ok(Err(Appended::TopicEncrypted));
    }
    let notified = found.notified(questions, (message, post), topic)?;
    if !batch.heads.take_topic_bytes(&message.mesh_id, size_bytes((message, post), notified.len())) {
        return Ok(Err(Appended::TopicsFull));
    }
    let key = (message.mesh_id.clone(), topic_id.clone());
    let head = batch.topics.entry(key).or_insert((topic.head_seq, 0));
    let before = head.0;
    *head = (before + 1, message_seq);
    // One's own message is not handed to oneself: it is passed over at once, if nothing comes before it.
    if topic.is_claimed == 0 && batch.own_cursors.get(&topic.cursor).copied().unwrap_or(topic.delivered_seq) == before {
        batch.own_cursors.insert(topic.cursor, before + 1);
        batch.cursors.advance(topic.cursor, before + 1);
    }
    let reply_to_id = post.reply_to_id.clone().filter(|reply| {
        let place = questions.replies.index_of(&(&message.mesh_id, topic_id, reply));
        place.is_some_and(|place| found.replies.contains(&place))
    });
    let subscribers = found.subscribers(questions, message).unwrap_or_default().to_vec();
    for subscriber in &subscribers {
        batch.ring(&message.mesh_id, &Recipient::Member(subscriber.member.clone()));
    }
    Ok(Ok(NewPost {
        part: TopicPart {
            topic_id: topic_id.clone(),
            topic: topic.name.clone(),
            seq: before + 1,
            body_version: post.body_version,
            reply_to_id,
            mentions: post.mentions.clone(),
            plaintext,
        },
        subscribers,
        notified,
    }))
}

/// What a message takes for good.
fn size_bytes((message, post): (&NewMessage, &Post), notified: usize) -> i64 {
    let mentions = post.mentions.iter().map(String::len).sum::<usize>();
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let rows = count(notified).saturating_add(1).saturating_mul(TOPIC_ROW_BYTES);
    message.size_bytes().saturating_add(count(mentions)).saturating_add(rows)
}

impl NewPost {
    pub(crate) fn outcome(&self, message_id: &MessageId) -> Appended {
        let TopicPart { topic_id, topic, seq, reply_to_id, .. } = self.part.clone();
        let (message_id, notified) = (message_id.clone(), self.notified.clone());
        Appended::Posted(Box::new(Posted { message_id, topic_id, topic, seq, reply_to_id, notified }))
    }

    /// The columns of each `notification` of a message: mesh, id, topic, number in the mesh, recipient, sender.
    pub(crate) fn notification_rows<'p>(
        &'p self,
        (message, seq): (&'p NewMessage, i64),
    ) -> impl Iterator<Item = impl serde::Serialize + 'p> {
        let topic = &self.part.topic_id;
        self.notified.iter().map(move |(id, to)| (&message.mesh_id, id, topic, seq, to, &message.sender_member_id))
    }
}

/// Writes the messages of topics that a batch has accepted, where their topics end now, and who is notified.
pub(crate) async fn write(batch: &mut Batch, accepted: &[Accepted<'_>], now: Timestamp) -> sqlx::Result<()> {
    const WRITE: Sql = together!(
        posted: write(
            "insert into topic_message (mesh_id, topic_id, seq, message_seq, id, sender_member_id, sender_pubkey, sender_name, \
             priority, nonce, ciphertext, body_version, plaintext, reply_to_id, mentions, ext, client_message_id, \
             request_fingerprint, created_at) select r.value ->> 0, r.value ->> 1, cast(r.value ->> 2 as bigint), \
             cast(r.value ->> 3 as bigint), r.value ->> 4, r.value ->> 5, r.value ->> 6, r.value ->> 7, r.value ->> 8, \
             r.value ->> 9, r.value ->> 10, cast(r.value ->> 11 as bigint), cast(r.value ->> 12 as bigint), r.value ->> 13, \
             r.value ->> 14, r.value ->> 15, r.value ->> 16, r.value ->> 17, cast($1 as bigint) from ",
            "$2",
            ""
        );
        headed: write(
            "update topic set head_seq = cast(r.value ->> 2 as bigint), head_message_seq = cast(r.value ->> 3 as bigint) from ",
            "$3",
            " where topic.mesh_id = r.value ->> 0 and topic.id = r.value ->> 1"
        );
        write(
            "insert into notification (mesh_id, id, topic_id, message_seq, recipient_member_id, sender_member_id, created_at) \
             select r.value ->> 0, r.value ->> 1, r.value ->> 2, cast(r.value ->> 3 as bigint), r.value ->> 4, r.value ->> 5, \
             cast($1 as bigint) from ",
            "$4",
            ""
        )
    );
    let messages = accepted.iter().filter_map(Accepted::post_row).collect::<sqlx::Result<Vec<_>>>()?;
    if messages.is_empty() {
        return Ok(());
    }
    let heads: Vec<_> =
        batch.topics.iter().map(|((mesh, topic), (seq, in_mesh))| (mesh, topic, seq, in_mesh)).collect();
    let notifications: Vec<_> = accepted.iter().flat_map(Accepted::notification_rows).collect();
    let (messages, heads, notifications) = (json(&messages)?, json(&heads)?, json(&notifications)?);
    let values = [now.as_millis().into(), (&messages).into(), (&heads).into(), (&notifications).into()];
    batch.connection().later(WRITE, &values).await
}
