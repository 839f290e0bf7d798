//! The file of a SQLite database: that it is ours alone, and whether it may still be written.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use crate::error::{OpenError, is_failed_sync};

/// The database file, and the lock that keeps a second broker away from it.
#[derive(Debug)]
pub(crate) struct LockedFile {
    pub(crate) path: PathBuf,
    lock: File,
    /// Why a sync failed, once one has.
    failed_sync: watch::Sender<Option<String>>,
}

impl LockedFile {
    /// Takes the lock and makes sure that the file exists, readable by its owner alone: SQLite gives its WAL the same mode.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another broker has the lock, [`OpenError::File`] when either file cannot be used.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = lock(path)?;
        private_file(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), lock, failed_sync: watch::Sender::new(None) })
    }

    /// Lets another broker have the file. Somebody may still hold a clone of the closed store, so that it is not dropped.
    pub(crate) fn unlock(&self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(error = %error, "the database file stays locked until this process ends");
        }
    }

    /// Says why a sync failed, once one has.
    pub(crate) fn failed_sync(&self) -> watch::Sender<Option<String>> {
        self.failed_sync.clone()
    }

    /// After a failed sync nothing is written any more: what is on the disk is unknown until the process has started again.
    pub(crate) fn writable(&self) -> sqlx::Result<()> {
        match &*self.failed_sync.borrow() {
            Some(why) => Err(sqlx::Error::Io(std::io::Error::other(why.clone()))),
            None => Ok(()),
        }
    }

    /// Remembers a failed sync, before anybody is told of it.
    fn note<T>(&self, outcome: sqlx::Result<T>) -> sqlx::Result<T> {
        if let Err(error) = &outcome
            && is_failed_sync(error)
        {
            self.failed_sync.send_replace(Some(error.to_string()));
        }
        outcome
    }

    /// Returns once everything that was committed before is on the disk. Where there is no WAL, all of it is in the database: SQLite
    /// removes the one only after it has synced the other.
    pub(crate) async fn sync_wal(&self) -> sqlx::Result<()> {
        self.writable()?;
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        let synced = tokio::task::spawn_blocking(move || match File::open(wal) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            opened => opened?.sync_data(),
        });
        let outcome = synced.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        if let Err(error) = &outcome {
            self.failed_sync.send_replace(Some(error.to_string()));
        }
        outcome.map_err(sqlx::Error::Io)
    }

    /// Does something that syncs.
    pub(crate) async fn syncing<T>(&self, doing: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        self.writable()?;
        self.note(doing.await)
    }
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = path.with_extension("lock");
    let at = |source| OpenError::File { path: lock_path.clone(), source };
    let file = private_file(&lock_path).map_err(at)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(at(source)),
    }
}

/// Opens a file that only its owner may read, making it if it is missing.
fn private_file(path: &Path) -> std::io::Result<File> {
    File::options().create(true).truncate(false).write(true).mode(0o600).open(path)
}
