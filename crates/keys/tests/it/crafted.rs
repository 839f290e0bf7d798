//! Signatures that a laxer verifier would take, made on purpose: each satisfies the equation R = S·B − h·A.

use claudemesh_keys::{verify, x25519_public};
use claudemesh_proto::{PublicKey, Signature};
use claudemesh_referee::{self as libsodium, SMALL_ORDER_POINTS};
use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use ed25519_dalek::Verifier;
use sha2::{Digest, Sha512};

const SECRET: [u8; 32] = [0x42; 32];

#[test]
fn a_small_order_r_is_refused_although_the_equation_holds() {
    let secret = Scalar::from_bytes_mod_order(clamp_integer(SECRET));
    let key = (EdwardsPoint::mul_base(&secret) + EIGHT_TORSION[1]).compress().to_bytes();
    for torsion in EIGHT_TORSION {
        let r = torsion.compress().to_bytes();
        // S·B − h·(secret·B + T) = −h·T, which is R for one message in eight.
        let found = messages().find_map(|message| {
            let s = challenge(&r, &key, &message) * secret;
            let signature = join(&r, &s.to_bytes());
            dalek_takes(&key, &message, &signature).then_some((message, signature))
        });
        let (message, signature) = found.unwrap();
        assert_eq!(judge(&key, &message, &signature), [false, false], "R {r:02x?}");
    }
}

#[test]
fn a_small_order_key_is_refused_although_the_equation_holds() {
    let s = Scalar::from_bytes_mod_order(SECRET);
    for key in SMALL_ORDER_POINTS {
        let (message, signature) = messages()
            .find_map(|message| {
                // R = S·B − h·A for A of small order is S·B for one message in its order.
                let signature = join(&EdwardsPoint::mul_base(&s).compress().to_bytes(), &s.to_bytes());
                dalek_takes(&key, &message, &signature).then_some((message, signature))
            })
            .unwrap();
        assert_eq!(judge(&key, &message, &signature), [false, false], "key {key:02x?}");
    }
}

#[test]
fn a_mixed_order_key_verifies_without_the_cofactor_and_is_not_converted() {
    let secret = Scalar::from_bytes_mod_order(clamp_integer(SECRET));
    let nonce = Scalar::from_bytes_mod_order([0x17; 32]);
    let r = EdwardsPoint::mul_base(&nonce).compress().to_bytes();
    for torsion in EIGHT_TORSION.into_iter().skip(1) {
        let key = (EdwardsPoint::mul_base(&secret) + torsion).compress().to_bytes();
        let verdicts: Vec<_> = messages()
            .take(64)
            .map(|message| {
                let s = nonce + challenge(&r, &key, &message) * secret;
                judge(&key, &message, &join(&r, &s.to_bytes()))
            })
            .collect();
        assert!(verdicts.iter().all(|[ours, theirs]| ours == theirs));
        assert!(verdicts.contains(&[true, true]) && verdicts.contains(&[false, false]), "both answers must occur");
        assert!(x25519_public(&PublicKey::from_bytes(key)).is_err());
        assert_eq!(libsodium::public_to_x25519(&key), None);
    }
}

/// What this crate and libsodium say.
fn judge(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> [bool; 2] {
    let ours = verify(&PublicKey::from_bytes(*key), message, &Signature::from_bytes(*signature)).is_ok();
    [ours, libsodium::verify(key, message, signature)]
}

/// What dalek says without our additions: the crafted signature is a real one.
fn dalek_takes(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let key = ed25519_dalek::VerifyingKey::from_bytes(key).unwrap();
    key.verify(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
}

fn challenge(r: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(r).chain_update(key).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

fn join(r: &[u8; 32], s: &[u8; 32]) -> [u8; 64] {
    let mut signature = [0; 64];
    let (first, second) = signature.split_at_mut(32);
    first.copy_from_slice(r);
    second.copy_from_slice(s);
    signature
}

fn messages() -> impl Iterator<Item = Vec<u8>> {
    (0_u32..500).map(|number| number.to_be_bytes().to_vec())
}
