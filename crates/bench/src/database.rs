//! A database of its own for each broker that is started.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// Where brokers keep their data.
#[derive(Debug)]
pub(crate) enum Database {
    /// In their data directory.
    Sqlite,
    /// On this server; the address is that of a database that exists.
    Postgres(String),
}

/// A database on a server that is dropped with this.
#[derive(Debug)]
pub(crate) struct Fresh {
    server: String,
    name: String,
    /// Its address.
    pub(crate) url: String,
}

impl Database {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    /// A fresh database on the server; `None` where a fresh directory is enough.
    pub(crate) fn fresh(&self, name: &str) -> anyhow::Result<Option<Fresh>> {
        let Self::Postgres(server) = self else { return Ok(None) };
        let (host, rest) = server.rsplit_once('/').context("--postgres-url must name a database")?;
        let options = rest.find('?').and_then(|at| rest.get(at..)).unwrap_or_default();
        psql(server, &format!("create database {name}"))?;
        Ok(Some(Fresh { server: server.clone(), name: name.to_owned(), url: format!("{host}/{name}{options}") }))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Err(error) = psql(&self.server, &format!("drop database {} with (force)", self.name)) {
            crate::progress(&format!("the database {} is left over: {error:#}", self.name));
        }
    }
}

/// PostgreSQL's own client does the little that is to be done, so that the workspace needs no second database driver here.
fn psql(url: &str, statement: &str) -> anyhow::Result<()> {
    let mut command = Command::new("psql");
    command.args(["--no-psqlrc", "--quiet", "--dbname", url, "--command", statement]).stdin(Stdio::null());
    let output = command.output().context("psql did not start")?;
    ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
