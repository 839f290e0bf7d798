//! Topics: making and finding them.
//!
//! What a member may know of a topic is decided by one query, which reads the topic, the member and whether it is in the topic: a
//! removed member finds nothing. Who is in a topic is changed in `topic_member.rs`, messages are in `topic_history.rs`, keys in
//! `topic_key.rs`.

use claudemesh_proto::topic::{GENERAL, ListedTopic};
use claudemesh_proto::{
    DisplayName, MemberId, MemberRole, MeshId, Timestamp, TopicId, TopicName, TopicRole, TopicSought, Visibility,
};
use serde_json::{Value as Json, json};

use crate::audit::{self, AuditEntry};
use crate::error::StoreError;
use crate::sql::{Connection, Row, Sql, sql};
use crate::topic_key::{self, OwnCopy};
use crate::topic_member::{enter, join};
use crate::{Store, id};

/// A topic to make.
#[derive(Debug, Clone)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
    /// What it is about.
    pub description: Option<String>,
    /// Whom it is open to.
    pub visibility: Visibility,
    /// Its key, sealed for its creator.
    pub key: OwnCopy,
}

/// What has to be known of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The topic.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// Whom it is open to.
    pub visibility: Visibility,
    /// The public key that the creator's copy of its key was sealed with; `None` when it has no key, and bodies are in clear.
    pub encrypted_key_pubkey: Option<String>,
    /// The number of its last message; 0 when there is none.
    pub head_seq: i64,
}

/// Why a topic is closed to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// There is no such topic, or none that the member may know of; or the member was removed.
    NotFound,
    /// The member is not in it.
    NotIn,
}

/// What became of making a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicMade {
    /// It is there now, and its creator leads it.
    Made(Topic),
    /// It was there, and whoever asked is in it.
    Found(Topic),
    /// It is there, and whoever asked is not in it and cannot join by itself.
    NotOpen,
    /// The name is that of an archived topic.
    Archived,
    /// Whoever asked was removed from the mesh.
    NoMember,
}

/// A topic that a member is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnTopic {
    /// The topic.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// What it is about.
    pub description: Option<String>,
    /// Whom it is open to.
    pub visibility: Visibility,
    /// Since when it exists.
    pub created_at: Timestamp,
    /// When the last message was written.
    pub last_message_at: Option<Timestamp>,
}

