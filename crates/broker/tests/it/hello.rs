//! `hello`: every check in its order, with its code, wording, close code and reason.

use std::time::Duration;

use claudemesh_keys::Identity;
use claudemesh_proto::Timestamp;
use claudemesh_testkit::{Member, Setup, TestMesh, Wire, merged, signed_hello, stranger};
use serde_json::{Value, json};

on_both!(
    each_check_comes_before_the_next,
    a_hello_is_accepted_once_also_by_a_broker_that_was_restarted,
    a_revoked_member_is_told_so_and_banned,
);

const CAPACITY: (&str, &str) = ("capacity", "mesh at connection capacity");
const BAD_SESSION: (&str, &str) = ("bad_session_pubkey", "sessionPubkey must be 64 lowercase hex chars");
const SKEW: (&str, &str) = ("timestamp_skew", "hello rejected: timestamp_skew");
const MALFORMED: (&str, &str) = ("malformed", "hello rejected: malformed");
const BAD_SIGNATURE: (&str, &str) = ("bad_signature", "hello rejected: bad_signature");
const REPLAYED: (&str, &str) = ("replayed", "hello rejected: replayed");
const UNAUTHORIZED: (&str, &str) = ("unauthorized", "pubkey not found in mesh");

/// The handshake is refused with this code and these words, and closed with 1008 and the code.
pub(crate) async fn refused(mesh: &TestMesh, hello: &Value, (code, message): (&str, &str)) {
    let refusal = mesh.refusal(hello).await;
    assert_eq!(refusal, (code.to_owned(), message.to_owned(), 1008, code.to_owned()), "{hello}");
}

fn unknown(member: &Member) -> Member {
    let identity = Identity::generate().unwrap().into();
    Member { identity, ..member.clone() }
}

fn at(mesh: &TestMesh, member: &Member, seconds: i64) -> Value {
    signed_hello(member, mesh.clock.tick() + seconds * 1000)
}

/// The order of the protocol, and the check for replays (R11) after the signature and before the membership.
async fn each_check_comes_before_the_next(setup: Setup) {
    let mesh = setup.with(|config| config.max_connections_per_mesh = 1).start().await;
    let (_, ann) = mesh.mesh("order").await;
    let first = mesh.connect(&ann.hello()).await;
    // Everything is wrong with it, and one check after the other is satisfied.
    let late = at(&mesh, &ann, -61);
    let wrong = merged(late, json!({"sessionPubkey": "S", "signature": "00", "pubkey": stranger()}));
    refused(&mesh, &wrong, BAD_SESSION).await;
    let wrong = merged(wrong, json!({"sessionPubkey": null}));
    refused(&mesh, &wrong, CAPACITY).await;
    first.close(1000).await;
    refused(&mesh, &wrong, SKEW).await;
    let wrong = merged(wrong, json!({"timestamp": mesh.clock.tick()}));
    refused(&mesh, &wrong, MALFORMED).await;
    let wrong = merged(wrong, json!({"signature": "00".repeat(64)}));
    refused(&mesh, &wrong, BAD_SIGNATURE).await;
    refused(&mesh, &signed_hello(&unknown(&ann), mesh.clock.tick()), UNAUTHORIZED).await;
    let accepted = ann.hello();
    mesh.connect(&accepted).await.close(1000).await;
    mesh.database.sql("update member set revoked_at = 1").await;
    refused(&mesh, &accepted, REPLAYED).await;
    let (code, ..) = mesh.refusal(&ann.hello()).await;
    assert_eq!(code, "revoked");
}

/// R11, websocket 1.4 ▶ 5b.
async fn a_hello_is_accepted_once_also_by_a_broker_that_was_restarted(setup: Setup) {
    let mut mesh = setup.start().await;
    let (_, ann) = mesh.mesh("once").await;
    let hello = ann.hello();
    mesh.connect(&hello).await.close(1000).await;
    refused(&mesh, &hello, REPLAYED).await;
    mesh.restart().await;
    refused(&mesh, &hello, REPLAYED).await;
    // What is not signed can be changed by whoever replays it, and changes nothing.
    refused(&mesh, &merged(hello, json!({"sessionId": "another", "cwd": "/"})), REPLAYED).await;
    mesh.connect(&ann.hello()).await;
}

