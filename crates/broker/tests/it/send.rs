//! `send` and its ack: every wording, and what a push carries.

use claudemesh_proto::text::base64;
use claudemesh_testkit::{Setup, TestMesh, merged, send_frame, stranger};
use serde_json::json;

use crate::greeting::shape;
use crate::post::general;

on_both!(
    a_message_reaches_members_and_sessions_online_and_offline,
    a_push_carries_everything_that_was_sent,
    a_full_queue_is_said_and_empties_again,
    a_revoked_sender_and_a_revoked_recipient_are_refused,
);

pub(crate) const NO_RECIPIENT: &str =
    "no connected peer for target (not online, or targetSpec is your own key without another session)";

/// The patterns of existing daemons: a row whose ack matches is dead, any other error is tried again.
fn is_permanent(text: &str) -> (bool, bool) {
    let text = text.to_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| text.contains(word));
    (
        any(&["payload_too_large", "forbidden", "not_found", "invalid", "schema", "auth", "signature"]),
        any(&["unknown", "invalid", "forbidden", "not_authorized", "target_not_found"]),
    )
}

/// D2, websocket 3.4 ▶: mail for any member and for its sessions is kept until they come.
async fn a_message_reaches_members_and_sessions_online_and_offline(setup: Setup) {
    let mut mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (session, away) = (bob.session(), bob.session());
    mesh.connect(&away.hello()).await.close(1000).await;
    let mut sender = mesh.connect(&ann.hello()).await;
    sender.deliver(&bob.key(), "member, offline").await;
    sender.deliver(&away.key(), "session, offline").await;
    let mut daemon = mesh.connect(&bob.hello()).await;
    let mut online = mesh.connect(&session.hello()).await;
    assert_eq!(daemon.receive().await, "member, offline");
    sender.deliver(&bob.key(), "member, online").await;
    assert_eq!(daemon.receive().await, "member, online");
    sender.deliver(&session.key(), "session, online").await;
    assert_eq!(online.receive().await, "session, online");
    daemon.nothing_else().await;
    online.nothing_else().await;
    drop((daemon, online, sender));
    mesh.restart().await;
    let mut back = mesh.connect(&away.hello()).await;
    assert_eq!(back.receive().await, "session, offline");
    back.nothing_else().await;
}

