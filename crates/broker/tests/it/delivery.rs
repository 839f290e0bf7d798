//! Order, dedupe, redelivery and acknowledgement: the promises D1 to D7.

use std::time::Duration;

use claudemesh_testkit::{Setup, TestMesh, Wire, eventually, merged, send_frame};
use serde_json::{Value, json};

on_both!(
    first_deliveries_are_in_the_order_of_acceptance,
    mail_for_a_member_and_for_its_session_comes_in_one_order,
    mail_passes_to_a_daemon_that_comes_and_back,
    a_retry_gets_the_first_answer_and_a_reused_id_is_refused,
    two_senders_may_use_the_same_id,
    what_is_not_acknowledged_comes_again_with_the_same_ids_and_a_longer_lease,
    a_redelivery_starts_at_the_oldest_unacknowledged,
    an_ack_by_either_id_settles_and_may_be_repeated,
    an_ack_by_the_brokers_id_reaches_what_an_earlier_connection_was_handed,
    the_acks_of_others_change_nothing,
    a_clients_own_id_means_the_oldest_that_carries_it,
    frames_before_a_close_are_all_processed,
    more_than_a_window_is_handed_over_as_it_is_acknowledged,
);

fn texts(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("message {number}")).collect()
}

async fn send_all(wire: &mut Wire, to: &str, texts: &[String]) {
    for text in texts {
        wire.feed(&send_frame(to, text)).await;
    }
    wire.flush().await;
    for _ in texts {
        let ack = wire.expect("ack").await;
        assert_eq!(ack["queued"], true, "{ack}");
    }
}

async fn receive_all(wire: &mut Wire, count: usize) -> Vec<String> {
    let mut received = Vec::new();
    for _ in 0..count {
        received.push(wire.receive().await);
    }
    received
}

/// D5, for a receiver that is there, one that comes later, and one that comes back.
async fn first_deliveries_are_in_the_order_of_acceptance(setup: Setup) {
    let mut mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    send_all(&mut sender, &bob.key(), &texts(0..100)).await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    send_all(&mut sender, &bob.key(), &texts(100..200)).await;
    assert_eq!(receive_all(&mut receiver, 200).await, texts(0..200));
    send_all(&mut sender, &bob.key(), &texts(200..300)).await;
    receiver.fence().await;
    drop((sender, receiver));
    mesh.restart().await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    assert_eq!(receive_all(&mut receiver, 100).await, texts(200..300));
    receiver.nothing_else().await;
}

/// D5: a session takes its member's mail too while no daemon is there, and both have one order.
async fn mail_for_a_member_and_for_its_session_comes_in_one_order(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let session = bob.session();
    let mut sender = mesh.connect(&ann.hello()).await;
    let mixed = async |sender: &mut Wire, range: std::ops::Range<usize>| {
        for (number, text) in texts(range.clone()).iter().enumerate() {
            let to = if number % 3 == 0 { session.key() } else { bob.key() };
            sender.feed(&send_frame(&to, text)).await;
        }
        sender.flush().await;
        for _ in range {
            assert_eq!(sender.expect("ack").await["queued"], true);
        }
    };
    let mut receiver = mesh.connect(&session.hello()).await;
    // Longer than a window.
    mixed(&mut sender, 0..300).await;
    assert_eq!(receive_all(&mut receiver, 300).await, texts(0..300));
    receiver.close(1000).await;
    mixed(&mut sender, 300..900).await;
    let mut receiver = mesh.connect(&session.hello()).await;
    assert_eq!(receive_all(&mut receiver, 600).await, texts(300..900));
    receiver.nothing_else().await;
}

/// D2, D5: whoever loses the member's mail to another connection gives up what it waits for, and gets it back.
async fn mail_passes_to_a_daemon_that_comes_and_back(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut session = mesh.connect(&bob.session().hello()).await;
    sender.deliver(&bob.key(), "to the session").await;
    assert_eq!(session.receive().await, "to the session");
    for round in 0..5 {
        let mut daemon = mesh.connect(&bob.hello()).await;
        daemon.fence().await;
        session.fence().await;
        sender.deliver(&bob.key(), &format!("to the daemon {round}")).await;
        assert_eq!(daemon.receive().await, format!("to the daemon {round}"));
        sender.deliver(&bob.key(), "left").await;
        let (_, left) = daemon.push().await;
        assert_eq!(left, "left");
        // It goes without an acknowledgement: what it held is the session's, before anything newer.
        daemon.close(1000).await;
        sender.deliver(&bob.key(), "newer").await;
        assert_eq!(session.receive().await, "left");
        assert_eq!(session.receive().await, "newer");
    }
    session.nothing_else().await;
}

