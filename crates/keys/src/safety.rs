//! What two people read to each other to be sure of a key.

use claudemesh_proto::PublicKey;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::hash::sha256;

/// Six groups of five digits that both sides compute alike: 120 bits of `SHA-256(lower key ‖ higher key)`, most significant
/// first, 20 bits a group, each modulo 100000. FROZEN: existing clients show the same number.
pub fn safety_number(a: &PublicKey, b: &PublicKey) -> String {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let digest = Sha256::new().chain_update(low.as_bytes()).chain_update(high.as_bytes()).finalize();
    let bits = digest.iter().take(15).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    let group = |index: u32| format!("{:05}", (bits >> (100 - 20 * index) & 0xf_ffff) % 100_000);
    (0..6).map(group).collect::<Vec<_>>().join(" ")
}

/// One key in short, for people to tell keys apart: the first 64 bits of its SHA-256 as `xxxx-xxxx-xxxx-xxxx`. Too short to
/// trust a key by; for that there is [`safety_number`].
pub fn fingerprint(key: &PublicKey) -> String {
    let digest = sha256(key.as_bytes());
    let groups = digest.chunks(2).take(4).map(|group| HEXLOWER.encode(group));
    groups.collect::<Vec<_>>().join("-")
}
