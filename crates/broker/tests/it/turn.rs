//! Which connection of a member takes its mail: exactly one.

use claudemesh_testkit::{Setup, TestMesh, eventually, merged};
use serde_json::json;

on_both!(a_daemon_takes_it_then_the_longest_session_then_a_command);

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