/// D6 and D7, websocket 3.8 ▶: what is sent again has the first answer, from whichever connection of its member.
async fn a_retry_gets_the_first_answer_and_a_reused_id_is_refused(setup: Setup) {
    let mut mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let reused = "invalid: client_message_id was used with another request_fingerprint";
    let (one, two) = ("11".repeat(32), "22".repeat(32));
    let mut first_ids = Vec::new();
    for round in 0..2 {
        let mut sender = mesh.connect(&ann.hello()).await;
        let mut other_session = mesh.connect(&ann.session().hello()).await;
        let marked = json!({"client_message_id": "marked", "request_fingerprint": one});
        let plain = json!({"client_message_id": "plain"});
        // With a fingerprint only that counts; a daemon seals again, so that the ciphertext of a retry is another.
        let id = sender.send_with(&bob.key(), &format!("sealed {round}"), marked.clone()).await["messageId"].clone();
        let again = other_session.send_with(&bob.key(), "sealed otherwise", marked.clone()).await;
        assert_eq!((&again["messageId"], &again["queued"]), (&id, &json!(true)));
        let plain_id = sender.send_with(&bob.key(), "plain", plain.clone()).await["messageId"].clone();
        assert_eq!(sender.send_with(&bob.key(), "plain", plain.clone()).await["messageId"], plain_id);
        for (text, fields) in [
            ("sealed", json!({"client_message_id": "marked", "request_fingerprint": two})),
            ("sealed", json!({"client_message_id": "marked"})),
            ("plain", json!({"client_message_id": "plain", "request_fingerprint": one})),
            ("something else", plain.clone()),
            ("plain", json!({"client_message_id": "plain", "nonce": ""})),
        ] {
            let ack = sender.send_with(&bob.key(), text, fields.clone()).await;
            assert_eq!((&ack["error"], &ack["queued"], &ack["messageId"]), (&json!(reused), &json!(false), &json!("")));
        }
        first_ids.push((id, plain_id));
        drop((sender, other_session));
        mesh.restart().await;
    }
    assert_eq!(first_ids[0], first_ids[1], "also after a restart");
    let mut receiver = mesh.connect(&bob.hello()).await;
    assert_eq!(receive_all(&mut receiver, 2).await, ["sealed 0", "plain"]);
    receiver.nothing_else().await;
}

/// D6, websocket 3.8 ▶: a client's id is its member's own.
async fn two_senders_may_use_the_same_id(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    let same = json!({"client_message_id": "same"});
    let mut ids = Vec::new();
    for member in [&ann, &cid] {
        let mut sender = mesh.connect(&member.hello()).await;
        ids.push(sender.send_with(&bob.key(), &member.id, same.clone()).await["messageId"].clone());
    }
    assert_ne!(ids[0], ids[1]);
    let mut receiver = mesh.connect(&bob.hello()).await;
    assert_eq!(receive_all(&mut receiver, 2).await, [ann.id, cid.id]);
}

fn short_lease(setup: Setup) -> Setup {
    setup.with(|config| config.claim_lease = Duration::from_millis(300))
}

/// D7 and D10, websocket 3.6 ▶: it is pushed again when its lease ends.
async fn what_is_not_acknowledged_comes_again_with_the_same_ids_and_a_longer_lease(setup: Setup) {
    let mesh = short_lease(setup).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    let mut sender = mesh.connect(&ann.hello()).await;
    sender.send_with(&bob.key(), "again", json!({"client_message_id": "c-1"})).await;
    let mut times = Vec::new();
    let (first, _) = receiver.push().await;
    for _ in 0..3 {
        times.push(mesh.clock.now());
        let (push, _) = receiver.push().await;
        assert_eq!(push, first);
    }
    times.push(mesh.clock.now());
    let leases: Vec<Duration> = times.windows(2).map(|pair| pair[1].distance(pair[0])).collect();
    // 300, 600 and 1200 ms. Only what is too early is wrong: a busy machine is late.
    for (lease, least) in leases.iter().zip([250, 550, 1150]) {
        assert!(lease.as_millis() >= least, "{leases:?}");
    }
    receiver.acknowledge(&first).await;
    until_nothing_is_queued(&mesh).await;
}

