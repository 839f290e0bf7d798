//! Where the system keeps PostgreSQL's server, and how to get it there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::account;
use crate::run::{Stop, run};

/// The directory with `initdb` and `postgres`.
#[derive(Debug)]
pub(crate) struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Finds the server, or installs it where that needs no question: Debian and root.
    pub(crate) fn find_or_install(stop: &Stop) -> anyhow::Result<Self> {
        if let Ok(found) = Self::find() {
            return Ok(found);
        }
        let apt = Path::new("/usr/bin/apt-get");
        if !apt.exists() {
            bail!("the tests need PostgreSQL: install it (with Homebrew: brew install postgresql)");
        }
        if !account::is_root() {
            bail!("the tests need PostgreSQL: run apt-get install postgresql as root");
        }
        println!("PostgreSQL is missing: installing it");
        for arguments in [&["update", "-qq"][..], &["install", "-qq", "--yes", "--no-install-recommends", "postgresql"]]
        {
            let mut command = Command::new(apt);
            command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
            if !run(stop, &mut command)? {
                bail!("apt-get could not install postgresql");
            }
        }
        Self::find()
    }

    pub(crate) fn find() -> anyhow::Result<Self> {
        let directory = candidates().iter().find_map(|directory| complete(directory));
        let directory = directory.context("PostgreSQL's initdb and postgres are not installed")?;
        Ok(Self { directory })
    }

    pub(crate) fn path(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }
}

/// The real directory of a pair of programs, since a search path may hold links to them.
fn complete(directory: &Path) -> Option<PathBuf> {
    let initdb = directory.join("initdb").canonicalize().ok()?;
    let directory = initdb.parent()?.to_owned();
    directory.join("postgres").is_file().then_some(directory)
}

fn candidates() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<_> = std::env::split_paths(&path).collect();
    for (parent, prefix, suffix) in PLACES {
        found.extend(newest_first(Path::new(parent), prefix, suffix));
    }
    found
}

/// `parent/prefix*/suffix`, by the number in the name, the highest first and names without one last.
fn newest_first(parent: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(rest) = name.strip_prefix(prefix) {
            let digits: String = rest.trim_start_matches(['@', '-']).chars().take_while(char::is_ascii_digit).collect();
            let version = digits.parse().unwrap_or_default();
            found.push((version, entry.path().join(suffix)));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// Where packages put a server that they do not put on the search path: Debian, the project's own packages for
/// Red Hat, Homebrew on both kinds of Mac and on Linux, Postgres.app.
const PLACES: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_17_is_tried_before_version_9() {
        let parent = std::env::temp_dir().join(format!("xtask-programs-{}", std::process::id()));
        for name in ["postgresql@9.6", "postgresql@17", "postgresql", "redis"] {
            std::fs::create_dir_all(parent.join(name)).unwrap();
        }
        let found = newest_first(&parent, "postgresql", "bin");
        std::fs::remove_dir_all(&parent).unwrap();
        let names = ["postgresql@17/bin", "postgresql@9.6/bin", "postgresql/bin"];
        assert_eq!(found, names.map(|name| parent.join(name)));
    }
}
