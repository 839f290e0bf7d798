//! `grant_set` and `grant_list`.

use claudemesh_testkit::{Setup, TestMesh, Wire, merged, stranger};
use serde_json::{Value, json};

on_both!(grants_are_kept_and_answered_whole, what_was_held_back_comes_once_it_may);

async fn grant(wire: &mut Wire, grants: Value) -> Value {
    let answer = wire.ask(json!({"type": "grant_set", "grants": grants})).await;
    assert_eq!(answer["type"], "grant_set_response", "{answer}");
    answer["grants"].clone()
}

/// websocket 8.1.
async fn grants_are_kept_and_answered_whole(setup: Setup) {
    let mut mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let session = ann.session().key();
    let mut wire = mesh.connect(&bob.hello()).await;
    let blocked = json!({ann.key(): []});
    assert_eq!(grant(&mut wire, blocked.clone()).await, blocked);
    let both = json!({ann.key(): [], session.clone(): ["read", "dm", "state-write"]});
    assert_eq!(grant(&mut wire, json!({session.clone(): ["state-write", "dm", "read", "dm"]})).await, both);
    assert_eq!(grant(&mut wire, json!({})).await, both);
    wire.close(1000).await;
    mesh.restart().await;
    let mut wire = mesh.connect(&bob.session().hello()).await;
    let list = wire.ask(json!({"type": "grant_list"})).await;
    assert_eq!((&list["type"], &list["grants"]), (&json!("grant_list_response"), &both));
    assert_eq!(
        grant(&mut wire, json!({ann.key(): null, stranger().to_string(): null})).await,
        json!({session.clone(): both[&session]})
    );
    // They are of the recipient, and nobody else's.
    assert_eq!(mesh.connect(&ann.hello()).await.ask(json!({"type": "grant_list"})).await["grants"], json!({}));
}

/// websocket 8.1: a sender that was blocked after it sent waits until it may again.
async fn what_was_held_back_comes_once_it_may(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut command = mesh.connect(&merged(bob.hello(), json!({"capabilities": ["quiet"]}))).await;
    sender.deliver(&bob.key(), "direct").await;
    sender.deliver("*", "broadcast").await;
    grant(&mut command, json!({ann.key(): []})).await;
    let mut wire = mesh.connect(&bob.hello()).await;
    let ack = sender.send(&bob.key(), "blocked").await;
    assert_eq!((&ack["queued"], ack["error"].as_str().unwrap().starts_with("forbidden")), (&json!(false), true));
    wire.nothing_else().await;
    grant(&mut command, json!({ann.key(): ["dm"]})).await;
    assert_eq!(wire.receive().await, "direct");
    wire.nothing_else().await;
    grant(&mut command, json!({ann.key(): null})).await;
    assert_eq!(wire.receive().await, "broadcast");
    sender.deliver(&bob.key(), "again").await;
    assert_eq!(wire.receive().await, "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_for_what_is_no_key_or_of_what_is_no_capability_change_nothing() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut wire = mesh.connect(&bob.hello()).await;
    let key = ann.key();
    let cases = [
        (json!({key.clone(): [], "Ann": []}), "grants.Ann must be 64 lowercase hex chars".to_owned()),
        (json!({key.to_uppercase(): []}), format!("grants.{} must be 64 lowercase hex chars", key.to_uppercase())),
        (
            json!({key.clone(): ["dm", "\u{202E}fly\n"]}),
            format!(
                "grants.{key} has \"fly\", and each must be read, dm, broadcast, state-read, state-write or file-read"
            ),
        ),
    ];
    for (grants, words) in cases {
        let error = wire.ask(json!({"type": "grant_set", "grants": grants})).await;
        assert_eq!((&error["code"], &error["message"]), (&json!("invalid_argument"), &json!(words)));
    }
    for grants in [json!([]), json!({key.clone(): "dm"}), json!({key.clone(): [5]}), json!(null)] {
        let error = wire.ask(json!({"type": "grant_set", "grants": grants})).await;
        assert_eq!(error["code"], "invalid_argument", "{error}");
        assert!(error["message"].as_str().unwrap().starts_with("grants"), "{error}");
    }
    let many: serde_json::Map<String, Value> = (0..1001).map(|_| (stranger().to_string(), json!([]))).collect();
    let error = wire.ask(json!({"type": "grant_set", "grants": many})).await;
    assert_eq!(error["message"], "grants must be for 1000 keys at most");
    assert_eq!(wire.ask(json!({"type": "grant_list"})).await["grants"], json!({}));
}
