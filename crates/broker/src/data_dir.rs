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
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// A name that no other broker has: random, made once, kept in `node-name`.
///
/// # Errors
/// When the file cannot be read or made, or there is no randomness.
pub(crate) fn node_name(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("node-name");
    let why = || format!("cannot use {}", path.display());
    match fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(why),
        Ok(_) | Err(_) => {
            // An empty file is what a crash between making and writing it leaves.
            let _ = fs::remove_file(&path);
            let name = base64url(&claudemesh_keys::random_bytes::<24>()?);
            private_file(&path).and_then(|mut file| file.write_all(name.as_bytes())).with_context(why)?;
            Ok(name)
        }
    }
}
