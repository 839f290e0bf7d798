//! Messages of topics over the WebSocket: pushed to everybody in the topic, kept for who is away, by who may read them.

use claudemesh_testkit::{Member, Setup, TestMesh, Wire, eventually, merged};
use serde_json::{Value, json};

use crate::topic::create;

on_both!(
    a_post_reaches_everybody_in_the_topic_and_waits_for_who_is_away,
    a_ciphertext_is_pushed_to_connections_that_can_open_it_alone,
    a_plaintext_in_an_encrypted_topic_is_flagged_and_refused_to_who_knows_better,
    who_is_mentioned_is_told_whatever_the_body_is,
    a_post_into_a_topic_that_one_is_not_in_is_refused,
    what_was_held_comes_again_in_order_after_a_broken_line_and_a_restart,
    one_s_own_posts_hold_no_cursor_up,
    a_busy_session_gets_what_is_urgent_and_the_rest_when_it_is_idle,
    every_bad_field_of_a_post_is_named_and_nothing_is_stored,
    a_banned_member_gets_nothing_new,
);

/// The id of `general`.
pub(crate) async fn general(wire: &mut Wire) -> String {
    let topics = wire.ask(json!({"type": "topic_list"})).await["topics"].clone();
    let general = topics.as_array().unwrap().iter().find(|topic| topic["name"] == "general");
    general.expect("every mesh has one")["id"].as_str().unwrap().to_owned()
}

/// Posts a text; the ack.
pub(crate) async fn post(wire: &mut Wire, topic: &str, text: &str, fields: Value) -> Value {
    wire.send_with(&format!("#{topic}"), text, fields).await
}

fn knowing(hello: Value) -> Value {
    merged(hello, json!({"capabilities": ["topics"]}))
}

async fn connect(mesh: &TestMesh, member: &Member) -> Wire {
    mesh.connect(&knowing(member.hello())).await
}

/// websocket 3.5 and 4.1 ▶; the sender's own connections get nothing.
async fn a_post_reaches_everybody_in_the_topic_and_waits_for_who_is_away(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&of_ann, &ann, "Cid").await;
    let (mut from, mut own) = (connect(&mesh, &ann).await, mesh.connect(&ann.session().hello()).await);
    assert_eq!(from.greeting["capabilities"], json!(["topics"]));
    let mut to = mesh.connect(&bob.hello()).await;
    let topic = general(&mut from).await;
    let fields = json!({"priority": "next", "ext": {"hop": 1}, "client_message_id": "c-1", "mentions": []});
    let ack = post(&mut from, &topic, "hello all", fields).await;
    assert_eq!((&ack["queued"], &ack["error"]), (&json!(true), &Value::Null), "{ack}");
    let (push, text) = to.push().await;
    assert_eq!(text, "hello all");
    let expected = json!({
        "messageId": ack["messageId"], "topic": "general", "topicId": topic, "bodyVersion": 1, "seq": 1, "priority": "next",
        "senderName": "Ann", "senderMemberPubkey": ann.key(), "ext": {"hop": 1}, "client_message_id": "c-1",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(push[field], *value, "{field} of {push}");
    }
    assert_eq!((&push["plaintext"], &push["replyToId"]), (&Value::Null, &Value::Null));
    to.acknowledge(&push).await;
    let reply = json!({"replyToId": ack["messageId"]});
    post(&mut to, &topic, "and to you", reply).await;
    let (answer, _) = from.push().await;
    assert_eq!((&answer["replyToId"], &answer["seq"]), (&ack["messageId"], &json!(2)));
    from.acknowledge(&answer).await;
    own.nothing_else().await;
    let mut late = mesh.connect(&cid.hello()).await;
    let texts = [late.receive().await, late.receive().await];
    assert_eq!(texts, ["hello all", "and to you"]);
    eventually("everybody has it", async || {
        let status = from.ask(json!({"type": "message_status", "messageId": ack["messageId"]})).await;
        assert_eq!(status["targetSpec"], format!("#{topic}"));
        status["delivered"] == true
    })
    .await;
}

/// websocket 4.1 ▶.
async fn a_ciphertext_is_pushed_to_connections_that_can_open_it_alone(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&of_ann, &ann, "Cid").await;
    let mut from = connect(&mesh, &ann).await;
    let topic = general(&mut from).await;
    let (mut old, mut new) = (mesh.connect(&bob.hello()).await, connect(&mesh, &cid).await);
    let sealed = post(&mut from, &topic, "noise", json!({"bodyVersion": 2})).await;
    assert_eq!(sealed["queued"], true, "{sealed}");
    post(&mut from, &topic, "clear", json!({})).await;
    let (push, _) = new.push().await;
    assert_eq!((&push["bodyVersion"], &push["messageId"]), (&json!(2), &sealed["messageId"]));
    assert_eq!(old.receive().await, "clear");
    old.nothing_else().await;
    let history = old.ask(json!({"type": "topic_history", "topic": "general"})).await;
    assert_eq!(history["messages"].as_array().unwrap().len(), 2, "it is history for everybody in the topic");
}

