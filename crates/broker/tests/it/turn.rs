//! Which connection of a member takes its mail: exactly one.

use claudemesh_testkit::{Setup, TestMesh, eventually, merged};
use serde_json::json;

on_both!(a_daemon_takes_it_then_the_longest_session_then_a_command, who_waits_costs_the_database_nothing);

async fn a_daemon_takes_it_then_the_longest_session_then_a_command(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut quiet = mesh.connect(&merged(bob.hello(), json!({"capabilities": ["quiet"]}))).await;
    let mut command = mesh.connect(&bob.cold()).await;
    sender.deliver(&bob.key(), "command").await;
    assert_eq!(command.receive().await, "command");
    let mut longest = mesh.connect(&bob.session().hello()).await;
    let mut newest = mesh.connect(&bob.session().hello()).await;
    sender.deliver(&bob.key(), "session").await;
    assert_eq!(longest.receive().await, "session");
    let mut daemon = mesh.connect(&bob.hello()).await;
    let mut second_daemon = mesh.connect(&bob.hello()).await;
    sender.deliver(&bob.key(), "daemon").await;
    assert_eq!(daemon.receive().await, "daemon");
    for wire in [&mut quiet, &mut command, &mut longest, &mut newest, &mut second_daemon] {
        wire.nothing_else().await;
    }
    // And back again, as they leave.
    daemon.close(1000).await;
    second_daemon.close(1000).await;
    longest.break_off();
    sender.deliver(&bob.key(), "the next session").await;
    assert_eq!(newest.receive().await, "the next session");
    newest.close(1000).await;
    sender.deliver(&bob.key(), "command again").await;
    assert_eq!(command.receive().await, "command again");
    command.close(1000).await;
    sender.deliver(&bob.key(), "nobody").await;
    quiet.nothing_else().await;
    assert_eq!(mesh.connect(&bob.cold()).await.receive().await, "nobody");
}

/// A connection that is told to take no mail may still ask what became of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_connection_sends_and_asks_and_takes_nothing() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut quiet = mesh.connect(&merged(ann.hello(), json!({"capabilities": ["quiet"]}))).await;
    let mut other = mesh.connect(&bob.hello()).await;
    other.deliver(&ann.key(), "for Ann").await;
    let id = quiet.deliver(&bob.key(), "from Ann").await;
    assert_eq!(other.receive().await, "from Ann");
    eventually("it is delivered", async || {
        quiet.ask(json!({"type": "message_status", "messageId": id})).await["delivered"] == true
    })
    .await;
    quiet.nothing_else().await;
}

/// Many connections of one member, of every kind, wait for the mail that one of them takes.
async fn who_waits_costs_the_database_nothing(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let shared = bob.cold()["sessionPubkey"].clone();
    let mut wires = Vec::new();
    for number in 0..90 {
        let hello = match number % 5 {
            0 => bob.session().hello(),
            1 => merged(bob.hello(), json!({"sessionId": format!("daemon {number}")})),
            2 => merged(bob.hello(), json!({"capabilities": ["quiet"], "sessionId": format!("quiet {number}")})),
            3 => merged(bob.cold(), json!({"sessionPubkey": shared})),
            _ => bob.cold(),
        };
        wires.push(mesh.connect(&hello).await);
    }
    sender.deliver(&bob.key(), "one").await;
    assert_eq!(wires[1].receive().await, "one");
    let batches = async || mesh.metric("broker_journal_batches_total").await.unwrap();
    let mut before = batches().await;
    eventually("everybody waits", async || {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        std::mem::replace(&mut before, batches().await) == before
    })
    .await;
    // A message is one batch with its claim, then its acknowledgement and the next claim.
    for _ in 0..10 {
        sender.deliver(&bob.key(), "again").await;
        assert_eq!(wires[1].receive().await, "again");
    }
    wires[1].fence().await;
    let after = batches().await;
    assert!(after - before <= 31, "{} batches for ten messages", after - before);
}
