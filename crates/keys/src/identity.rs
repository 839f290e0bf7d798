//! A secret key and what it can do.

use claudemesh_proto::{PublicKey, Signature};
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer, SigningKey};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::random::{NoRandomness, random_bytes};
use crate::x25519::X25519Secret;

/// An Ed25519 secret key: of a member, a session or an owner.
///
/// It keeps the 32-byte seed and never a converted key: the seed is what libsodium stores, and everything follows from it.
#[derive(ZeroizeOnDrop)]
#[expect(missing_debug_implementations, reason = "a secret must not be printable")]
pub struct Identity(SigningKey);

/// The text is not a secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// It is not 128 lower-case hex characters.
    #[error("must be 128 lowercase hex chars")]
    Shape,
    /// Its second half is not the public key of its first half. Signing with such a pair would give the secret away.
    #[error("the public half does not belong to the secret half")]
    Mismatch,
}

impl Identity {
    /// A fresh one.
    pub fn generate() -> Result<Self, NoRandomness> {
        random_bytes().map(Self::from_seed)
    }

    /// The identity that belongs to a 32-byte seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&Zeroizing::new(seed)))
    }

    /// Reads libsodium's 64-byte secret key (seed ‖ public key) from 128 lower-case hex characters.
    ///
    /// # Errors
    /// [`BadSecret`] when the text has another shape or its halves do not belong together.
    pub fn from_secret_hex(text: &str) -> Result<Self, BadSecret> {
        let mut pair = Zeroizing::new([0_u8; 64]);
        if text.len() != 2 * pair.len() {
            return Err(BadSecret::Shape);
        }
        HEXLOWER.decode_mut(text.as_bytes(), pair.as_mut_slice()).map_err(|_| BadSecret::Shape)?;
        let (seed, public) = pair.split_first_chunk().ok_or(BadSecret::Shape)?;
        let identity = Self(SigningKey::from_bytes(seed));
        if identity.public().as_bytes().as_slice() == public { Ok(identity) } else { Err(BadSecret::Mismatch) }
    }

    /// libsodium's 64-byte secret key (seed ‖ public key) as 128 lower-case hex characters.
    pub fn secret_hex(&self) -> Zeroizing<String> {
        let pair = Zeroizing::new(self.0.to_keypair_bytes());
        Zeroizing::new(HEXLOWER.encode(pair.as_slice()))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// Signs bytes as `crypto_sign_detached` does. The same bytes always give the same signature.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_bytes(self.0.sign(message).to_bytes())
    }

    /// The secret key that boxes to and from this identity are made with, as `crypto_sign_ed25519_sk_to_curve25519` gives it.
    pub fn x25519_secret(&self) -> X25519Secret {
        // dalek's scalar bytes are not clamped, libsodium's are; the results agree, the bytes would not.
        X25519Secret::clamped(self.0.to_scalar_bytes())
    }
}
