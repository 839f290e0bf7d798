//! Names of rows: opaque texts of letters, digits, `_` and `-`. Each kind is a type of its own, so that two never mix.
//!
//! Fresh ids are 32 base62 characters, made from the operating system's randomness by whoever makes the row.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Characters of a fresh id.
pub const ID_CHARS: usize = 32;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The text is empty, longer than 64 characters, or has a character outside `[0-9A-Za-z_-]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1-64 characters of [0-9A-Za-z_-]")]
pub struct BadId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// A fresh id from 32 random bytes (at least 5.6 bits of each survive: 181 bits).
            pub fn from_random(bytes: [u8; ID_CHARS]) -> Self {
                Self(base62(&bytes).into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let fits = (1..=64).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
                fits.then(|| Self(text.into())).ok_or(BadId)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

id!(
    /// A mesh: the tenant and the trust boundary.
    MeshId
);
id!(
    /// A member: a lasting identity in one mesh.
    MemberId
);
id!(
    /// A message, also across its redeliveries. See [`MessageId::new`] for what is inside.
    MessageId
);
id!(
    /// A presence: what others see of a connection, and of the one that takes up its lease.
    PresenceId
);
id!(
    /// One open WebSocket, in whose name deliveries are claimed. Never on the wire.
    ConnectionId
);
id!(
    /// An invite.
    InviteId
);
id!(
    /// A topic.
    TopicId
);
id!(
    /// A member's copy of a topic's key.
    TopicKeyId
);
id!(
    /// A notification.
    NotificationId
);
id!(
    /// A key to the REST interface; not its secret.
    ApiKeyId
);

impl MessageId {
    const SEQ_CHARS: usize = 8;

    /// Eight base62 digits of the message's sequence number in its mesh, then 24 random characters (136 bits at least).
    ///
    /// The number makes the first eight characters unique in a mesh, so that a short prefix names one message, and makes
    /// the row findable by its number, so that no index over random ids has to be kept (such an index costs a page write per
    /// message). The random rest is what makes an id unguessable: a row is returned only when the whole prefix given agrees.
    /// Numbers above 62^8 - 1 (2.1e14) saturate, which no mesh reaches.
    pub fn new(seq: u64, random: [u8; ID_CHARS - Self::SEQ_CHARS]) -> Self {
        let mut rest = seq.min(62_u64.pow(8) - 1);
        let mut digits = [0; Self::SEQ_CHARS];
        for digit in digits.iter_mut().rev() {
            *digit = u8::try_from(rest % 62).unwrap_or_default();
            rest /= 62;
        }
        Self(format!("{}{}", base62(&digits), base62(&random)).into())
    }

    /// The sequence number in the first eight characters of an id or of a prefix of one; `None` when that is not what it holds.
    pub fn seq_of(prefix: &str) -> Option<u64> {
        let digits = prefix.as_bytes().get(..Self::SEQ_CHARS)?;
        digits.iter().try_fold(0_u64, |seq, digit| {
            let value = BASE62.iter().position(|symbol| symbol == digit)?;
            Some(seq * 62 + u64::try_from(value).ok()?)
        })
    }
}

/// One symbol per byte, by its value modulo 62.
fn base62(bytes: &[u8]) -> String {
    bytes.iter().filter_map(|byte| BASE62.get(usize::from(byte % 62))).map(|symbol| char::from(*symbol)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_holds_its_sequence_number() {
        for seq in [0, 1, 61, 62, 1_000_000, 62_u64.pow(8) - 1] {
            let id = MessageId::new(seq, [7; 24]);
            assert_eq!(id.as_str().len(), ID_CHARS);
            assert_eq!(MessageId::seq_of(id.as_str()), Some(seq));
            assert_eq!(MessageId::seq_of(&id.as_str()[..8]), Some(seq));
        }
        assert_eq!(MessageId::seq_of("short"), None);
        assert_eq!(MessageId::seq_of("not base"), None);
    }

    #[test]
    fn ids_refuse_separators_and_length() {
        for text in ["", "a|b", "a b", "ü", &"x".repeat(65)] {
            assert_eq!(text.parse::<MeshId>(), Err(BadId), "{text}");
        }
        assert_eq!(MeshId::from_random([255; 32]).as_str().len(), 32);
    }
}
