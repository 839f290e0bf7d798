//! How busy somebody is, and what is held back from them meanwhile.

use std::time::Duration;

use claudemesh_testkit::{Setup, TestMesh, Wire, eventually, merged, send_frame};
use serde_json::{Value, json};

on_both!(
    who_is_busy_is_handed_only_what_is_urgent_and_the_rest_when_idle,
    each_priority_keeps_its_order_across_a_busy_time,
    nothing_slips_through_in_the_moment_of_becoming_busy,
    a_redelivery_is_held_back_too,
);

async fn set(wire: &mut Wire, status: &str) {
    wire.say(&json!({"type": "set_status", "status": status})).await;
    wire.fence().await;
}

async fn send(wire: &mut Wire, to: &str, (priority, text): (&str, &str)) {
    let ack = wire.send_with(to, text, json!({"priority": priority})).await;
    assert_eq!(ack["queued"], true, "{ack}");
}

/// The status of a presence, as this one is told.
async fn status_of(watcher: &mut Wire, presence: &Value) -> String {
    let peers = watcher.peers().await;
    let peer = peers.iter().find(|peer| peer["sessionId"] == presence["sessionId"]);
    peer.unwrap_or_else(|| panic!("not here: {presence}"))["status"].as_str().unwrap().to_owned()
}

/// websocket 5.1, 5.5
#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_seen_by_others_and_a_wrong_one_changes_nothing() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    let hello = bob.session().hello();
    let mut session = mesh.connect(&hello).await;
    assert_eq!(status_of(&mut watcher, &hello).await, "idle");
    for status in ["working", "dnd", "idle", "working"] {
        set(&mut session, status).await;
        assert_eq!(status_of(&mut watcher, &hello).await, status);
    }
    for (fields, message) in [
        (json!({"status": "away"}), "status must be idle, working or dnd"),
        (json!({"status": "Idle"}), "status must be idle, working or dnd"),
        (json!({"status": ""}), "status must be idle, working or dnd"),
        (json!({}), "status must be idle, working or dnd"),
        (json!({"status": 5}), "status invalid type: integer `5`, expected a string"),
        (json!({"status": "idle", "source": "hook"}), "source must be manual or jsonl"),
        (json!({"status": "idle", "source": ""}), "source must be manual or jsonl"),
    ] {
        let error = session.ask(merged(json!({"type": "set_status"}), fields)).await;
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("invalid_argument")), "{error}");
        assert_eq!(error["message"], message);
        assert_eq!(status_of(&mut watcher, &hello).await, "working");
    }
    session.nothing_else().await;
}

/// websocket 5.1 ▶
#[tokio::test(flavor = "multi_thread")]
async fn inference_does_not_end_dnd_and_somebodys_word_does() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("inferred").await;
    let hello = ann.session().hello();
    let mut session = mesh.connect(&hello).await;
    for (status, source, then) in [
        ("working", "jsonl", "working"),
        ("dnd", "manual", "dnd"),
        ("idle", "jsonl", "dnd"),
        ("working", "jsonl", "dnd"),
        ("idle", "manual", "idle"),
        ("working", "jsonl", "working"),
    ] {
        session.say(&json!({"type": "set_status", "status": status, "source": source})).await;
        assert_eq!(status_of(&mut session, &hello).await, then, "after {status} from {source}");
    }
}

