//! A member changes its key over REST, and shows that it has both (security 3).

use std::sync::Arc;

use claudemesh_keys::Identity;
use claudemesh_proto::canonical;
use claudemesh_testkit::{Answer, Member, Setup, TestMesh, eventually, merged};
use serde_json::{Value, json};

use crate::rest::{ask, command, get, is_problem, key_of};
use crate::topic::create;

on_both!(a_member_changes_its_key_with_both, a_change_that_is_not_proven_changes_nothing);

async fn post(mesh: &TestMesh, key: &str, body: &Value) -> Answer {
    ask(mesh, "POST", "/v1/me/peer-pubkey", (key, Some(body))).await
}

/// What both keys sign.
fn signed(member: &Member, from: &Identity, to: &Identity, at: i64) -> Value {
    let bytes = canonical::peer_pubkey(&member.mesh, &member.id, (&from.public(), &to.public()), at);
    json!({
        "pubkey": to.public(), "signature": to.sign(&bytes).to_string(),
        "previousSignature": from.sign(&bytes).to_string(), "timestamp": at,
    })
}

async fn a_member_changes_its_key_with_both(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    create(&mut command(&mesh, &bob).await, json!({"name": "keyed"})).await;
    let (of_ann, of_bob) = (key_of(&mesh, &ann, json!({})).await, key_of(&mesh, &bob, json!({})).await);
    assert_eq!(get(&mesh, "/v1/topics/keyed/key", &of_bob).await.status, 200);
    let mut wire = mesh.connect(&bob.hello()).await;
    let mut session = mesh.connect(&bob.session().hello()).await;
    let same = json!({"pubkey": bob.key().to_uppercase()});
    let unchanged = json!({"memberId": bob.id, "pubkey": bob.key(), "changed": false});
    assert_eq!(post(&mesh, &of_bob, &same).await.json(), unchanged);
    let next = Arc::new(Identity::generate().unwrap());
    let change = signed(&bob, &bob.identity, &next, mesh.clock.tick());
    let answer = post(&mesh, &of_bob, &change).await;
    let changed = json!({"memberId": bob.id, "pubkey": next.public(), "changed": true});
    assert_eq!((answer.status, answer.json()), (200, changed), "{answer:?}");
    // What was opened with the old key ends, and it opens nothing more.
    assert_eq!(wire.closed().await, (1000, "key_changed".to_owned()));
    assert_eq!(session.closed().await, (1000, "key_changed".to_owned()));
    assert_eq!(mesh.refusal(&bob.hello()).await.0, "unauthorized");
    let bob = Member { identity: next, ..bob };
    mesh.connect(&bob.hello()).await.close(1000).await;
    // Copies that were sealed for the old key are gone; the member and its API keys stay.
    assert_eq!(get(&mesh, "/v1/topics/keyed/key", &of_bob).await.status, 404);
    let members = get(&mesh, "/v1/members", &of_ann).await.json();
    assert_eq!(
        (&members["members"][1]["memberId"], &members["members"][1]["pubkey"]),
        (&json!(bob.id), &json!(bob.key()))
    );
}

async fn a_change_that_is_not_proven_changes_nothing(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let key = key_of(&mesh, &bob, json!({})).await;
    let session = bob.session();
    mesh.connect(&session.hello()).await.close(1000).await;
    let (next, stranger) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let now = mesh.clock.tick();
    let good = signed(&bob, &bob.identity, &next, now);
    let own = |answer: &Answer, status: u16, error: &str| {
        assert_eq!((answer.status, &answer.json()["error"]), (status, &json!(error)), "{answer:?}");
    };
    own(&post(&mesh, &key, &json!({"pubkey": next.public()})).await, 409, "not_web_member");
    for bad in [
        merged(good.clone(), json!({"previousSignature": good["signature"]})),
        merged(good.clone(), json!({"signature": good["previousSignature"]})),
        merged(good.clone(), json!({"timestamp": now + 1})),
        merged(good.clone(), json!({"pubkey": stranger.public()})),
        signed(&bob, &stranger, &next, now),
        signed(&ann, &bob.identity, &next, now),
    ] {
        own(&post(&mesh, &key, &bad).await, 400, "bad_signature");
    }
    for at in [now - 61_000, now + 61_000, i64::MIN, i64::MAX] {
        own(&post(&mesh, &key, &signed(&bob, &bob.identity, &next, at)).await, 400, "timestamp_skew");
    }
    for taken in [&ann.identity, &session.identity] {
        own(&post(&mesh, &key, &signed(&bob, &bob.identity, taken, now)).await, 409, "pubkey_in_use");
    }
    let of_order_one = format!("01{}", "00".repeat(31));
    for (change, named) in [
        (json!({"pubkey": null}), "pubkey"),
        (json!({"pubkey": "ab"}), "pubkey"),
        (json!({"pubkey": of_order_one}), "pubkey"),
        (json!({"signature": null}), "signature"),
        (json!({"signature": "00"}), "signature"),
        (json!({"previousSignature": "zz".repeat(64)}), "previousSignature"),
        (json!({"timestamp": "now"}), "timestamp"),
        (json!({"timestamp": null}), "timestamp"),
    ] {
        let answer = post(&mesh, &key, &merged(good.clone(), change)).await;
        is_problem(&answer, 422, "error.validation");
        assert!(answer.json()["message"].as_str().unwrap().contains(named), "{named}: {answer:?}");
    }
    let changed = "select count(*) from audit_log where event_type = 'member_key_changed'";
    assert_eq!(mesh.database.number(changed).await, 0);
    mesh.connect(&bob.hello()).await.close(1000).await;
    // Whoever has the key of a member that never connected may set it without a proof.
    let unsigned = json!({"pubkey": next.public()});
    eventually("that it was here is written a moment later, and forgotten here", async || {
        mesh.database.sql("update member set last_seen_at = null").await;
        mesh.database.sql("delete from peer_state").await;
        post(&mesh, &key, &unsigned).await.json()["changed"] == true
    })
    .await;
}
