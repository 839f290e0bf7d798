//! What secret types must not be able to do, proved by the compiler, and that no input makes opening panic.

use std::fmt::{Debug, Display};

use claudemesh_envelope::{
    BadBase64, Channel, Sealed, SealedTopicKey, TopicKey, Unopened, base64_decode, base64_encode, open_body,
    open_topic_key, pass_topic_key, seal_body,
};
use claudemesh_keys::{BoxKey, Identity};
use proptest::prelude::*;
use serde::Serialize;
use static_assertions::{assert_impl_all, assert_not_impl_any};
use zeroize::ZeroizeOnDrop;

assert_not_impl_any!(Channel: Debug, Display, Serialize, Clone, Copy);
assert_not_impl_any!(TopicKey: Debug, Display, Serialize, Clone, Copy);
// A channel has this one field.
assert_impl_all!(BoxKey: ZeroizeOnDrop);
assert_impl_all!(Channel: Send, Sync);

#[test]
fn what_is_printed_of_a_sealed_body_is_its_size() {
    let sealed = Sealed { nonce: [0xaa; 24], ciphertext: vec![0xbb; 20] };
    assert_eq!(format!("{sealed:?}"), "Sealed(20 bytes)");
    let copy = SealedTopicKey::from_base64(&base64_encode([1; 80]), &base64_encode([2; 24])).unwrap();
    assert_eq!(format!("{copy:?}"), "SealedTopicKey { .. }");
}

#[test]
fn the_same_body_is_never_sealed_to_the_same_bytes() {
    let key = TopicKey::from_bytes([1; 32]);
    let [a, b] = [(); 2].map(|()| seal_body(&key, b"same").unwrap());
    assert_ne!(a.nonce, b.nonce);
    assert_ne!(a.ciphertext, b.ciphertext);
}

#[test]
fn only_padded_standard_base64_is_read() {
    assert_eq!(base64_decode("aGk=").unwrap(), b"hi");
    for text in ["aGk", "aGk==", "aGl=", "aG k=", "aGk=\n", "_-8=", "\u{e9}", "="] {
        assert_eq!(base64_decode(text), Err(BadBase64), "{text}");
        assert_eq!(Sealed::from_base64(&base64_encode([0; 24]), text), Err(Unopened), "{text}");
    }
    for nonce in ["", "aGk=", &base64_encode([0; 23]), &base64_encode([0; 25])] {
        assert_eq!(Sealed::from_base64(nonce, "aGk="), Err(Unopened), "{nonce}");
    }
}

#[test]
fn a_member_passes_a_topic_key_on() {
    let [a, b, c] = [1, 2, 3].map(|seed| Identity::from_seed([seed; 32]));
    let key = TopicKey::generate().unwrap();
    let copy = pass_topic_key(&a, &key, &b.public()).unwrap();
    assert_eq!(copy.sender, a.x25519_secret().public());
    assert_eq!(open_topic_key(&b, &copy).unwrap().expose_bytes(), key.expose_bytes());
    assert!(open_topic_key(&c, &copy).is_err());
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened(plaintext in any::<Vec<u8>>()) {
        let [a, b] = [1, 2].map(|seed| Identity::from_seed([seed; 32]));
        let sealed = Channel::new(&a, &b.public()).unwrap().seal(&plaintext).unwrap();
        let read = Sealed::from_base64(&sealed.nonce_base64(), &sealed.ciphertext_base64()).unwrap();
        prop_assert_eq!(Channel::new(&b, &a.public()).unwrap().open(&read).unwrap(), plaintext);
    }

    #[test]
    fn no_bytes_make_opening_panic(nonce in any::<[u8; 24]>(), ciphertext in any::<Vec<u8>>(), text in any::<String>()) {
        let key = TopicKey::from_bytes([7; 32]);
        prop_assert_eq!(open_body(&key, &Sealed { nonce, ciphertext }), Err(Unopened));
        let _ = Sealed::from_base64(&text, &text);
        let _ = SealedTopicKey::from_base64(&text, &text);
    }
}
