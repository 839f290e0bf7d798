//! Keys and what can be done with them short of encrypting: Ed25519 signatures, the X25519 keys that boxes are made with, and
//! hashes that people and brokers compare. It must not know sockets, clocks, storage or what a message says, and it opens nothing.
//!
//! - [`Identity`] signs; it keeps the seed and derives everything else when asked.
//! - [`verify`] and [`VerifyingKey`] accept exactly the signatures that libsodium accepts.
//! - [`x25519_public`] converts a public key exactly when libsodium does. A key that it refuses must not become a member:
//!   nobody could seal a topic key for it.
//! - [`X25519Secret::agree`] gives the [`BoxKey`] that two sides share.
//! - [`ApiKeySecret`] and [`secret_matches`] are for secrets that are stored as a hash.
//!
//! "libsodium" means 1.0.22, built from source by the tests and compared with this crate on thousands of chosen and random
//! inputs. Up to 1.0.20 its conversion also took points of order 2ℓ; neither 1.0.22 nor this crate does.
//!
//! Secret types cannot be printed, copied or serialised, and are overwritten when dropped.
#![warn(missing_docs)]

mod api_key;
mod hash;
mod identity;
mod random;
mod safety;
mod verify;
mod x25519;

pub use api_key::{ApiKeySecret, api_key_prefix, secret_matches};
pub use hash::{audit_hash, request_fingerprint, sha256, sha256_hex};
pub use identity::{BadSecret, Identity};
pub use random::{NoRandomness, random_bytes};
pub use safety::{fingerprint, safety_number};
pub use verify::{BadKey, BadSignature, VerifyingKey, verify};
pub use x25519::{BoxKey, X25519Public, X25519Secret, x25519_public};
