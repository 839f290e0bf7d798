//! Who comes and goes, as the others are told.

use std::time::Duration;

use claudemesh_testkit::{Member, TestMesh, Wire, eventually, merged};
use serde_json::{Value, json};

use crate::greeting::shape;

/// The data of the next event of a name; its envelope is what clients expect (websocket 4.1 ▶).
async fn event(wire: &mut Wire, name: &str) -> Value {
    let event = wire.event(name).await;
    assert_eq!(
        (&event["type"], &event["subtype"], &event["senderPubkey"]),
        (&json!("push"), &json!("system"), &json!("system"))
    );
    assert_eq!((&event["priority"], &event["nonce"], &event["ciphertext"]), (&json!("low"), &json!(""), &json!("")));
    assert_eq!(event["messageId"].as_str().unwrap().len(), 36);
    assert_eq!(event["event"], name);
    for taken in ["mesh", "event", "ts"] {
        assert!(event["eventData"].get(taken).is_none(), "clients give {taken} a meaning of their own: {event}");
    }
    event["eventData"].clone()
}

async fn tell_nothing(wires: &mut [&mut Wire]) {
    for wire in wires {
        assert_eq!(wire.events().await, Vec::<String>::new());
    }
}

fn named(name: &str) -> Value {
    json!({"displayName": name, "groups": [{"name": "crew", "role": "lead"}]})
}

async fn goes(mesh: &TestMesh, wire: Wire, open: u64) {
    wire.break_off();
    eventually("it is seen to be broken", async || mesh.metric("broker_connections_active").await == Some(open)).await;
}

fn quiet(member: &Member) -> Value {
    merged(member.hello(), json!({"capabilities": ["quiet"]}))
}

/// websocket 4.2 and its ▶: both names, the key to send to.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_never_here_has_joined_and_one_that_was_has_returned() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    watcher.events().await;
    let mut first = mesh.connect(&merged(bob.hello(), named("Bobby"))).await;
    let data = event(&mut watcher, "peer_joined").await;
    assert_eq!(
        data,
        json!({"name": "Bobby", "displayName": "Bobby", "pubkey": bob.key(), "groups": [{"name": "crew", "role": "lead"}]})
    );
    // The member's own connections, and another mesh, are not told.
    let mut second = mesh.connect(&bob.hello()).await;
    let data = event(&mut watcher, "peer_returned").await;
    assert_eq!(
        (&data["name"], &data["displayName"], &data["pubkey"]),
        (&json!("Bob"), &json!("Bob"), &json!(bob.key()))
    );
    assert!(data["lastSeenAt"].as_str().unwrap().ends_with('Z') && data["groups"].is_array(), "{data}");
    tell_nothing(&mut [&mut first, &mut second, &mut watcher]).await;
    first.close(1000).await;
    assert_eq!(event(&mut watcher, "peer_left").await["name"], "Bobby");
    insta::assert_snapshot!("peer_returned", shape(&data));
}

/// websocket 4.2: a session is news to its own member, too; its end is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_announced_to_everybody_else_and_its_end_to_other_members() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (_, stranger) = mesh.mesh("elsewhere").await;
    let mut foreign = mesh.connect(&stranger.hello()).await;
    let (mut watcher, mut own) = (mesh.connect(&ann.hello()).await, mesh.connect(&bob.hello()).await);
    watcher.events().await;
    own.events().await;
    let session = bob.session();
    let mut wire = mesh.connect(&session.hello()).await;
    for told in [&mut watcher, &mut own] {
        let data = event(told, "peer_joined").await;
        assert_eq!(
            (&data["pubkey"], &data["name"], &data["displayName"]),
            (&json!(session.key()), &json!("Bob"), &json!("Bob"))
        );
    }
    tell_nothing(&mut [&mut wire, &mut foreign]).await;
    wire.close(1000).await;
    let data = event(&mut watcher, "peer_left").await;
    assert_eq!((&data["pubkey"], &data["displayName"]), (&json!(session.key()), &json!("Bob")));
    tell_nothing(&mut [&mut own, &mut foreign, &mut watcher]).await;
}

/// websocket 1.7: a line that broke and came back, or was replaced, is no news; the end of its lease is, once.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_within_the_grace_was_never_gone() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    let session = bob.session();
    let daemon = |session_id: &str| merged(bob.hello(), json!({"sessionId": session_id}));
    for kind in ["session", "daemon"] {
        let hello = || if kind == "session" { session.hello() } else { daemon("d") };
        let first = mesh.connect(&hello()).await;
        watcher.events().await;
        goes(&mesh, first, 1).await;
        mesh.clock.pass(Duration::from_mins(1));
        let second = mesh.connect(&hello()).await;
        let third = mesh.connect(&hello()).await;
        drop(second);
        tell_nothing(&mut [&mut watcher]).await;
        goes(&mesh, third, 1).await;
        tell_nothing(&mut [&mut watcher]).await;
        mesh.clock.pass(Duration::from_secs(91));
        event(&mut watcher, "peer_left").await;
        tell_nothing(&mut [&mut watcher]).await;
    }
}

