//! The keys of topics: what the broker makes, takes and keeps (websocket 6.2.3).
//!
//! A copy is opened here as existing clients do it, by libsodium.

use claudemesh_proto::text::{base64, base64url, from_base64};
use claudemesh_referee as libsodium;
use claudemesh_testkit::{Member, Request, Setup, TestMesh, Wire, merged};
use serde_json::{Value, json};

use crate::topic::create;

on_both!(
    a_key_that_the_broker_makes_is_left_with_its_creator_alone,
    a_key_of_the_client_s_own_is_kept_as_it_was_sealed,
    what_is_no_sealed_key_names_its_field_and_makes_no_topic,
);

/// What is kept of one topic's key: the public half of its sealer, and the only copy.
async fn copy(mesh: &TestMesh, topic: &str) -> (String, String, String, String) {
    let of = |column: &str| {
        format!(
            "select {column} from topic t join topic_member_key k on k.mesh_id = t.mesh_id and k.topic_id = t.id \
             where t.name = '{topic}'"
        )
    };
    assert_eq!(mesh.database.number(&of("count(*)")).await, 1, "one copy, and no more");
    let [pubkey, whose, key, nonce] = ["encrypted_key_pubkey", "member_id", "encrypted_key", "nonce"].map(of);
    let text = |query: String| async move { mesh.database.text(&query).await };
    (text(pubkey).await, text(whose).await, text(key).await, text(nonce).await)
}

