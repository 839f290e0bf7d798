//! What secret types must not be able to do, proved by the compiler, and which texts are no sealed key.

use std::fmt::{Debug, Display};

use claudemesh_keys::X25519Secret;
use claudemesh_seal::{BadSealedKey, SealedTopicKey, Sealer, TopicKey};
use serde::Serialize;
use static_assertions::{assert_impl_all, assert_not_impl_any};
use zeroize::ZeroizeOnDrop;

assert_not_impl_any!(TopicKey: Debug, Display, Serialize, Clone, Copy);
assert_not_impl_any!(Sealer: Debug, Display, Serialize, Clone, Copy);
assert_impl_all!(TopicKey: ZeroizeOnDrop, Send, Sync);
// A sealer has this one field.
assert_impl_all!(X25519Secret: ZeroizeOnDrop);
assert_impl_all!(Sealer: Send, Sync);

#[test]
fn every_topic_key_and_every_sender_is_another() {
    assert_ne!(TopicKey::generate().unwrap().expose_bytes(), TopicKey::generate().unwrap().expose_bytes());
    assert_ne!(Sealer::ephemeral().unwrap().public(), Sealer::ephemeral().unwrap().public());
}

#[test]
fn only_padded_base64_of_the_right_length_is_read() {
    let (good, nonce) = (data_encoding::BASE64.encode(&[1; 80]), data_encoding::BASE64.encode(&[2; 24]));
    assert!(SealedTopicKey::from_base64(&good, &nonce).is_ok());
    let [short, long] = [[1; 79].as_slice(), &[1; 81]].map(|bytes| data_encoding::BASE64.encode(bytes));
    let unpadded = good.trim_end_matches('=');
    let trailing_bits = format!("{}F=", &good[..106]);
    for bad in ["", &short, &long, unpadded, &trailing_bits, &good.replace('A', "-"), &format!("{good}\n"), "\u{e9}"] {
        assert_eq!(SealedTopicKey::from_base64(bad, &nonce), Err(BadSealedKey), "{bad}");
    }
    for bad in ["", &nonce[..28], &format!("{nonce}AAAA")] {
        assert_eq!(SealedTopicKey::from_base64(&good, bad), Err(BadSealedKey), "{bad}");
    }
}

/// A broker is built on this crate: whatever is sealed here is opened by other code, or by nobody.
#[test]
fn nothing_here_opens_what_was_sealed() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for word in ["decrypt", "fn open", "fn unseal", "fn unlock"] {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}
