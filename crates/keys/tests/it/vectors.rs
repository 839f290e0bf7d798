//! Known answers, computed with libsodium: the project's `vectors.json` and the golden table of its protocol notes.

use claudemesh_keys::{
    ApiKeySecret, BadKey, Identity, X25519Public, X25519Secret, api_key_prefix, audit_hash, request_fingerprint,
    safety_number, secret_matches, sha256_hex, verify, x25519_public,
};
use claudemesh_proto::canonical::{self, Destination};
use claudemesh_proto::{PublicKey, Signature, Timestamp};
use data_encoding::HEXLOWER;
use serde_json::Value;

const GOLDEN_ATTESTATION: &str = "b12389fee72ca2d7c4b821820c160291c5a8281eb18308f967828080b99e7f5f0fec02c7f39d302cfff918552b0c8f1bdd02af0bc378300f2a2de7c3c621ed0c";
const GOLDEN_HELLO: &str = "64a95120fe38ac3efc75fe1d08ef7b83dc4c0a3ec00825ea59a442576786edf573b76ca5ea38aaf86cfe5fe2e440eef7cbe3dd48d5c65fc4775f1c34f74e3604";

#[test]
fn the_keys_of_the_vectors_are_derived_from_their_seeds() {
    let vectors = vectors();
    for name in ["A", "S", "B"] {
        let key = &vectors["keys"][name];
        let identity = Identity::from_seed(bytes(&key["seed"]));
        assert_eq!(identity.public().to_string(), text(&key["ed25519_public"]));
        assert_eq!(identity.secret_hex().as_str(), text(&key["ed25519_secret"]));
        assert_eq!(identity.x25519_secret().expose_bytes(), &bytes(&key["x25519_secret"]));
        assert_eq!(identity.x25519_secret().public().to_string(), text(&key["x25519_public"]));
        assert_eq!(x25519_public(&identity.public()).unwrap().to_string(), text(&key["x25519_public"]));
        let read = Identity::from_secret_hex(text(&key["ed25519_secret"])).unwrap();
        assert_eq!(read.public(), identity.public());
    }
}

#[test]
fn the_signatures_of_the_vectors_are_made_and_hold() {
    let vectors = vectors();
    for name in ["hello", "attestation", "session_hello", "invite_v1"] {
        let vector = &vectors[name];
        let signer = signer(&vectors, text(&vector["signer"]));
        let message = text(&vector["bytes"]).as_bytes();
        let signature: Signature = text(&vector["signature"]).parse().unwrap();
        assert_eq!(signer.sign(message), signature, "{name}");
        assert_eq!(verify(&signer.public(), message, &signature), Ok(()), "{name}");
        let other = Identity::from_seed([9; 32]).public();
        assert!(verify(&other, message, &signature).is_err(), "{name} by another key");
    }
}

#[test]
fn the_canonical_strings_are_those_of_the_vectors() {
    let vectors = vectors();
    let (a, s) = (signer(&vectors, "A").public().to_string(), signer(&vectors, "S").public().to_string());
    let (mesh, member) = ("meshTEST000000000000000000000001", "memberTEST0000000000000000000001");
    assert_eq!(canonical::hello(mesh, member, &a, 1_750_000_000_000), text(&vectors["hello"]["bytes"]));
    assert_eq!(canonical::attestation(&a, &s, 1_750_043_200_000), text(&vectors["attestation"]["bytes"]));
    assert_eq!(canonical::session_hello(mesh, &a, &s, 1_750_000_000_000), text(&vectors["session_hello"]["bytes"]));
}

#[test]
fn the_golden_signatures_are_made() {
    // The golden table calls B what vectors.json calls S: the key of seed 2.
    let (a, b) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
    let (a_text, b_text) = (a.public().to_string(), b.public().to_string());
    let hello = canonical::hello("mesh1", "mem1", &a_text, 1_700_000_000_000);
    assert_eq!(a.sign(hello.as_bytes()).to_string(), GOLDEN_HELLO);
    let attestation = canonical::attestation(&a_text, &b_text, 1_700_000_000_000);
    assert_eq!(a.sign(attestation.as_bytes()).to_string(), GOLDEN_ATTESTATION);
}

#[test]
fn the_sender_of_the_sealed_topic_key_has_its_public_half() {
    let vector = &vectors()["topic_key_seal"];
    let sender = X25519Secret::from_bytes(bytes(&vector["sender_x25519_secret"]));
    assert_eq!(sender.public().to_string(), text(&vector["sender_x25519_public"]));
}

