//! X25519 keys and the key that two of them agree on, as `crypto_box` uses them.

use std::fmt;

use claudemesh_proto::PublicKey;
use crypto_secretbox::{Kdf, XSalsa20Poly1305};
use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::clamp_integer;
use data_encoding::HEXLOWER;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::random::{NoRandomness, random_bytes};
use crate::verify::{BadKey, VerifyingKey};

/// A 32-byte X25519 public key. Any bytes are one; whether it may be used is decided by [`X25519Secret::agree`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct X25519Public([u8; 32]);

/// A 32-byte X25519 secret key.
#[derive(Zeroize, ZeroizeOnDrop)]
#[expect(missing_debug_implementations, reason = "a secret must not be printable")]
pub struct X25519Secret([u8; 32]);

/// The 32-byte key that both sides of a box compute (`crypto_box_beforenm`), the same in both directions.
#[derive(Zeroize, ZeroizeOnDrop)]
#[expect(missing_debug_implementations, reason = "a secret must not be printable")]
pub struct BoxKey([u8; 32]);

/// Converts an Ed25519 public key to the X25519 key that boxes for its owner are made with, exactly when
/// `crypto_sign_ed25519_pk_to_curve25519` does. A broker asks this before it makes a key a member.
///
/// libsodium does not test for y < p here, and need not: no such encoding is in the prime-order subgroup.
///
/// # Errors
/// [`BadKey`] when the key is not on the curve, not canonical, of small order or outside the prime-order subgroup.
pub fn x25519_public(key: &PublicKey) -> Result<X25519Public, BadKey> {
    VerifyingKey::decode(key)?.x25519()
}

impl X25519Public {
    /// Wraps 32 raw bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// 64 lower-case hex characters.
impl fmt::Display for X25519Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// Cut to 12 characters, as logs want it.
impl fmt::Debug for X25519Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, _) = self.0.split_at(6);
        write!(f, "X25519Public({}…)", HEXLOWER.encode(head))
    }
}

impl X25519Secret {
    /// A fresh one.
    pub fn generate() -> Result<Self, NoRandomness> {
        random_bytes().map(Self)
    }

    /// Wraps 32 raw bytes, clamped or not: they are clamped in use.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn clamped(bytes: [u8; 32]) -> Self {
        Self(clamp_integer(bytes))
    }

    /// The public half.
    pub fn public(&self) -> X25519Public {
        X25519Public(MontgomeryPoint::mul_base_clamped(self.0).to_bytes())
    }

    /// The key shared with the owner of `public`, as `crypto_box_beforenm` gives it: HSalsa20 of the X25519 result.
    ///
    /// # Errors
    /// [`BadKey`] when the X25519 result is all zero: the key is of small order, and anybody could compute the "shared" key.
    pub fn agree(&self, public: &X25519Public) -> Result<BoxKey, BadKey> {
        let shared = Zeroizing::new(MontgomeryPoint(public.0).mul_clamped(self.0).to_bytes());
        if *shared == [0; 32] {
            return Err(BadKey);
        }
        Ok(BoxKey(XSalsa20Poly1305::kdf(shared.as_ref().into(), &[0; 16].into()).into()))
    }

    /// The 32 raw bytes.
    pub fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl BoxKey {
    /// The 32 raw bytes, a key for `crypto_secretbox`.
    pub fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
