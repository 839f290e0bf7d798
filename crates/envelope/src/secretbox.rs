//! `crypto_secretbox_easy` and its opposite, under which boxes and topic bodies end up alike.

use claudemesh_keys::{NoRandomness, random_bytes};
use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{Aead, KeyInit};

use crate::sealed::{Sealed, Unopened};

/// Seals under a fresh random nonce: 192 bits, so chance never repeats one.
pub(crate) fn lock(key: &[u8; 32], plaintext: &[u8]) -> Result<Sealed, NoRandomness> {
    Ok(lock_with_nonce(key, plaintext, random_bytes()?))
}

pub(crate) fn lock_with_nonce(key: &[u8; 32], plaintext: &[u8], nonce: [u8; 24]) -> Sealed {
    #[expect(clippy::expect_used, reason = "fails only when associated data is given, and there is none")]
    let ciphertext = XSalsa20Poly1305::new(key.into()).encrypt(&nonce.into(), plaintext).expect("no associated data");
    Sealed { nonce, ciphertext }
}

pub(crate) fn unlock(key: &[u8; 32], sealed: &Sealed) -> Result<Vec<u8>, Unopened> {
    let cipher = XSalsa20Poly1305::new(key.into());
    cipher.decrypt(&sealed.nonce.into(), sealed.ciphertext.as_slice()).map_err(|_| Unopened)
}
