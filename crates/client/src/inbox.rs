//! The local inbox: one SQLite file per mesh, in which a message is before the broker is told that we have it.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use claudemesh_proto::message::Push;
use claudemesh_proto::text::one_line;
use claudemesh_proto::{DisplayName, MeshId, MessageId, Priority, PublicKey, Timestamp};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Row, Sqlite, Transaction};

use crate::cipher::Body;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::private_file;
use crate::resolve::{is_same_name, key_prefix};

/// The inbox of one mesh.
#[derive(Debug, Clone)]
pub struct Inbox {
    path: PathBuf,
    pool: SqlitePool,
}

/// One message in the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxMessage {
    /// The message.
    pub message_id: MessageId,
    /// The key it was sealed with.
    pub sender_pubkey: String,
    /// The sending member's key, as the broker says.
    pub sender_member_pubkey: Option<PublicKey>,
    /// The sender's name at the time, as the broker says.
    pub sender_name: Option<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// When the broker accepted it.
    pub sent_at: Timestamp,
    /// When it came here.
    pub received_at: Timestamp,
    /// The name of the topic that it was written in, as the broker says.
    pub topic: Option<String>,
    /// Whether it mentions us, as its sender says.
    pub mentions_us: bool,
    /// What it says.
    pub body: Body,
}

impl InboxMessage {
    /// What was handed over and opened, to one of this name.
    pub fn of(push: &Push, own_name: &DisplayName, body: Body, now: Timestamp) -> Self {
        Self {
            message_id: push.message_id.clone(),
            sender_pubkey: push.sender_pubkey.clone(),
            sender_member_pubkey: push.sender_member_pubkey,
            sender_name: push.sender_name.as_ref().map(ToString::to_string),
            priority: push.priority,
            sent_at: push.created_at,
            received_at: now,
            topic: push.topic.clone(),
            mentions_us: push.mentions.iter().any(|name| is_same_name(name, own_name.as_str())),
            body,
        }
    }

    /// The sender's name, or the beginning of the key when there is none.
    pub fn sender(&self) -> String {
        self.sender_name.as_deref().map_or_else(|| key_prefix(&self.sender_pubkey), one_line)
    }
}

impl Inbox {
    /// Opens the inbox of a mesh, creating it when it is missing.
    ///
    /// # Errors
    /// [`Error::TooOpen`] when others may read it, [`Error::BadFile`] when it is another mesh's, [`Error::Inbox`] when SQLite
    /// cannot.
    pub async fn open(home: &Home, mesh: &MeshId) -> Result<Self> {
        home.make()?;
        let path = home.inbox_path(mesh);
        // SQLite gives its other files the mode of this one.
        private_file::touch(&path)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
        let inbox = Self { pool: pool.map_err(failed(&path))?, path };
        inbox.prepare(mesh).await?;
        Ok(inbox)
    }

    /// Keeps what is not there yet, in one synced transaction, and returns that. Nothing is kept when it fails.
    pub async fn store(&self, messages: Vec<InboxMessage>) -> Result<Vec<InboxMessage>> {
        let stored = async {
            let mut transaction = self.pool.begin_with("begin immediate").await?;
            let mut new = Vec::new();
            for message in messages {
                if insert(&mut transaction, &message).await? {
                    new.push(message);
                }
            }
            transaction.commit().await.map(|()| new)
        };
        stored.await.map_err(failed(&self.path))
    }

    /// What nobody was shown yet, in the order of arrival.
    pub async fn unshown(&self) -> Result<Vec<InboxMessage>> {
        let rows = sqlx::query("select * from letter where shown_at is null order by position").fetch_all(&self.pool);
        self.messages(&rows.await.map_err(failed(&self.path))?)
    }

    /// The last `limit` messages, in the order of arrival.
    pub async fn latest(&self, limit: u32) -> Result<Vec<InboxMessage>> {
        let rows =
            sqlx::query("select * from (select * from letter order by position desc limit $1) order by position")
                .bind(limit)
                .fetch_all(&self.pool);
        self.messages(&rows.await.map_err(failed(&self.path))?)
    }

