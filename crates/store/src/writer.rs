//! The one connection that writes to a SQLite file, and a transaction on it.
//!
//! sqlx runs SQLite on a thread of its own, and a pool tests a connection each time that it comes back; a trip to that thread costs
//! as much as a small batch's inserts. So the connection is kept here, and a transaction saves trips: what needs no answer goes
//! with the next query, `begin` with the first one and `commit` with the last.

use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::locked_file::LockedFile;
use crate::sql::{self, Row, Sql, Value};

/// Takes the lock for writing at once: a transaction that reads first could fail to get it later.
const BEGIN: &str = "begin immediate";

/// When a commit is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syncing {
    /// By SQLite, within the commit.
    InCommit,
    /// By whoever committed, after it: the next transaction can go on meanwhile. Nothing of it may be said before that.
    AfterCommit,
}

impl Syncing {
    /// The statement that sets it. SQLite's "normal" leaves out only the sync of the commit: what a checkpoint needs is synced all the same.
    fn setting(self) -> &'static str {
        match self {
            Self::InCommit => "pragma synchronous = full",
            Self::AfterCommit => "pragma synchronous = normal",
        }
    }
}

/// The connection that writes; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    file: Arc<LockedFile>,
    options: Arc<SqliteConnectOptions>,
    patience: Duration,
    place: Arc<Mutex<Place>>,
}

#[derive(Debug, Default)]
struct Place {
    connection: Option<SqliteConnection>,
    /// The last transaction did not end: it failed, or nobody waited for it any more.
    is_open: bool,
    /// How the connection is set, as far as that is known.
    syncing: Option<Syncing>,
}

/// A transaction. Dropped without a commit, it is rolled back, at the latest before the next one begins.
#[derive(Debug)]
pub(crate) struct SqliteTx {
    file: Arc<LockedFile>,
    /// Given up only at the very end.
    place: Option<OwnedMutexGuard<Place>>,
    later: Later,
    syncing: Syncing,
    /// Its commit went with its last query.
    is_committed: bool,
}

/// A commit that may not be on the disk yet.
#[derive(Debug, Default)]
#[must_use = "nothing of it may be said before it is synced"]
pub(crate) struct Unsynced(Option<Arc<LockedFile>>);

impl Unsynced {
    pub(crate) fn is_synced(&self) -> bool {
        self.0.is_none()
    }

    /// Returns once this commit is on the disk, and all before it.
    pub(crate) async fn sync(self) -> sqlx::Result<()> {
        match self.0 {
            Some(file) => file.sync_wal().await,
            None => Ok(()),
        }
    }
}

/// Statements that wait for the next trip.
#[derive(Debug, Default)]
struct Later {
    text: String,
    values: Vec<Owned>,
}

#[derive(Debug)]
enum Owned {
    Int(i64),
    Text(String),
}

impl Writer {
    /// `patience` is how long a call waits for its turn.
    pub(crate) async fn open(
        file: Arc<LockedFile>,
        options: SqliteConnectOptions,
        patience: Duration,
    ) -> sqlx::Result<Self> {
        let place = Place { connection: Some(options.connect().await?), ..Place::default() };
        Ok(Self { file, options: Arc::new(options), patience, place: Arc::new(Mutex::new(place)) })
    }

    pub(crate) async fn begin(&self, syncing: Syncing) -> sqlx::Result<SqliteTx> {
        self.file.writable()?;
        let mut place = self.turn().await?;
        place.ready(&self.options).await?;
        place.set(syncing).await?;
        let later = Later { text: BEGIN.to_owned(), values: Vec::new() };
        Ok(SqliteTx { file: Arc::clone(&self.file), place: Some(place), later, syncing, is_committed: false })
    }

    /// Does something with the connection outside a transaction, while nobody writes.
    pub(crate) async fn alone<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        let mut place = self.turn().await?;
        self.file.syncing(work(place.ready(&self.options).await?)).await
    }

    pub(crate) async fn close(&self) -> sqlx::Result<()> {
        match self.place.lock().await.connection.take() {
            Some(connection) => connection.close().await,
            None => Ok(()),
        }
    }

    async fn turn(&self) -> sqlx::Result<OwnedMutexGuard<Place>> {
        let turn = tokio::time::timeout(self.patience, Arc::clone(&self.place).lock_owned());
        turn.await.map_err(|_| sqlx::Error::PoolTimedOut)
    }
}

impl Place {
    /// Ends what was left open. A full disk makes SQLite roll back by itself, and a connection may be beyond help: one that cannot
    /// roll back is replaced.
    async fn roll_back(&mut self) {
        let rolled_back = match &mut self.connection {
            Some(connection) => sqlx::query("rollback").execute(connection).await.is_ok(),
            None => false,
        };
        if !rolled_back {
            self.connection = None;
        }
        self.is_open = false;
    }