/// websocket 5.5: a hidden peer is left out of what others see, and not of what its own member sees.
#[tokio::test(flavor = "multi_thread")]
async fn who_hides_is_seen_by_its_own_member_alone_and_comes_and_goes_unseen() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (mut watcher, mut own) = (mesh.connect(&ann.hello()).await, mesh.connect(&bob.hello()).await);
    let session = bob.session();
    let mut wire = mesh.connect(&session.hello()).await;
    for told in [&mut watcher, &mut own, &mut wire] {
        told.events().await;
    }
    let visible = |visible: bool| json!({"type": "set_visible", "visible": visible});
    let ack = wire.ask(visible(false)).await;
    let expected =
        json!({"type": "ack", "id": ack["_reqId"], "messageId": "", "queued": false, "_reqId": ack["_reqId"]});
    assert_eq!(ack, expected);
    for told in [&mut watcher, &mut own] {
        let data = event(told, "peer_hidden").await;
        assert_eq!(data, json!({"name": "Bob", "displayName": "Bob", "pubkey": session.key()}));
    }
    assert_eq!(watcher.peers().await.len(), 2);
    for sees in [&mut own, &mut wire] {
        let peers = sees.peers().await;
        assert_eq!((peers.len(), &peers[0]["visible"], &peers[1]["visible"]), (3, &json!(false), &json!(true)));
    }
    // Said twice it is no news. Mail reaches it as before.
    assert_eq!(wire.ask(visible(false)).await["type"], "ack");
    watcher.deliver(&session.key(), "still there").await;
    assert_eq!(wire.receive().await, "still there");
    // It stays hidden across a break, and its end is nobody's news.
    goes(&mesh, wire, 2).await;
    let wire = mesh.connect(&session.hello()).await;
    assert_eq!(watcher.peers().await.len(), 2);
    wire.close(1000).await;
    tell_nothing(&mut [&mut watcher, &mut own]).await;
    let mut wire = mesh.connect(&session.hello()).await;
    assert_eq!(event(&mut watcher, "peer_joined").await["pubkey"], session.key());
    wire.ask(visible(false)).await;
    wire.say(&visible(true)).await;
    let ack = wire.next().await;
    assert_eq!(ack, json!({"type": "ack", "id": "", "messageId": "", "queued": false}));
    event(&mut watcher, "peer_visible").await;
    assert_eq!(watcher.peers().await.len(), 3);
    for wrong in [json!({}), json!({"visible": "no"}), json!({"visible": 0})] {
        let error = wire.ask(merged(json!({"type": "set_visible"}), wrong)).await;
        assert_eq!(error["code"], "invalid_argument", "{error}");
    }
    assert_eq!(watcher.peers().await.len(), 3);
}

/// websocket 1.6 ▶
#[tokio::test(flavor = "multi_thread")]
async fn a_command_hides_the_session_it_stands_for() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    let session = bob.session();
    let mut wire = mesh.connect(&merged(session.hello(), json!({"sessionId": "s"}))).await;
    let mut other = mesh.connect(&bob.session().hello()).await;
    let mut command = mesh.connect(&merged(bob.cold(), json!({"sessionId": "s"}))).await;
    for told in [&mut watcher, &mut wire, &mut other, &mut command] {
        told.events().await;
    }
    command.ask(json!({"type": "set_visible", "visible": false})).await;
    for told in [&mut watcher, &mut other] {
        assert_eq!(event(told, "peer_hidden").await["pubkey"], session.key());
    }
    command.close(1000).await;
    tell_nothing(&mut [&mut watcher, &mut wire, &mut other]).await;
    let pubkeys: Vec<_> = watcher.peers().await.iter().map(|peer| peer["pubkey"].clone()).collect();
    assert_eq!(pubkeys.len(), 2);
    assert!(!pubkeys.contains(&json!(session.key())));
}

/// A command that only asks is gone in a moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_connection_comes_and_goes_unseen() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    watcher.events().await;
    mesh.connect(&quiet(&bob)).await.close(1000).await;
    let wire = mesh.connect(&quiet(&bob)).await;
    goes(&mesh, wire, 1).await;
    mesh.clock.pass(Duration::from_secs(91));
    eventually("it is gone", async || watcher.peers().await.len() == 1).await;
    tell_nothing(&mut [&mut watcher]).await;
}

/// Who does not read misses news, and nobody waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn news_is_kept_for_nobody() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    mesh.connect(&bob.hello()).await.close(1000).await;
    let mut late = mesh.connect(&ann.hello()).await;
    tell_nothing(&mut [&mut late]).await;
}
