//! The exact bytes that are signed or hashed.
//!
//! Two encodings exist. The `|`-joined strings are those of the existing protocol and are FROZEN: clients that we did not
//! write sign them. Everything newly signed uses [`SigningBytes`], which cannot be confused by a separator inside a field.

use serde_json::Value;

use crate::key::PublicKey;

/// What the member key signs in `hello`. FROZEN: existing clients sign it.
pub fn hello(mesh_id: &str, member_id: &str, pubkey: &str, timestamp_ms: i64) -> String {
    format!("{mesh_id}|{member_id}|{pubkey}|{timestamp_ms}")
}

/// What the member key signs to vouch for a session key until `expires_at_ms`. FROZEN: existing clients sign it.
pub fn attestation(parent_pubkey: &str, session_pubkey: &str, expires_at_ms: i64) -> String {
    format!("claudemesh-session-attest|{parent_pubkey}|{session_pubkey}|{expires_at_ms}")
}

/// What the session key signs in `session_hello`. FROZEN: existing clients sign it.
pub fn session_hello(mesh_id: &str, parent_pubkey: &str, session_pubkey: &str, timestamp_ms: i64) -> String {
    format!("claudemesh-session-hello|{mesh_id}|{parent_pubkey}|{session_pubkey}|{timestamp_ms}")
}

/// The line that an audit entry's hash covers: the payload as [`json`] writes it, the time as [`crate::Timestamp`] shows it, and the
/// word `null` for an absent actor. FROZEN: old chains are verified with it.
pub fn audit_line(
    previous_hash: &str,
    mesh_id: &str,
    event: &str,
    actor: Option<&str>,
    (payload, created_at): (&str, &str),
) -> String {
    let actor = actor.unwrap_or("null");
    [previous_hash, mesh_id, event, actor, payload, created_at].join("|")
}

/// The bytes that the broker signs to say where a mesh's audit log stood.
pub fn audit_checkpoint(mesh_id: &str, seq: i64, (hash, hash2): (&str, &str), signed_at: crate::Timestamp) -> Vec<u8> {
    SigningBytes::new("audit-checkpoint")
        .field(mesh_id)
        .field(seq.to_string())
        .field(hash)
        .field(hash2)
        .field(signed_at.to_string())
        .finish()
}

/// The bytes that `POST /v1/meshes` is signed over, by the owner key and by the first member's key.
pub fn mesh_create(
    slug: &str,
    owner: &PublicKey,
    member: &PublicKey,
    display_name: &str,
    timestamp_ms: i64,
) -> Vec<u8> {
    SigningBytes::new("mesh-create")
        .field(slug)
        .field(owner.as_bytes())
        .field(member.as_bytes())
        .field(display_name)
        .field(timestamp_ms.to_string())
        .finish()
}

/// The bytes that a member's change of its key is signed over, by the key that it had and by the one that it is to have.
pub fn peer_pubkey(mesh_id: &str, member_id: &str, (from, to): (&PublicKey, &PublicKey), timestamp_ms: i64) -> Vec<u8> {
    SigningBytes::new("peer-pubkey")
        .field(mesh_id)
        .field(member_id)
        .field(from.as_bytes())
        .field(to.as_bytes())
        .field(timestamp_ms.to_string())
        .finish()
}

/// Builder of `"claudemesh/<purpose>/v1" ‖ 0x00 ‖ (u32be(length) ‖ bytes)*`, the one encoding for everything newly signed.
#[derive(Debug)]
pub struct SigningBytes(Vec<u8>);

impl SigningBytes {
    /// Starts with the purpose, which separates the domains of signatures.
    pub fn new(purpose: &str) -> Self {
        let mut bytes = format!("claudemesh/{purpose}/v1").into_bytes();
        bytes.push(0);
        Self(bytes)
    }

    /// Appends one field with its length (saturating at 4 GiB, which no field reaches).
    #[must_use]
    pub fn field(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.0.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.0.extend(bytes);
        self
    }

    /// The bytes to sign.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// JSON without whitespace; every object, nested ones too, has its keys in the order of their UTF-16 code units. FROZEN: hashes of
/// existing clients cover it.
pub fn json(value: &Value) -> String {
    let mut bytes = Vec::new();
    write_json(value, &mut bytes);
    String::from_utf8(bytes).unwrap_or_default()
}

fn write_json(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Array(items) => {
            bytes.push(b'[');
            for (place, item) in items.iter().enumerate() {
                separate(place, bytes);
                write_json(item, bytes);
            }
            bytes.push(b']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            bytes.push(b'{');
            for (place, (key, value)) in fields.into_iter().enumerate() {
                separate(place, bytes);
                write_scalar(key, bytes);
                bytes.push(b':');
                write_json(value, bytes);
            }
            bytes.push(b'}');
        }
        scalar => write_scalar(scalar, bytes),
    }
}

fn separate(place: usize, bytes: &mut Vec<u8>) {
    if place > 0 {
        bytes.push(b',');
    }
}

fn write_scalar(scalar: &(impl serde::Serialize + ?Sized), bytes: &mut Vec<u8>) {
    // Neither memory nor a scalar can refuse.
    let _ = serde_json::to_writer(bytes, scalar);
}

/// The bytes whose SHA-256 is a send's `request_fingerprint`, given the SHA-256 of the UTF-8 body. FROZEN: daemons compare it.
pub fn request_fingerprint(
    destination: Destination<'_>,
    priority: &str,
    meta: Option<&Value>,
    body_sha256: &[u8; 32],
) -> Vec<u8> {
    let meta = meta.map(json).unwrap_or_default();
    let fields =
        ["1", destination.kind, destination.reference, destination.reply_to.unwrap_or_default(), priority, &meta];
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend(field.as_bytes());
        bytes.push(0);
    }
    bytes.extend(body_sha256);
    bytes
}

/// Where a fingerprinted message goes: `kind` is `dm`, `topic` or `queue`.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// `dm`, `topic` or `queue`.
    pub kind: &'a str,
    /// The key, topic or `*` as the user gave it.
    pub reference: &'a str,
    /// The message answered, if any.
    pub reply_to: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_sorts_keys_by_utf16_unit_and_writes_no_space() {
        let value = serde_json::json!({"b": [1, {"d": null, "c": "x\"y"}], "a": true, "\u{ff61}": 1, "\u{10002}": 2});
        assert_eq!(json(&value), "{\"a\":true,\"b\":[1,{\"c\":\"x\\\"y\",\"d\":null}],\"\u{10002}\":2,\"\u{ff61}\":1}");
    }

    #[test]
    fn fields_carry_their_length() {
        let bytes = SigningBytes::new("test").field("ab").field("").finish();
        assert_eq!(bytes, b"claudemesh/test/v1\0\0\0\0\x02ab\0\0\0\0");
    }
}
