//! libsodium itself, vendored and called through C, so that the cryptography crates can be compared with it function by
//! function. It knows nothing of claudemesh and is only ever a dev-dependency.
//!
//! This is the one crate of ours with `unsafe`. Every block is a single call whose pointers come from fixed-size arrays of the
//! lengths that `sodium.h` documents, or from slices passed together with their length; libsodium reads and writes no further.

mod draw;
mod torsion;

use std::ffi::CStr;
use std::sync::Once;

pub use draw::Draw;
pub use torsion::{NON_CANONICAL_POINTS, SMALL_ORDER_POINTS, SMALL_ORDER_U};

/// Length of the authenticator that boxes begin with.
const MAC: usize = 16;

/// The version of the libsodium that answers here.
pub fn version() -> String {
    // SAFETY: takes nothing and returns a pointer to a constant string of the library.
    let text = unsafe { libsodium_sys::sodium_version_string() };
    // SAFETY: that string is static and ends with a zero byte.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// `crypto_sign_seed_keypair`: the public key and the 64-byte secret (seed ‖ public).
pub fn keypair(seed: &[u8; 32]) -> ([u8; 32], [u8; 64]) {
    start();
    let (mut public, mut secret) = ([0; 32], [0; 64]);
    // SAFETY: 32 bytes out, 64 bytes out, 32 bytes in.
    unsafe { libsodium_sys::crypto_sign_seed_keypair(public.as_mut_ptr(), secret.as_mut_ptr(), seed.as_ptr()) };
    (public, secret)
}

/// `crypto_sign_detached`.
pub fn sign(secret: &[u8; 64], message: &[u8]) -> [u8; 64] {
    start();
    let mut signature = [0; 64];
    let written = std::ptr::null_mut();
    // SAFETY: 64 bytes out, an optional length that may be null, a message with its length, 64 bytes in.
    unsafe {
        libsodium_sys::crypto_sign_detached(
            signature.as_mut_ptr(),
            written,
            message.as_ptr(),
            length(message),
            secret.as_ptr(),
        )
    };
    signature
}

/// `crypto_sign_verify_detached`.
pub fn verify(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    start();
    // SAFETY: 64 bytes in, a message with its length, 32 bytes in.
    let answer = unsafe {
        libsodium_sys::crypto_sign_verify_detached(
            signature.as_ptr(),
            message.as_ptr(),
            length(message),
            public.as_ptr(),
        )
    };
    answer == 0
}

/// `crypto_sign_ed25519_pk_to_curve25519`; `None` when it refuses.
pub fn public_to_x25519(public: &[u8; 32]) -> Option<[u8; 32]> {
    start();
    let mut converted = [0; 32];
    // SAFETY: 32 bytes out, 32 bytes in.
    let answer =
        unsafe { libsodium_sys::crypto_sign_ed25519_pk_to_curve25519(converted.as_mut_ptr(), public.as_ptr()) };
    (answer == 0).then_some(converted)
}

/// `crypto_sign_ed25519_sk_to_curve25519`.
pub fn secret_to_x25519(secret: &[u8; 64]) -> [u8; 32] {
    start();
    let mut converted = [0; 32];
    // SAFETY: 32 bytes out, 64 bytes in.
    unsafe { libsodium_sys::crypto_sign_ed25519_sk_to_curve25519(converted.as_mut_ptr(), secret.as_ptr()) };
    converted
}

/// `crypto_scalarmult_base`: the X25519 public key of a secret.
pub fn x25519_base(secret: &[u8; 32]) -> [u8; 32] {
    start();
    let mut public = [0; 32];
    // SAFETY: 32 bytes out, 32 bytes in.
    unsafe { libsodium_sys::crypto_scalarmult_base(public.as_mut_ptr(), secret.as_ptr()) };
    public
}

/// `crypto_box_beforenm`: the key both sides of a box compute; `None` when it refuses.
pub fn box_key(public: &[u8; 32], secret: &[u8; 32]) -> Option<[u8; 32]> {
    start();
    let mut key = [0; 32];
    // SAFETY: 32 bytes out, 32 bytes in, 32 bytes in.
    let answer = unsafe { libsodium_sys::crypto_box_beforenm(key.as_mut_ptr(), public.as_ptr(), secret.as_ptr()) };
    (answer == 0).then_some(key)
}

/// `crypto_box_easy`; `None` when it refuses.
pub fn box_seal(plaintext: &[u8], nonce: &[u8; 24], public: &[u8; 32], secret: &[u8; 32]) -> Option<Vec<u8>> {
    start();
    let mut ciphertext = vec![0; plaintext.len() + MAC];
    // SAFETY: the output is 16 bytes longer than the plaintext, which comes with its length; 24, 32 and 32 bytes in.
    let answer = unsafe {
        libsodium_sys::crypto_box_easy(
            ciphertext.as_mut_ptr(),
            plaintext.as_ptr(),
            length(plaintext),
            nonce.as_ptr(),
            public.as_ptr(),
            secret.as_ptr(),
        )
    };
    (answer == 0).then_some(ciphertext)
}

/// `crypto_box_open_easy`; `None` when it refuses.
pub fn box_open(ciphertext: &[u8], nonce: &[u8; 24], public: &[u8; 32], secret: &[u8; 32]) -> Option<Vec<u8>> {
    start();
    let mut plaintext = vec![0; ciphertext.len().saturating_sub(MAC)];
    // SAFETY: the output is 16 bytes shorter than the ciphertext, which comes with its length and is refused by the library
    // when it is shorter than that; 24, 32 and 32 bytes in.
    let answer = unsafe {
        libsodium_sys::crypto_box_open_easy(
            plaintext.as_mut_ptr(),
            ciphertext.as_ptr(),
            length(ciphertext),
            nonce.as_ptr(),
            public.as_ptr(),
            secret.as_ptr(),
        )
    };
    (answer == 0).then_some(plaintext)
}

/// `crypto_secretbox_easy`.
pub fn secretbox_seal(plaintext: &[u8], nonce: &[u8; 24], key: &[u8; 32]) -> Vec<u8> {
    start();
    let mut ciphertext = vec![0; plaintext.len() + MAC];
    // SAFETY: the output is 16 bytes longer than the plaintext, which comes with its length; 24 and 32 bytes in.
    unsafe {
        libsodium_sys::crypto_secretbox_easy(
            ciphertext.as_mut_ptr(),
            plaintext.as_ptr(),
            length(plaintext),
            nonce.as_ptr(),
            key.as_ptr(),
        )
    };
    ciphertext
}

/// `crypto_secretbox_open_easy`; `None` when it refuses.
pub fn secretbox_open(ciphertext: &[u8], nonce: &[u8; 24], key: &[u8; 32]) -> Option<Vec<u8>> {
    start();
    let mut plaintext = vec![0; ciphertext.len().saturating_sub(MAC)];
    // SAFETY: the output is 16 bytes shorter than the ciphertext, which comes with its length and is refused by the library
    // when it is shorter than that; 24 and 32 bytes in.
    let answer = unsafe {
        libsodium_sys::crypto_secretbox_open_easy(
            plaintext.as_mut_ptr(),
            ciphertext.as_ptr(),
            length(ciphertext),
            nonce.as_ptr(),
            key.as_ptr(),
        )
    };
    (answer == 0).then_some(plaintext)
}

/// Lets the library pick its implementations, once; it works before that, but more slowly.
fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // SAFETY: takes nothing; may be called from any thread.
        let answer = unsafe { libsodium_sys::sodium_init() };
        assert!(answer >= 0, "libsodium did not start");
    });
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
