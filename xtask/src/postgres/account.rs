//! Who the server runs as: we ourselves, or for root an account that may do little.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

#[derive(Debug)]
pub(crate) enum Account {
    Ours,
    Other { user: u32, group: u32 },
}

impl Account {
    pub(crate) fn for_server() -> anyhow::Result<Self> {
        if !is_root() {
            return Ok(Self::Ours);
        }
        // The server looks its user up by number, so the account must have a name.
        let account = ["postgres", "_postgres", "nobody"].iter().find_map(|name| {
            Some(Self::Other { user: id(&["-u", name]).filter(|user| *user != 0)?, group: id(&["-g", name])? })
        });
        account.context("PostgreSQL refuses to run as root: add a user named postgres")
    }

    /// A program to be run as this account in a directory it may enter.
    pub(crate) fn command(&self, program: &Path, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(directory);
        if let Self::Other { user, group } = self {
            // Changing the user from root also drops root's other groups.
            command.uid(*user).gid(*group);
        }
        command
    }

    /// Makes it the owner of a path.
    pub(crate) fn give(&self, path: &Path) -> anyhow::Result<()> {
        if let Self::Other { user, group } = self {
            std::os::unix::fs::chown(path, Some(*user), Some(*group))
                .with_context(|| format!("cannot give {} away", path.display()))?;
        }
        Ok(())
    }

    /// The temporary directory, if this account can get there.
    pub(crate) fn temporary_directory(&self) -> anyhow::Result<PathBuf> {
        let usual = std::env::temp_dir();
        anyhow::ensure!(
            matches!(self, Self::Ours) || is_open_to_all(&usual),
            "PostgreSQL runs as another account, which cannot get to {}: set TMPDIR to a directory that everybody may enter",
            usual.display()
        );
        Ok(usual)
    }
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    id(&["-u"]) == Some(0)
}

/// The standard library does not tell user numbers; the program `id` does on every Unix.
fn id(arguments: &[&str]) -> Option<u32> {
    let mut command = Command::new("id");
    let output = command.args(arguments).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().parse().ok()
}

fn is_open_to_all(path: &Path) -> bool {
    path.ancestors().all(|part| std::fs::metadata(part).is_ok_and(|found| found.permissions().mode() & 0o001 != 0))
}