#[test]
fn request_fingerprints_agree() {
    let vectors = vectors();
    for vector in vectors["request_fingerprint"].as_array().unwrap() {
        let destination = Destination {
            kind: text(&vector["kind"]),
            reference: text(&vector["ref"]),
            reply_to: vector["reply_to"].as_str(),
        };
        let meta = Some(&vector["meta"]).filter(|meta| !meta.is_null());
        let fingerprint = request_fingerprint(destination, text(&vector["priority"]), meta, text(&vector["body"]));
        assert_eq!(fingerprint, text(&vector["fingerprint"]));
    }
    let golden = Destination { kind: "dm", reference: "bob", reply_to: None };
    assert_eq!(
        request_fingerprint(golden, "next", None, "hi"),
        "f1a1afeb432b0317af460f0a14ba47d5a8a43144e761652deeb914d507415bd6"
    );
}

#[test]
fn the_audit_chain_agrees() {
    let vectors = vectors();
    let mesh = "meshTEST000000000000000000000001";
    let payload = serde_json::json!({"targetSpec": "*", "priority": "next"});
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let first = audit_hash(
        "genesis",
        mesh,
        "message_sent",
        Some("memberTEST0000000000000000000001"),
        (&payload, at("2026-01-02T03:04:05.678Z")),
    );
    let second = audit_hash(&first, mesh, "peer_left", None, (&serde_json::json!({}), at("2026-01-02T03:04:06.000Z")));
    for (entry, hash) in vectors["audit_chain"].as_array().unwrap().iter().zip([first, second]) {
        assert_eq!(hash, text(&entry["hash"]));
        assert_eq!(sha256_hex(text(&entry["bytes"])), hash);
    }
}

#[test]
fn the_api_key_of_the_vectors_is_made_found_and_matched() {
    let vector = &vectors()["api_key"];
    let key = ApiKeySecret::from_random(std::array::from_fn(|i| u8::try_from(i).unwrap()));
    assert_eq!(key.expose(), text(&vector["secret"]));
    assert_eq!(key.prefix(), text(&vector["prefix"]));
    assert_eq!(key.hash(), text(&vector["sha256"]));
    assert_eq!(api_key_prefix(key.expose()), Some(key.prefix()));
    assert!(secret_matches(key.expose(), &key.hash()));
    assert!(!secret_matches("cm_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9", &key.hash()));
    assert!(!secret_matches(key.expose(), ""));
}

#[test]
fn what_is_no_api_key_has_no_prefix() {
    for presented in ["", "cm_", "cm_short", "xx_AAECAwQFBg", "cm_AAECAwQ\u{e9}"] {
        assert_eq!(api_key_prefix(presented), None, "{presented}");
    }
}

#[test]
fn safety_numbers_agree_in_both_directions() {
    let vectors = vectors();
    let vector = &vectors["safety_number"];
    let (a, b) = (signer(&vectors, text(&vector["a"])).public(), signer(&vectors, text(&vector["b"])).public());
    assert_eq!(safety_number(&a, &b), text(&vector["number"]));
    assert_eq!(safety_number(&b, &a), text(&vector["number"]));
}

#[test]
fn a_fingerprint_is_the_start_of_the_hash() {
    let key = Identity::from_seed([1; 32]).public();
    let hash = sha256_hex(key.as_bytes());
    assert_eq!(claudemesh_keys::fingerprint(&key).replace('-', ""), hash[..16]);
}

#[test]
fn low_order_x25519_keys_are_refused() {
    let secret = Identity::from_seed([1; 32]).x25519_secret();
    for key in vectors()["must_refuse"]["low_order_x25519_public"].as_array().unwrap() {
        assert_eq!(secret.agree(&X25519Public::from_bytes(bytes(key))).err(), Some(BadKey), "{key}");
        assert_eq!(x25519_public(&PublicKey::from_bytes(bytes(key))), Err(BadKey), "{key}");
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../testkit/data/vectors.json")).unwrap()
}

fn signer(vectors: &Value, name: &str) -> Identity {
    Identity::from_seed(bytes(&vectors["keys"][name]["seed"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn bytes(value: &Value) -> [u8; 32] {
    HEXLOWER.decode(text(value).as_bytes()).unwrap().try_into().unwrap()
}
