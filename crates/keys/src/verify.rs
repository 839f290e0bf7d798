//! Which signatures count. The rules are those of `crypto_sign_verify_detached` of libsodium 1.0.22, byte for byte.
//!
//! - S is below ℓ, or a signature could be changed into another valid one.
//! - A is canonical (y < p) and not of small order, or one signature would hold for many messages.
//! - R is not of small order. Its bytes are compared with the canonical ones, so a non-canonical R is never accepted.
//! - The equation is the cofactorless one: R = S·B − h·A. A mixed-order A may verify here; it cannot be converted.
//!
//! dalek's `verify` checks S, the equation and the bytes of R; the rest is added here. Its `verify_strict` would not do: it
//! takes a non-canonical A.

use claudemesh_proto::{PublicKey, Signature};
use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_dalek::Verifier;

use crate::x25519::X25519Public;

/// These 32 bytes are not a public key that may be used for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a usable public key")]
pub struct BadKey;

/// This signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not hold")]
pub struct BadSignature;

/// A public key after the checks and the decompression that every verification needs: about 200 bytes, worth keeping.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

/// Verifies one signature; [`VerifyingKey`] is for several by one key.
///
/// # Errors
/// [`BadSignature`] when the signature, or the key itself, is one that libsodium refuses.
pub fn verify(key: &PublicKey, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
    VerifyingKey::decode(key).map_err(|BadKey| BadSignature)?.verify(message, signature)
}

impl VerifyingKey {
    /// Checks and decompresses a public key.
    ///
    /// # Errors
    /// [`BadKey`] when it is not canonical, not on the curve or of small order.
    pub fn decode(key: &PublicKey) -> Result<Self, BadKey> {
        let bytes = key.as_bytes();
        if !is_canonical(bytes) {
            return Err(BadKey);
        }
        let decoded = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| BadKey)?;
        if decoded.is_weak() { Err(BadKey) } else { Ok(Self(decoded)) }
    }

    /// Verifies a signature over exactly these bytes.
    ///
    /// # Errors
    /// [`BadSignature`] when libsodium would refuse it.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let (r, _) = signature.as_bytes().split_first_chunk().ok_or(BadSignature)?;
        if is_small_order(r) {
            return Err(BadSignature);
        }
        let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
        self.0.verify(message, &signature).map_err(|_| BadSignature)
    }

    /// The X25519 half of [`crate::x25519_public`], for a key that is already decoded.
    ///
    /// # Errors
    /// [`BadKey`] when the point is outside the prime-order subgroup.
    pub fn x25519(&self) -> Result<X25519Public, BadKey> {
        let point = self.0.to_edwards();
        if point.is_torsion_free() {
            Ok(X25519Public::from_bytes(point.to_montgomery().to_bytes()))
        } else {
            Err(BadKey)
        }
    }

    /// The key as it is written on the wire.
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.0.to_bytes())
    }
}

/// Cut to 12 characters, as logs want it.
impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("VerifyingKey").field(&self.public()).finish()
    }
}

/// Whether the y-coordinate, without the sign bit, is below p = 2^255 − 19.
fn is_canonical([first, middle @ .., last]: &[u8; 32]) -> bool {
    *first < 0xed || middle.iter().any(|byte| *byte != 0xff) || last & 0x7f != 0x7f
}

/// Whether the bytes are a point of order 1, 2, 4 or 8. Bytes that are no point are not, and no computed R equals them.
fn is_small_order(bytes: &[u8; 32]) -> bool {
    CompressedEdwardsY(*bytes).decompress().is_some_and(|point| point.is_small_order())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_ends_where_the_field_does() {
        let mut bytes = [0xff; 32];
        for (first, last, canonical) in
            [(0xec, 0x7f, true), (0xed, 0x7f, false), (0xff, 0xff, false), (0xed, 0x7e, true)]
        {
            (bytes[0], bytes[31]) = (first, last);
            assert_eq!(is_canonical(&bytes), canonical, "{first:x} {last:x}");
        }
    }
}
