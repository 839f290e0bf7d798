//! API keys: secrets that are shown once and kept as a hash.

use data_encoding::BASE64URL_NOPAD;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::hash::sha256_hex;
use crate::random::{NoRandomness, random_bytes};

const MARK: &str = "cm_";

/// Length of the part that is stored in clear to find a key by.
const PREFIX_CHARS: usize = 11;

/// A new API key: `cm_` and 32 random bytes in unpadded base64url, 46 characters.
#[derive(Zeroize, ZeroizeOnDrop)]
#[expect(missing_debug_implementations, reason = "a secret must not be printable")]
pub struct ApiKeySecret(String);

impl ApiKeySecret {
    /// A fresh one.
    pub fn generate() -> Result<Self, NoRandomness> {
        random_bytes().map(Self::from_random)
    }

    /// The key that belongs to 32 random bytes.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        let bytes = Zeroizing::new(bytes);
        // Exactly as long as needed: a string that grows leaves copies behind.
        let mut text = String::with_capacity(MARK.len() + BASE64URL_NOPAD.encode_len(bytes.len()));
        text.push_str(MARK);
        BASE64URL_NOPAD.encode_append(bytes.as_slice(), &mut text);
        Self(text)
    }

    /// The whole secret, to be shown to its owner once.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The first 11 characters, which are stored in clear to find the key by.
    pub fn prefix(&self) -> &str {
        api_key_prefix(&self.0).unwrap_or_default()
    }

    /// What is stored in place of the secret: SHA-256 of the whole secret in hex.
    pub fn hash(&self) -> String {
        sha256_hex(&self.0)
    }
}

/// The stored prefix that a presented API key would have; `None` when it cannot be an API key.
pub fn api_key_prefix(presented: &str) -> Option<&str> {
    presented.starts_with(MARK).then(|| presented.get(..PREFIX_CHARS)).flatten()
}

/// Whether a presented secret is the one whose SHA-256 was stored as lower-case hex. Takes the same time wherever they differ.
pub fn secret_matches(presented: &str, stored_sha256: &str) -> bool {
    sha256_hex(presented).as_bytes().ct_eq(stored_sha256.as_bytes()).into()
}
