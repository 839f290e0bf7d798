//! Direct messages.

use claudemesh_keys::{BadKey, BoxKey, Identity, NoRandomness, x25519_public};
use claudemesh_proto::PublicKey;

use crate::sealed::{Sealed, Unopened};
use crate::secretbox::{lock, unlock};

/// The way between one identity and one peer, for both directions. Worth keeping for as long as the peer is written to: making it
/// takes an X25519 agreement, using it does not.
#[expect(missing_debug_implementations, reason = "a secret must not be printable")]
pub struct Channel(BoxKey);

impl Channel {
    /// Computes the key that `own` and the owner of `peer` share (`crypto_box_beforenm` over their converted keys).
    ///
    /// # Errors
    /// [`BadKey`] when libsodium would not convert the peer's key.
    pub fn new(own: &Identity, peer: &PublicKey) -> Result<Self, BadKey> {
        own.x25519_secret().agree(&x25519_public(peer)?).map(Self)
    }

    /// Seals a message under a fresh random nonce.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Sealed, NoRandomness> {
        lock(self.0.expose_bytes(), plaintext)
    }

    /// Opens a message that either side sealed. It may be one's own, sent back by whoever carried it.
    ///
    /// # Errors
    /// [`Unopened`], without a reason.
    pub fn open(&self, sealed: &Sealed) -> Result<Vec<u8>, Unopened> {
        unlock(self.0.expose_bytes(), sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secretbox::lock_with_nonce;

    #[test]
    fn the_golden_message_is_sealed_to_the_same_bytes() {
        let (a, b) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let channel = Channel::new(&a, &b.public()).unwrap();
        let sealed = lock_with_nonce(channel.0.expose_bytes(), b"hello", [3; 24]);
        assert_eq!(sealed.nonce_base64(), "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD");
        assert_eq!(sealed.ciphertext_base64(), "AxYsLIuct/0FpfjQh3Ol53wd/8kW");
    }

    #[test]
    fn the_message_of_the_vectors_is_sealed_to_the_same_bytes() {
        let (a, b) = (Identity::from_seed([1; 32]), Identity::from_seed([3; 32]));
        let channel = Channel::new(&a, &b.public()).unwrap();
        let nonce = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let sealed = lock_with_nonce(channel.0.expose_bytes(), b"hello mesh", nonce);
        assert_eq!(sealed.ciphertext_base64(), "Ue2w/ww0/89T4kHuGeEgh+/i/McH5CQy1qg=");
    }
}
