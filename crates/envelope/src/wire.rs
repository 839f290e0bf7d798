//! Base64 as the protocol wants it: the standard alphabet, padding required, unused bits zero.

use data_encoding::BASE64;

/// The text is not padded standard base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be padded standard base64")]
pub struct BadBase64;

/// Writes bytes as padded standard base64.
pub fn base64_encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64.encode(bytes.as_ref())
}

/// Reads padded standard base64, as strictly as `sodium_base642bin` does without characters to ignore.
///
/// # Errors
/// [`BadBase64`] for anything else: other alphabets, missing padding, white space, bits that no byte holds.
pub fn base64_decode(text: &str) -> Result<Vec<u8>, BadBase64> {
    BASE64.decode(text.as_bytes()).map_err(|_| BadBase64)
}
