//! `session_hello`: every check in its order, with its code, wording, close code and reason.

use claudemesh_keys::Identity;
use claudemesh_testkit::{Member, Session, Setup, TestMesh, Wire, merged, stranger};
use serde_json::{Value, json};

use crate::hello::{named, refused};

on_both!(each_check_comes_before_the_next, a_session_hello_is_accepted_once);

const BAD_SESSION: (&str, &str) = ("bad_session_pubkey", "sessionPubkey must be 64 lowercase hex chars");
const BAD_PARENT: (&str, &str) = ("bad_parent_pubkey", "parentMemberPubkey must be 64 lowercase hex chars");
const MISMATCH: (&str, &str) =
    ("attestation_mismatch", "parentAttestation does not bind the claimed session+parent pubkeys");
const CAPACITY: (&str, &str) = ("capacity", "mesh at connection capacity");
const ATTESTATION_MALFORMED: (&str, &str) = ("malformed", "attestation rejected: malformed");
const EXPIRED: (&str, &str) = ("expired", "attestation rejected: expired");
const TOO_LONG: (&str, &str) = ("ttl_too_long", "attestation rejected: ttl_too_long");
const ATTESTATION_SIGNATURE: (&str, &str) = ("bad_signature", "attestation rejected: bad_signature");
const SKEW: (&str, &str) = ("timestamp_skew", "session_hello rejected: timestamp_skew");
const MALFORMED: (&str, &str) = ("malformed", "session_hello rejected: malformed");
const SIGNATURE: (&str, &str) = ("bad_signature", "session_hello rejected: bad_signature");
const REPLAYED: (&str, &str) = ("replayed", "session_hello rejected: replayed");
const UNAUTHORIZED: (&str, &str) = ("unauthorized", "parent pubkey not found in mesh");
const OTHER_MEMBER: (&str, &str) = ("parent_member_id_mismatch", "parentMemberId does not match parentMemberPubkey");

const HOUR: i64 = 3_600_000;

fn attested(hello: &Value, change: Value) -> Value {
    let attestation = merged(hello["parentAttestation"].clone(), change);
    merged(hello.clone(), json!({"parentAttestation": attestation}))
}

async fn each_check_comes_before_the_next(setup: Setup) {
    let mesh = setup.with(|config| config.max_connections_per_mesh = 1).start().await;
    let (_, ann) = mesh.mesh("order").await;
    let session = ann.session();
    let first = mesh.connect(&ann.hello()).await;
    let (now, zeros) = (mesh.clock.tick(), "00".repeat(64));
    let late = session.hello_at(now - 61_000, now - 1000);
    let wrong = attested(&late, json!({"signature": "00", "sessionPubkey": "x"}));
    let wrong = merged(wrong, json!({"sessionPubkey": "S", "parentMemberPubkey": "P", "signature": "00"}));
    refused(&mesh, &wrong, BAD_SESSION).await;
    let wrong = merged(wrong, json!({"sessionPubkey": session.key()}));
    refused(&mesh, &wrong, BAD_PARENT).await;
    let wrong = merged(wrong, json!({"parentMemberPubkey": ann.key()}));
    refused(&mesh, &wrong, MISMATCH).await;
    let wrong = attested(&wrong, json!({"sessionPubkey": session.key()}));
    refused(&mesh, &wrong, CAPACITY).await;
    first.close(1000).await;
    refused(&mesh, &wrong, ATTESTATION_MALFORMED).await;
    let wrong = attested(&wrong, json!({"signature": zeros}));
    refused(&mesh, &wrong, EXPIRED).await;
    let wrong = attested(&wrong, json!({"expiresAt": now + 25 * HOUR}));
    refused(&mesh, &wrong, TOO_LONG).await;
    let wrong = attested(&wrong, json!({"expiresAt": now + HOUR}));
    refused(&mesh, &wrong, ATTESTATION_SIGNATURE).await;
    let good = session.hello_at(now, now + HOUR);
    let wrong = merged(wrong, json!({"parentAttestation": good["parentAttestation"]}));
    refused(&mesh, &wrong, SKEW).await;
    let wrong = merged(wrong, json!({"timestamp": now}));
    refused(&mesh, &wrong, MALFORMED).await;
    refused(&mesh, &merged(wrong, json!({"signature": zeros})), SIGNATURE).await;
    // Replayed before revoked, revoked before the member's id.
    mesh.connect(&good).await.close(1000).await;
    mesh.database.sql("update member set revoked_at = 1").await;
    refused(&mesh, &good, REPLAYED).await;
    let (code, message, close, reason) = mesh.refusal(&merged(session.hello(), json!({"parentMemberId": "x"}))).await;
    assert_eq!((code.as_str(), close, reason.as_str()), ("revoked", 4002, "banned"));
    assert_eq!(message, "You've been removed from \"order\". Contact the mesh owner to rejoin.");
    mesh.database.sql("update member set revoked_at = null").await;
    let unknown = Member { identity: Identity::generate().unwrap().into(), ..ann.clone() };
    refused(&mesh, &merged(unknown.session().hello(), json!({"parentMemberId": "x"})), UNAUTHORIZED).await;
    refused(&mesh, &merged(session.hello(), json!({"parentMemberId": "x"})), OTHER_MEMBER).await;
    mesh.connect(&merged(session.hello(), json!({"parentMemberId": null}))).await;
}

