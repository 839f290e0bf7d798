//! A sealed body as it travels.

use std::fmt;

use crate::wire::{BadBase64, base64_decode, base64_encode};

/// A sealed direct message or topic body.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// 24 bytes, random for every sealing.
    pub nonce: [u8; 24],
    /// The authenticator (16 bytes) and the encrypted body, as long as the plaintext.
    pub ciphertext: Vec<u8>,
}

/// It could not be opened. Whether the key, the nonce or the ciphertext was wrong is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot be opened")]
pub struct Unopened;

impl Sealed {
    /// Reads the two wire strings, `nonce` and `ciphertext`.
    ///
    /// # Errors
    /// [`Unopened`] when either is not padded standard base64, or the nonce is not 24 bytes.
    pub fn from_base64(nonce: &str, ciphertext: &str) -> Result<Self, Unopened> {
        let nonce = base64_decode(nonce)?.try_into().map_err(|_| Unopened)?;
        Ok(Self { nonce, ciphertext: base64_decode(ciphertext)? })
    }

    /// The wire string `nonce`: 32 characters.
    pub fn nonce_base64(&self) -> String {
        base64_encode(self.nonce)
    }

    /// The wire string `ciphertext`.
    pub fn ciphertext_base64(&self) -> String {
        base64_encode(&self.ciphertext)
    }
}

impl From<BadBase64> for Unopened {
    fn from(BadBase64: BadBase64) -> Self {
        Self
    }
}

/// Shows the size and nothing else: nonces and ciphertext do not belong in logs.
impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.ciphertext.len())
    }
}