/// D5.
async fn a_redelivery_starts_at_the_oldest_unacknowledged(setup: Setup) {
    let mesh = short_lease(setup).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    send_all(&mut sender, &bob.key(), &texts(0..5)).await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    let mut pushes = Vec::new();
    for text in texts(0..5) {
        let (push, said) = receiver.push().await;
        assert_eq!(said, text);
        pushes.push(push);
    }
    receiver.acknowledge(&pushes[0]).await;
    receiver.acknowledge(&pushes[2]).await;
    for text in ["message 1", "message 3", "message 4"] {
        assert_eq!(receiver.receive().await, text);
    }
    receiver.nothing_else().await;
}

/// Waits until every delivery has ended: an ack has no answer, and is written a moment later.
async fn until_nothing_is_queued(mesh: &TestMesh) {
    eventually("everything is settled", async || {
        mesh.database.number("select count(*) from delivery where state = 'queued'").await == 0
    })
    .await;
}

/// D4. A daemon sends both ids, and the message's id as the client's when there was none.
async fn an_ack_by_either_id_settles_and_may_be_repeated(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    let acks: [fn(&Value) -> Value; 4] = [
        |push| json!({"brokerMessageId": push["messageId"]}),
        |push| json!({"clientMessageId": push["client_message_id"]}),
        |push| json!({"clientMessageId": push["client_message_id"], "brokerMessageId": push["messageId"]}),
        |push| json!({"clientMessageId": push["messageId"], "brokerMessageId": push["messageId"]}),
    ];
    for (number, ack) in acks.into_iter().enumerate() {
        let fields = json!({"client_message_id": format!("c-{number}")});
        sender.send_with(&bob.key(), "x", fields).await;
        let (push, _) = receiver.push().await;
        for _ in 0..3 {
            receiver.say(&merged(json!({"type": "client_ack"}), ack(&push))).await;
        }
        until_nothing_is_queued(&mesh).await;
    }
    receiver.nothing_else().await;
    receiver.close(1000).await;
    mesh.connect(&bob.hello()).await.nothing_else().await;
}

/// websocket 3.6 ▶: `brokerMessageId` decides, whoever holds the message.
async fn an_ack_by_the_brokers_id_reaches_what_an_earlier_connection_was_handed(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    sender.deliver(&bob.key(), "kept before the line broke").await;
    let mut first = mesh.connect(&bob.hello()).await;
    let (push, _) = first.push().await;
    first.break_off();
    let mut second = mesh.connect(&merged(bob.hello(), json!({"capabilities": ["quiet"]}))).await;
    second.acknowledge(&push).await;
    until_nothing_is_queued(&mesh).await;
    mesh.connect(&bob.hello()).await.nothing_else().await;
}

