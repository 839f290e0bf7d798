//! A sealed topic key as it is stored and sent.

use std::fmt;

use claudemesh_keys::X25519Public;
use data_encoding::BASE64;

/// A topic key locked to one member: 80 bytes and a 24-byte nonce. FROZEN: existing clients open exactly this layout.
///
/// The 80 bytes are the sender's X25519 public key (32) and the `crypto_box_easy` of the topic key (48). Nothing in them says who
/// the sender is, so a copy proves nothing about its maker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealedTopicKey {
    /// The X25519 public key that the box was made with.
    pub sender: X25519Public,
    /// The authenticator (16 bytes) and the encrypted key (32 bytes).
    pub boxed: [u8; 48],
    /// The nonce of the box.
    pub nonce: [u8; 24],
}

/// The text is not a sealed topic key: padded standard base64 of 80 bytes and of a 24-byte nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be padded base64 of 80 bytes, and of 24 bytes for the nonce")]
pub struct BadSealedKey;

impl SealedTopicKey {
    /// Reads the two wire strings, `encryptedKey` and `nonce`. Only their shape is checked.
    ///
    /// # Errors
    /// [`BadSealedKey`] when either is not padded standard base64 of the right length.
    pub fn from_base64(encrypted_key: &str, nonce: &str) -> Result<Self, BadSealedKey> {
        let bytes: [u8; 80] = fixed_base64(encrypted_key)?;
        let (sender, boxed) = bytes.split_first_chunk().ok_or(BadSealedKey)?;
        let boxed = boxed.try_into().map_err(|_| BadSealedKey)?;
        Ok(Self { sender: X25519Public::from_bytes(*sender), boxed, nonce: fixed_base64(nonce)? })
    }

    /// The wire string `encryptedKey`: 108 characters.
    pub fn encrypted_key_base64(&self) -> String {
        BASE64.encode(&[self.sender.as_bytes().as_slice(), &self.boxed].concat())
    }

    /// The wire string `nonce`: 32 characters.
    pub fn nonce_base64(&self) -> String {
        BASE64.encode(&self.nonce)
    }
}

/// Shows nothing of it: nonces and ciphertext do not belong in logs.
impl fmt::Debug for SealedTopicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedTopicKey").finish_non_exhaustive()
    }
}

fn fixed_base64<const N: usize>(text: &str) -> Result<[u8; N], BadSealedKey> {
    BASE64.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(BadSealedKey)
}
