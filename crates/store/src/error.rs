//! What can go wrong with the store, sorted by who can do something about it.

use std::path::PathBuf;

/// The store could not be opened. Each says what, and why.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is none that we know.
    #[error("the database address must be postgres://… or sqlite://PATH")]
    BadUrl,
    /// A file beside the database cannot be used.
    #[error("cannot use {}: {source}", path.display())]
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
    #[error("cannot open {what}: {source}")]
    Open {
        /// The file, or which server.
        what: String,
        /// Why.
        source: sqlx::Error,
    },
    /// The tables could not be brought up to date.
    #[error("cannot bring the database's tables up to date: {0}")]
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
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be written or reached just now; trying again later may work.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The database refused this one call for what it held.
    #[error("the store refused this: {0}")]
    Refused(String),
}

impl StoreError {
    /// Sorts a database error. Only what is plainly the fault of the data counts as [`StoreError::Refused`].
    pub(crate) fn from_sqlx(error: &sqlx::Error) -> Self {
        if is_fault_of_data(error) { Self::Refused(error.to_string()) } else { Self::Unavailable(error.to_string()) }
    }

    pub(crate) fn stopped() -> Self {
        Self::Unavailable("the journal has stopped".into())
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::from_sqlx(&error)
    }
}

/// Whether leaving a row out could make the rest of its batch succeed.
fn is_fault_of_data(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            if database.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
                // ERROR, TOOBIG, CONSTRAINT, MISMATCH, RANGE
                matches!(primary(&code), 1 | 18 | 19 | 20 | 25)
            } else {
                // Data exceptions, constraint violations, and texts that cannot be stored.
                ["21", "22", "23", "42"].iter().any(|class| code.starts_with(class))
            }
        }
        sqlx::Error::Decode(_) | sqlx::Error::Encode(_) | sqlx::Error::ColumnDecode { .. } => true,
        _ => false,
    }
}

/// Whether a sync failed. The kernel may have dropped the dirty pages and marked them clean, so that a second sync would
/// succeed without writing them: the process must start again and read what is really there.
pub(crate) fn is_failed_sync(error: &sqlx::Error) -> bool {
    const IOERR_FSYNC: u32 = 1034;
    const IOERR_DIR_FSYNC: u32 = 1290;
    let sqlx::Error::Database(database) = error else { return false };
    let code = database.code().unwrap_or_default().parse::<u32>();
    database.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some()
        && matches!(code, Ok(IOERR_FSYNC | IOERR_DIR_FSYNC))
}

fn primary(code: &str) -> u32 {
    code.parse::<u32>().unwrap_or(0) & 0xff
}