/// Opens a copy with a member's secret key, and checks who sealed it.
fn opened(member: &Member, (pubkey, whose, key, nonce): &(String, String, String, String)) -> Vec<u8> {
    let (sealed, nonce) = (from_base64(key).unwrap(), from_base64(nonce).unwrap());
    assert_eq!((sealed.len(), key.len(), nonce.len(), whose), (80, 108, 24, &member.id));
    let (sender, boxed) = sealed.split_first_chunk::<32>().unwrap();
    assert_eq!(&data_encoding::HEXLOWER.encode(sender), pubkey);
    let secret = data_encoding::HEXLOWER.decode(member.identity.secret_hex().as_bytes()).unwrap();
    let secret = libsodium::secret_to_x25519(&secret.try_into().unwrap());
    libsodium::box_open(boxed, &nonce.try_into().unwrap(), sender, &secret).expect("a copy that its member opens")
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// websocket 6.2.3: one copy, from a sender that seals nothing else; no file, answer or metric has the key in any form.
async fn a_key_that_the_broker_makes_is_left_with_its_creator_alone(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, _) = mesh.pair().await;
    let mut wire = mesh.connect(&ann.hello()).await;
    wire.listen();
    let mut keys = Vec::new();
    for name in ["one", "two"] {
        assert_eq!(create(&mut wire, json!({"name": name})).await["created"], true);
        let copy = copy(&mesh, name).await;
        let key = opened(&ann, &copy);
        assert_eq!(key.len(), 32);
        keys.push((copy.0, key));
    }
    assert!(keys[0].0 != keys[1].0 && keys[0].1 != keys[1].1, "each topic has its own key and its own sealer");
    wire.ask(json!({"type": "audit_query"})).await;
    wire.ask(json!({"type": "topic_list"})).await;
    let said = wire.heard() + &mesh.http(&Request::get("/metrics")).await.body;
    let mut places = vec![("what was said".to_owned(), said.into_bytes())];
    places.push(("the database".to_owned(), mesh.database.dump().await));
    for entry in std::fs::read_dir(mesh.data_dir()).unwrap() {
        let path = entry.unwrap().path();
        places.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    for (place, bytes) in places {
        for (_, key) in &keys {
            let hex = data_encoding::HEXLOWER.encode(key);
            for form in [key.clone(), hex.to_uppercase().into(), hex.into(), base64(key).into(), base64url(key).into()]
            {
                assert!(!holds(&bytes, &form), "{place} has a topic's key");
            }
        }
    }
}

/// The topic_create of a client that makes the key itself, with the copy that it keeps.
fn own(name: &str) -> (Value, Value) {
    let sender = claudemesh_keys::random_bytes::<32>().unwrap();
    let sealed = [sender.as_slice(), &claudemesh_keys::random_bytes::<48>().unwrap()].concat();
    let copy = json!({
        "encryptedKeyPubkey": data_encoding::HEXLOWER.encode(&sender), "encryptedKey": base64(&sealed),
        "nonce": base64(&claudemesh_keys::random_bytes::<24>().unwrap()),
    });
    (merged(json!({"name": name}), copy.clone()), copy)
}

/// Nothing of the broker's is mixed in; and R8: whoever asks for the same topic again, in whatever way, changes no key.
async fn a_key_of_the_client_s_own_is_kept_as_it_was_sealed(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (mut wire, mut other) = (mesh.connect(&ann.hello()).await, mesh.connect(&bob.hello()).await);
    let (request, given) = own("mine");
    assert_eq!(create(&mut wire, request).await["created"], true);
    let is_kept = async || {
        let (pubkey, whose, key, nonce) = copy(&mesh, "mine").await;
        assert_eq!(whose, ann.id);
        assert_eq!(json!({"encryptedKeyPubkey": pubkey, "encryptedKey": key, "nonce": nonce}), given);
    };
    is_kept().await;
    for wire in [&mut wire, &mut other] {
        for request in [own("mine").0, json!({"name": "mine"})] {
            assert_eq!(create(wire, request).await["created"], false);
        }
    }
    is_kept().await;
    // Nobody who is let into general gives it a key by the way.
    assert_eq!(create(&mut other, own("general").0).await["created"], false);
    assert_eq!(mesh.database.number("select count(*) from topic where encrypted_key_pubkey is null").await, 1);
    assert_eq!(mesh.database.number("select count(*) from topic_member_key").await, 1);
}

async fn refused(wire: &mut Wire, request: Value, message: &str) {
    let answer = create(wire, request.clone()).await;
    let expected = json!({"type": "error", "code": "invalid_argument", "message": message});
    assert_eq!(answer, expected, "{request}");
}

/// Lengths, alphabets, and a public half that is not the one in the copy.
async fn what_is_no_sealed_key_names_its_field_and_makes_no_topic(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, _) = mesh.pair().await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let (good, _) = own("x");
    let with = |field: &str, value: Value| merged(good.clone(), json!({field: value}));
    let unpadded = good["encryptedKey"].as_str().unwrap().trim_end_matches('=').to_owned();
    let of = |length: usize| base64(&vec![1; length]);
    let sealed = "encryptedKey must be padded base64 of 80 bytes";
    for bad in
        [json!(""), json!(of(0)), json!(of(79)), json!(of(81)), json!(of(48)), json!(unpadded), json!("!"), Value::Null]
    {
        refused(&mut wire, with("encryptedKey", bad), sealed).await;
    }
    let nonce = "nonce must be padded base64 of 24 bytes";
    for bad in [json!(""), json!(of(23)), json!(of(25)), json!(of(12)), json!("A".repeat(31)), Value::Null] {
        refused(&mut wire, with("nonce", bad), nonce).await;
    }
    let upper = good["encryptedKeyPubkey"].as_str().unwrap().to_uppercase();
    let hex = "encryptedKeyPubkey must be 64 lowercase hex chars";
    for bad in
        [json!(""), json!("ab".repeat(31)), json!("ab".repeat(33)), json!(format!("{}G0", &upper[2..])), Value::Null]
    {
        refused(&mut wire, with("encryptedKeyPubkey", bad), hex).await;
    }
    let other = "encryptedKeyPubkey must be the first 32 bytes of encryptedKey";
    for bad in [json!("ab".repeat(32)), json!(ann.key())] {
        refused(&mut wire, with("encryptedKeyPubkey", bad), other).await;
    }
    let wrong_type = "encryptedKey invalid type: integer `5`, expected a string";
    refused(&mut wire, with("encryptedKey", json!(5)), wrong_type).await;
    assert_eq!(mesh.database.number("select count(*) from topic").await, 1, "general");
    assert_eq!(mesh.database.number("select count(*) from topic_member_key").await, 0);
    assert_eq!(create(&mut wire, good).await["created"], true);
}
