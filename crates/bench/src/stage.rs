//! What a row gets to measure on.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::broker::{Broker, Home};
use crate::database::Database;
use crate::floor::Floors;
use crate::sizes::Sizes;

/// The broker's program, a database and how much to do.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) program: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) database: Database,
    pub(crate) sizes: Sizes,
    pub(crate) floors: Floors,
}

impl Stage {
    /// A fresh directory and database.
    pub(crate) fn home(&self) -> anyhow::Result<Home> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("bench_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // A broker takes no directory that others may enter.
        let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir_in(&self.dir)?;
        Ok(Home { dir, database: self.database.fresh(&name)? })
    }

    /// A broker that knows nothing yet. It must be dropped before its home.
    pub(crate) async fn broker(&self) -> anyhow::Result<(Home, Broker)> {
        let home = self.home()?;
        let broker = Broker::start(&self.program, &home).await?;
        Ok((home, broker))
    }
}
