//! The ground a case stands on: a new database, a clock it can move, and the rings it has heard.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claudemesh_proto::Timestamp;
use claudemesh_store::{Clock, DatabaseUrl, OpenError, Options, Ring, Store};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use tempfile::TempDir;

/// Generates `sqlite::name` and `postgres::name` for each `async fn name(ground: &Ground)` of the module.
macro_rules! on_both {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => {
        mod sqlite {
            $($(#[$attribute])* #[tokio::test] async fn $name() {
                Box::pin(super::$name(&$crate::ground::Ground::sqlite())).await;
            })*
        }
        mod postgres {
            $($(#[$attribute])* #[tokio::test] async fn $name() {
                Box::pin(super::$name(&$crate::ground::Ground::postgres().await)).await;
            })*
        }
    };
}

/// A case's own database, clock and bell.
pub(crate) struct Ground {
    place: Place,
    offset: Arc<AtomicI64>,
    rings: Arc<Mutex<Vec<Ring>>>,
}

enum Place {
    Sqlite(TempDir),
    Postgres(Box<PostgresDatabase>),
}

struct PostgresDatabase {
    cluster: PgConnectOptions,
    url: String,
    name: String,
}

/// How long a message waits in these tests: what operators get by default.
pub(crate) const TTL: Duration = Duration::from_hours(7 * 24);

impl Ground {
    pub(crate) fn sqlite() -> Self {
        Self::new(Place::Sqlite(tempfile::tempdir().unwrap()))
    }

    pub(crate) async fn postgres() -> Self {
        let url = std::env::var("CLAUDEMESH_TEST_POSTGRES").unwrap_or_else(|_| {
            panic!(
                "this test needs PostgreSQL: run `cargo xtask test`, which starts one and sets CLAUDEMESH_TEST_POSTGRES"
            )
        });
        let name = format!("store_{}_{:016x}", std::process::id(), u64::from_le_bytes(random()));
        let cluster = PgConnectOptions::from_str(&url).unwrap();
        let mut connection = cluster.connect().await.unwrap();
        sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let (server, _) = url.rsplit_once('/').unwrap();
        let url = format!("{server}/{name}");
        Self::new(Place::Postgres(Box::new(PostgresDatabase { cluster, url, name })))
    }