async fn a_plaintext_in_an_encrypted_topic_is_flagged_and_refused_to_who_knows_better(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut knows = connect(&mesh, &ann).await;
    let mut old = mesh.connect(&bob.hello()).await;
    let made = create(&mut knows, json!({"name": "deploys"})).await;
    let topic = made["topic"]["id"].as_str().unwrap().to_owned();
    old.say(&json!({"type": "topic_join", "topic": "deploys"})).await;
    old.fence().await;
    let ack = post(&mut knows, &topic, "oops", json!({})).await;
    assert_eq!((&ack["queued"], &ack["error"]), (&json!(false), &json!("forbidden: topic is encrypted")));
    post(&mut old, &topic, "hello", json!({})).await;
    let (push, _) = knows.push().await;
    assert_eq!(
        (&push["plaintext"], &push["bodyVersion"], &push["seq"]),
        (&json!(true), &json!(1), &json!(1)),
        "{push}"
    );
    let history = knows.ask(json!({"type": "topic_history", "topic": topic})).await;
    assert_eq!(history["messages"][0]["plaintext"], true);
}

/// websocket 6.2.4 and 4.2 ▶.
async fn who_is_mentioned_is_told_whatever_the_body_is(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&of_ann, &ann, "Cid").await;
    let mut from = connect(&mesh, &ann).await;
    let topic = general(&mut from).await;
    let (mut knows, mut old) = (connect(&mesh, &bob).await, mesh.connect(&cid.hello()).await);
    let clear = post(&mut from, &topic, "ask @Bob, or @cid", json!({})).await;
    let event = knows.event("notification").await;
    let data = &event["eventData"];
    let expected = json!({
        "messageId": clear["messageId"], "topicId": topic, "topicName": "general", "senderName": "Ann", "kind": "mention",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(data[field], *value, "{field} of {event}");
    }
    assert!(data["notificationId"].is_string() && data["createdAt"].as_str().unwrap().ends_with('Z'));
    let sealed = post(&mut from, &topic, "noise", json!({"bodyVersion": 2, "mentions": ["@BOB"]})).await;
    assert_eq!(knows.event("notification").await["eventData"]["messageId"], sealed["messageId"]);
    assert!(!old.events().await.contains(&"notification".to_owned()), "it has not said that it knows of topics");
    let kept = "select count(*) from notification where read_at is null";
    assert_eq!(mesh.database.number(kept).await, 3);
}

/// R6, R7; the words are what existing clients take as final.
async fn a_post_into_a_topic_that_one_is_not_in_is_refused(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (_, stranger) = mesh.mesh("elsewhere").await;
    let mut lead = connect(&mesh, &ann).await;
    let made = create(&mut lead, json!({"name": "secret", "visibility": "private"})).await;
    let topic = made["topic"]["id"].as_str().unwrap().to_owned();
    let (mut other, mut foreign) = (mesh.connect(&bob.hello()).await, mesh.connect(&stranger.hello()).await);
    let mut cases = vec![post(&mut other, &topic, "x", json!({"bodyVersion": 2})).await];
    cases.push(post(&mut foreign, &topic, "x", json!({"bodyVersion": 2})).await);
    for nowhere in ["nowhere", "secret"] {
        cases.push(post(&mut lead, nowhere, "x", json!({"bodyVersion": 2})).await);
    }
    for ack in cases {
        assert_eq!((&ack["queued"], &ack["error"]), (&json!(false), &json!("forbidden: no such topic for you")));
    }
    assert_eq!(mesh.database.number("select count(*) from topic_message").await, 0);
    lead.nothing_else().await;
}

/// D2, D5, D7.
async fn what_was_held_comes_again_in_order_after_a_broken_line_and_a_restart(setup: Setup) {
    let mut mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut from = connect(&mesh, &ann).await;
    let topic = general(&mut from).await;
    let mut to = mesh.connect(&bob.hello()).await;
    let mut ids = Vec::new();
    for text in ["1", "2", "3", "4"] {
        let ack = post(&mut from, &topic, text, json!({})).await;
        ids.push(ack["messageId"].as_str().unwrap().to_owned());
    }
    from.deliver(&bob.key(), "5").await;
    let mut pushes = Vec::new();
    for text in ["1", "2", "3", "4", "5"] {
        let (push, got) = to.push().await;
        assert_eq!(got, text, "topics and direct messages come in one order");
        pushes.push(push);
    }
    to.acknowledge(&pushes[0]).await;
    to.acknowledge(&pushes[2]).await;
    to.acknowledge(&pushes[4]).await;
    to.fence().await;
    to.break_off();
    let mut to = mesh.connect(&bob.hello()).await;
    let (push, text) = to.push().await;
    assert_eq!((text.as_str(), push["messageId"].as_str()), ("2", Some(ids[1].as_str())));
    to.acknowledge(&push).await;
    to.fence().await;
    mesh.restart().await;
    let mut to = mesh.connect(&bob.hello()).await;
    // What came behind the gap may come once more.
    assert_eq!([to.receive().await, to.receive().await], ["3", "4"]);
    to.nothing_else().await;
}

