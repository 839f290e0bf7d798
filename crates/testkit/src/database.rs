//! A database of a test's own, and a way to look into it beside the broker.

use std::path::Path;
use std::str::FromStr as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use claudemesh_store::DatabaseUrl;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file in the broker's data directory.
    Sqlite,
    /// A database in the cluster that `CLAUDEMESH_TEST_POSTGRES` names.
    Postgres,
}

/// Numbers the databases of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Where a test's broker keeps the truth; a PostgreSQL database is dropped with it.
#[derive(Debug)]
pub enum TestDatabase {
    /// The file.
    Sqlite(std::path::PathBuf),
    /// The database, and the cluster it is in.
    Postgres {
        /// The address of the database.
        url: String,
        /// The address it was made through.
        cluster: String,
        /// Its name.
        name: String,
    },
}

impl TestDatabase {
    /// Makes one.
    pub async fn make(kind: Kind, data_dir: &Path) -> Self {
        if kind == Kind::Sqlite {
            return Self::Sqlite(data_dir.join("broker.db"));
        }
        let cluster = cluster();
        let mut random = [0; 4];
        getrandom::fill(&mut random).unwrap();
        let (number, random) = (NEXT.fetch_add(1, Ordering::Relaxed), u32::from_le_bytes(random));
        let name = format!("mesh_{}_{number}_{random:08x}", std::process::id());
        let mut connection = PgConnectOptions::from_str(&cluster).unwrap().connect().await.unwrap();
        sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let (server, _) = cluster.rsplit_once('/').unwrap();
        Self::Postgres { url: format!("{server}/{name}"), cluster, name }
    }

    /// As the broker takes it.
    pub fn url(&self) -> DatabaseUrl {
        match self {
            Self::Sqlite(path) => DatabaseUrl::Sqlite(path.clone()),
            Self::Postgres { url, .. } => DatabaseUrl::Postgres(url.clone()),
        }
    }

    /// Runs a statement beside the broker.
    pub async fn sql(&self, text: &str) {
        let query = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
        let done = match self {
            Self::Sqlite(path) => query.execute(&mut sqlite(path).await).await.map(drop),
            Self::Postgres { url, .. } => query.execute(&mut postgres(url).await).await.map(drop),
        };
        done.unwrap_or_else(|error| panic!("{text}: {error}"));
    }

    /// The number that a query answers with.
    pub async fn number(&self, text: &str) -> i64 {
        let query = AssertSqlSafe(text.to_owned());
        let number = match self {
            Self::Sqlite(path) => sqlx::query_scalar(query).fetch_one(&mut sqlite(path).await).await,
            Self::Postgres { url, .. } => sqlx::query_scalar(query).fetch_one(&mut postgres(url).await).await,
        };
        number.unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// The text that a query answers with.
    pub async fn text(&self, text: &str) -> String {
        let query = AssertSqlSafe(text.to_owned());
        let found = match self {
            Self::Sqlite(path) => sqlx::query_scalar(query).fetch_one(&mut sqlite(path).await).await,
            Self::Postgres { url, .. } => sqlx::query_scalar(query).fetch_one(&mut postgres(url).await).await,
        };
        found.unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Every row of every table, as text on PostgreSQL; the file is all there is on SQLite.
    pub async fn dump(&self) -> Vec<u8> {
        match self {
            Self::Sqlite(path) => std::fs::read(path).unwrap(),
            Self::Postgres { .. } => self.text("select database_to_xml(true, false, '')::text").await.into_bytes(),
        }
    }
}

/// The PostgreSQL that the test command started, as the address of a database in it.
pub(crate) fn cluster() -> String {
    std::env::var("CLAUDEMESH_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!("this test needs PostgreSQL: run `cargo xtask test`, which starts one and sets CLAUDEMESH_TEST_POSTGRES")
    })
}

async fn sqlite(path: &Path) -> sqlx::SqliteConnection {
    SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(5)).connect().await.unwrap()
}

async fn postgres(url: &str) -> sqlx::PgConnection {
    PgConnectOptions::from_str(url).unwrap().connect().await.unwrap()
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Self::Postgres { cluster, name, .. } = self else { return };
        let (cluster, drop) = (cluster.clone(), format!("drop database {name} with (force)"));
        // A runtime of its own: the test's may be ending, by a panic too.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = postgres(&cluster).await;
                sqlx::query(AssertSqlSafe(drop)).execute(&mut connection).await.unwrap();
            });
        });
        assert!(dropping.join().is_ok() || std::thread::panicking(), "the test's database could not be dropped");
    }
}