/// D4 and R4, websocket 3.6 ▶: `brokerMessageId` decides, `clientMessageId` alone is of what this connection was handed.
async fn the_acks_of_others_change_nothing(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    let (_, dan) = mesh.mesh("other").await;
    let session = bob.session();
    let mut session_wire = mesh.connect(&session.hello()).await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let fields = json!({"client_message_id": "c-1"});
    sender.send_with(&bob.key(), "for Bob", fields).await;
    let (push, _) = receiver.push().await;
    let to_session = sender.deliver(&session.key(), "for the session").await;
    session_wire.push().await;
    // Not the sender, nor others, nor another mesh; the session's mail not by the member's daemon.
    let mut others = [mesh.connect(&cid.hello()).await, mesh.connect(&dan.hello()).await];
    for wire in others.iter_mut().chain([&mut sender]) {
        for ack in [
            json!({"brokerMessageId": push["messageId"]}),
            json!({"clientMessageId": "c-1"}),
            json!({"clientMessageId": "c-1", "brokerMessageId": push["messageId"]}),
            json!({"brokerMessageId": to_session}),
        ] {
            wire.say(&merged(json!({"type": "client_ack"}), ack)).await;
        }
        wire.nothing_else().await;
    }
    // The client's id alone is of what the connection itself was handed, also where both are of one member.
    session_wire.say(&json!({"type": "client_ack", "clientMessageId": "c-1"})).await;
    session_wire.nothing_else().await;
    for ack in [
        json!({"brokerMessageId": to_session}),
        // The broker's id decides when it is there, also when it is nobody's.
        json!({"brokerMessageId": "0".repeat(32), "clientMessageId": "c-1"}),
        json!({"brokerMessageId": "nonsense", "clientMessageId": "c-1"}),
        json!({"brokerMessageId": format!("{}{}", &push["messageId"].as_str().unwrap()[..8], "0".repeat(24))}),
        json!({}),
    ] {
        receiver.say(&merged(json!({"type": "client_ack"}), ack)).await;
    }
    receiver.nothing_else().await;
    sender.deliver(&bob.key(), "the journal has written what came before").await;
    assert_eq!(mesh.database.number("select count(*) from delivery where state = 'queued'").await, 3);
}

/// D4, websocket 3.6 ▶: two senders used one id and one ack names it: the other message comes again.
async fn a_clients_own_id_means_the_oldest_that_carries_it(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    let same = json!({"client_message_id": "same"});
    for member in [&ann, &cid] {
        mesh.connect(&member.hello()).await.send_with(&bob.key(), &member.id, same.clone()).await;
        receiver.push().await;
    }
    receiver.say(&json!({"type": "client_ack", "clientMessageId": "same"})).await;
    receiver.close(1000).await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    assert_eq!(receiver.receive().await, cid.id);
    receiver.nothing_else().await;
}

/// websocket 1.1 ▶: a command says what it has to say and closes at once.
async fn frames_before_a_close_are_all_processed(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    for (round, how) in ["close", "close without reading", "end"].into_iter().enumerate() {
        let mut sender = mesh.connect(&ann.cold()).await;
        let sent = texts(round * 500..round * 500 + 500);
        for text in &sent {
            sender.feed(&send_frame(&bob.key(), text)).await;
        }
        sender.flush().await;
        match how {
            "close" => sender.close(1000).await,
            "close without reading" => {
                sender.say_close(1000).await;
                sender.break_off();
            }
            _ => sender.half_close().await,
        }
        let mut receiver = mesh.connect(&bob.hello()).await;
        assert_eq!(receive_all(&mut receiver, 500).await, sent, "{how}");
        receiver.close(1000).await;
    }
}

/// The same at its hardest: acks that nobody reads reset the line while frames of before the Close are still to be read.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_a_line_was_reset_is_processed() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    for round in 0..40 {
        let mut sender = mesh.connect(&ann.cold()).await;
        for text in texts(0..200) {
            sender.feed(&send_frame(&bob.key(), &text)).await;
            if text.ends_with("00") {
                sender.flush().await;
                sender.unread().await;
            }
        }
        sender.say_close(1000).await;
        sender.break_off();
        let expected = (round + 1) * 200;
        eventually("all of it is stored", async || {
            mesh.database.number("select count(*) from message").await == expected
        })
        .await;
    }
}

/// D11: what is unacknowledged is bounded.
async fn more_than_a_window_is_handed_over_as_it_is_acknowledged(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    send_all(&mut sender, &bob.key(), &texts(0..700)).await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    let mut window = Vec::new();
    for number in 0..256 {
        let (push, text) = receiver.push().await;
        assert_eq!(text, format!("message {number}"));
        window.push(push);
    }
    receiver.nothing_else().await;
    for push in &window {
        receiver.acknowledge(push).await;
    }
    assert_eq!(receive_all(&mut receiver, 444).await, texts(256..700));
    // By size, too: 1 MiB, in messages of 48 KiB.
    let big = vec!["x".repeat(48_000); 40];
    send_all(&mut sender, &bob.key(), &big).await;
    assert_eq!(receive_all(&mut receiver, 40).await, big);
    receiver.nothing_else().await;
}