impl Store {
    /// Makes a topic with its creator as lead, or lets the member into the public one of that name.
    pub async fn create_topic(&self, whose: (&MeshId, &MemberId), new: &NewTopic) -> Result<TopicMade, StoreError> {
        const MEMBER: Sql =
            sql!("select display_name from member where mesh_id || '' = $1 and id = $2 and revoked_at is null");
        let (mesh_id, member_id) = whose;
        let now = self.now();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, mesh_id).await?;
        if let Some(seen) = find(&mut connection, whose, ByName, new.name.as_str()).await? {
            let made = let_in(&mut connection, whose, seen, now).await?;
            tx.commit().await?;
            return Ok(made);
        }
        let member = connection.row(MEMBER, &[mesh_id.as_str().into(), member_id.as_str().into()]).await?;
        let Some(member) = member else { return Ok(TopicMade::NoMember) };
        let name: DisplayName = member.parsed(0)?;
        let topic = insert(&mut connection, whose, new, now).await?;
        enter(&mut connection, whose, (&topic.id, TopicRole::Lead), now).await?;
        let key = (new.key.encrypted_key.as_str(), new.key.nonce.as_str());
        topic_key::put(&mut connection, (whose, &topic.id), member_id, key, now).await?;
        let payload = json!({"topic": topic.name, "topicId": topic.id, "visibility": topic.visibility});
        record(&mut connection, whose, ("topic_created", &name, payload), now).await?;
        tx.commit().await?;
        Ok(TopicMade::Made(topic))
    }

    /// Lets a member into the public topic of a name, as [`Store::create_topic`] does; `None` when the name is free.
    pub async fn find_topic(
        &self,
        whose: (&MeshId, &MemberId),
        name: &TopicName,
    ) -> Result<Option<TopicMade>, StoreError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, whose.0).await?;
        let Some(seen) = find(&mut connection, whose, ByName, name.as_str()).await? else { return Ok(None) };
        let found = let_in(&mut connection, whose, seen, now).await?;
        tx.commit().await?;
        Ok(Some(found))
    }

    /// The topics that a member may know of, by name: those it is in and the public ones, and for an admin all.
    pub async fn topics(&self, mesh_id: &MeshId, member_id: &MemberId) -> Result<Vec<ListedTopic>, StoreError> {
        const TOPICS: Sql = sql!(
            "select t.id, t.name, t.description, t.visibility, t.created_at, \
             (select count(*) from topic_member x join member y on y.id = x.member_id and y.mesh_id || '' = x.mesh_id \
              where x.mesh_id = t.mesh_id and x.topic_id = t.id and y.revoked_at is null) \
             from topic t left join member c on c.id = $2 and c.mesh_id || '' = t.mesh_id and c.revoked_at is null \
             left join topic_member s on s.mesh_id = t.mesh_id and s.topic_id = t.id and s.member_id = c.id \
             where t.mesh_id = $1 and t.archived_at is null \
             and (c.role = 'admin' or c.role is not null and (t.visibility = 'public' or s.role is not null)) order by t.name"
        );
        let mut reader = self.db().read().await?;
        let rows = reader.connection().rows(TOPICS, &[mesh_id.as_str().into(), member_id.as_str().into()]).await?;
        let topics = rows.iter().map(|row| -> sqlx::Result<ListedTopic> {
            Ok(ListedTopic {
                id: row.parsed(0)?,
                name: row.parsed(1)?,
                description: row.maybe_text(2)?,
                visibility: row.parsed(3)?,
                created_at: Timestamp::from_millis(row.int(4)?),
                member_count: row.int(5)?,
            })
        });
        Ok(topics.collect::<sqlx::Result<_>>()?)
    }

    /// The topics that a member is in, by name.
    pub async fn own_topics(&self, mesh_id: &MeshId, member_id: &MemberId) -> Result<Vec<OwnTopic>, StoreError> {
        const TOPICS: Sql = sql!(
            "select t.id, t.name, t.description, t.visibility, t.created_at, (select q.created_at from topic_message q \
              where q.mesh_id = t.mesh_id and q.topic_id = t.id and q.seq = t.head_seq) \
             from topic_member c left join topic t on t.mesh_id = c.mesh_id and t.id = c.topic_id \
             where c.mesh_id = $1 and c.member_id = $2 and t.archived_at is null order by t.name"
        );
        let mut reader = self.db().read().await?;
        let rows = reader.connection().rows(TOPICS, &[mesh_id.as_str().into(), member_id.as_str().into()]).await?;
        let topics = rows.iter().map(|row| {
            Ok(OwnTopic {
                id: row.parsed(0)?,
                name: row.parsed(1)?,
                description: row.maybe_text(2)?,
                visibility: row.parsed(3)?,
                created_at: Timestamp::from_millis(row.int(4)?),
                last_message_at: row.maybe_int(5)?.map(Timestamp::from_millis),
            })
        });
        Ok(topics.collect::<sqlx::Result<_>>()?)
    }

    /// A topic that the member is in.
    pub async fn topic(
        &self,
        whose: (&MeshId, &MemberId),
        sought: &TopicSought,
    ) -> Result<Result<Topic, Closed>, StoreError> {
        let mut reader = self.db().read().await?;
        Ok(open(&mut reader.connection(), whose, sought).await?.map(|seen| seen.topic))
    }
}

/// A topic as a member finds it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) topic: Topic,
    /// The member's name.
    pub(crate) name: DisplayName,
    /// What it is in the topic, if it is in it.
    pub(crate) role: Option<TopicRole>,
    pub(crate) is_admin: bool,
    is_archived: bool,
}

impl Seen {
    /// Whether the member may know of it.
    fn is_visible(&self) -> bool {
        !self.is_archived && (self.is_admin || self.role.is_some() || self.topic.visibility == Visibility::Public)
    }
}

/// By which column a topic is looked for.
#[derive(Debug, Clone, Copy)]
enum By {
    Id,
    Name,
}
use By::{Id as ById, Name as ByName};

/// A topic and what a member is to it: mesh, id or name, member.
macro_rules! seen {
    ($column:literal) => {
        seen!(@text concat!(
            "select t.id, t.name, t.visibility, t.encrypted_key_pubkey, t.head_seq, t.archived_at, \
             c.display_name, c.role, s.role from topic t \
             left join member c on c.id = $3 and c.mesh_id || '' = t.mesh_id and c.revoked_at is null \
             left join topic_member s on s.mesh_id = t.mesh_id and s.topic_id = t.id and s.member_id = c.id \
             where t.mesh_id = $1 and t.",
            $column,
            " = $2"
        ))
    };
    (@text $text:expr) => {
        sql!(sqlite: $text, postgres: $text)
    };
}

/// The topic that is meant, if the member may know of it.
pub(crate) async fn see(
    connection: &mut Connection<'_>,
    whose: (&MeshId, &MemberId),
    sought: &TopicSought,
) -> sqlx::Result<Option<Seen>> {
    let by_id = sought.id().map(|id| (ById, id.as_str()));
    let by_name = sought.name().map(|name| (ByName, name.as_str()));
    for (by, text) in by_id.into_iter().chain(by_name) {
        let seen = find(connection, whose, by, text).await?;
        if let Some(seen) = seen.filter(Seen::is_visible) {
            return Ok(Some(seen));
        }
    }
    Ok(None)
}

