//! The bodies of a topic, and the key they are sealed under.

use claudemesh_keys::{Identity, NoRandomness};
use claudemesh_proto::PublicKey;
use claudemesh_seal::{SealError, SealedTopicKey, Sealer, TopicKey};
use zeroize::Zeroizing;

use crate::sealed::{Sealed, Unopened};
use crate::secretbox::{lock, unlock};

/// Seals a topic body, version 2, under a fresh random nonce.
pub fn seal_body(key: &TopicKey, plaintext: &[u8]) -> Result<Sealed, NoRandomness> {
    lock(key.expose_bytes(), plaintext)
}

/// Opens a topic body, version 2.
///
/// # Errors
/// [`Unopened`], without a reason.
pub fn open_body(key: &TopicKey, sealed: &Sealed) -> Result<Vec<u8>, Unopened> {
    unlock(key.expose_bytes(), sealed)
}

/// Opens the copy of a topic key that was sealed for `own`. The sender is whatever key the copy names; nothing proves who it is.
///
/// # Errors
/// [`Unopened`], without a reason; also for a sender key of small order, which libsodium refuses.
pub fn open_topic_key(own: &Identity, sealed: &SealedTopicKey) -> Result<TopicKey, Unopened> {
    let box_key = own.x25519_secret().agree(&sealed.sender).map_err(|_| Unopened)?;
    let boxed = Sealed { nonce: sealed.nonce, ciphertext: sealed.boxed.to_vec() };
    let opened = Zeroizing::new(unlock(box_key.expose_bytes(), &boxed)?);
    opened.as_slice().try_into().map(TopicKey::from_bytes).map_err(|_| Unopened)
}

/// Seals a topic key for another member, with `own` as its sender: existing clients do so for members who have no copy.
///
/// # Errors
/// [`SealError`] when nobody can seal for the recipient, or there is no randomness.
pub fn pass_topic_key(own: &Identity, key: &TopicKey, recipient: &PublicKey) -> Result<SealedTopicKey, SealError> {
    Sealer::from_secret(own.x25519_secret()).seal(key, recipient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secretbox::lock_with_nonce;

    #[test]
    fn the_golden_body_is_sealed_to_the_same_bytes() {
        let key = TopicKey::from_bytes([4; 32]);
        let sealed = lock_with_nonce(key.expose_bytes(), b"hello", [3; 24]);
        assert_eq!(sealed.ciphertext_base64(), "jvcPUwIaQfh7jyh4p7ishxyHH1le");
    }
}
