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

/// Whether the bytes, with either sign bit, are a canonical encoding of a point of order 1, 2, 4 or 8.
fn is_small_order(bytes: &[u8; 32]) -> bool {
    let mut y = *bytes;
    let [.., last] = &mut y;
    *last &= 0x7f;
    SMALL_ORDER_Y.contains(&y)
}

/// libsodium's list (`ge25519_has_small_order`) without its two entries ≥ p, which no computed R can equal.
const SMALL_ORDER_Y: [[u8; 32]; 5] = [
    // order 4
    [
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    ],
    // order 1
    [
        0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    ],
    // order 8
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    // order 8
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    // order 2
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
    ],
];

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;

    use super::*;

    #[test]
    fn the_list_of_small_orders_is_the_torsion_group() {
        let torsion = EIGHT_TORSION.map(|point| point.compress().to_bytes());
        assert!(torsion.iter().all(is_small_order));
        assert!(SMALL_ORDER_Y.iter().all(|y| torsion.contains(y)));
    }

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