/// R10: 4002, so that commands stop trying.
async fn a_revoked_member_is_told_so_and_banned(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    mesh.database.sql(&format!("update member set revoked_at = 1 where id = '{}'", bob.id)).await;
    let (code, message, close, reason) = mesh.refusal(&bob.hello()).await;
    assert_eq!((code.as_str(), close, reason.as_str()), ("revoked", 4002, "banned"));
    assert_eq!(message, "You've been removed from \"pair\". Contact the mesh owner to rejoin.");
    mesh.connect(&ann.hello()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_of_skew_is_accepted_and_a_second_more_is_not() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("skew").await;
    for seconds in [-58, 58] {
        mesh.connect(&at(&mesh, &ann, seconds)).await;
    }
    for seconds in [-61, 61] {
        refused(&mesh, &at(&mesh, &ann, seconds), SKEW).await;
    }
    for timestamp in [0, -1, i64::MIN, i64::MAX] {
        refused(&mesh, &signed_hello(&ann, timestamp), SKEW).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_signatures_of_another_shape_are_malformed() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("shape").await;
    let key = ann.key();
    for pubkey in ["", "zz", &key[1..], &key.to_uppercase(), &format!("{key}00"), &key.replace(&key[..1], "g")] {
        refused(&mesh, &merged(ann.hello(), json!({"pubkey": pubkey})), MALFORMED).await;
    }
    let signature = ann.hello()["signature"].as_str().unwrap().to_owned();
    for signature in ["", "00", &signature[2..], &format!("{signature}00"), &"zz".repeat(64)] {
        refused(&mesh, &merged(ann.hello(), json!({"signature": signature})), MALFORMED).await;
    }
    for key in ["zz", &key[1..], &key.to_uppercase()] {
        refused(&mesh, &merged(ann.hello(), json!({"sessionPubkey": key})), BAD_SESSION).await;
    }
    for absent in [Value::Null, json!("")] {
        let mut hello = ann.hello();
        hello["sessionPubkey"] = absent;
        mesh.connect(&hello).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_signed_field_is_covered_by_the_signature() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (other, _) = mesh.mesh("other").await;
    let now = mesh.clock.tick();
    let changes = [
        json!({"meshId": other.id}),
        json!({"memberId": bob.id}),
        json!({"memberId": null}),
        json!({"pubkey": bob.key()}),
        json!({"timestamp": now + 1}),
        json!({"signature": bob.hello()["signature"]}),
    ];
    for change in changes {
        let hello = signed_hello(&ann, now);
        refused(&mesh, &merged(hello, change), BAD_SIGNATURE).await;
    }
    mesh.connect(&signed_hello(&ann, now)).await;
}

/// The member's id is covered by the signature and compared with nothing, as in the reference.
#[tokio::test(flavor = "multi_thread")]
async fn the_member_id_of_a_hello_is_not_compared() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("member-id").await;
    let nameless = Member { id: "somebody".to_owned(), ..ann };
    mesh.connect(&nameless.hello()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_that_does_not_exist_looks_like_one_that_does_not_know_the_key() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("real").await;
    for id in ["", "nowhere", "a b", &"x".repeat(65), "../..", "'; drop table mesh; --", &"0".repeat(32)] {
        refused(&mesh, &Member { mesh: id.to_owned(), ..ann.clone() }.hello(), UNAUTHORIZED).await;
    }
    mesh.connect(&ann.hello()).await;
}

/// Computed with libsodium.
#[tokio::test(flavor = "multi_thread")]
async fn the_handshakes_of_the_vectors_are_accepted() {
    const A: &str = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
    const S: &str = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";
    const MESH: &str = "meshTEST000000000000000000000001";
    let mesh = TestMesh::start().await;
    let member = "memberTEST0000000000000000000001";
    mesh.database
        .sql(&format!(
            "insert into mesh (id, slug, name, owner_pubkey, owner_member_id, created_at) \
             values ('{MESH}', 'test', 'test', '{A}', '{member}', 0); insert into mesh_head (mesh_id) values ('{MESH}'); \
             insert into member (mesh_id, id, peer_pubkey, display_name, role, joined_at) \
             values ('{MESH}', '{member}', '{A}', 'Ann', 'admin', 0)"
        ))
        .await;
    mesh.clock.set(Timestamp::from_millis(1_750_000_000_000));
    let hello = json!({
        "type": "hello", "meshId": MESH, "memberId": member, "pubkey": A, "timestamp": 1_750_000_000_000_i64,
        "sessionId": "v", "pid": 1, "cwd": "/", "signature":
        "f63149a85b226e99ee9b998916755ca1f487811eb1546a3077f2ad34a583780415e11667a9fbcc6d24be4d2fb15f4a5670c3edede2219961\
         df272a3590b39c0a",
    });
    mesh.connect(&hello).await;
    let session_hello = json!({
        "type": "session_hello", "meshId": MESH, "parentMemberId": member, "parentMemberPubkey": A, "sessionPubkey": S,
        "timestamp": 1_750_000_000_000_i64, "sessionId": "s", "pid": 1, "cwd": "/", "signature":
        "dd255d1df746a762f63ffeda7bdcd7213c832c8d3812a54a47033ed1857988cb1e8c057db8f4d983d3fee245b8fa37949136b2ff3a75f976\
         f2882eccdaab290c",
        "parentAttestation": {
            "sessionPubkey": S, "parentMemberPubkey": A, "expiresAt": 1_750_043_200_000_i64, "signature":
            "450143c1005828258b60c5a5dab484aebbe458ff7129124610b8e2413474fa58393141afa1dccb0f744ca0fe7ca32ef5b5638055f6a5\
             0e73740efb3659c77201",
        },
    });
    mesh.connect(&session_hello).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_of_a_wrong_type_is_named_and_the_socket_stays() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("types").await;
    let mut wire = Wire::open(mesh.address).await;
    let texts = ["meshId", "memberId", "pubkey", "sessionPubkey", "signature", "displayName", "sessionId", "cwd"];
    let more = ["hostname", "peerType", "channel", "model"];
    for field in texts.into_iter().chain(more) {
        for value in [json!(5), json!(true), json!([]), json!({})] {
            named(&mut wire, merged(ann.hello(), json!({field: value})), field).await;
        }
    }
    let numbers = [json!("5"), json!(true), json!([]), json!({}), json!(1.5), json!(1e300)];
    for (field, value) in ["timestamp", "pid"].into_iter().flat_map(|field| numbers.iter().map(move |n| (field, n))) {
        named(&mut wire, merged(ann.hello(), json!({field: value})), field).await;
    }
    named(&mut wire, merged(ann.hello(), json!({"timestamp": null})), "timestamp is missing").await;
    for (groups, field) in [
        (json!("x"), "groups"),
        (json!([5]), "groups[0]"),
        (json!([{"name": "a"}, {"name": 5}]), "groups[1].name"),
        (json!([{"role": "x"}]), "groups[0].name is missing"),
        (json!([{"name": "a", "role": 5}]), "groups[0].role"),
    ] {
        named(&mut wire, merged(ann.hello(), json!({"groups": groups})), field).await;
    }
    named(&mut wire, merged(ann.hello(), json!({"capabilities": "quiet"})), "capabilities").await;
    named(&mut wire, merged(ann.hello(), json!({"capabilities": [5]})), "capabilities[0]").await;
    wire.greet(&ann.hello()).await;
}

/// websocket 1.2 ▶: whoever does not say where it is, is nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_hello_without_a_directory_is_accepted() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("nowhere").await;
    for hello in [ann.hello(), ann.session().hello(), ann.cold()] {
        let mut wire = mesh.connect(&merged(hello, json!({"cwd": null}))).await;
        assert_eq!(wire.peers().await[0]["cwd"], "");
        wire.close(1000).await;
    }
}

/// The frame is answered by `invalid_argument`, whose message begins with the field.
pub(crate) async fn named(wire: &mut Wire, frame: Value, field: &str) {
    let error = wire.ask(frame.clone()).await;
    let message = error["message"].as_str().unwrap_or_default();
    assert_eq!(error["code"], "invalid_argument", "{error} for {frame}");
    assert!(message.starts_with(field), "{error} for {frame}");
}

/// Failed handshakes are counted per address, loopback excepted.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_fails_ten_times_waits_a_minute() {
    let mesh =
        Setup::sqlite().with(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).start().await;
    let (_, ann) = mesh.mesh("failures").await;
    let from = [("X-Forwarded-For", "203.0.113.7")];
    for _ in 0..10 {
        let mut wire = Wire::open_with(mesh.address, &from).await.unwrap();
        wire.say(&merged(ann.hello(), json!({"signature": "00"}))).await;
        wire.refusal().await;
    }
    assert_eq!(Wire::open_with(mesh.address, &from).await.unwrap_err(), 429);
    Wire::open_with(mesh.address, &[("X-Forwarded-For", "203.0.113.8")]).await.unwrap().greet(&ann.hello()).await;
    mesh.clock.pass(Duration::from_secs(7));
    Wire::open_with(mesh.address, &from).await.unwrap().greet(&ann.hello()).await;
}