    fn new(place: Place) -> Self {
        Self { place, offset: Arc::default(), rings: Arc::default() }
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self.place, Place::Postgres(_))
    }

    pub(crate) fn url(&self) -> DatabaseUrl {
        match &self.place {
            Place::Sqlite(directory) => DatabaseUrl::Sqlite(directory.path().join("broker.db")),
            Place::Postgres(database) => DatabaseUrl::Postgres(database.url.clone()),
        }
    }

    /// The SQLite file.
    pub(crate) fn file(&self) -> PathBuf {
        match self.url() {
            DatabaseUrl::Sqlite(path) => path,
            DatabaseUrl::Postgres(_) => panic!("PostgreSQL keeps no file of ours"),
        }
    }

    /// The name of the PostgreSQL database.
    pub(crate) fn name(&self) -> &str {
        match &self.place {
            Place::Sqlite(_) => panic!("a SQLite database has no name"),
            Place::Postgres(database) => &database.name,
        }
    }

    pub(crate) async fn open(&self) -> Store {
        self.try_open("alpha").await.unwrap()
    }

    pub(crate) async fn open_as(&self, node: &str) -> Store {
        self.try_open(node).await.unwrap()
    }

    pub(crate) async fn try_open(&self, node: &str) -> Result<Store, OpenError> {
        Store::open(self.options(node)).await
    }

    pub(crate) fn options(&self, node: &str) -> Options {
        let (offset, rings) = (Arc::clone(&self.offset), Arc::clone(&self.rings));
        let (system, frozen) = (Clock::system(), Timestamp::from_millis(1_800_000_000_000));
        let is_postgres = self.is_postgres();
        Options {
            url: self.url(),
            node: node.to_owned(),
            message_ttl: TTL,
            clock: Clock::from_fn(move || {
                // PostgreSQL tells the time itself, and what we ask the process for has to agree with it.
                let base = if is_postgres { system.now() } else { frozen };
                Timestamp::from_millis(base.as_millis() + offset.load(Ordering::Relaxed))
            }),
            bell: Arc::new(move |heard| rings.lock().unwrap().extend_from_slice(heard)),
        }
    }

    /// The time that the store sees.
    pub(crate) fn now(&self) -> Timestamp {
        self.options("").clock.now()
    }

    /// Lets time pass: moves the clock on SQLite, and everything that is dated into the past on PostgreSQL.
    pub(crate) async fn pass(&self, duration: Duration) {
        let millis = i64::try_from(duration.as_millis()).unwrap();
        if !self.is_postgres() {
            // A clock that stands still otherwise: what ends after this duration is to have ended.
            self.offset.fetch_add(millis + 1, Ordering::Relaxed);
            return;
        }
        for (table, column) in DATED {
            self.sql(&format!("update {table} set {column} = {column} - {millis}")).await;
        }
    }

    /// Removes what earlier meshes have left on PostgreSQL, where [`Ground::pass`] would touch all of it.
    pub(crate) async fn empty(&self) {
        if self.is_postgres() {
            for (table, _) in DATED {
                self.sql(&format!("delete from {table}")).await;
            }
        }
    }

    /// What was rung since the last time this was asked.
    pub(crate) fn rings(&self) -> Vec<Ring> {
        std::mem::take(&mut *self.rings.lock().unwrap())
    }

    /// Runs a statement beside the store.
    pub(crate) async fn sql(&self, text: &str) {
        self.try_sql(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    }

    pub(crate) async fn try_sql(&self, text: &str) -> sqlx::Result<()> {
        let query = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
        match &self.place {
            Place::Sqlite(_) => {
                let mut connection = self.sqlite_options().connect().await?;
                let done = query.execute(&mut connection).await.map(drop);
                // One that is dropped stays open for a moment, and in the way of who wants the file alone.
                connection.close().await?;
                done
            }
            Place::Postgres(database) => query.execute(&mut database.connect().await).await.map(drop),
        }
    }

    /// Every row of a query, each as its columns in one text.
    pub(crate) async fn rows(&self, text: &str) -> Vec<String> {
        let query = AssertSqlSafe(text.to_owned());
        match &self.place {
            Place::Sqlite(_) => {
                let mut connection = self.sqlite_options().connect().await.unwrap();
                let rows = sqlx::query(query).fetch_all(&mut connection).await.unwrap();
                connection.close().await.unwrap();
                rows.iter().map(|row| line(row.columns().len(), |column| sqlite_text(row, column))).collect()
            }
            Place::Postgres(database) => {
                let mut connection = database.connect().await;
                let rows = sqlx::query(query).fetch_all(&mut connection).await.unwrap();
                rows.iter().map(|row| line(row.columns().len(), |column| postgres_text(row, column))).collect()
            }
        }
    }

    /// The number that a query answers with.
    pub(crate) async fn number(&self, text: &str) -> i64 {
        self.rows(text).await.first().unwrap().parse().unwrap()
    }

    fn sqlite_options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new().filename(self.file()).busy_timeout(Duration::from_secs(5))
    }
}

impl PostgresDatabase {
    async fn connect(&self) -> sqlx::PgConnection {
        PgConnectOptions::from_str(&self.url).unwrap().connect().await.unwrap()
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        let (cluster, name) = (self.cluster.clone(), self.name.clone());
        // A runtime of its own: the test's may be ending, by a panic too.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = cluster.connect().await.unwrap();
                let drop = AssertSqlSafe(format!("drop database {name} with (force)"));
                sqlx::query(drop).execute(&mut connection).await.unwrap();
            });
        });
        assert!(dropping.join().is_ok() || std::thread::panicking(), "the test's database could not be dropped");
    }
}

/// What [`Ground::pass`] moves.
const DATED: [(&str, &str); 7] = [
    ("delivery", "claim_until"),
    ("handshake", "accepted_at"),
    ("invite", "expires_at"),
    ("member", "last_seen_at"),
    ("message", "created_at"),
    ("session", "last_seen_at"),
    ("session", "proven_at"),
];

fn line(columns: usize, text: impl Fn(usize) -> String) -> String {
    (0..columns).map(text).collect::<Vec<_>>().join(" | ")
}

fn sqlite_text(row: &SqliteRow, column: usize) -> String {
    let text = row.try_get::<Option<String>, _>(column).map(|text| text.unwrap_or_else(|| "null".into()));
    text.unwrap_or_else(|_| row.get::<i64, _>(column).to_string())
}

fn postgres_text(row: &PgRow, column: usize) -> String {
    let text = row.try_get::<Option<String>, _>(column).map(|text| text.unwrap_or_else(|| "null".into()));
    text.unwrap_or_else(|_| row.get::<i64, _>(column).to_string())
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}
