//! The data directory: private, and with it every file that is made there. The database makes its own.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use claudemesh_proto::text::base64url;

/// The bits of a mode by which others than the owner may do something.
const OTHERS: u32 = 0o077;

/// Makes a directory that only its owner may enter. One that exists and holds something is not changed behind its owner's back.
pub(crate) fn private_dir(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    anyhow::ensure!(
        fs::read_dir(path)?.next().is_none(),
        "others may enter it; choose another directory, or close this one: chmod 700 {}",
        path.display()
    );
    Ok(fs::set_permissions(path, Permissions::from_mode(0o700))?)
}

/// Makes a file that only its owner may read.
fn private_file(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// A text that is made once and kept in a file, and whether this call made it. A crash leaves all of it or nothing; an empty file,
/// which an older broker may have left, counts as none.
///
/// # Errors
/// When the file cannot be read or made.
pub(crate) fn read_or_make(
    path: &Path,
    make: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<(String, bool)> {
    if let Some(text) = read(path)? {
        return Ok((text, false));
    }
    let text = make()?;
    let new = path.with_extension("new");
    remove(&new)?;
    let mut file = private_file(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // A link takes no name that somebody else has taken meanwhile.
    fs::hard_link(&new, path)?;
    remove(&new)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok((text, true))
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => fs::remove_file(path).map(|()| None),
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// A name that no other broker has: random, made once, kept in `node-name`.
///
/// # Errors
/// When the file cannot be read or made, or there is no randomness.
pub(crate) fn node_name(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("node-name");
    let make = || Ok(base64url(&claudemesh_keys::random_bytes::<24>()?));
    let (name, _) = read_or_make(&path, make).with_context(|| format!("cannot use {}", path.display()))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_made_once_whole_and_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("name");
        // What crashes leave: an empty file, and one that was not given its name.
        fs::write(&path, "").unwrap();
        fs::write(path.with_extension("new"), "ha").unwrap();
        assert_eq!(read_or_make(&path, || Ok("whole".into())).unwrap(), ("whole".into(), true));
        assert_eq!(read_or_make(&path, || unreachable!()).unwrap(), ("whole".into(), false));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
