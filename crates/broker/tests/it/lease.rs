//! Lease, grace and liveness: a presence survives a broken line, and nothing else.

use std::time::Duration;

use claudemesh_testkit::{Member, Setup, TestMesh, Wire, eventually, merged};
use serde_json::{Value, json};

fn again(member: &Member, hello: &Value) -> Value {
    merged(member.hello(), json!({"sessionId": hello["sessionId"], "sessionPubkey": hello["sessionPubkey"]}))
}

async fn count(watcher: &mut Wire, member: &Member) -> usize {
    watcher.peers().await.iter().filter(|peer| peer["memberPubkey"] == member.key()).count()
}

/// Waits until the broker has noticed that only so many lines are open.
async fn until_open(mesh: &TestMesh, open: u64) {
    eventually("the line is seen to be broken", async || mesh.metric("broker_connections_active").await == Some(open))
        .await;
}

/// websocket 1.7 ▶: the ack of who takes up a lease has nothing restored in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_line_keeps_its_presence_for_the_grace_time() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    let session = bob.session();
    for kind in ["session", "daemon", "command"] {
        let first = match kind {
            "session" => session.hello(),
            "daemon" => bob.hello(),
            _ => bob.cold(),
        };
        let wire = mesh.connect(&first).await;
        let presence = wire.greeting["presenceId"].clone();
        wire.break_off();
        until_open(&mesh, 1).await;
        mesh.clock.pass(Duration::from_secs(85));
        assert_eq!(count(&mut watcher, &bob).await, 1, "still listed");
        let second = if kind == "session" { session.hello() } else { again(&bob, &first) };
        let back = mesh.connect(&second).await;
        assert_eq!(back.greeting["presenceId"], presence, "{kind}");
        assert_eq!((&back.greeting["restored"], &back.greeting["lastSeenAt"]), (&Value::Null, &Value::Null));
        assert_eq!(count(&mut watcher, &bob).await, 1);
        back.break_off();
        until_open(&mesh, 1).await;
        mesh.clock.pass(Duration::from_secs(91));
        eventually("the grace is over", async || count(&mut watcher, &bob).await == 0).await;
    }
}

/// websocket 1.7 ▶: the grace is for connections that break.
#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_ends_the_presence_at_once_for_every_kind_of_connection() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    let session = bob.session();
    for code in [1000, 1001, 4000] {
        for hello in [bob.hello(), bob.cold(), session.hello()] {
            let wire = mesh.connect(&hello).await;
            let presence = wire.greeting["presenceId"].clone();
            wire.close(code).await;
            assert_eq!(count(&mut watcher, &bob).await, 0);
            let second = if hello["type"] == "hello" { again(&bob, &hello) } else { session.hello() };
            let back = mesh.connect(&second).await;
            assert_ne!(back.greeting["presenceId"], presence);
            assert!(!back.greeting["memberProfile"].is_null());
            back.close(1000).await;
        }
    }
}

/// websocket 1.7 ▶: a session is known by its key.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_comes_twice_replaces_itself_and_stays_one_presence() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("twice").await;
    let session = ann.session();
    let mut old = mesh.connect(&session.hello()).await;
    let mut new = mesh.connect(&session.hello()).await;
    assert_eq!(old.closed().await, (1000, "session_replaced".to_owned()));
    assert_eq!(new.greeting["presenceId"], old.greeting["presenceId"]);
    assert_eq!(count(&mut new, &ann).await, 1);
    drop(old);
    new.nothing_else().await;
}

/// R3, websocket 1.7 ▶. A command reuses the launched session's `sessionId` on purpose.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_displaces_another_kind_of_connection_or_another_member() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let same = json!({"sessionId": "the-same", "hostname": "box"});
    let hellos = [
        ann.session().hello(),
        ann.session().hello(),
        ann.hello(),
        ann.cold(),
        ann.cold(),
        bob.session().hello(),
        bob.hello(),
        bob.cold(),
    ];
    let mut wires = Vec::new();
    for hello in hellos {
        wires.push(mesh.connect(&merged(hello, same.clone())).await);
    }
    wires.push(mesh.connect(&merged(ann.hello(), json!({"sessionId": "the-same", "hostname": "other"}))).await);
    wires.push(mesh.connect(&merged(ann.hello(), json!({"sessionId": "", "hostname": "box"}))).await);
    wires.push(mesh.connect(&merged(ann.hello(), json!({"sessionId": "", "hostname": "box"}))).await);
    let all = wires.len();
    for wire in &mut wires {
        assert_eq!(wire.peers().await.len(), all);
    }
    let _replacing = mesh.connect(&merged(ann.hello(), same)).await;
    assert_eq!(wires[2].closed().await, (1000, "session_replaced".to_owned()));
}

/// websocket 3.6 ▶: claims are released when their socket closes. Whoever is next for the mail is told, and starts with what was held.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_held_goes_to_the_next_one_when_it_leaves() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    for how in ["a goodbye", "a break"] {
        let mut daemon = mesh.connect(&bob.hello()).await;
        let mut next = mesh.connect(&bob.session().hello()).await;
        for text in ["one", "two", "three"] {
            sender.deliver(&bob.key(), text).await;
        }
        for text in ["one", "two", "three"] {
            assert_eq!(daemon.push().await.1, text);
        }
        next.nothing_else().await;
        if how == "a break" {
            daemon.break_off();
        } else {
            daemon.close(1000).await;
        }
        for text in ["one", "two", "three"] {
            assert_eq!(next.receive().await, text, "after {how}");
        }
        next.close(1000).await;
    }
}

/// websocket 3.6 ▶: nothing is claimed for a connection whose socket is not open, though its presence is still shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_line_claims_nothing() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let (hello, session) = (bob.hello(), bob.session());
    for hello in [&hello, &session.hello()] {
        mesh.connect(hello).await.break_off();
    }
    until_open(&mesh, 1).await;
    assert_eq!(count(&mut sender, &bob).await, 2);
    sender.deliver(&bob.key(), "for the member").await;
    sender.deliver(&session.key(), "for the session").await;
    sender.deliver("*", "for all").await;
    sender.fence().await;
    let claimed = "select count(*) from delivery where claim_connection is not null";
    assert_eq!(mesh.database.number(claimed).await, 0);
    // Another connection of the member does not wait for the one that broke.
    let mut other = mesh.connect(&bob.session().hello()).await;
    assert_eq!((other.receive().await, other.receive().await), ("for the member".to_owned(), "for all".to_owned()));
    assert_eq!(mesh.connect(&session.hello()).await.receive().await, "for the session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_answers_a_ping_is_cut_off() {
    let setup = Setup::sqlite().with(|config| config.ping_every = Duration::from_millis(200));
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut silent = mesh.connect(&ann.hello()).await;
    let mut listening = mesh.connect(&bob.hello()).await;
    // Reading answers pings; the silent one is not read from meanwhile.
    eventually("the silent one is seen to be dead", async || {
        listening.fence().await;
        mesh.metric("broker_connections_active").await == Some(1)
    })
    .await;
    silent.cut_off().await;
    listening.nothing_else().await;
}
