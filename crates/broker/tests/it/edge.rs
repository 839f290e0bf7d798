//! Frames as bytes, and HTTP around them.

use claudemesh_testkit::{Request, Setup, TestMesh, Wire, merged, send_frame};
use serde_json::json;

/// websocket 1.1 ▶: frames up to 1 MiB, beyond it a Close with 1009.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_a_mebibyte_is_read_and_a_larger_one_is_closed_with_1009() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("size").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let padded = |size: usize| {
        let head = r#"{"type":"list_peers","_reqId":"big","pad":""#;
        format!("{head}{}\"}}", "x".repeat(size - head.len() - 2))
    };
    wire.say_text(&padded(1 << 20)).await;
    let answer = wire.next().await;
    assert_eq!((&answer["type"], &answer["_reqId"]), (&json!("peers_list"), &json!("big")));
    for size in [(1 << 20) + 1, 8 << 20] {
        let mut wire = mesh.connect(&ann.hello()).await;
        // What was said before is processed.
        wire.say(&json!({"type": "list_peers"})).await;
        wire.try_say(&padded(size)).await;
        assert_eq!(wire.closed().await.0, 1009, "{size}");
        assert_eq!(wire.next().await["type"], "peers_list");
    }
    // In pieces, too, and before hello.
    let mut stranger = Wire::open(mesh.address).await;
    stranger.try_say(&padded((1 << 20) + 1)).await;
    assert_eq!(stranger.closed().await.0, 1009);
    wire.nothing_else().await;
}

