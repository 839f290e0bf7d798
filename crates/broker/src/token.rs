//! The setup token: whoever has it may make meshes. Made at the first start, kept in the data directory, printed once.

use std::path::Path;

use anyhow::Context as _;
use claudemesh_proto::text::base64url;

use crate::data_dir::read_or_make;

/// The token, and whether this start made it. It cannot be printed by accident.
pub(crate) struct SetupToken {
    /// The secret text.
    pub(crate) text: String,
    /// It did not exist before.
    pub(crate) is_new: bool,
}

impl std::fmt::Debug for SetupToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SetupToken(…)")
    }
}

/// Reads `setup-token` in the data directory, or makes it with mode 0600.
///
/// # Errors
/// When the file cannot be read or written, or holds too little.
pub(crate) fn setup_token(data_dir: &Path) -> anyhow::Result<SetupToken> {
    let path = data_dir.join("setup-token");
    let why = || format!("cannot use the setup token {}", path.display());
    let make = || Ok(base64url(&claudemesh_keys::random_bytes::<32>()?));
    let (text, is_new) = read_or_make(&path, make).with_context(why)?;
    anyhow::ensure!(text.len() >= 16, "{}: it is too short; remove the file to make a new one", why());
    Ok(SetupToken { text, is_new })
}