    /// Notes that these were shown.
    pub async fn mark_shown(&self, messages: &[InboxMessage], now: Timestamp) -> Result<()> {
        let marked = async {
            let mut transaction = self.pool.begin_with("begin immediate").await?;
            for message in messages {
                sqlx::query("update letter set shown_at = $1 where message_id = $2 and shown_at is null")
                    .bind(now.as_millis())
                    .bind(message.message_id.as_str())
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await
        };
        marked.await.map_err(failed(&self.path))
    }

    /// Closes the file, so that nothing but it remains.
    pub async fn close(self) {
        self.pool.close().await;
    }

    async fn prepare(&self, mesh: &MeshId) -> Result<()> {
        let prepared = async {
            let mut transaction = self.pool.begin_with("begin immediate").await?;
            let version: i64 = sqlx::query_scalar("pragma user_version").fetch_one(&mut *transaction).await?;
            if version > 5 {
                return Ok(Err(format!("its schema is version {version}, this program knows 5")));
            }
            if version == 0 {
                sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await?;
            }
            if version < 2 {
                sqlx::raw_sql(SCHEMA_2).execute(&mut *transaction).await?;
                sqlx::query("insert into mesh (mesh_id) values ($1)")
                    .bind(mesh.as_str())
                    .execute(&mut *transaction)
                    .await?;
            }
            if version < 3 {
                sqlx::raw_sql(SCHEMA_3).execute(&mut *transaction).await?;
            }
            if version < 4 {
                sqlx::raw_sql(SCHEMA_4).execute(&mut *transaction).await?;
            }
            if version < 5 {
                sqlx::raw_sql(SCHEMA_5).execute(&mut *transaction).await?;
            }
            let owner: String = sqlx::query_scalar("select mesh_id from mesh").fetch_one(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(if owner == mesh.as_str() { Ok(()) } else { Err(format!("it belongs to mesh {owner}, not to {mesh}")) })
        };
        let prepared = prepared.await.map_err(failed(&self.path))?;
        prepared.map_err(|why| Error::BadFile { path: self.path.clone(), why })
    }

    fn messages(&self, rows: &[SqliteRow]) -> Result<Vec<InboxMessage>> {
        rows.iter().map(message).collect::<Result<_, _>>().map_err(failed(&self.path))
    }
}

async fn insert(transaction: &mut Transaction<'_, Sqlite>, message: &InboxMessage) -> Result<bool, sqlx::Error> {
    let (text, nonce, ciphertext) = match &message.body {
        Body::Text(text) | Body::Plaintext(text) => (Some(text), None, None),
        Body::Unopened { nonce, ciphertext } => (None, Some(nonce), Some(ciphertext)),
    };
    let done = sqlx::query(
        "insert into letter (message_id, sender_pubkey, sender_member_pubkey, sender_name, priority, sent_at, received_at, \
         body, nonce, ciphertext, is_plaintext, topic, mentions_us) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) on conflict do nothing",
    )
    .bind(message.message_id.as_str())
    .bind(&message.sender_pubkey)
    .bind(message.sender_member_pubkey.map(|key| key.to_string()))
    .bind(&message.sender_name)
    .bind(message.priority.as_str())
    .bind(message.sent_at.as_millis())
    .bind(message.received_at.as_millis())
    .bind(text)
    .bind(nonce)
    .bind(ciphertext)
    .bind(matches!(message.body, Body::Plaintext(_)))
    .bind(&message.topic)
    .bind(message.mentions_us)
    .execute(&mut **transaction)
    .await?;
    Ok(done.rows_affected() == 1)
}

fn message(row: &SqliteRow) -> Result<InboxMessage, sqlx::Error> {
    let body = match row.try_get::<Option<String>, _>("body")? {
        Some(text) if row.try_get("is_plaintext")? => Body::Plaintext(text),
        Some(text) => Body::Text(text),
        None => Body::Unopened { nonce: row.try_get("nonce")?, ciphertext: row.try_get("ciphertext")? },
    };
    let member = row.try_get::<Option<String>, _>("sender_member_pubkey")?;
    Ok(InboxMessage {
        message_id: parse(row.try_get("message_id")?)?,
        sender_pubkey: row.try_get("sender_pubkey")?,
        sender_member_pubkey: member.map(|key| parse(&key)).transpose()?,
        sender_name: row.try_get("sender_name")?,
        priority: parse(row.try_get("priority")?)?,
        sent_at: Timestamp::from_millis(row.try_get("sent_at")?),
        received_at: Timestamp::from_millis(row.try_get("received_at")?),
        topic: row.try_get("topic")?,
        mentions_us: row.try_get("mentions_us")?,
        body,
    })
}

fn parse<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(text: &str) -> Result<T, sqlx::Error> {
    text.parse().map_err(|why| sqlx::Error::Decode(Box::new(why)))
}

fn failed(path: &Path) -> impl FnOnce(sqlx::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Inbox { path, source }
}

/// Either `body` is there, or `nonce` and `ciphertext` are. `position` is the order of arrival.
const SCHEMA: &str = "
create table letter (
    position integer primary key,
    message_id text not null unique,
    sender_pubkey text not null,
    sender_member_pubkey text,
    sender_name text,
    priority text not null,
    sent_at integer not null,
    received_at integer not null,
    shown_at integer,
    body text,
    nonce text,
    ciphertext text,
    check ((body is null) = (nonce is not null and ciphertext is not null))
) strict;
create index letter_unshown on letter (position) where shown_at is null;
pragma user_version = 1;
";

/// Whose inbox it is, one row: ids that differ only in letter case are one file on some disks.
const SCHEMA_2: &str = "
create table mesh (mesh_id text not null) strict;
pragma user_version = 2;
";

/// Until then, nothing that was not sealed was kept as a text.
const SCHEMA_3: &str = "
alter table letter add column is_plaintext integer not null default 0;
pragma user_version = 3;
";

/// Until then, nothing said what topic a message was written in.
const SCHEMA_4: &str = "
alter table letter add column topic text;
pragma user_version = 4;
";

/// Until then, nothing said whom a message mentions.
const SCHEMA_5: &str = "
alter table letter add column mentions_us integer not null default 0;
pragma user_version = 5;
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn message(number: u64, body: Body) -> InboxMessage {
        InboxMessage {
            message_id: MessageId::new(number, [1; 24]),
            sender_pubkey: "ab".repeat(32),
            sender_member_pubkey: Some(PublicKey::from_bytes([1; 32])),
            sender_name: Some("Anna".into()),
            priority: Priority::Now,
            sent_at: Timestamp::from_millis(1),
            received_at: Timestamp::from_millis(2),
            topic: Some("general".into()),
            mentions_us: true,
            body,
        }
    }

    async fn inbox() -> (tempfile::TempDir, Home, Inbox) {
        let (dir, home) = samples::home();
        let inbox = Inbox::open(&home, &MeshId::from_random([1; 32])).await.unwrap();
        (dir, home, inbox)
    }

    #[tokio::test]
    async fn a_redelivery_is_kept_once_and_what_was_kept_reads_back() {
        let (_dir, home, inbox) = inbox().await;
        let text = message(1, Body::Text("hello".into()));
        let sealed = message(2, Body::Unopened { nonce: "n".into(), ciphertext: "c".into() });
        let both = vec![text.clone(), message(3, Body::Plaintext("to all".into())), sealed.clone()];
        assert_eq!(inbox.store(both.clone()).await.unwrap(), both);
        assert_eq!(inbox.store(both.clone()).await.unwrap(), []);
        inbox.close().await;
        let again = Inbox::open(&home, &MeshId::from_random([1; 32])).await.unwrap();
        assert_eq!(again.unshown().await.unwrap(), both);
        again.mark_shown(&[text], Timestamp::from_millis(3)).await.unwrap();
        assert_eq!(again.unshown().await.unwrap(), both[1..]);
        assert_eq!(again.latest(1).await.unwrap(), [sealed]);
        assert_eq!(again.latest(10).await.unwrap(), both);
    }

    #[tokio::test]
    async fn what_an_older_program_kept_is_there_and_was_sealed() {
        let (_dir, home, inbox) = inbox().await;
        sqlx::raw_sql(
            "alter table letter drop column is_plaintext; alter table letter drop column topic; \
             alter table letter drop column mentions_us; pragma user_version = 2;",
        )
        .execute(&inbox.pool)
        .await
        .unwrap();
        sqlx::raw_sql(
            "insert into letter (message_id, sender_pubkey, priority, sent_at, received_at, body) \
             values ('0123456789abcdefghijklmnopqrstuv', 'ab', 'next', 1, 2, 'from before')",
        )
        .execute(&inbox.pool)
        .await
        .unwrap();
        inbox.close().await;
        let again = Inbox::open(&home, &MeshId::from_random([1; 32])).await.unwrap();
        let kept = again.unshown().await.unwrap();
        assert_eq!(kept.iter().map(|one| &one.body).collect::<Vec<_>>(), [&Body::Text("from before".into())]);
        let new = vec![message(1, Body::Plaintext("to all".into()))];
        assert_eq!(again.store(new.clone()).await.unwrap(), new);
    }

    #[tokio::test]
    async fn the_file_of_another_mesh_is_refused() {
        let (_dir, home, inbox) = inbox().await;
        inbox.close().await;
        let (mine, other) = (MeshId::from_random([1; 32]), MeshId::from_random([2; 32]));
        std::fs::copy(home.inbox_path(&mine), home.inbox_path(&other)).unwrap();
        let refused = Inbox::open(&home, &other).await.map(drop);
        assert!(matches!(refused, Err(Error::BadFile { .. })), "{refused:?}");
        assert!(Inbox::open(&home, &mine).await.is_ok());
    }

    #[tokio::test]
    async fn all_its_files_are_private_and_an_open_one_is_refused() {
        use std::fs;
        use std::os::unix::fs::PermissionsExt;

        let (_dir, home, inbox) = inbox().await;
        inbox.store(vec![message(1, Body::Text("hello".into()))]).await.unwrap();
        let path = home.inbox_path(&MeshId::from_random([1; 32]));
        let mut seen = 0;
        for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
            seen += 1;
        }
        assert_eq!(seen, 3, "the database, its WAL and its index");
        inbox.close().await;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Inbox::open(&home, &MeshId::from_random([1; 32])).await, Err(Error::TooOpen { .. })));
    }
}
