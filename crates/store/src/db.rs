//! Opening the databases, and the two ways to use one: [`Db::read`] and [`Db::write`].

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, PgPool, Postgres, Sqlite, SqlitePool, Transaction};
use tokio::sync::watch;

use crate::database_url::DatabaseUrl;
use crate::error::OpenError;
use crate::locked_file::LockedFile;
use crate::sql::{Connection, Row, Sql, Value, sql};
use crate::writer::{SqliteTx, Syncing, Unsynced, Writer};

/// How long a checkpoint waits for readers, and so the journal for it; well below [`ACQUIRE_TIMEOUT`].
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections that only read, per SQLite database.
const SQLITE_READERS: u32 = 4;
/// Connections to PostgreSQL of one broker: its journal writers, and reads.
const POSTGRES_CONNECTIONS: u32 = 16;
/// How long a call waits for a free or new connection. Clients wait 10 s for an ack, so an outage must show well before.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// Every statement of ours finds its rows by an index. A plan made while a table was small would read
/// all of it, and is kept until statistics are next taken, which may be a million rows later.
const PLANNER: &str = "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; \
     set enable_material = off; set enable_bitmapscan = off; set jit = off";

/// An open database. SQLite has exactly one connection that writes.
#[derive(Debug, Clone)]
pub(crate) enum Db {
    Sqlite { writer: Writer, reader: SqlitePool, checkpointer: SqlitePool, file: Arc<LockedFile> },
    Postgres(PgPool),
}

/// A transaction that writes. Dropped without [`Tx::commit`], it is rolled back.
#[derive(Debug)]
pub(crate) enum Tx {
    Sqlite(SqliteTx),
    Postgres(Transaction<'static, Postgres>),
}

/// A pooled connection that reads.
#[derive(Debug)]
pub(crate) enum Reader {
    Sqlite(sqlx::pool::PoolConnection<Sqlite>),
    Postgres(sqlx::pool::PoolConnection<Postgres>),
}

impl Db {
    /// Opens the database, checks that its commits are synced, and brings its tables up to date.
    pub(crate) async fn open(url: &DatabaseUrl) -> Result<Self, OpenError> {
        match url {
            DatabaseUrl::Sqlite(path) => open_sqlite(path).await,
            DatabaseUrl::Postgres(url) => open_postgres(url).await,
        }
    }

    pub(crate) async fn write(&self) -> sqlx::Result<Tx> {
        self.begin(Syncing::InCommit).await
    }

    /// A transaction of which nothing may be said before what its commit returns is done. PostgreSQL syncs in its commits.
    pub(crate) async fn begin(&self, syncing: Syncing) -> sqlx::Result<Tx> {
        Ok(match self {
            Self::Sqlite { writer, .. } => Tx::Sqlite(writer.begin(syncing).await?),
            Self::Postgres(pool) => Tx::Postgres(begin_postgres(pool).await?),
        })
    }