/// websocket 4.1 ▶: the sender's member, the client's id and fingerprint, and `ext` byte for byte.
async fn a_push_carries_everything_that_was_sent(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let session = ann.session();
    let mut sender = mesh.connect(&merged(session.hello(), json!({"displayName": "Ann at work"}))).await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    // Written by hand, because byte for byte is byte for byte.
    let ext = r#"{ "b" : 1.0,"a":[ ],"é\u00e9":"\"}" }"#;
    let frame = format!(
        r#"{{"type":"send","id":"c-1","client_message_id":"c-1","request_fingerprint":"{}","targetSpec":"{}","priority":"now",
        "nonce":"{}","ciphertext":"aGVsbG8=","ext":{ext}}}"#,
        "ab".repeat(32),
        bob.key(),
        base64(&[9; 24]),
    );
    sender.say_text(&frame).await;
    let ack = sender.expect("ack").await;
    assert_eq!(
        ack,
        json!({"type": "ack", "id": "c-1", "messageId": ack["messageId"], "queued": true}),
        "nothing more, and no error"
    );
    let (push, _) = receiver.push().await;
    assert_eq!(push["messageId"], ack["messageId"]);
    // websocket 2 ▶
    let id = ack["messageId"].as_str().unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
    assert_eq!(push["senderPubkey"], session.key());
    assert_eq!(push["senderMemberPubkey"], ann.key());
    assert_eq!(push["senderMemberId"], ann.id);
    assert_eq!(push["meshId"], ann.mesh);
    insta::assert_snapshot!("push", shape(&push));
    // The bytes of ext, which parsing above has lost.
    let mut text = mesh.connect(&bob.session().hello()).await;
    receiver.close(1000).await;
    assert!(text.next_text().await.contains(&format!("\"ext\":{ext}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_without_extras_has_none() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    sender.say(&json!({"type": "send", "targetSpec": bob.key(), "nonce": "", "ciphertext": "aGk="})).await;
    let ack = sender.expect("ack").await;
    assert_eq!((&ack["id"], &ack["queued"]), (&json!(""), &json!(true)), "an ack without an id says an empty one");
    let (push, _) = receiver.push().await;
    for absent in ["client_message_id", "request_fingerprint", "ext", "subtype"] {
        assert!(push.get(absent).is_none(), "{absent}: {push}");
    }
    assert_eq!((&push["priority"], &push["nonce"], &push["senderName"]), (&json!("next"), &json!(""), &json!("Ann")));
}

/// websocket 2 ▶ (what is base64) and 3.7 ▶, 1.1 ▶: a `send` is answered by an `ack`.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_field_is_refused_by_an_ack_that_names_it_and_is_permanent() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let big_ext = json!({"x": "y".repeat(4096)});
    let cases = [
        (json!({"ciphertext": ""}), "ciphertext must be padded standard base64, not empty"),
        (json!({"ciphertext": null}), "ciphertext must be padded standard base64, not empty"),
        (json!({"ciphertext": "aGk"}), "ciphertext must be padded standard base64, not empty"),
        (json!({"ciphertext": "a-_="}), "ciphertext must be padded standard base64, not empty"),
        (json!({"ciphertext": "aGk=\n"}), "ciphertext must be padded standard base64, not empty"),
        (json!({"nonce": "AAAA"}), "nonce must be 24 bytes in padded standard base64, or empty"),
        (json!({"nonce": "!"}), "nonce must be 24 bytes in padded standard base64, or empty"),
        (json!({"client_message_id": ""}), "client_message_id must be 1-128 printable ASCII characters"),
        (json!({"client_message_id": "x".repeat(129)}), "client_message_id must be 1-128 printable ASCII characters"),
        (json!({"client_message_id": "a\u{0}b"}), "client_message_id must be 1-128 printable ASCII characters"),
        (json!({"request_fingerprint": "AB".repeat(32)}), "request_fingerprint must be 64 lowercase hex chars"),
        (json!({"request_fingerprint": "ab"}), "request_fingerprint must be 64 lowercase hex chars"),
        (json!({"ext": [1]}), "ext must be a JSON object"),
        (json!({"ext": "x"}), "ext must be a JSON object"),
        (json!({"ext": big_ext}), "ext must be at most 4096 bytes"),
        (json!({"ext": {"a": "\u{0}"}}), "ext must not contain U+0000"),
        (json!({"priority": "urgent"}), "priority must be now, next or low"),
        (json!({"priority": ""}), "priority must be now, next or low"),
        (json!({"targetSpec": ""}), "targetSpec must be a member's or session's key, *, @all, @group or #topic-id"),
        (json!({"targetSpec": null}), "targetSpec must be a member's or session's key, *, @all, @group or #topic-id"),
        (json!({"targetSpec": "**"}), "targetSpec must be a member's or session's key, *, @all, @group or #topic-id"),
        (json!({"targetSpec": "@a b"}), "targetSpec must be a member's or session's key, *, @all, @group or #topic-id"),
        (json!({"targetSpec": "#a b"}), "targetSpec must be a member's or session's key, *, @all, @group or #topic-id"),
    ];
    for (change, words) in cases {
        let frame = merged(send_frame(&bob.key(), "x"), change.clone());
        sender.say(&frame).await;
        let ack = sender.expect("ack").await;
        let error = format!("invalid: {words}");
        assert_eq!(ack, json!({"type": "ack", "id": frame["id"], "messageId": "", "queued": false, "error": error}));
        assert_eq!(is_permanent(&error), (true, true));
    }
    for field in ["targetSpec", "priority", "nonce", "ciphertext", "client_message_id", "request_fingerprint"] {
        for value in [json!(5), json!(true), json!([]), json!({"a": 1})] {
            let frame = merged(send_frame(&bob.key(), "x"), json!({field: value, "_reqId": "q"}));
            sender.say(&frame).await;
            let ack = sender.expect("ack").await;
            assert_eq!((&ack["id"], &ack["_reqId"], &ack["queued"]), (&frame["id"], &json!("q"), &json!(false)));
            let error = ack["error"].as_str().unwrap();
            assert!(error.starts_with(&format!("invalid: {field} ")), "{error}");
        }
    }
    for id in [json!(5), json!({}), json!("x".repeat(129))] {
        sender.say(&merged(send_frame(&bob.key(), "x"), json!({"id": id, "nonce": 5}))).await;
        assert_eq!(sender.expect("ack").await["id"], "", "an id that cannot be read is echoed as none");
    }
    let mut receiver = mesh.connect(&bob.hello()).await;
    receiver.nothing_else().await;
}

/// websocket 3.4 ▶ and 3.7 ▶: whom nobody knows.
#[tokio::test(flavor = "multi_thread")]
async fn whom_nobody_knows_is_refused_with_the_references_words() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let targets = [
        stranger().to_string(),
        bob.key().to_uppercase(),
        bob.key()[..63].to_owned(),
        format!("{}0", bob.key()),
        "Bob".to_owned(),
        "tag:x".to_owned(),
        "\u{0}".to_owned(),
        "'; drop table message; --".to_owned(),
    ];
    for target in targets {
        let ack = sender.send(&target, "x").await;
        assert_eq!(
            (&ack["error"], &ack["messageId"], &ack["queued"]),
            (&json!(NO_RECIPIENT), &json!(""), &json!(false))
        );
    }
    assert_eq!(is_permanent(NO_RECIPIENT), (false, false));
}

