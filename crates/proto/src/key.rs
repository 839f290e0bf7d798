//! Public keys and signatures as they look on the wire: fixed-length lower-case hex.
//!
//! Nothing here knows a curve: whether the 32 bytes are a point that may be trusted is decided in `claudemesh-keys`.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A 32-byte Ed25519 public key, written as 64 lower-case hex characters. Only the shape is checked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// A 64-byte detached Ed25519 signature, written as 128 lower-case hex characters. Only the shape is checked.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature([u8; 64]);

/// The text is not lower-case hex of the wanted length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {chars} lowercase hex chars")]
pub struct BadHex {
    /// How many characters were wanted.
    pub chars: usize,
}

impl PublicKey {
    /// Wraps 32 raw bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Signature {
    /// Wraps 64 raw bytes (R ‖ S).
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 raw bytes (R ‖ S).
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// Reads 128 hex characters of either case, as the handshakes do.
    ///
    /// # Errors
    /// [`BadHex`] when the length or a character is wrong.
    pub fn parse_any_case(text: &str) -> Result<Self, BadHex> {
        text.to_ascii_lowercase().parse()
    }
}

impl FromStr for PublicKey {
    type Err = BadHex;

    fn from_str(text: &str) -> Result<Self, BadHex> {
        fixed_hex(text).map(Self)
    }
}

impl FromStr for Signature {
    type Err = BadHex;

    fn from_str(text: &str) -> Result<Self, BadHex> {
        fixed_hex(text).map(Self)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// Cut to 12 characters, as logs want it.
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, _) = self.0.split_at(6);
        write!(f, "PublicKey({}…)", HEXLOWER.encode(head))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(…)")
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

fn fixed_hex<const N: usize>(text: &str) -> Result<[u8; N], BadHex> {
    HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(BadHex { chars: 2 * N })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";

    #[test]
    fn a_key_reads_and_writes_the_same_hex() {
        assert_eq!(HEX.parse::<PublicKey>().unwrap().to_string(), HEX);
    }

    #[test]
    fn upper_case_short_and_long_hex_are_refused() {
        for text in [&HEX.to_uppercase(), &HEX[..62], &format!("{HEX}00"), "", "zz"] {
            assert_eq!(text.parse::<PublicKey>(), Err(BadHex { chars: 64 }), "{text}");
        }
    }

    #[test]
    fn debug_shows_no_more_than_twelve_characters() {
        assert_eq!(format!("{:?}", HEX.parse::<PublicKey>().unwrap()), "PublicKey(8a88e3dd7409…)");
    }
}
