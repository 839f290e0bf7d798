//! The sender's side of a sealed topic key.

use claudemesh_keys::{BadKey, NoRandomness, X25519Public, X25519Secret, random_bytes, x25519_public};
use claudemesh_proto::PublicKey;
use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{AeadInPlace, KeyInit};

use crate::sealed::SealedTopicKey;
use crate::topic_key::TopicKey;

/// Seals topic keys to members, all from one X25519 secret key.
#[expect(missing_debug_implementations, reason = "a secret must not be printable")]
pub struct Sealer(X25519Secret);

/// Why a topic key was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The member's key is one that nobody can seal for: libsodium does not convert it.
    #[error("nobody can seal for this public key")]
    UnusableRecipient(#[from] BadKey),
    /// The operating system gave no nonce.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Sealer {
    /// A sender that exists only for this: nobody, its maker included, can seal as it again.
    pub fn ephemeral() -> Result<Self, NoRandomness> {
        X25519Secret::generate().map(Self)
    }

    /// A sender that exists already, such as a member who passes a topic key on.
    pub fn from_secret(secret: X25519Secret) -> Self {
        Self(secret)
    }

    /// The public half, which is the first 32 bytes of everything it seals.
    pub fn public(&self) -> X25519Public {
        self.0.public()
    }

    /// Makes the copy of a topic's key that only this member can open, under a fresh random nonce.
    ///
    /// # Errors
    /// [`SealError::UnusableRecipient`] when libsodium would not convert the member's key, or would not agree on a key with it.
    pub fn seal(&self, key: &TopicKey, recipient: &PublicKey) -> Result<SealedTopicKey, SealError> {
        self.seal_with_nonce(key, recipient, random_bytes()?)
    }

    // Private: a nonce used twice between the same two keys would give both topic keys away.
    fn seal_with_nonce(
        &self,
        key: &TopicKey,
        recipient: &PublicKey,
        nonce: [u8; 24],
    ) -> Result<SealedTopicKey, SealError> {
        let box_key = self.0.agree(&x25519_public(recipient)?)?;
        let mut boxed = [0; 48];
        let (mac, body) = boxed.split_at_mut(16);
        body.copy_from_slice(key.expose_bytes());
        #[expect(clippy::expect_used, reason = "fails only when associated data is given, and there is none")]
        let tag = XSalsa20Poly1305::new(box_key.expose_bytes().into())
            .encrypt_in_place_detached(&nonce.into(), &[], body)
            .expect("no associated data");
        mac.copy_from_slice(&tag);
        Ok(SealedTopicKey { sender: self.public(), boxed, nonce })
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_keys::Identity;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_topic_key_is_sealed_to_the_bytes_of_the_vectors() {
        let vectors = vectors();
        let vector = &vectors["topic_key_seal"];
        let sealer = Sealer::from_secret(X25519Secret::from_bytes(hex(&vector["sender_x25519_secret"])));
        let recipient = Identity::from_seed(hex(&vectors["keys"]["A"]["seed"])).public();
        assert_eq!(sealer.public().to_string(), vector["sender_x25519_public"].as_str().unwrap());
        assert_seals(&sealer, vector, &recipient);
    }

    #[test]
    fn a_topic_key_is_passed_on_to_the_bytes_of_the_vectors() {
        let vectors = vectors();
        let sealer = Sealer::from_secret(Identity::from_seed(hex(&vectors["keys"]["A"]["seed"])).x25519_secret());
        let recipient = Identity::from_seed(hex(&vectors["keys"]["S"]["seed"])).public();
        assert_seals(&sealer, &vectors["topic_key_reseal"], &recipient);
    }

    fn assert_seals(sealer: &Sealer, vector: &Value, recipient: &PublicKey) {
        let (encrypted_key, nonce) = (vector["encrypted_key"].as_str().unwrap(), vector["nonce"].as_str().unwrap());
        let expected = SealedTopicKey::from_base64(encrypted_key, nonce).unwrap();
        let key = TopicKey::from_bytes(hex(&vector["topic_key"]));
        let made = sealer.seal_with_nonce(&key, recipient, expected.nonce).unwrap();
        assert_eq!(made, expected);
        assert_eq!((made.encrypted_key_base64().as_str(), made.nonce_base64().as_str()), (encrypted_key, nonce));
    }

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../testkit/data/vectors.json")).unwrap()
    }

    fn hex(value: &Value) -> [u8; 32] {
        let bytes = data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap();
        bytes.try_into().unwrap()
    }
}