/// websocket 3.10 ▶: a daemon drops what its own member sent when it can tell, so there it cannot.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_oneself_needs_another_session() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("oneself").await;
    let session = ann.session();
    let mut alone = mesh.connect(&session.hello()).await;
    assert_eq!(alone.send(&ann.key(), "x").await["error"], NO_RECIPIENT);
    assert_eq!(alone.send(&session.key(), "x").await["error"], NO_RECIPIENT);
    let mut quiet = mesh.connect(&merged(ann.hello(), json!({"capabilities": ["quiet"]}))).await;
    assert_eq!(quiet.greeting["capabilities"], json!(["quiet"]));
    assert_eq!(
        alone.send(&ann.key(), "x").await["error"],
        NO_RECIPIENT,
        "a connection that wants no mail does not count"
    );
    let mut daemon = mesh.connect(&ann.hello()).await;
    alone.deliver(&ann.key(), "note to self").await;
    let (push, text) = daemon.push().await;
    assert_eq!(text, "note to self");
    // Daemons drop what is of their own member, without an ack.
    assert!(push.get("senderMemberPubkey").is_none(), "{push}");
    assert_eq!(push["senderPubkey"], session.key());
    daemon.acknowledge(&push).await;
    daemon.fence().await;
    daemon.deliver(&session.key(), "note to my session").await;
    let (push, _) = alone.push().await;
    assert_eq!(push["senderMemberPubkey"], ann.key());
    quiet.nothing_else().await;
}

/// websocket 3.7 ▶: the rate.
#[tokio::test(flavor = "multi_thread")]
async fn sends_beyond_the_rate_are_refused_and_the_rate_is_the_members() {
    let setup = Setup::sqlite().with(|config| (config.send_rate_per_min, config.send_burst) = (60, 10));
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut wires = [mesh.connect(&ann.hello()).await, mesh.connect(&ann.session().hello()).await];
    for turn in 0..10 {
        wires[turn % 2].deliver(&bob.key(), "x").await;
    }
    let words = "rate_limit: max 60 msg/min (burst 10) — slow down";
    for wire in &mut wires {
        let ack = wire.send(&bob.key(), "x").await;
        assert_eq!((&ack["error"], &ack["queued"]), (&json!(words), &json!(false)));
    }
    assert_eq!(is_permanent(words), (false, false));
    mesh.connect(&bob.hello()).await.deliver(&ann.key(), "another member has its own").await;
    mesh.clock.pass(std::time::Duration::from_secs(2));
    wires[0].deliver(&bob.key(), "x").await;
}