    pub(crate) async fn read(&self) -> sqlx::Result<Reader> {
        Ok(match self {
            Self::Sqlite { reader, .. } => Reader::Sqlite(reader.acquire().await?),
            Self::Postgres(pool) => {
                let mut connection = pool.acquire().await?;
                while connection.ping().await.is_err() {
                    connection.close_on_drop();
                    connection = pool.acquire().await?;
                }
                Reader::Postgres(connection)
            }
        })
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Says why a sync failed, whoever asked for it. PostgreSQL sees to its own: it crashes and recovers.
    pub(crate) fn failed_sync(&self) -> watch::Sender<Option<String>> {
        match self {
            Self::Sqlite { file, .. } => file.failed_sync(),
            Self::Postgres(_) => watch::Sender::new(None),
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite { writer, reader, checkpointer, file } => {
                reader.close().await;
                checkpointer.close().await;
                if let Err(error) = writer.close().await {
                    tracing::warn!(error = %error, "the database was not closed cleanly; its next start puts it right");
                }
                file.unlock();
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Tx {
    pub(crate) fn connection(&mut self) -> Connection<'_> {
        match self {
            Self::Sqlite(tx) => Connection::SqliteTx(tx),
            Self::Postgres(tx) => Connection::Postgres(tx),
        }
    }

    /// The last query of the transaction. SQLite commits in the same trip; [`Tx::commit`] is still to be called.
    pub(crate) async fn last_rows(&mut self, sql: Sql, values: &[Value<'_>]) -> sqlx::Result<Vec<Row>> {
        match self {
            Self::Sqlite(tx) => {
                #[cfg(test)]
                crate::plans::note(sql);
                tx.last_rows(sql, values).await
            }
            Self::Postgres(tx) => Connection::Postgres(tx).rows(sql, values).await,
        }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Returns once the commit is synced. On SQLite it may fail for what was left to be run with it.
    pub(crate) async fn commit(self) -> sqlx::Result<()> {
        self.commit_unsynced().await?.sync().await
    }

    /// The same, but for the sync of a transaction that was begun so.
    pub(crate) async fn commit_unsynced(self) -> sqlx::Result<Unsynced> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await.map(|()| Unsynced::default()),
        }
    }
}

impl Reader {
    pub(crate) fn connection(&mut self) -> Connection<'_> {
        match self {
            Self::Sqlite(connection) => Connection::Sqlite(connection),
            Self::Postgres(connection) => Connection::Postgres(connection),
        }
    }
}

/// Begins on a connection that lives. One after the other may turn out dead when the server was away.
async fn begin_postgres(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    for _ in 0..POSTGRES_CONNECTIONS {
        match pool.begin().await {
            Err(error) if !matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) => {
                tracing::debug!(error = %error, "a connection to PostgreSQL was dead");
            }
            outcome => return outcome,
        }
    }
    pool.begin().await
}

async fn open_sqlite(path: &Path) -> Result<Db, OpenError> {
    let at = |source| OpenError::Open { what: path.display().to_string(), source };
    let file = Arc::new(LockedFile::open(path)?);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // The journal checkpoints on a connection of its own, never inside a commit.
        .pragma("wal_autocheckpoint", "0")
        // macOS answers fsync before the disk has the data; this asks for the real thing, and is nothing elsewhere.
        .pragma("fullfsync", "1")
        .pragma("temp_store", "2")
        .pragma("cache_size", "-16384")
        .statement_cache_capacity(64);
    let pool = |connections: u32| {
        SqlitePoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
    };
    let mut migrating = options.connect().await.map_err(at)?;
    sqlx::migrate!("migrations/sqlite").run(&mut migrating).await.map_err(OpenError::Migrate)?;
    migrating.close().await.map_err(at)?;
    let writer = Writer::open(Arc::clone(&file), options.clone(), ACQUIRE_TIMEOUT).await.map_err(at)?;
    let readers = options.clone().pragma("query_only", "1").pragma("cache_size", "-2048");
    let reader = pool(SQLITE_READERS).connect_lazy_with(readers);
    let checkpointer = pool(1).connect_lazy_with(options.pragma("cache_size", "-512"));
    let db = Db::Sqlite { writer, reader, checkpointer, file };
    require(&db, &[("pragma journal_mode", &["wal"]), ("pragma synchronous", &["2", "3"])]).await?;
    Ok(db)
}

async fn open_postgres(url: &str) -> Result<Db, OpenError> {
    // The address may hold a password: it is never part of an error.
    let at = |source| OpenError::Open { what: "PostgreSQL (DATABASE_URL)".into(), source };
    let options = PgConnectOptions::from_str(url).map_err(at)?.statement_cache_capacity(64);
    // One connection first: a pool only ever says that it timed out.
    let first = PgConnection::connect_with(&options).await.map_err(at)?;
    first.close().await.map_err(at)?;
    let pool = PgPoolOptions::new()
        .max_connections(POSTGRES_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // Whether a connection lives is asked by a read, and shows when a transaction begins: asking before every batch would be a
        // round trip more.
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(async move { sqlx::raw_sql(PLANNER).execute(connection).await.map(drop) })
        })
        .connect_with(options)
        .await
        .map_err(at)?;
    sqlx::migrate!("migrations/postgres").run(&pool).await.map_err(OpenError::Migrate)?;
    let db = Db::Postgres(pool);
    let synced: &[&str] = &["on", "remote_apply"];
    require(&db, &[("show fsync", &["on"]), ("show synchronous_commit", synced), ("show full_page_writes", &["on"])])
        .await?;
    Ok(db)
}

/// A broker that says "kept" must be on a database that keeps: anything else stops the start.
async fn require(db: &Db, settings: &[(&'static str, &[&str])]) -> Result<(), OpenError> {
    let at = |source| OpenError::Open { what: "the database's settings".into(), source };
    for (query, allowed) in settings {
        let sql = Sql { sqlite: query, postgres: query };
        let row = match db {
            // The writer's settings are the ones that matter.
            Db::Sqlite { writer, .. } => {
                writer.alone(async |connection| Connection::Sqlite(connection).row(sql, &[]).await).await
            }
            Db::Postgres(_) => db.read().await.map_err(at)?.connection().row(sql, &[]).await,
        };
        let row = row.map_err(at)?;
        let value = row.map(|row| row.text(0).or_else(|_| row.int(0).map(|value| value.to_string())));
        let value = value.transpose().map_err(at)?.unwrap_or_default();
        if !allowed.contains(&value.as_str()) {
            return Err(OpenError::NotDurable { setting: query, value, allowed: allowed.join(" or ") });
        }
    }
    Ok(())
}

/// Used by health checks: answers when the database does.
pub(crate) const PING: Sql = sql!("select 1");