    /// A trip of its own, and a statement that is not kept: SQLite obeys this one while it compiles it.
    async fn set(&mut self, syncing: Syncing) -> sqlx::Result<()> {
        if self.syncing.take() != Some(syncing) {
            let connection = self.connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
            sqlx::raw_sql(syncing.setting()).execute(connection).await?;
        }
        self.syncing = Some(syncing);
        Ok(())
    }

    /// A connection without a transaction.
    async fn ready(&mut self, options: &SqliteConnectOptions) -> sqlx::Result<&mut SqliteConnection> {
        if self.is_open {
            self.roll_back().await;
        }
        let connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            self.syncing = None;
            options.connect().await?
        };
        Ok(self.connection.insert(connection))
    }
}

impl SqliteTx {
    /// Runs a statement with the next query, or with the commit.
    pub(crate) fn later(&mut self, sql: Sql, values: &[Value<'_>]) {
        self.later.push(sql.sqlite, values);
    }

    /// Runs a statement; how many rows it touched.
    pub(crate) async fn execute(&mut self, sql: Sql, values: &[Value<'_>]) -> sqlx::Result<u64> {
        self.flush().await?;
        let file = Arc::clone(&self.file);
        let query = sql::sqlite(sql.sqlite, values);
        Ok(file.syncing(query.execute(self.connection()?)).await?.rows_affected())
    }

    /// All rows of a query.
    pub(crate) async fn rows(&mut self, sql: Sql, values: &[Value<'_>]) -> sqlx::Result<Vec<Row>> {
        self.later.push(sql.sqlite, values);
        self.flush().await
    }

    /// All rows of the last query of the transaction, which is committed with it.
    pub(crate) async fn last_rows(&mut self, sql: Sql, values: &[Value<'_>]) -> sqlx::Result<Vec<Row>> {
        self.later.push(sql.sqlite, values);
        self.later.push("commit", &[]);
        let rows = self.flush().await?;
        self.place()?.is_open = false;
        self.is_committed = true;
        Ok(rows)
    }

    /// Commits. What is returned is still to be done, when there is something.
    pub(crate) async fn commit(mut self) -> sqlx::Result<Unsynced> {
        if !self.is_committed {
            self.later.push("commit", &[]);
            self.flush().await?;
            self.place()?.is_open = false;
        }
        Ok(Unsynced((self.syncing == Syncing::AfterCommit).then(|| Arc::clone(&self.file))))
    }

    /// The rows of what was to be run later; only a query that was put last has some.
    async fn flush(&mut self) -> sqlx::Result<Vec<Row>> {
        let Later { text, values } = std::mem::take(&mut self.later);
        if text.is_empty() {
            return Ok(Vec::new());
        }
        self.place()?.is_open = true;
        let values: Vec<Value<'_>> = values
            .iter()
            .map(|value| match value {
                Owned::Int(value) => Value::Int(*value),
                Owned::Text(value) => Value::Text(value),
            })
            .collect();
        // Constants one after the other: nothing from outside is ever part of them.
        let query = sql::sqlite(AssertSqlSafe(text), &values);
        let file = Arc::clone(&self.file);
        let rows = file.syncing(query.fetch_all(self.connection()?)).await?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    fn connection(&mut self) -> sqlx::Result<&mut SqliteConnection> {
        self.place()?.connection.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    fn place(&mut self) -> sqlx::Result<&mut Place> {
        self.place.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }
}

impl Drop for SqliteTx {
    /// Others may want to write to the file: a transaction that failed does not stay open until the next one.
    fn drop(&mut self) {
        if let Some(mut place) = self.place.take().filter(|place| place.is_open)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move { place.roll_back().await });
        }
    }
}

impl Later {
    fn push(&mut self, sql: &str, values: &[Value<'_>]) {
        if !self.text.is_empty() {
            self.text.push_str("; ");
        }
        let mut parts = sql.split('$');
        self.text.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, rest) = part.split_at(digits);
            let number = number.parse::<usize>().map_or(0, |number| number + self.values.len());
            self.text.push('$');
            self.text.push_str(&number.to_string());
            self.text.push_str(rest);
        }
        self.values.extend(values.iter().map(|value| match value {
            Value::Int(value) => Owned::Int(*value),
            Value::Text(value) => Owned::Text((*value).to_owned()),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_on() {
        let mut later = Later { text: BEGIN.into(), values: Vec::new() };
        later.push("a $1 b $2 $1", &[1.into(), "x".into()]);
        later.push("c $1, $12", &[2.into()]);
        later.push("commit", &[]);
        assert_eq!(later.text, "begin immediate; a $1 b $2 $1; c $3, $14; commit");
        assert_eq!(later.values.len(), 3);
    }
}
