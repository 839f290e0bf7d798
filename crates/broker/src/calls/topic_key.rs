//! Keys of topics, as far as a broker has to do with them: it looks at the shape of sealed copies, and makes a key for a client that
//! makes none, of which it keeps nothing but the copy that the client alone can open.

use claudemesh_proto::frame::BadField;
use claudemesh_proto::key::BadHex;
use claudemesh_proto::limits::NONCE_BYTES;
use claudemesh_proto::text::{base64_len, from_base64};
use claudemesh_proto::{ErrorCode, PublicKey};
use claudemesh_seal::{SealError, Sealer, TopicKey};
use claudemesh_store::OwnCopy;

use crate::fault::Fault;

/// A sealed topic key: the sender's public key (32 bytes), and the box of the key (48).
const SEALED_BYTES: usize = 80;

/// Makes a key of a topic and seals it for a member. The key, and the secret half of the sender that sealed it, are overwritten when
/// this returns.
pub(crate) fn make_for(member: &PublicKey) -> Result<OwnCopy, Fault> {
    let no_randomness = |error: claudemesh_keys::NoRandomness| {
        tracing::error!(error = %error, "a topic's key could not be made");
        Fault::unavailable()
    };
    let key = TopicKey::generate().map_err(no_randomness)?;
    let sealer = Sealer::ephemeral().map_err(no_randomness)?;
    let copy = sealer.seal(&key, member).map_err(|error| match error {
        SealError::NoRandomness(error) => no_randomness(error),
        SealError::UnusableRecipient(_) => {
            Fault::new(ErrorCode::Forbidden, "nobody can seal a topic's key for your member's key")
        }
    })?;
    Ok(OwnCopy {
        encrypted_key_pubkey: sealer.public().to_string(),
        encrypted_key: copy.encrypted_key_base64(),
        nonce: copy.nonce_base64(),
    })
}

/// The copy of whoever made a topic's key: the public key that it is said to be sealed with has to be the one in it.
pub(crate) fn own_copy(pubkey: &str, encrypted_key: &str, nonce: &str) -> Result<OwnCopy, BadField> {
    let key: PublicKey = pubkey.parse().map_err(|why: BadHex| bad("encryptedKeyPubkey", why.to_string()))?;
    let sender = sealed_copy(encrypted_key, nonce)?;
    if sender != *key.as_bytes() {
        return Err(bad("encryptedKeyPubkey", "must be the first 32 bytes of encryptedKey"));
    }
    Ok(OwnCopy {
        encrypted_key_pubkey: pubkey.to_owned(),
        encrypted_key: encrypted_key.to_owned(),
        nonce: nonce.to_owned(),
    })
}

/// Whether this is a sealed topic key and its nonce; the public key in it.
pub(crate) fn sealed_copy(encrypted_key: &str, nonce: &str) -> Result<[u8; 32], BadField> {
    let sealed = from_base64(encrypted_key).filter(|bytes| bytes.len() == SEALED_BYTES);
    let sender = sealed.as_deref().and_then(<[u8]>::first_chunk);
    let sender = sender.ok_or_else(|| bad("encryptedKey", format!("must be padded base64 of {SEALED_BYTES} bytes")))?;
    if base64_len(nonce) != Some(NONCE_BYTES) {
        return Err(bad("nonce", format!("must be padded base64 of {NONCE_BYTES} bytes")));
    }
    Ok(*sender)
}

fn bad(field: &str, why: impl Into<String>) -> BadField {
    BadField { field: field.to_owned(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use claudemesh_keys::Identity;
    use claudemesh_proto::text::base64;
    use claudemesh_seal::SealedTopicKey;

    use super::*;

    #[test]
    fn a_key_is_sealed_by_a_sender_of_its_own_and_passes_its_own_check() {
        let member = Identity::generate().unwrap().public();
        let (one, two) = (make_for(&member).unwrap(), make_for(&member).unwrap());
        assert_ne!(one.encrypted_key_pubkey, two.encrypted_key_pubkey);
        assert!(SealedTopicKey::from_base64(&one.encrypted_key, &one.nonce).is_ok());
        assert_eq!(own_copy(&one.encrypted_key_pubkey, &one.encrypted_key, &one.nonce), Ok(one));
    }

    #[test]
    fn nobody_makes_a_topic_for_a_key_that_nobody_can_seal_for() {
        // Of order one.
        let mut point = [0; 32];
        point[0] = 1;
        assert_eq!(make_for(&PublicKey::from_bytes(point)).unwrap_err().code, ErrorCode::Forbidden);
    }

    #[test]
    fn wrong_lengths_name_their_field() {
        let member = Identity::generate().unwrap().public();
        let good = make_for(&member).unwrap();
        let OwnCopy { encrypted_key_pubkey: pubkey, encrypted_key: key, nonce } = &good;
        let field = |pubkey: &str, key: &str, nonce: &str| own_copy(pubkey, key, nonce).unwrap_err().field;
        for wrong in ["", &pubkey[..62], &pubkey.to_uppercase(), &format!("{pubkey}00"), &"0".repeat(64)] {
            assert_eq!(field(wrong, key, nonce), "encryptedKeyPubkey", "{wrong}");
        }
        for wrong in ["", "x", &base64(&[1; 79]), &base64(&[1; 81]), key.trim_end_matches('='), &key.replace('=', "")] {
            assert_eq!(field(pubkey, wrong, nonce), "encryptedKey", "{wrong}");
        }
        for wrong in ["", &base64(&[1; 23]), &base64(&[1; 25]), "\u{e9}"] {
            assert_eq!(field(pubkey, key, wrong), "nonce", "{wrong}");
        }
    }
}