/// websocket 1.1 ▶: bad JSON is said, and the connection stays.
#[tokio::test(flavor = "multi_thread")]
async fn bad_json_is_said_and_the_connection_stays() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("json").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let nested =
        |levels: usize| format!("{{\"type\":\"list_peers\",\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let malformed = json!({"type": "error", "code": "malformed", "message": "invalid JSON"});
    for text in
        ["", " ", "{", "nonsense", "[]", "5", "null", "{\"type\":\"list_peers\"}}", &nested(32), &nested(100_000)]
    {
        wire.say_text(text).await;
        assert_eq!(wire.next().await, malformed);
    }
    wire.say_text(&nested(31)).await;
    assert_eq!(wire.next().await["type"], "peers_list");
    for frame in [json!({}), json!({"type": null}), json!({"type": 5}), json!({"type": ["send"]})] {
        let error = wire.ask(frame).await;
        assert_eq!((&error["code"], &error["message"]), (&json!("invalid_argument"), &json!("type must be a string")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_frame_is_read_as_text_and_other_bytes_are_malformed() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("binary").await;
    let mut wire = Wire::open(mesh.address).await;
    wire.say_binary(&[0xff, 0xfe, 0x00]).await;
    assert_eq!(wire.next().await["code"], "malformed");
    wire.say_binary(ann.hello().to_string().as_bytes()).await;
    assert_eq!(wire.next().await["type"], "hello_ack");
    wire.say_binary(br#"{"type":"list_peers","_reqId":"b"}"#).await;
    assert_eq!(wire.next().await["_reqId"], "b");
    wire.say_binary(&[0xff, 0xfe, 0x00]).await;
    assert_eq!(wire.next().await["code"], "malformed");
    wire.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_websocket_are_closed_with_a_reason() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("bytes").await;
    let cases: [(&[u8], u16); 4] = [
        // Text that is not UTF-8; an unmasked frame; a reserved operation code; a fragmented ping.
        (&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe], 1007),
        (&[0x81, 0x02, b'{', b'}'], 1002),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
        (&[0x09, 0x80, 0, 0, 0, 0], 1002),
    ];
    for (bytes, code) in cases {
        let mut wire = mesh.connect(&ann.hello()).await;
        assert!(wire.say_bytes(bytes).await);
        assert_eq!(wire.closed().await.0, code, "{bytes:?}");
    }
}

/// websocket 1.1 ▶: existing clients stop for ever at `unknown_message_type`.
#[tokio::test(flavor = "multi_thread")]
async fn what_this_broker_does_not_know_is_not_supported_and_never_unknown() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("unknown").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let long = "x".repeat(1000);
    for kind in ["teleport", "set_state", "vector_store", "hello_ack", "push", "", "\u{202E}\n", &long] {
        let error = wire.ask(json!({"type": kind, "id": "i"})).await;
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("not_supported")), "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.len() < 120 && !message.contains(['\n', '\u{202E}']), "{message}");
    }
    // A `_reqId` that is no short text is not echoed.
    for id in [json!(5), json!(["a"]), json!({}), json!("x".repeat(129))] {
        wire.say(&json!({"type": "teleport", "_reqId": id})).await;
        assert_eq!(wire.next().await.get("_reqId"), None);
    }
}

/// websocket 1.1 ▶: the frames of a connection are processed in order. Also where the answers wait for the database.
#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_the_order_of_the_questions() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let kinds = ["send", "member_list", "teleport", "send", "invite_list", "list_peers", "send"];
    for round in 0..50 {
        for (number, kind) in kinds.iter().enumerate() {
            let id = format!("{round}.{number}");
            let frame = match *kind {
                "send" => merged(send_frame(&bob.key(), "x"), json!({"id": id, "_reqId": id})),
                kind => json!({"type": kind, "_reqId": id}),
            };
            wire.feed(&frame).await;
        }
    }
    wire.flush().await;
    for round in 0..50 {
        for number in 0..kinds.len() {
            assert_eq!(wire.next().await["_reqId"], format!("{round}.{number}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_path_ws_is_a_websocket() {
    let mesh = TestMesh::start().await;
    let upgrade = |path: &str| {
        Request::get(path)
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    for path in ["/ws?x=1", "/ws/", "/WS", "/nothing"] {
        assert_eq!(mesh.http(&upgrade(path)).await.status, 404, "{path}");
    }
    assert_eq!(mesh.http(&Request::get("/ws")).await.status, 400);
    let answer = mesh.http(&Request::get("/nothing")).await;
    assert_eq!((answer.status, answer.body.as_str()), (404, "not found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_may_not_open_a_websocket() {
    let mesh =
        Setup::sqlite().with(|config| config.allowed_origins = vec!["https://ours.example".into()]).start().await;
    let own = format!("http://{}", mesh.address);
    for origin in [own.as_str(), "https://ours.example"] {
        assert!(Wire::open_with(mesh.address, &[("Origin", origin)]).await.is_ok(), "{origin}");
    }
    for origin in ["https://evil.example", "null", "", "https://ours.example.evil.example", "http://127.0.0.1:1"] {
        let refused = Wire::open_with(mesh.address, &[("Origin", origin)]).await;
        assert_eq!(refused.unwrap_err(), 403, "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_beyond_16_kib_are_refused() {
    let mesh = TestMesh::start().await;
    let answer = mesh.http(&Request::get("/health").header("X-Large", &"x".repeat(40_000))).await;
    assert_eq!(answer.status, 431);
    assert_eq!(mesh.http(&Request::get("/health").header("X-Fits", &"x".repeat(8_000))).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_say_what_they_should() {
    let mesh = TestMesh::start().await;
    let health = mesh.http(&Request::get("/health")).await;
    let body = health.json();
    assert_eq!((health.status, &body["status"], &body["db"]), (200, &json!("ok"), &json!("up")));
    assert!(body["version"].is_string() && body["gitSha"].is_string() && body["uptime"].is_u64(), "{body}");
    let ready = mesh.http(&Request::get("/health/ready")).await;
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("ready")));
    assert_eq!(ready.header("content-type"), Some("application/json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_happens_and_their_names_stay() {
    let mesh = TestMesh::start().await;
    let page = mesh.http(&Request::get("/metrics")).await;
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4"));
    let names: Vec<&str> = page.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    insta::assert_snapshot!("metrics", names.join("\n"));
    assert!(page.body.contains("\nbroker_connections_rejected_total 0\n"), "an untouched counter has no label");
    let (_, ann, bob) = mesh.pair().await;
    let mut wire = mesh.connect(&ann.hello()).await;
    mesh.refusal(&merged(ann.hello(), json!({"signature": "00"}))).await;
    mesh.refusal(&merged(ann.session().hello(), json!({"signature": "00"}))).await;
    wire.send_with(&bob.key(), "x", json!({"priority": "now"})).await;
    wire.send("nobody", "x").await;
    for (name, value) in [
        ("broker_connections_active", 1),
        ("broker_connections_total", 2),
        ("broker_connections_rejected_total{reason=\"malformed\"}", 1),
        ("broker_connections_rejected_total{reason=\"session_malformed\"}", 1),
        ("broker_messages_routed_total{priority=\"now\"}", 1),
        ("broker_messages_rejected_total{reason=\"no_recipient\"}", 1),
        ("broker_queue_depth", 1),
        ("broker_db_healthy", 1),
    ] {
        assert_eq!(mesh.metric(name).await, Some(value), "{name}");
    }
    // D8: nothing of a mesh is in it.
    let page = mesh.http(&Request::get("/metrics")).await.body;
    for secret in [ann.mesh.as_str(), &ann.id, &bob.key(), "pair"] {
        assert!(!page.contains(secret), "{secret}");
    }
}