/// The topic that is meant, if the member is in it (R7).
pub(crate) async fn open(
    connection: &mut Connection<'_>,
    whose: (&MeshId, &MemberId),
    sought: &TopicSought,
) -> sqlx::Result<Result<Seen, Closed>> {
    Ok(match see(connection, whose, sought).await? {
        None => Err(Closed::NotFound),
        Some(seen) if seen.role.is_none() => Err(Closed::NotIn),
        Some(seen) => Ok(seen),
    })
}

/// A topic, whoever may know of it; `None` also when the member was removed.
async fn find(
    connection: &mut Connection<'_>,
    (mesh_id, member_id): (&MeshId, &MemberId),
    by: By,
    text: &str,
) -> sqlx::Result<Option<Seen>> {
    const BY_ID: Sql = seen!("id");
    const BY_NAME: Sql = seen!("name");
    let sql = match by {
        ById => BY_ID,
        ByName => BY_NAME,
    };
    let row = connection.row(sql, &[mesh_id.as_str().into(), text.into(), member_id.as_str().into()]).await?;
    let Some(row) = row else { return Ok(None) };
    let Some(role) = row.maybe_text(7)? else { return Ok(None) };
    Ok(Some(Seen {
        topic: read(&row)?,
        name: row.parsed(6)?,
        role: row.maybe_text(8)?.map(|_| row.parsed(8)).transpose()?,
        is_admin: role == MemberRole::Admin.as_str(),
        is_archived: row.maybe_int(5)?.is_some(),
    }))
}

fn read(row: &Row) -> sqlx::Result<Topic> {
    Ok(Topic {
        id: row.parsed(0)?,
        name: row.parsed(1)?,
        visibility: row.parsed(2)?,
        encrypted_key_pubkey: row.maybe_text(3)?,
        head_seq: row.int(4)?,
    })
}

/// Lets a member who asked for a topic of a name that is taken into the topic that has it.
async fn let_in(
    connection: &mut Connection<'_>,
    whose: (&MeshId, &MemberId),
    seen: Seen,
    now: Timestamp,
) -> sqlx::Result<TopicMade> {
    if seen.is_archived {
        return Ok(TopicMade::Archived);
    }
    if seen.role.is_none() {
        if seen.topic.visibility != Visibility::Public {
            return Ok(TopicMade::NotOpen);
        }
        join(connection, whose, &seen, TopicRole::Member, now).await?;
    }
    Ok(TopicMade::Found(seen.topic))
}

async fn insert(
    connection: &mut Connection<'_>,
    (mesh_id, member_id): (&MeshId, &MemberId),
    new: &NewTopic,
    now: Timestamp,
) -> Result<Topic, StoreError> {
    const TOPIC: Sql = sql!(
        "insert into topic (mesh_id, id, name, description, visibility, encrypted_key_pubkey, created_by_member_id, \
         created_at) values ($1, $2, $3, nullif($4, ''), $5, $6, $7, $8)"
    );
    let topic = Topic {
        id: TopicId::from_random(id::random()?),
        name: new.name.clone(),
        visibility: new.visibility,
        encrypted_key_pubkey: Some(new.key.encrypted_key_pubkey.clone()),
        head_seq: 0,
    };
    let values = [
        mesh_id.as_str().into(),
        topic.id.as_str().into(),
        topic.name.as_str().into(),
        new.description.as_deref().unwrap_or_default().into(),
        topic.visibility.as_str().into(),
        (&new.key.encrypted_key_pubkey).into(),
        member_id.as_str().into(),
        now.as_millis().into(),
    ];
    connection.execute(TOPIC, &values).await?;
    Ok(topic)
}

/// Makes the topic that every mesh has. It has no key until a member makes one.
pub(crate) async fn make_general(
    connection: &mut Connection<'_>,
    (mesh_id, member_id): (&MeshId, &MemberId),
    now: Timestamp,
) -> Result<(), StoreError> {
    const MAKE: Sql = sql!(
        "insert into topic (mesh_id, id, name, description, created_by_member_id, created_at) values ($1, $2, $3, $4, $5, $6)"
    );
    let topic_id = TopicId::from_random(id::random()?);
    let values = [
        mesh_id.as_str().into(),
        topic_id.as_str().into(),
        GENERAL.into(),
        "Everybody in the mesh".into(),
        member_id.as_str().into(),
        now.as_millis().into(),
    ];
    connection.execute(MAKE, &values).await?;
    Ok(enter(connection, (mesh_id, member_id), (&topic_id, TopicRole::Lead), now).await?)
}

/// Logs what a member did.
pub(crate) async fn record(
    connection: &mut Connection<'_>,
    (mesh_id, member_id): (&MeshId, &MemberId),
    (event, name, payload): (&'static str, &DisplayName, Json),
    now: Timestamp,
) -> sqlx::Result<()> {
    let entry = AuditEntry { mesh_id, event, actor: Some((member_id, Some(name))), payload };
    audit::record(connection, &entry, now).await
}
