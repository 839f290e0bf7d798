//! Files that hold keys or mail: 0600 in directories of 0700, checked when read, replaced in one step when written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use claudemesh_keys::random_bytes;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Creates `dir` with mode 0700 when it is missing, and refuses one that others may enter.
pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    if !dir.exists() {
        create_dir(dir).map_err(file("create", dir))?;
    }
    check(dir, &fs::metadata(dir).map_err(file("look at", dir))?, 0o700)
}

/// Reads a file; `None` when it does not exist. A directory or file that others may read is refused.
pub(crate) fn read(path: &Path) -> Result<Option<Zeroizing<String>>> {
    let mut opened = match File::open(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file("read", path)(error)),
    };
    if let Some(dir) = path.parent() {
        check(dir, &fs::metadata(dir).map_err(file("look at", dir))?, 0o700)?;
    }
    check(path, &opened.metadata().map_err(file("look at", path))?, 0o600)?;
    let mut text = Zeroizing::new(String::new());
    opened.read_to_string(&mut text).map_err(file("read", path))?;
    Ok(Some(text))
}

/// Replaces a file: whoever looks sees the old content or the new, also after a power cut.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    make_dir(dir)?;
    let temporary = dir.join(format!(".{:032x}.tmp", u128::from_le_bytes(random_bytes()?)));
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: what matters is reported below.
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| sync_dir(dir)).map_err(file("write", path))
}

/// Makes sure that `path` exists with mode 0600, for those who write it by other means.
pub(crate) fn touch(path: &Path) -> Result<()> {
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    let opened = private(OpenOptions::new().append(true).create(true)).open(path).map_err(file("open", path))?;
    check(path, &opened.metadata().map_err(file("look at", path))?, 0o600)
}

/// Waits for the exclusive use of `path`, a lock file, until the returned guard is dropped.
pub(crate) fn lock(path: &Path) -> Result<File> {
    touch(path)?;
    let opened = OpenOptions::new().append(true).open(path).map_err(file("open", path))?;
    opened.lock().map_err(file("lock", path))?;
    Ok(opened)
}

/// Removes a file; it is no error when there is none.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path)(error)),
        _ => Ok(()),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut opened = private(OpenOptions::new().write(true).create_new(true)).open(path)?;
    opened.write_all(bytes)?;
    opened.sync_all()
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { action, path, source }
}

fn create_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

fn check(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<()> {
    let mode = metadata.permissions().mode() & 0o777;
    let others = mode & 0o077;
    if others == 0 { Ok(()) } else { Err(Error::TooOpen { path: path.to_owned(), mode, wanted }) }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_written_is_private_and_reads_back() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("new/deep/file.json");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().unwrap().as_str(), "two");
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_file_or_directory_open_to_others_is_refused_with_the_command_that_helps() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("dir");
        let path = dir.join("file");
        write(&path, b"secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refusal = read(&path).unwrap_err().to_string();
        assert!(refusal.ends_with(&format!("chmod 600 {}", path.display())), "{refusal}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        for refusal in [read(&path).unwrap_err(), write(&path, b"x").unwrap_err()] {
            assert!(refusal.to_string().ends_with(&format!("chmod 700 {}", dir.display())), "{refusal}");
        }
    }

    #[test]
    fn a_missing_file_is_none() {
        assert!(read(Path::new("/nonexistent/claudemesh/file")).unwrap().is_none());
    }
}