/// websocket 3.9, and 3.6 ▶: whoever becomes idle by a word or because its time is over is drained.
async fn who_is_busy_is_handed_only_what_is_urgent_and_the_rest_when_idle(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let session = bob.session();
    let mut receiver = mesh.connect(&session.hello()).await;
    for (busy, to) in [("working", bob.key()), ("dnd", session.key()), ("working", session.key())] {
        set(&mut receiver, busy).await;
        for what in [("low", "one"), ("next", "two"), ("now", "urgent"), ("next", "three"), ("now", "urgent too")] {
            send(&mut sender, &to, what).await;
        }
        assert_eq!(receiver.receive().await, "urgent");
        assert_eq!(receiver.receive().await, "urgent too");
        receiver.nothing_else().await;
        set(&mut receiver, "idle").await;
        for text in ["one", "two", "three"] {
            assert_eq!(receiver.receive().await, text, "after {busy}");
        }
        receiver.nothing_else().await;
    }
    set(&mut receiver, "working").await;
    send(&mut sender, &bob.key(), ("next", "held")).await;
    receiver.nothing_else().await;
    // The time of a status that nobody repeats ends, and the sweep finds it within 15 s.
    mesh.clock.pass(Duration::from_secs(76));
    assert_eq!(receiver.receive().await, "held");
    assert!(mesh.metric("broker_ttl_sweeps_total").await.unwrap() > 0);
}

/// websocket 5.3 ▶, 5.4: without a fresh word the last one holds, and only working has a time. Dnd does not end by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_ends_working_and_leaves_dnd() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (working, dnd) = (ann.session().hello(), bob.session().hello());
    let (mut worker, mut other) = (mesh.connect(&working).await, mesh.connect(&dnd).await);
    set(&mut worker, "working").await;
    set(&mut other, "dnd").await;
    mesh.clock.pass(Duration::from_secs(76));
    eventually("working has ended", async || status_of(&mut worker, &working).await == "idle").await;
    assert_eq!(status_of(&mut worker, &dnd).await, "dnd");
}

/// D5, per priority, with more than a window of each.
async fn each_priority_keeps_its_order_across_a_busy_time(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut receiver = mesh.connect(&bob.session().hello()).await;
    set(&mut receiver, "working").await;
    for number in 0..600 {
        let priority = ["now", "next", "low"][number % 3];
        sender.feed(&merged(send_frame(&bob.key(), &format!("{number}")), json!({"priority": priority}))).await;
    }
    sender.flush().await;
    for _ in 0..600 {
        assert_eq!(sender.expect("ack").await["queued"], true);
    }
    for number in (0..600).step_by(3) {
        assert_eq!(receiver.receive().await, number.to_string());
    }
    receiver.nothing_else().await;
    set(&mut receiver, "idle").await;
    for number in (0..600).filter(|number| number % 3 > 0) {
        assert_eq!(receiver.receive().await, number.to_string());
    }
    receiver.nothing_else().await;
}

/// websocket 3.9: a question that waits with the store asks for everything.
async fn nothing_slips_through_in_the_moment_of_becoming_busy(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    for round in 0..40 {
        let text = format!("{round}");
        set(&mut receiver, "working").await;
        send(&mut sender, &bob.key(), ("next", &text)).await;
        send(&mut sender, &bob.key(), ("now", "urgent")).await;
        assert_eq!(receiver.receive().await, "urgent", "round {round}");
        receiver.nothing_else().await;
        set(&mut receiver, "idle").await;
        assert_eq!(receiver.receive().await, text);
    }
}

async fn a_redelivery_is_held_back_too(setup: Setup) {
    let mesh = setup.with(|config| config.claim_lease = Duration::from_millis(500)).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    send(&mut sender, &bob.key(), ("next", "calm")).await;
    send(&mut sender, &bob.key(), ("now", "urgent")).await;
    assert_eq!(receiver.push().await.1, "calm");
    assert_eq!(receiver.push().await.1, "urgent");
    set(&mut receiver, "working").await;
    // Both leases end; only what is urgent comes again, until the other may.
    for _ in 0..2 {
        assert_eq!(receiver.push().await.1, "urgent");
    }
    set(&mut receiver, "idle").await;
    assert_eq!(receiver.receive().await, "calm");
}

