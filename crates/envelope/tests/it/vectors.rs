//! Known answers, computed with libsodium. Sealing to the same bytes is tested beside the code, where the nonce can be chosen.

use claudemesh_envelope::{Channel, Sealed, SealedTopicKey, TopicKey, open_body, open_topic_key};
use claudemesh_keys::Identity;
use data_encoding::HEXLOWER;
use serde_json::Value;

#[test]
fn both_sides_open_the_direct_message() {
    let vectors = vectors();
    let vector = &vectors["dm"];
    let (from, to) = (identity(&vectors, &vector["from"]), identity(&vectors, &vector["to"]));
    let sealed = sealed(vector);
    for channel in [Channel::new(&to, &from.public()), Channel::new(&from, &to.public())] {
        let opened = channel.unwrap().open(&sealed).unwrap();
        assert_eq!(opened, text(&vector["plaintext"]).as_bytes());
    }
    let stranger = Identity::from_seed([9; 32]);
    assert!(Channel::new(&stranger, &from.public()).unwrap().open(&sealed).is_err());
    assert!(Channel::new(&to, &stranger.public()).unwrap().open(&sealed).is_err());
}

#[test]
fn the_recipient_opens_both_sealed_topic_keys() {
    let vectors = vectors();
    for name in ["topic_key_seal", "topic_key_reseal"] {
        let vector = &vectors[name];
        let sealed = SealedTopicKey::from_base64(text(&vector["encrypted_key"]), text(&vector["nonce"])).unwrap();
        let opened = open_topic_key(&identity(&vectors, &vector["recipient"]), &sealed).unwrap();
        assert_eq!(opened.expose_bytes(), &hex(&vector["topic_key"]), "{name}");
        assert!(open_topic_key(&identity(&vectors, &Value::from("B")), &sealed).is_err(), "{name}");
    }
}

#[test]
fn the_topic_body_is_opened() {
    let vectors = vectors();
    let vector = &vectors["topic_body_v2"];
    let opened = open_body(&TopicKey::from_bytes(hex(&vector["topic_key"])), &sealed(vector)).unwrap();
    assert_eq!(opened, text(&vector["plaintext"]).as_bytes());
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../testkit/data/vectors.json")).unwrap()
}

fn identity(vectors: &Value, name: &Value) -> Identity {
    Identity::from_seed(hex(&vectors["keys"][text(name)]["seed"]))
}

fn sealed(vector: &Value) -> Sealed {
    Sealed::from_base64(text(&vector["nonce"]), text(&vector["ciphertext"])).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn hex(value: &Value) -> [u8; 32] {
    HEXLOWER.decode(text(value).as_bytes()).unwrap().try_into().unwrap()
}
