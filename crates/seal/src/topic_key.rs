//! The secret that the bodies of a topic are sealed under.

use claudemesh_keys::{NoRandomness, random_bytes};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The 32-byte key of a topic, shared by its members.
#[derive(Zeroize, ZeroizeOnDrop)]
#[expect(missing_debug_implementations, reason = "a secret must not be printable")]
pub struct TopicKey([u8; 32]);

impl TopicKey {
    /// A fresh one.
    pub fn generate() -> Result<Self, NoRandomness> {
        random_bytes().map(Self)
    }

    /// Wraps 32 raw bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 raw bytes.
    pub fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
