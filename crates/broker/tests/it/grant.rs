//! `grant_set` and `grant_list`.

use std::time::Duration;

use claudemesh_testkit::{Setup, TestMesh, Wire, merged, stranger};
use serde_json::{Value, json};

on_both!(
    grants_are_kept_and_answered_whole,
    what_was_held_back_comes_once_it_may,
    a_block_holds_at_accept_and_at_claim_for_every_target_by_either_key,
    what_was_pushed_is_not_handed_to_the_next_connection_of_who_blocks_its_sender,
    what_was_pushed_is_not_pushed_again_once_its_sender_is_blocked,
    a_member_s_entry_goes_before_its_session_s,
);

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

/// websocket 8.1: whoever is blocked reaches nobody, whether it sent before or after, and whatever it sent to. What was accepted
/// before ends by no block (D3).
async fn a_block_holds_at_accept_and_at_claim_for_every_target_by_either_key(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (from, session) = (ann.session(), bob.session());
    let mut sender = mesh.connect(&from.hello()).await;
    let mut command = mesh.connect(&merged(bob.hello(), json!({"capabilities": ["quiet"]}))).await;
    command.say(&json!({"type": "join_group", "name": "crew"})).await;
    command.fence().await;
    mesh.connect(&session.hello()).await.close(1000).await;
    for by in [ann.key(), from.key()] {
        for (target, text) in
            [(bob.key(), "member"), (session.key(), "session"), ("*".into(), "all"), ("@crew".into(), "crew")]
        {
            sender.deliver(&target, text).await;
        }
        grant(&mut command, json!({by.clone(): []})).await;
        let mut daemon = mesh.connect(&bob.hello()).await;
        let mut live = mesh.connect(&session.hello()).await;
        for target in [bob.key(), session.key()] {
            let ack = sender.send(&target, "refused").await;
            assert_eq!(ack["error"], "forbidden: blocked by recipient grants (sender lacks dm capability)");
        }
        for target in ["*", "@crew"] {
            assert_eq!(sender.send(target, "unheard").await["queued"], true, "passed over in silence");
        }
        daemon.nothing_else().await;
        live.nothing_else().await;
        grant(&mut command, json!({by.clone(): ["dm"]})).await;
        assert_eq!((daemon.receive().await, live.receive().await), ("member".to_owned(), "session".to_owned()));
        assert_eq!(sender.send("@crew", "unheard").await["queued"], true);
        daemon.nothing_else().await;
        live.nothing_else().await;
        grant(&mut command, json!({by.clone(): ["broadcast"]})).await;
        assert_eq!((daemon.receive().await, daemon.receive().await), ("all".to_owned(), "crew".to_owned()));
        assert_eq!(sender.send(&session.key(), "refused").await["queued"], false);
        grant(&mut command, json!({by: null})).await;
        daemon.nothing_else().await;
        live.nothing_else().await;
        daemon.close(1000).await;
        live.close(1000).await;
    }
    let left = mesh.database.number("select count(*) from delivery where state = 'queued'").await;
    assert_eq!(left, 0, "what was not accepted waits nowhere");
}

/// websocket 8.1: what one connection was handed and did not acknowledge is claimed anew for the next, and the block counts there.
async fn what_was_pushed_is_not_handed_to_the_next_connection_of_who_blocks_its_sender(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&of_ann, &ann, "Cid").await;
    let mut command = mesh.connect(&merged(bob.hello(), json!({"capabilities": ["quiet"]}))).await;
    let (mut sender, mut other) = (mesh.connect(&ann.hello()).await, mesh.connect(&cid.hello()).await);
    let mut wire = mesh.connect(&bob.hello()).await;
    for (from, text) in [(&mut sender, "blocked"), (&mut other, "not blocked")] {
        from.deliver(&bob.key(), text).await;
        assert_eq!(wire.push().await.1, text);
    }
    grant(&mut command, json!({ann.key(): []})).await;
    wire.close(1000).await;
    let mut next = mesh.connect(&bob.session().hello()).await;
    assert_eq!(next.receive().await, "not blocked");
    next.nothing_else().await;
    grant(&mut command, json!({ann.key(): ["dm"]})).await;
    assert_eq!(next.receive().await, "blocked");
}

/// A block counts also where a connection holds what it did not acknowledge; and it comes once it may, at once.
async fn what_was_pushed_is_not_pushed_again_once_its_sender_is_blocked(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&of_ann, &ann, "Cid").await;
    let mut command = mesh.connect(&merged(bob.hello(), json!({"capabilities": ["quiet"]}))).await;
    let (mut sender, mut other) = (mesh.connect(&ann.hello()).await, mesh.connect(&cid.hello()).await);
    let mut wire = mesh.connect(&bob.hello()).await;
    other.deliver(&bob.key(), "not blocked").await;
    assert_eq!(wire.push().await.1, "not blocked");
    mesh.clock.pass(Duration::from_secs(20));
    sender.deliver(&bob.key(), "blocked").await;
    assert_eq!(wire.push().await.1, "blocked");
    grant(&mut command, json!({ann.key(): []})).await;
    // The lease of the first is over, and with it goes the second, whose own is not.
    mesh.clock.pass(Duration::from_secs(11));
    assert_eq!(wire.receive().await, "not blocked");
    wire.nothing_else().await;
    grant(&mut command, json!({ann.key(): null})).await;
    assert_eq!(wire.receive().await, "blocked");
}

/// websocket 8.1: the entry of the sender's member, else of its session, else what everybody may.
async fn a_member_s_entry_goes_before_its_session_s(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (session, sibling) = (ann.session(), ann.session());
    let mut sender = mesh.connect(&session.hello()).await;
    let mut other = mesh.connect(&sibling.hello()).await;
    let mut wire = mesh.connect(&bob.hello()).await;
    for (grants, may, sibling_may) in [
        (json!({ann.key(): ["dm", "broadcast"], session.key(): []}), true, true),
        (json!({ann.key(): [], session.key(): ["dm", "broadcast"]}), false, false),
        (json!({ann.key(): null, session.key(): []}), false, true),
        (json!({ann.key(): null, session.key(): ["dm"], sibling.key(): ["read"]}), true, false),
    ] {
        grant(&mut wire, grants.clone()).await;
        for (from, may) in [(&mut sender, may), (&mut other, sibling_may)] {
            assert_eq!(from.send(&bob.key(), "x").await["queued"], may, "{grants}");
            if may {
                wire.receive().await;
            }
        }
        wire.nothing_else().await;
    }
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
