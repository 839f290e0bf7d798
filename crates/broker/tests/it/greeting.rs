//! The time before hello, and `hello_ack`.

use std::time::Duration;

use claudemesh_testkit::{Setup, TestMesh, Wire, merged};
use serde_json::{Value, json};

on_both!(what_was_seen_before_is_restored);

/// Ids and times, which differ every time, by their shape.
pub(crate) fn shape(value: &Value) -> String {
    fn hide(name: &str, value: &mut Value) {
        match value {
            Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| hide(name, value)),
            Value::Array(items) => items.iter_mut().for_each(|item| hide(name, item)),
            Value::String(text) if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                *text = "<id>".into();
            }
            Value::String(text)
                if text.len() == 64 && (name.to_lowercase().ends_with("pubkey") || name == "targetSpec") =>
            {
                *text = "<key>".into();
            }
            Value::String(text) if text.len() == 24 && text.ends_with('Z') && text.contains('T') => {
                *text = "<time>".into();
            }
            Value::String(text) if name == "hookToken" => *text = "<token>".into(),
            Value::String(text) if name == "sessionId" => *text = "<session>".into(),
            _ => {}
        }
    }
    let mut value = value.clone();
    hide("", &mut value);
    serde_json::to_string_pretty(&value).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_ack_has_the_fields_that_clients_read() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("ack").await;
    insta::assert_snapshot!("hello_ack", shape(&mesh.connect(&ann.hello()).await.greeting));
    let session = ann.session();
    let wire = mesh.connect(&session.hello()).await;
    insta::assert_snapshot!("session_hello_ack", shape(&wire.greeting));
    let again = mesh.connect(&session.hello()).await;
    insta::assert_snapshot!("session_hello_ack_on_reattach", shape(&again.greeting));
    assert_eq!(again.greeting["presenceId"], wire.greeting["presenceId"]);
}

async fn what_was_seen_before_is_restored(setup: Setup) {
    let mut mesh = setup.start().await;
    let (_, ann) = mesh.mesh("restored").await;
    let first = mesh.connect(&ann.hello()).await;
    assert_eq!((&first.greeting["restored"], &first.greeting["lastSeenAt"]), (&Value::Null, &Value::Null));
    first.close(1000).await;
    mesh.restart().await;
    let second = mesh.connect(&ann.hello()).await;
    assert_eq!(second.greeting["restored"], true);
    assert!(second.greeting["lastSeenAt"].as_str().unwrap().ends_with('Z'));
    // A session is a new thing each time.
    let session = mesh.connect(&ann.session().hello()).await;
    assert_eq!((&session.greeting["restored"], &session.greeting["lastSeenAt"]), (&Value::Null, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_the_handshake_goes_before_the_members_and_is_cleaned() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("names").await;
    for (name, shown) in [
        (json!("  Dr. \u{202E}Ann\u{200B}\n"), "Dr. Ann"),
        (json!(""), "Ann"),
        (json!("\u{200B}"), "Ann"),
        (json!("all"), "Ann"),
        (json!("@\u{200B}crew"), "Ann"),
        (json!("ü".repeat(64)), "ü".repeat(64).as_str()),
    ] {
        let wire = mesh.connect(&merged(ann.hello(), json!({"displayName": name}))).await;
        assert_eq!(wire.greeting["memberDisplayName"], shown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn until_hello_everything_is_answered_and_the_socket_stays() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("before").await;
    let mut wire = Wire::open(mesh.address).await;
    for _ in 0..3 {
        for kind in ["send", "list_peers", "client_ack", "teleport", "hello_ack"] {
            let error = wire.ask(json!({"type": kind})).await;
            assert_eq!((&error["code"], &error["message"]), (&json!("no_hello"), &json!("must send hello first")));
        }
        wire.say_text("{}").await;
        assert_eq!(wire.next().await, json!({"type": "error", "code": "no_hello", "message": "must send hello first"}));
        for text in ["", "hello", "[]", "{\"type\":\"hello\"", &"[".repeat(100_000)] {
            wire.say_text(text).await;
            assert_eq!(wire.next().await, json!({"type": "error", "code": "malformed", "message": "invalid JSON"}));
        }
    }
    wire.greet(&ann.hello()).await;
}

/// websocket 1.1 ▶: the first message has a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_says_nothing_is_closed() {
    let mesh = Setup::sqlite().with(|config| config.hello_timeout = Duration::from_millis(200)).start().await;
    let mut wire = Wire::open(mesh.address).await;
    assert_eq!(wire.closed().await, (1008, "hello timeout".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_talks_without_saying_hello_is_closed_too() {
    let mesh = Setup::sqlite().with(|config| config.hello_timeout = Duration::from_millis(300)).start().await;
    let mut wire = Wire::open(mesh.address).await;
    wire.ping().await;
    wire.say(&json!({"type": "send"})).await;
    assert_eq!(wire.closed().await, (1008, "hello timeout".to_owned()));
    assert_eq!(wire.next().await["code"], "no_hello");
}

/// Health probes and `claudemesh status` open a socket and close it.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_opens_and_closes_leaves_nothing() {
    let mesh = TestMesh::start().await;
    for _ in 0..20 {
        Wire::open(mesh.address).await.close(1000).await;
        Wire::open(mesh.address).await.break_off();
    }
    assert_eq!(mesh.metric("broker_connections_total").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_hello_is_refused_and_the_connection_stays() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("second").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    for hello in [ann.hello(), ann.session().hello()] {
        let error = wire.ask(hello).await;
        assert_eq!(error["code"], "invalid_argument", "{error}");
    }
    wire.nothing_else().await;
}

/// A client that says nothing of itself loses a push that comes before it has read `hello_ack`.
/// websocket 1.5 ▶: `hello_ack` first, and mail at once for who announced anything, else a moment later.
#[tokio::test(flavor = "multi_thread")]
async fn hello_ack_comes_before_any_push_and_old_clients_get_a_moment() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    sender.deliver(&bob.key(), "waiting").await;
    for (capabilities, waits) in
        [(json!(["anything"]), false), (Value::Null, true), (json!([]), true), (json!(["topics"]), true)]
    {
        let mut hello = bob.hello();
        hello["capabilities"] = capabilities;
        let before = mesh.clock.now();
        // `connect` fails if the first frame is anything but hello_ack.
        let mut wire = mesh.connect(&hello).await;
        assert_eq!(wire.push().await.1, "waiting");
        // Only what is too early is wrong.
        assert!(!waits || mesh.clock.now().distance(before) >= Duration::from_millis(50));
        wire.close(1000).await;
    }
}
