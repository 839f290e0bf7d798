//! What secret types must not be able to do, proved by the compiler, and what bad secrets are refused for.

use std::fmt::{Debug, Display};

use claudemesh_keys::{ApiKeySecret, BadSecret, BoxKey, Identity, X25519Secret, api_key_prefix};
use proptest::prelude::*;
use serde::Serialize;
use static_assertions::{assert_impl_all, assert_not_impl_any};
use zeroize::ZeroizeOnDrop;

assert_not_impl_any!(Identity: Debug, Display, Serialize, Clone, Copy);
assert_not_impl_any!(X25519Secret: Debug, Display, Serialize, Clone, Copy);
assert_not_impl_any!(BoxKey: Debug, Display, Serialize, Clone, Copy);
assert_not_impl_any!(ApiKeySecret: Debug, Display, Serialize, Clone, Copy);

assert_impl_all!(Identity: ZeroizeOnDrop, Send, Sync);
assert_impl_all!(X25519Secret: ZeroizeOnDrop, Send, Sync);
assert_impl_all!(BoxKey: ZeroizeOnDrop, Send, Sync);
assert_impl_all!(ApiKeySecret: ZeroizeOnDrop, Send, Sync);

#[test]
fn every_generated_secret_is_another() {
    let (a, b) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    assert_ne!(a.public(), b.public());
    let (a, b) = (X25519Secret::generate().unwrap(), X25519Secret::generate().unwrap());
    assert_ne!(a.public(), b.public());
    let (a, b) = (ApiKeySecret::generate().unwrap(), ApiKeySecret::generate().unwrap());
    assert_ne!(a.expose(), b.expose());
}

#[test]
fn a_secret_whose_halves_differ_is_refused() {
    let (a, b) = (Identity::from_seed([1; 32]).secret_hex(), Identity::from_seed([2; 32]).secret_hex());
    let mixed = format!("{}{}", &a[..64], &b[64..]);
    assert_eq!(Identity::from_secret_hex(&mixed).err(), Some(BadSecret::Mismatch));
}

#[test]
fn a_secret_of_another_shape_is_refused() {
    let hex = Identity::from_seed([0xab; 32]).secret_hex();
    for text in
        [&hex[..126], &hex[..64], "", &format!("{}00", *hex), &hex.to_uppercase(), &format!("{}zz", &hex[..126])]
    {
        assert_eq!(Identity::from_secret_hex(text).err(), Some(BadSecret::Shape), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_reading_a_secret_panic(text in any::<String>(), wide in "\\PC{128}") {
        let _ = Identity::from_secret_hex(&text);
        let _ = Identity::from_secret_hex(&wide);
        let _ = api_key_prefix(&format!("cm_{text}"));
    }

    #[test]
    fn a_secret_is_read_as_it_was_written(seed in any::<[u8; 32]>()) {
        let identity = Identity::from_seed(seed);
        prop_assert_eq!(Identity::from_secret_hex(&identity.secret_hex()).unwrap().public(), identity.public());
    }
}