/// websocket 1.6 ▶: what a command says is for the session that it runs in, else for all of its member.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_says_reaches_the_session_it_stands_for() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let named = |name: &str| json!({"sessionId": name});
    let (first, second) =
        (merged(bob.session().hello(), named("first")), merged(bob.session().hello(), named("second")));
    let (daemon, foreign) = (bob.hello(), merged(ann.session().hello(), named("first")));
    let mut wires = Vec::new();
    for hello in [&first, &second, &daemon, &foreign] {
        wires.push(mesh.connect(hello).await);
    }
    let watcher = &mut wires[0];
    let says = json!({"type": "set_status", "status": "working"});
    let summary = |text: &str| json!({"type": "set_summary", "summary": text});
    // It closes at once, as commands do.
    let mut command = mesh.connect(&merged(bob.cold(), named("first"))).await;
    command.say(&says).await;
    command.say(&summary("the first")).await;
    command.close(1000).await;
    let seen = async |watcher: &mut Wire| {
        let mut seen = Vec::new();
        for hello in [&first, &second, &daemon, &foreign] {
            let peers = watcher.peers().await;
            let own = |peer: &&Value| {
                peer["sessionId"] == hello["sessionId"]
                    && (peer["memberPubkey"] == ann.key()) == (hello["parentMemberPubkey"] == ann.key())
            };
            let peer = peers.iter().find(own).unwrap().clone();
            seen.push((peer["status"].as_str().unwrap().to_owned(), peer["summary"].clone()));
        }
        seen
    };
    let (busy, idle) = ("working".to_owned(), "idle".to_owned());
    let none = Value::Null;
    assert_eq!(
        seen(watcher).await,
        [
            (busy.clone(), json!("the first")),
            (idle.clone(), none.clone()),
            (idle.clone(), none.clone()),
            (idle.clone(), none.clone())
        ]
    );
    for hello in [merged(bob.cold(), named("elsewhere")), merged(bob.hello(), json!({"capabilities": ["quiet"]}))] {
        let mut command = mesh.connect(&hello).await;
        command.say(&says).await;
        command.say(&summary("everywhere")).await;
        command.close(1000).await;
        let all = (busy.clone(), json!("everywhere"));
        assert_eq!(seen(watcher).await, [all.clone(), all.clone(), all.clone(), (idle.clone(), none.clone())]);
        let mut back = mesh.connect(&merged(bob.cold(), named("elsewhere"))).await;
        back.say(&json!({"type": "set_status", "status": "idle"})).await;
        back.close(1000).await;
    }
}

/// websocket 1.1 ▶: what was said before a Close is processed, whether or not anybody waits for the answer to the Close.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_says_before_it_closes_is_done() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("hasty").await;
    let hello = ann.session().hello();
    let mut session = mesh.connect(&hello).await;
    for (round, status) in ["working", "dnd", "idle"].into_iter().enumerate() {
        let mut command = mesh.connect(&ann.cold()).await;
        for number in 0..40 {
            command.feed(&json!({"type": "set_summary", "summary": format!("{round}.{number}")})).await;
        }
        command.feed(&json!({"type": "set_status", "status": status})).await;
        match round {
            0 => command.close(1000).await,
            1 => {
                command.say_close(1001).await;
                command.break_off();
            }
            _ => {
                command.flush().await;
                command.half_close().await;
            }
        }
        eventually("all of it is done", async || status_of(&mut session, &hello).await == status).await;
        let peer = session.peers().await.remove(0);
        assert_eq!(peer["summary"], format!("{round}.39"));
    }
}

/// websocket 1.7: it is the same presence.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_is_as_busy_as_before() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let session = bob.session();
    let mut receiver = mesh.connect(&session.hello()).await;
    set(&mut receiver, "dnd").await;
    receiver.say(&json!({"type": "set_summary", "summary": "tests"})).await;
    receiver.fence().await;
    receiver.break_off();
    send(&mut sender, &session.key(), ("next", "calm")).await;
    send(&mut sender, &session.key(), ("now", "urgent")).await;
    let hello = session.hello();
    let mut receiver = mesh.connect(&hello).await;
    assert_eq!(receiver.receive().await, "urgent");
    assert_eq!(status_of(&mut sender, &hello).await, "dnd");
    assert_eq!(sender.peers().await[0]["summary"], "tests");
    receiver.nothing_else().await;
    set(&mut receiver, "idle").await;
    assert_eq!(receiver.receive().await, "calm");
}
