//! The broker's own key, which signs where audit logs stood. Made at the first start, kept in the data directory; several brokers on
//! one database are given the same one.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context as _;
use claudemesh_keys::{Identity, random_bytes};
use claudemesh_proto::{PublicKey, Signature};
use data_encoding::HEXLOWER_PERMISSIVE;

use crate::data_dir::read_or_make;

/// Characters of a seed in hex.
const SEED_CHARS: usize = 64;

/// The key. It cannot be printed by accident.
#[derive(Clone)]
pub struct AuditKey(Arc<Identity>);

impl std::fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuditKey(…)")
    }
}

impl FromStr for AuditKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        seed(text).map(|seed| Self(Arc::new(Identity::from_seed(seed)))).ok_or("must be 64 hex characters")
    }
}

impl AuditKey {
    /// Reads `audit.key` in the data directory, or makes it with mode 0600.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds something else than a key.
    pub(crate) fn of(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join("audit.key");
        let why = || format!("cannot use the audit key {}", path.display());
        let make = || {
            let secret = Identity::from_seed(random_bytes()?).secret_hex();
            Ok(secret.get(..SEED_CHARS).unwrap_or_default().to_owned())
        };
        let (text, _) = read_or_make(&path, make).with_context(why)?;
        text.parse().map_err(|why| anyhow::anyhow!("{why}")).with_context(why)
    }

    /// What its signatures are verified with.
    pub(crate) fn public(&self) -> PublicKey {
        self.0.public()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message)
    }
}

fn seed(text: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_readable_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let first = AuditKey::of(directory.path()).unwrap();
        let path = directory.path().join("audit.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(AuditKey::of(directory.path()).unwrap().public(), first.public());
        let given: AuditKey = fs::read_to_string(&path).unwrap().parse().unwrap();
        assert_eq!(given.public(), first.public(), "what the file holds can be given to other brokers");
        fs::write(&path, "").unwrap();
        assert_ne!(AuditKey::of(directory.path()).unwrap().public(), first.public());
        fs::write(&path, "not a key").unwrap();
        let error = format!("{:#}", AuditKey::of(directory.path()).unwrap_err());
        assert!(error.ends_with("audit.key: must be 64 hex characters"), "{error}");
    }

    #[test]
    fn a_seed_is_sixty_four_hex_characters() {
        for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(32), &"+0".repeat(32)] {
            assert!(text.parse::<AuditKey>().is_err(), "{text}");
        }
        assert!("aB".repeat(32).parse::<AuditKey>().is_ok());
    }
}