/// A cursor moves over what its member wrote, whatever else came between that and what the member acknowledges.
async fn one_s_own_posts_hold_no_cursor_up(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (mut from, mut to) = (connect(&mesh, &ann).await, connect(&mesh, &bob).await);
    let topic = general(&mut from).await;
    let cursor = async || {
        let cursor = format!("select delivered_seq from topic_member where member_id = '{}'", bob.id);
        mesh.database.number(&cursor).await
    };
    for (round, is_behind_another) in [(0, false), (1, true)] {
        let mut held = Vec::new();
        if is_behind_another {
            post(&mut from, &topic, "held", json!({})).await;
            held.push(to.push().await.0);
        }
        post(&mut to, &topic, "own", json!({})).await;
        from.deliver(&bob.key(), "direct").await;
        assert_eq!(to.receive().await, "direct");
        to.fence().await;
        let last = post(&mut from, &topic, "last", json!({})).await;
        assert_eq!(last["queued"], true, "{last}");
        assert_eq!(to.receive().await, "last");
        for push in &held {
            to.acknowledge(push).await;
        }
        let all = [2, 5][round];
        eventually("everything in the topic is acknowledged", async || cursor().await == all).await;
        to.nothing_else().await;
    }
}

/// websocket 3.9.
async fn a_busy_session_gets_what_is_urgent_and_the_rest_when_it_is_idle(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut from = connect(&mesh, &ann).await;
    let topic = general(&mut from).await;
    let mut to = mesh.connect(&bob.hello()).await;
    to.say(&json!({"type": "set_status", "status": "dnd"})).await;
    to.fence().await;
    post(&mut from, &topic, "later", json!({})).await;
    post(&mut from, &topic, "now", json!({"priority": "now"})).await;
    assert_eq!(to.receive().await, "now");
    post(&mut from, &topic, "later still", json!({})).await;
    to.nothing_else().await;
    to.say(&json!({"type": "set_status", "status": "idle"})).await;
    assert_eq!([to.receive().await, to.receive().await], ["later", "later still"], "and nothing twice");
    to.nothing_else().await;
    let delivered = format!("select min(delivered_seq) from topic_member where member_id = '{}'", bob.id);
    eventually("all of it is acknowledged", async || mesh.database.number(&delivered).await == 3).await;
}

async fn every_bad_field_of_a_post_is_named_and_nothing_is_stored(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, _) = mesh.pair().await;
    let mut from = connect(&mesh, &ann).await;
    let topic = general(&mut from).await;
    let many: Vec<String> = (0..17).map(|number| format!("n{number}")).collect();
    let cases = [
        (json!({"bodyVersion": 3}), "bodyVersion must be 1 or 2"),
        (json!({"mentions": many}), "mentions must be at most 16 names of 1-64 letters, digits, _ and -"),
        (json!({"mentions": ["a b"]}), "mentions must be at most 16 names of 1-64 letters, digits, _ and -"),
        (json!({"replyToId": "not an id!"}), "replyToId must be the id of a message"),
        (json!({"bodyVersion": 2, "nonce": ""}), "nonce must be 24 bytes in padded standard base64 for bodyVersion 2"),
        (json!({"bodyVersion": "2"}), "bodyVersion invalid type: string \"2\", expected i64"),
    ];
    for (fields, words) in cases {
        let ack = post(&mut from, &topic, "x", fields).await;
        assert_eq!((&ack["queued"], &ack["error"]), (&json!(false), &json!(format!("invalid: {words}"))));
    }
    let nowhere = from.send_with("#a b", "x", json!({})).await;
    let words = "invalid: targetSpec must be a member's or session's key, *, @all, @group or #topic-id";
    assert_eq!(nowhere["error"], words);
    assert_eq!(mesh.database.number("select count(*) from topic_message").await, 0);
}

/// D9, R10.
async fn a_banned_member_gets_nothing_new(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut from = connect(&mesh, &ann).await;
    let topic = general(&mut from).await;
    let mut to = mesh.connect(&bob.hello()).await;
    from.ask(json!({"type": "ban", "target": "Bob"})).await;
    assert_eq!(to.closed().await.0, 4002);
    post(&mut from, &topic, "for the others @Bob", json!({})).await;
    assert_eq!(mesh.database.number("select count(*) from notification").await, 0);
    let members = from.ask(json!({"type": "topic_members", "topic": "general"})).await;
    assert_eq!(members["members"].as_array().unwrap().len(), 1, "{members}");
}