/// R11, websocket 1.4 ▶ 6b.
async fn a_session_hello_is_accepted_once(setup: Setup) {
    let mut mesh = setup.start().await;
    let (_, ann) = mesh.mesh("once").await;
    let hello = ann.session().hello();
    mesh.connect(&hello).await.close(1000).await;
    refused(&mesh, &hello, REPLAYED).await;
    mesh.restart().await;
    refused(&mesh, &hello, REPLAYED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bounds_of_time_are_those_of_the_reference() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("time").await;
    let session = ann.session();
    let now = || mesh.clock.tick();
    for seconds in [-61, 61] {
        refused(&mesh, &session.hello_at(now() + seconds * 1000, now() + HOUR), SKEW).await;
    }
    for seconds in [-58, 58] {
        mesh.connect(&session.hello_at(now() + seconds * 1000, now() + HOUR)).await;
    }
    refused(&mesh, &session.hello_at(now(), now() - 1000), EXPIRED).await;
    refused(&mesh, &session.hello_at(now(), 0), EXPIRED).await;
    refused(&mesh, &session.hello_at(now(), i64::MIN), EXPIRED).await;
    refused(&mesh, &session.hello_at(now(), now() + 24 * HOUR + 60_000), TOO_LONG).await;
    refused(&mesh, &session.hello_at(now(), i64::MAX), TOO_LONG).await;
    mesh.connect(&session.hello_at(now(), now() + 24 * HOUR - 1000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_two_keys_can_sign() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let session = ann.session();
    // The session's handshake is signed with the session's key, not the member's.
    let by_member = Session { identity: ann.identity.clone(), ..session.clone() }.hello();
    let hello = session.hello();
    let (now, key) = (hello["timestamp"].clone(), session.key());
    let signed = format!("claudemesh-session-hello|{}|{}|{key}|{now}", ann.mesh, ann.key());
    let parents = ann.identity.sign(signed.as_bytes()).to_string();
    refused(&mesh, &merged(hello.clone(), json!({"signature": parents})), SIGNATURE).await;
    refused(&mesh, &merged(hello.clone(), json!({"signature": by_member["signature"]})), SIGNATURE).await;
    // The attestation is the member's, not the session's nor another member's.
    let attests = |identity: &Identity, expires_at: i64| {
        let signed = format!("claudemesh-session-attest|{}|{key}|{expires_at}", ann.key());
        identity.sign(signed.as_bytes()).to_string()
    };
    let expires_at = hello["parentAttestation"]["expiresAt"].as_i64().unwrap();
    for identity in [&session.identity, &bob.identity] {
        let wrong = attested(&hello, json!({"signature": attests(identity, expires_at)}));
        refused(&mesh, &wrong, ATTESTATION_SIGNATURE).await;
    }
    refused(&mesh, &attested(&hello, json!({"expiresAt": expires_at + 1})), ATTESTATION_SIGNATURE).await;
    mesh.connect(&hello).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attestation_that_binds_something_else_is_a_mismatch() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("mismatch").await;
    let hello = ann.session().hello();
    refused(&mesh, &merged(hello.clone(), json!({"parentAttestation": null})), MISMATCH).await;
    for field in ["sessionPubkey", "parentMemberPubkey"] {
        refused(&mesh, &attested(&hello, json!({field: stranger()})), MISMATCH).await;
        refused(&mesh, &attested(&hello, json!({field: null})), MISMATCH).await;
    }
    let no_time = [json!(null), json!("5"), json!(true), json!([]), json!({}), json!(1.5), json!(1e300)];
    for expires_at in no_time {
        refused(&mesh, &attested(&hello, json!({"expiresAt": expires_at})), ATTESTATION_MALFORMED).await;
    }
    // What does not bind is told first, as the order has it.
    let wrong = attested(&hello, json!({"expiresAt": "5", "sessionPubkey": stranger()}));
    refused(&mesh, &wrong, MISMATCH).await;
    refused(&mesh, &attested(&hello, json!({"signature": "zz"})), ATTESTATION_MALFORMED).await;
    refused(&mesh, &merged(hello, json!({"signature": "zz"})), MALFORMED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_of_a_wrong_type_is_named_and_the_socket_stays() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("types").await;
    let session = ann.session();
    let mut wire = Wire::open(mesh.address).await;
    for field in ["meshId", "parentMemberId", "parentMemberPubkey", "sessionPubkey", "signature", "sessionId", "cwd"] {
        named(&mut wire, merged(session.hello(), json!({field: 5})), field).await;
    }
    named(&mut wire, merged(session.hello(), json!({"timestamp": null})), "timestamp is missing").await;
    for field in ["timestamp", "pid"] {
        named(&mut wire, merged(session.hello(), json!({field: "5"})), field).await;
    }
    named(&mut wire, merged(session.hello(), json!({"parentAttestation": 5})), "parentAttestation").await;
    for field in ["sessionPubkey", "parentMemberPubkey", "signature"] {
        let path = format!("parentAttestation.{field}");
        named(&mut wire, attested(&session.hello(), json!({field: 5})), &path).await;
    }
    wire.greet(&session.hello()).await;
}
