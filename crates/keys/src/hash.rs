//! SHA-256, and the two hashes of the existing protocol that are compared across machines.

use claudemesh_proto::Timestamp;
use claudemesh_proto::canonical::{self, Destination};
use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256.
pub fn sha256(bytes: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 as 64 lower-case hex characters: how API keys, session tokens and audit entries are hashed.
pub fn sha256_hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(&sha256(bytes))
}

/// The `request_fingerprint` of a send, by which a broker tells a retry from another message: 64 hex characters.
pub fn request_fingerprint(
    destination: Destination<'_>,
    priority: &str,
    meta: Option<&Value>,
    body: impl AsRef<[u8]>,
) -> String {
    sha256_hex(canonical::request_fingerprint(destination, priority, meta, &sha256(body)))
}

/// The hash of an audit entry, which covers the entry before it: 64 hex characters. The first one follows `genesis`.
pub fn audit_hash(
    previous_hash: &str,
    mesh_id: &str,
    event: &str,
    actor: Option<&str>,
    (payload, created_at): (&Value, Timestamp),
) -> String {
    let entry = (canonical::json(payload), created_at.to_string());
    sha256_hex(canonical::audit_line(previous_hash, mesh_id, event, actor, (&entry.0, &entry.1)))
}
