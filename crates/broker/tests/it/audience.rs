//! Messages for everybody and for groups: one delivery per member, through the one connection that takes its mail.

use claudemesh_testkit::{Setup, TestMesh, merged};
use serde_json::{Value, json};

on_both!(
    a_broadcast_reaches_every_member_once_and_waits_for_those_who_are_away,
    a_group_is_heard_by_its_members_and_those_below_it,
    a_broadcast_is_stored_once_for_each_recipient_whatever_is_retried,
);

/// D2, websocket 3.10 ▶: through one connection of each member, the control plane before a session.
async fn a_broadcast_reaches_every_member_once_and_waits_for_those_who_are_away(setup: Setup) {
    let mesh = setup.start().await;
    let (home, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&home, &ann, "Cid").await;
    let (_, eve) = mesh.mesh("other").await;
    let mut sender = mesh.connect(&ann.session().hello()).await;
    let mut sibling = mesh.connect(&ann.session().hello()).await;
    let mut control = mesh.connect(&ann.hello()).await;
    let mut foreigner = mesh.connect(&eve.hello()).await;
    let mut session = mesh.connect(&bob.session().hello()).await;
    let mut daemon = mesh.connect(&bob.hello()).await;
    for (target, text) in [("*", "to all"), ("@all", "to all again")] {
        let id = sender.deliver(target, text).await;
        let (push, heard) = daemon.push().await;
        assert_eq!(heard, text);
        assert_eq!((&push["messageId"], &push["senderName"]), (&json!(id), &json!("Ann")));
        assert_eq!((&push["senderMemberPubkey"], &push["senderMemberId"]), (&json!(ann.key()), &json!(ann.id)));
        daemon.acknowledge(&push).await;
    }
    // Its sender's own member, a second connection of a recipient and other meshes hear nothing.
    for wire in [&mut sender, &mut sibling, &mut control, &mut session, &mut foreigner] {
        wire.nothing_else().await;
    }
    let mut late = mesh.connect(&cid.hello()).await;
    assert_eq!(late.receive().await, "to all");
    assert_eq!(late.receive().await, "to all again");
    late.nothing_else().await;
    assert_eq!(mesh.connect(&eve.hello()).await.peers().await.len(), 2);
}

/// websocket 3.5 ▶: ancestors are honoured.
async fn a_group_is_heard_by_its_members_and_those_below_it(setup: Setup) {
    let mesh = setup.start().await;
    let (home, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&home, &ann, "Cid").await;
    let dan = mesh.join(&home, &ann, "Dan").await;
    for (member, group) in [(&bob, "a/b"), (&bob, "a"), (&cid, "A/c"), (&dan, "ab"), (&ann, "a")] {
        let group = group.to_lowercase();
        let row = format!("insert into member_group values ('{}', '{group}', '{}')", ann.mesh, member.id);
        mesh.database.sql(&row).await;
    }
    let mut sender = mesh.connect(&ann.hello()).await;
    let (mut below, mut beside) = (mesh.connect(&bob.hello()).await, mesh.connect(&dan.hello()).await);
    // Somebody in both hears it once.
    sender.deliver("@a", "ancestors").await;
    sender.deliver("@a/b", "below").await;
    sender.deliver("@A/B/", "nobody").await;
    sender.deliver("@a/b/c", "nobody").await;
    assert_eq!(below.receive().await, "ancestors");
    assert_eq!(below.receive().await, "below");
    below.nothing_else().await;
    beside.nothing_else().await;
    let mut away = mesh.connect(&cid.hello()).await;
    assert_eq!(away.receive().await, "ancestors");
    away.nothing_else().await;
}

/// D6, websocket 4.1 ▶: what was sent comes along to each.
async fn a_broadcast_is_stored_once_for_each_recipient_whatever_is_retried(setup: Setup) {
    let mesh = setup.start().await;
    let (home, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&home, &ann, "Cid").await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let fields = json!({"client_message_id": "once", "request_fingerprint": "ab".repeat(32)});
    let first = sender.send_with("*", "once", fields.clone()).await;
    let again = sender.send_with("*", "once", fields.clone()).await;
    assert_eq!(first["messageId"], again["messageId"], "(D6)");
    let other = merged(fields, json!({"request_fingerprint": "cd".repeat(32)}));
    let other = sender.send_with("*", "twice", other).await;
    assert_eq!(other["error"], "invalid: client_message_id was used with another request_fingerprint");
    let mut wires = Vec::new();
    for member in [&bob, &cid] {
        let mut wire = mesh.connect(&member.hello()).await;
        let (push, _) = wire.push().await;
        assert_eq!(push["client_message_id"], "once");
        assert_eq!(push["request_fingerprint"], "ab".repeat(32).as_str());
        wire.acknowledge(&push).await;
        wire.nothing_else().await;
        wires.push(wire);
    }
    let status = sender.ask(json!({"type": "message_status", "messageId": first["messageId"]})).await;
    assert_eq!(status["targetSpec"], "*");
    let names: Vec<&Value> = status["recipients"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&&json!("Bob")) && names.contains(&&json!("Cid")), "{names:?}");
}

/// D3: an ack of one recipient ends nothing for another.
#[tokio::test(flavor = "multi_thread")]
async fn each_recipient_settles_its_own_delivery() {
    let mesh = TestMesh::start().await;
    let (home, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&home, &ann, "Cid").await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut bobs = mesh.connect(&bob.hello()).await;
    let id = sender.deliver("*", "for both").await;
    assert_eq!(bobs.receive().await, "for both");
    bobs.fence().await;
    bobs.close(1000).await;
    mesh.connect(&bob.hello()).await.nothing_else().await;
    assert_eq!(mesh.connect(&cid.hello()).await.push().await.0["messageId"], json!(id));
}
