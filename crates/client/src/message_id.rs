//! Our own ids of messages.

use claudemesh_keys::random_bytes;
use claudemesh_proto::Timestamp;

use crate::error::Result;

/// A fresh `client_message_id`: a UUID version 7 (RFC 9562), whose first 48 bits are the time, so that ids made one after the
/// other are neighbours in a broker's index.
pub fn client_message_id(now: Timestamp) -> Result<String> {
    let millis = u64::try_from(now.as_millis()).unwrap_or_default() & 0xffff_ffff_ffff;
    let random = u128::from_le_bytes(random_bytes()?);
    Ok(uuid(u128::from(millis) << 80 | random >> 48))
}

/// The text form, with the bits of version 7 and the variant set.
fn uuid(bits: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | 0x7 << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    let mut text = String::with_capacity(36);
    for (index, digit) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_has_our_form() {
        // RFC 9562, appendix A.6.
        assert_eq!(uuid(0x017f_22e2_79b0_7cc3_98c4_dc0c_0c07_398f), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-7fff-bfff-ffffffffffff");
    }

    #[test]
    fn later_ids_sort_later_and_no_two_are_equal() {
        let at = |millis| client_message_id(Timestamp::from_millis(millis)).unwrap();
        assert!(at(1_700_000_000_000) < at(1_700_000_000_001));
        assert_ne!(at(5), at(5));
        assert!(claudemesh_proto::message::is_client_id(&at(5)));
    }
}
