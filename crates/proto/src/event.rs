//! System events: what happens in a mesh, told to whoever is connected at the moment and kept for nobody.

use serde::Serialize;
use serde_json::Value;

use crate::id::MeshId;
use crate::message::Priority;
use crate::time::Timestamp;

/// A push that no member sent. It needs no ack.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename = "push", rename_all = "camelCase")]
pub struct SystemEvent<'a> {
    /// A UUID.
    pub message_id: &'a str,
    /// The mesh.
    pub mesh_id: &'a MeshId,
    /// Always `system`.
    pub sender_pubkey: &'a str,
    /// How urgent it is.
    pub priority: Priority,
    /// Always empty.
    pub nonce: &'a str,
    /// Always empty.
    pub ciphertext: &'a str,
    /// When it happened.
    pub created_at: Timestamp,
    /// Always `system`.
    pub subtype: &'a str,
    /// What happened.
    pub event: &'a str,
    /// An object about it; never with a key `mesh`, `event` or `ts`, which existing clients give a meaning of their own.
    pub event_data: &'a Value,
}

impl<'a> SystemEvent<'a> {
    /// An event that can wait.
    pub fn new(id: &'a str, mesh_id: &'a MeshId, now: Timestamp, (event, event_data): (&'a str, &'a Value)) -> Self {
        Self {
            message_id: id,
            mesh_id,
            sender_pubkey: "system",
            priority: Priority::Low,
            nonce: "",
            ciphertext: "",
            created_at: now,
            subtype: "system",
            event,
            event_data,
        }
    }

    /// The JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A UUID of version 4 made of random bytes.
pub fn uuid(mut random: [u8; 16]) -> String {
    use std::fmt::Write as _;
    let [.., version, _, variant, _, _, _, _, _, _, _] = &mut random;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in random.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_says_that_it_is_random() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
    }
}