/// websocket 1.1 ▶ and 3.7 ▶: a message beyond `MAX_MESSAGE_BYTES` is refused by an `ack`.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_beyond_the_limit_is_refused_with_its_size_and_the_socket_stays() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    // 65,536 = 64 (target) + 32 (nonce) + 65,440 (ciphertext, which is base64 of 49,080 bytes).
    let fits = "x".repeat(49_080);
    sender.deliver(&bob.key(), &fits).await;
    let ack = sender.send(&bob.key(), &format!("{fits}x")).await;
    let words = "invalid: payload too large: 65540 bytes > MAX_MESSAGE_BYTES=65536";
    assert_eq!((&ack["error"], &ack["queued"]), (&json!(words), &json!(false)));
    assert_eq!(is_permanent(words), (true, true));
    let mut receiver = mesh.connect(&bob.hello()).await;
    assert_eq!(receiver.receive().await, fits);
    receiver.nothing_else().await;
}

/// websocket 3.7 ▶: a full queue.
async fn a_full_queue_is_said_and_empties_again(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    sender.deliver(&bob.key(), "first").await;
    mesh.database.sql("update backlog set queued_rows = 10000").await;
    let ack = sender.send(&bob.key(), "one too many").await;
    assert_eq!((&ack["error"], &ack["queued"]), (&json!("recipient queue full"), &json!(false)));
    assert_eq!(is_permanent("recipient queue full"), (false, false));
    let mut receiver = mesh.connect(&bob.hello()).await;
    assert_eq!(receiver.receive().await, "first");
    receiver.nothing_else().await;
    sender.deliver(&bob.key(), "there is room again").await;
    assert_eq!(receiver.receive().await, "there is room again");
}

/// R10.
async fn a_revoked_sender_and_a_revoked_recipient_are_refused(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let session = bob.session();
    mesh.connect(&session.hello()).await.close(1000).await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut revoked = mesh.connect(&bob.hello()).await;
    mesh.database.sql(&format!("update member set revoked_at = 1 where id = '{}'", bob.id)).await;
    assert_eq!(sender.send(&bob.key(), "x").await["error"], NO_RECIPIENT);
    assert_eq!(sender.send(&session.key(), "x").await["error"], NO_RECIPIENT);
    let ack = revoked.send(&ann.key(), "x").await;
    assert_eq!(ack["error"], "forbidden: you were removed from this mesh");
    assert_eq!(is_permanent(ack["error"].as_str().unwrap()), (true, true));
}

/// websocket 3.7 ▶: each text, through the patterns of both daemons. All that is said of a refusal is here or in a test above.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_gives_up_for_what_is_permanent_and_tries_again_for_the_rest() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (mut sender, mut receiver) = (mesh.connect(&ann.hello()).await, mesh.connect(&bob.hello()).await);
    sender.send_with(&bob.key(), "one", json!({"client_message_id": "c"})).await;
    let reused = sender.send_with(&bob.key(), "two", json!({"client_message_id": "c"})).await;
    receiver.ask(json!({"type": "grant_set", "grants": {ann.key(): []}})).await;
    let blocked = sender.send(&bob.key(), "x").await;
    receiver.ask(json!({"type": "grant_set", "grants": {ann.key(): null}})).await;
    mesh.database.sql("update mesh_head set queued_rows = 100000000").await;
    let full = sender.send(&bob.key(), "x").await;
    mesh.database.sql("update mesh_head set topic_bytes = 8589934592").await;
    let topic = general(&mut sender).await;
    let topics_full = sender.send(&format!("#{topic}"), "x").await;
    mesh.database.sql("alter table message rename to hidden").await;
    let away = sender.send(&bob.key(), "x").await;
    mesh.database.sql("alter table hidden rename to message").await;
    let reused_words = "invalid: client_message_id was used with another request_fingerprint";
    let blocked_words = "forbidden: blocked by recipient grants (sender lacks dm capability)";
    for (ack, words, permanent) in [
        (&reused, reused_words, true),
        (&blocked, blocked_words, true),
        (&full, "mesh queue full", false),
        (&topics_full, "mesh topics full", false),
        (&away, "temporarily unavailable, try again", false),
    ] {
        assert_eq!((&ack["error"], &ack["queued"], &ack["messageId"]), (&json!(words), &json!(false), &json!("")));
        assert_eq!(is_permanent(words), (permanent, permanent), "{words}");
    }
}
