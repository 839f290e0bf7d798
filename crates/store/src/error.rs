//! What can go wrong with the store, sorted by who can do something about it.

use std::path::PathBuf;

/// The store could not be opened. Each says what, and why.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is none that we know.
    #[error("the database address must be postgres://… or sqlite://PATH")]
    BadUrl,
    /// A file beside the database cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another broker runs on this database file.
    #[error("{} is in use by another broker", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The database does not open or does not answer.
    #[error("cannot open {what}")]
    Open {
        /// The file, or which server.
        what: String,
        /// Why.
        source: sqlx::Error,
    },
    /// The tables could not be brought up to date.
    #[error("cannot bring the database's tables up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The database would lose commits in a crash.
    #[error("the database does not keep what it commits: {setting} is {value:?}, and must be {allowed}")]
    NotDurable {
        /// The query that tells.
        setting: &'static str,
        /// What it answered.
        value: String,
        /// What it may answer.
        allowed: String,
    },
}

/// A call failed; nothing of it was stored.
///
/// One case cannot be told: PostgreSQL's connection broke while it committed. Then all of it may be stored, and a retry
/// under the same client id finds it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be written or reached just now; trying again later may work.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The database refused this one call for what it held.
    #[error("the store refused this: {0}")]
    Refused(String),
}

impl StoreError {
    pub(crate) fn stopped() -> Self {
        Self::Unavailable("the journal has stopped".into())
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Failure::from(error).into()
    }
}

impl From<&Failure> for StoreError {
    fn from(failure: &Failure) -> Self {
        match failure.blame {
            Blame::Row => Self::Refused(failure.error.to_string()),
            Blame::Unclear | Blame::Database => Self::Unavailable(failure.error.to_string()),
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::from(&failure)
    }
}

/// Why a transaction failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: sqlx::Error,
    pub(crate) blame: Blame,
}

/// What has to change for a transaction to succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// A row of it: without that row the rest goes through.
    Row,
    /// Perhaps a row. The rest is worth a try, but nobody is told that what they sent is bad.
    Unclear,
    /// The database or the way to it, whatever the rows.
    Database,
}

impl Failure {
    /// A transaction could not begin or commit, which is never the fault of a row: no constraint of ours is deferred.
    pub(crate) fn of_database(error: sqlx::Error) -> Self {
        Self { error, blame: Blame::Database }
    }

    /// Whether the same transaction may succeed at once: it met another one and was chosen to give way.
    pub(crate) fn gave_way(&self) -> bool {
        const SERIALIZATION_FAILURE: &str = "40001";
        const DEADLOCK: &str = "40P01";
        let sqlx::Error::Database(database) = &self.error else { return false };
        !is_sqlite(database.as_ref())
            && [SERIALIZATION_FAILURE, DEADLOCK].contains(&&*database.code().unwrap_or_default())
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let blame = match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                if is_sqlite(database.as_ref()) { blame_sqlite(primary(&code)) } else { blame_postgres(&code) }
            }
            sqlx::Error::Decode(_) | sqlx::Error::Encode(_) | sqlx::Error::ColumnDecode { .. } => Blame::Row,
            _ => Blame::Database,
        };
        Self { error, blame }
    }
}

/// By SQLite's primary result code.
fn blame_sqlite(code: u32) -> Blame {
    const ERROR: u32 = 1;
    const TOOBIG: u32 = 18;
    const CONSTRAINT: u32 = 19;
    const MISMATCH: u32 = 20;
    match code {
        TOOBIG | CONSTRAINT | MISMATCH => Blame::Row,
        // The code of functions that do not like a value, and of everything that has no code of its own.
        ERROR => Blame::Unclear,
        _ => Blame::Database,
    }
}

/// By PostgreSQL's SQLSTATE.
fn blame_postgres(code: &str) -> Blame {
    match code.get(..2).unwrap_or_default() {
        // Cardinality, data exceptions (texts that cannot be stored), constraints, limits of the program.
        "21" | "22" | "23" | "54" => Blame::Row,
        // "Internal" is also how a value that outgrows the server's memory is reported.
        "XX" => Blame::Unclear,
        _ => Blame::Database,
    }
}

fn is_sqlite(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some()
}

/// Whether a sync failed. The kernel may have dropped the dirty pages and marked them clean, so that a second sync would
/// succeed without writing them: the process must start again and read what is really there.
pub(crate) fn is_failed_sync(error: &sqlx::Error) -> bool {
    const IOERR_FSYNC: u32 = 1034;
    const IOERR_DIR_FSYNC: u32 = 1290;
    let sqlx::Error::Database(database) = error else { return false };
    let code = database.code().unwrap_or_default().parse::<u32>();
    is_sqlite(database.as_ref()) && matches!(code, Ok(IOERR_FSYNC | IOERR_DIR_FSYNC))
}

fn primary(code: &str) -> u32 {
    code.parse::<u32>().unwrap_or(0) & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_or_broken_disk_is_no_fault_of_a_row() {
        const BUSY: u32 = 5;
        const NOMEM: u32 = 7;
        const READONLY: u32 = 8;
        const IOERR: u32 = 10;
        const CORRUPT: u32 = 11;
        const FULL: u32 = 13;
        const CANTOPEN: u32 = 14;
        for code in [BUSY, NOMEM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN] {
            assert_eq!(blame_sqlite(code), Blame::Database, "{code}");
        }
        assert_eq!(blame_sqlite(1), Blame::Unclear);
        assert_eq!(primary("1034"), 10);
        assert_eq!(blame_sqlite(primary("275")), Blame::Row);
    }

    #[test]
    fn a_server_that_stops_or_refuses_is_no_fault_of_a_row() {
        for code in ["57P01", "53100", "53200", "25006", "42501", "42P01", "40P01", "08006", "55P03", ""] {
            assert_eq!(blame_postgres(code), Blame::Database, "{code}");
        }
        for code in ["21000", "22P05", "22P02", "23503", "23514", "54000"] {
            assert_eq!(blame_postgres(code), Blame::Row, "{code}");
        }
        assert_eq!(blame_postgres("XX000"), Blame::Unclear);
    }

    #[test]
    fn errors_of_the_way_to_the_database_are_no_fault_of_a_row() {
        for error in
            [sqlx::Error::PoolTimedOut, sqlx::Error::WorkerCrashed, sqlx::Error::Io(std::io::Error::other("gone"))]
        {
            assert_eq!(Failure::from(error).blame, Blame::Database);
        }
    }
}
