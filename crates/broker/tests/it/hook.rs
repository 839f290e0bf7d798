//! `POST /hook/set-status`.

use std::time::Duration;

use claudemesh_testkit::{Answer, Member, Mesh, Request, Setup, TestMesh, Wire, eventually, merged};
use serde_json::{Value, json};

/// A broker behind a proxy that says where everybody comes from.
fn proxied() -> Setup {
    Setup::sqlite().with(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()])
}

async fn connect_from(mesh: &TestMesh, address: &str, hello: &Value) -> Wire {
    let mut wire = Wire::open_with(mesh.address, &[("X-Forwarded-For", address)]).await.unwrap();
    wire.greet(hello).await;
    wire
}

async fn hook(mesh: &TestMesh, body: Value) -> Answer {
    mesh.http(&Request::post("/hook/set-status", &body)).await
}

async fn hook_from(mesh: &TestMesh, address: &str, body: Value) -> Answer {
    mesh.http(&Request::post("/hook/set-status", &body).header("X-Forwarded-For", address)).await
}

async fn hook_with(mesh: &TestMesh, token: &str, body: Value) -> Answer {
    mesh.http(&Request::post("/hook/set-status", &body).header("Authorization", &format!("Bearer {token}"))).await
}

fn said(answer: &Answer) -> (u16, Value) {
    (answer.status, answer.json())
}

fn about(wire: &Wire) -> (u16, Value) {
    (200, json!({"ok": true, "presence_id": wire.greeting["presenceId"]}))
}

fn refused(status: u16, error: &str) -> (u16, Value) {
    (status, json!({"ok": false, "error": error}))
}

fn at(member: &Member, (name, pid, cwd): (&str, i64, &str)) -> Value {
    merged(member.session().hello(), json!({"sessionId": name, "pid": pid, "cwd": cwd}))
}

async fn status_of(watcher: &mut Wire, of: &Value) -> String {
    let peers = watcher.peers().await;
    let peer = peers.iter().find(|peer| peer["pubkey"] == of["sessionPubkey"]);
    peer.expect("somebody who is here")["status"].as_str().unwrap().to_owned()
}

/// http 1.4 and its ▶ in 5.2: by session id, then by process and directory, then the newest in the directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_for_the_session_then_the_process_then_the_newest_in_the_directory() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let hellos = [
        at(&ann, ("first", 10, "/a")),
        at(&bob, ("second", 20, "/a")),
        at(&ann, ("third", 20, "/b")),
        at(&bob, ("fourth", 40, "/a")),
    ];
    let mut wires = Vec::new();
    for hello in &hellos {
        wires.push(mesh.connect(hello).await);
    }
    // A command in the same directory is no session.
    let _command = mesh.connect(&merged(ann.cold(), json!({"cwd": "/a", "sessionId": "first", "pid": 10}))).await;
    for (body, index) in [
        (json!({"cwd": "/a", "pid": 40, "session_id": "first"}), 0),
        (json!({"cwd": "/elsewhere", "session_id": "third"}), 2),
        (json!({"cwd": "/a", "pid": 20, "session_id": "nobody's"}), 1),
        (json!({"cwd": "/b", "pid": 20}), 2),
        (json!({"cwd": "/a", "pid": 10}), 0),
        (json!({"cwd": "/a", "pid": 99}), 3),
        (json!({"cwd": "/a"}), 3),
        (json!({"cwd": "/b", "pid": 0, "session_id": ""}), 2),
    ] {
        for status in ["working", "idle"] {
            let answer = hook(&mesh, merged(body.clone(), json!({"status": status}))).await;
            assert_eq!(said(&answer), about(&wires[index]), "{body}");
            for (other, hello) in hellos.iter().enumerate() {
                let expected = if other == index { status } else { "idle" };
                assert_eq!(status_of(&mut wires[0], hello).await, expected, "{body}");
            }
        }
    }
    // Who has left is no longer meant.
    wires.remove(3).close(1000).await;
    assert_eq!(said(&hook(&mesh, json!({"cwd": "/a", "status": "working"})).await), about(&wires[1]));
}

/// http 1.4
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said_with_200_and_what_is_wrong_with_400() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("wrong").await;
    let hello = at(&ann, ("s", 1, "/a"));
    let mut wire = mesh.connect(&hello).await;
    for body in [json!({}), json!({"cwd": "/a"}), json!({"status": "working"}), json!({"cwd": "", "status": "working"})]
    {
        assert_eq!(said(&hook(&mesh, body).await), refused(200, "cwd and status required"));
    }
    for (body, error) in [
        (json!({"cwd": "/a", "status": "away"}), "status must be idle, working or dnd"),
        (json!({"cwd": "/a", "status": 1}), "status must be idle, working or dnd"),
        (json!({"cwd": ["/a"], "status": "working"}), "cwd must be a string"),
        (json!({"cwd": "/a", "pid": "1", "status": "working"}), "pid must be a whole number"),
        (json!({"cwd": "/a", "session_id": 7, "status": "working"}), "session_id must be a string"),
        (json!(["/a"]), "the body must be a JSON object"),
    ] {
        assert_eq!(said(&hook(&mesh, body).await), refused(400, error));
    }
    let raw = |bytes: &[u8]| Request::post_bytes("/hook/set-status", bytes.to_vec());
    for bytes in [&b""[..], b"{", b"\xff\xfe", b"cwd=/a&status=working", &b"[".repeat(60_000)] {
        assert_eq!(said(&mesh.http(&raw(bytes)).await), refused(400, "the body must be a JSON object"));
    }
    let large = json!({"cwd": "/a", "status": "working", "pad": "x".repeat(66_000)});
    assert_eq!(said(&hook(&mesh, large).await), refused(413, "payload too large"));
    let foreign = Request::post("/hook/set-status", &json!({"cwd": "/a", "status": "working"}));
    assert_eq!(mesh.http(&foreign.header("Origin", "https://evil.example")).await.status, 403);
    assert_eq!(mesh.http(&Request::get("/hook/set-status")).await.status, 405);
    assert_eq!(status_of(&mut wire, &hello).await, "idle");
}

/// R13, and websocket 5.2: dnd is no hook's to end, and without a token none's to begin.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_a_hook_moves_only_between_idle_and_working() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("dnd").await;
    let hello = at(&ann, ("s", 1, "/a"));
    let mut wire = mesh.connect(&hello).await;
    let body = |status: &str| json!({"cwd": "/a", "pid": 1, "status": status, "session_id": "s"});
    assert_eq!(said(&hook(&mesh, body("dnd")).await), refused(200, "dnd needs the hook token of the session"));
    assert_eq!(status_of(&mut wire, &hello).await, "idle");
    wire.say(&json!({"type": "set_status", "status": "dnd"})).await;
    wire.fence().await;
    for status in ["idle", "working"] {
        assert_eq!(said(&hook(&mesh, body(status)).await), about(&wire));
        assert_eq!(status_of(&mut wire, &hello).await, "dnd");
    }
}

/// R13: a hook for somebody else's session.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_a_hook_moves_only_who_connects_from_its_address() {
    let mesh = proxied().start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (hers, his) = (at(&ann, ("s", 1, "/a")), at(&bob, ("s", 1, "/a")));
    let mut near = connect_from(&mesh, "198.51.100.7", &hers).await;
    let far = connect_from(&mesh, "203.0.113.9", &his).await;
    let body = |status: &str| json!({"cwd": "/a", "pid": 1, "status": status, "session_id": "s"});
    assert_eq!(said(&hook_from(&mesh, "198.51.100.7", body("working")).await), about(&near));
    assert_eq!(status_of(&mut near, &hers).await, "working");
    assert_eq!(status_of(&mut near, &his).await, "idle");
    assert_eq!(said(&hook_from(&mesh, "203.0.113.9", body("working")).await), about(&far));
    // From elsewhere, and from this machine itself, there is nobody to speak for.
    for address in ["198.51.100.8", "2001:db8::1"] {
        let answer = hook_from(&mesh, address, body("idle")).await;
        assert_eq!(said(&answer), (200, json!({"ok": true, "pending": true})));
    }
    assert_eq!(said(&hook(&mesh, body("idle")).await), (200, json!({"ok": true, "pending": true})));
    assert_eq!(status_of(&mut near, &hers).await, "working");
    assert_eq!(status_of(&mut near, &his).await, "working");
}

/// R13: the token alone decides.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_a_hook_speaks_for_its_session_and_an_unknown_one_for_nobody() {
    let mesh = proxied().start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (hers, his) = (at(&ann, ("hers", 1, "/a")), at(&bob, ("his", 2, "/b")));
    let mut near = connect_from(&mesh, "198.51.100.7", &hers).await;
    let far = connect_from(&mesh, "203.0.113.9", &his).await;
    let token = near.greeting["hookToken"].as_str().unwrap().to_owned();
    assert_eq!(token.len(), 43, "32 bytes");
    assert_ne!(far.greeting["hookToken"], token.as_str());
    // Whatever else it says: it points at the other one with all it has.
    let body = |status: &str| json!({"cwd": "/b", "pid": 2, "status": status, "session_id": "his"});
    for status in ["working", "idle", "dnd"] {
        assert_eq!(said(&hook_with(&mesh, &token, body(status)).await), about(&near));
        assert_eq!(status_of(&mut near, &hers).await, status);
        assert_eq!(status_of(&mut near, &his).await, "idle");
    }
    let twisted = format!("{}{}", &token[1..], &token[..1]);
    let (short, long) = (&token[..42], format!("{token}A"));
    for forged in ["", "nonsense", &twisted, short, &long] {
        assert_eq!(said(&hook_with(&mesh, forged, body("working")).await), refused(401, "unauthorized"), "{forged}");
    }
    // A header that is no Bearer token is not taken for none.
    for header in ["Basic Og==", "Bearer", &token] {
        let request = Request::post("/hook/set-status", &body("working")).header("Authorization", header);
        let request = request.header("X-Forwarded-For", "203.0.113.9");
        assert_eq!(said(&mesh.http(&request).await), refused(401, "unauthorized"), "{header}");
    }
    assert_eq!(status_of(&mut near, &hers).await, "dnd");
    assert_eq!(status_of(&mut near, &his).await, "idle");
    // A connection's token is gone with it, and the next one has another.
    let mut again = far;
    near.close(1000).await;
    assert_eq!(said(&hook_with(&mesh, &token, body("idle")).await), refused(401, "unauthorized"));
    again.nothing_else().await;
}

/// websocket 5.2: a hook may be faster than its session's connection.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_hook_said_a_moment_before_is_so_when_its_session_connects() {
    let mesh = proxied().start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    let pending = (200, json!({"ok": true, "pending": true}));
    let body = |pid: i64, status: &str| json!({"cwd": "/a", "pid": pid, "status": status});
    let from = "198.51.100.7";
    for status in ["idle", "working"] {
        assert_eq!(said(&hook_from(&mesh, from, body(1, status)).await), pending);
    }
    let hello = at(&bob, ("one", 1, "/a"));
    // Another process, another directory, another address; then the one it was about, once.
    for (other, address) in
        [(at(&bob, ("x", 2, "/a")), from), (at(&bob, ("y", 1, "/b")), from), (hello.clone(), "203.0.113.9")]
    {
        let _other = connect_from(&mesh, address, &other).await;
        assert_eq!(status_of(&mut watcher, &other).await, "idle", "{other}");
    }
    let session = at(&bob, ("one", 1, "/a"));
    let first = connect_from(&mesh, from, &session).await;
    assert_eq!(status_of(&mut watcher, &session).await, "working");
    first.close(1000).await;
    let session = at(&bob, ("one", 1, "/a"));
    let second = connect_from(&mesh, from, &session).await;
    assert_eq!(status_of(&mut watcher, &session).await, "idle");
    second.close(1000).await;
    assert_eq!(said(&hook_from(&mesh, from, body(1, "working")).await), pending);
    mesh.clock.pass(Duration::from_secs(11));
    let session = at(&bob, ("one", 1, "/a"));
    let _late = connect_from(&mesh, from, &session).await;
    assert_eq!(status_of(&mut watcher, &session).await, "idle");
}

/// http 1.4
#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_limited_by_process_and_by_address() {
    let mesh = proxied().start().await;
    let (_, ann) = mesh.mesh("rate").await;
    let _wire = mesh.connect(&at(&ann, ("s", 1, "/a"))).await;
    let body = |pid: i64| json!({"cwd": "/a", "pid": pid, "status": "working"});
    for _ in 0..30 {
        assert_eq!(hook(&mesh, body(1)).await.status, 200);
    }
    assert_eq!(said(&hook(&mesh, body(1)).await), refused(429, "rate limited"));
    assert_eq!(hook(&mesh, body(2)).await.status, 200, "another process");
    assert_eq!(hook_from(&mesh, "198.51.100.7", body(1)).await.status, 200, "the same at another address");
    mesh.clock.pass(Duration::from_secs(2));
    assert_eq!(hook(&mesh, body(1)).await.status, 200);
    // Twenty times as many for one address, whatever processes it names. Time goes on meanwhile.
    let mut allowed = 0;
    while said(&hook_from(&mesh, "203.0.113.9", body(allowed)).await) != refused(429, "rate limited") {
        allowed += 1;
    }
    assert!((600..900).contains(&allowed), "{allowed}");
    assert_eq!(hook_from(&mesh, "198.51.100.7", body(2)).await.status, 200);
    assert_eq!(mesh.metric("broker_hook_requests_rate_limited_total").await, Some(2));
    assert!(mesh.metric("broker_hook_requests_total").await.unwrap() >= 630);
}

/// websocket 3.6 ▶: whatever makes a session idle drains it. And one session is one in all its meshes.
#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_says_idle_drains_the_session_in_each_of_its_meshes() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (home, eve) = mesh.mesh("second").await;
    let fay = under_the_key_of(&bob, &mesh, (&home, &eve)).await;
    let mut senders = [mesh.connect(&ann.hello()).await, mesh.connect(&eve.hello()).await];
    let mut sessions = [mesh.connect(&at(&bob, ("s", 1, "/a"))).await, mesh.connect(&at(&fay, ("s", 1, "/a"))).await];
    for body in [json!({"cwd": "/a", "session_id": "s"}), json!({"cwd": "/a", "pid": 1}), json!({"cwd": "/a"})] {
        hook(&mesh, merged(body.clone(), json!({"status": "working"}))).await;
        for (sender, key) in senders.iter_mut().zip([bob.key(), fay.key()]) {
            sender.deliver(&key, "held").await;
        }
        for session in &mut sessions {
            session.nothing_else().await;
        }
        hook(&mesh, merged(body, json!({"status": "idle"}))).await;
        for session in &mut sessions {
            assert_eq!(session.receive().await, "held");
        }
    }
}

/// Lets somebody join another mesh with the key that it has.
async fn under_the_key_of(whose: &Member, mesh: &TestMesh, (home, by): (&Mesh, &Member)) -> Member {
    let (payload, token) = home.token("member");
    let mut wire = mesh.connect(&by.hello()).await;
    wire.ask(json!({"type": "invite_create", "token": token})).await;
    let joined = mesh.redeem(&payload, &token, (&whose.key(), "Fay")).await.json();
    let id = joined["memberId"].as_str().unwrap().to_owned();
    Member { mesh: home.id.clone(), id, ..whose.clone() }
}

/// R13, D8: who takes somebody else's session id for its own, in a mesh of its own or in the same, neither learns what that
/// session's hook says nor keeps it away.
#[tokio::test(flavor = "multi_thread")]
async fn a_hook_is_for_who_is_all_that_it_says_and_for_nobody_with_another_key() {
    let mesh = Setup::sqlite().with(|config| config.hello_rate_per_min = 0).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (_, eve) = mesh.mesh("elsewhere").await;
    let hello = at(&ann, ("s", 7, "/a"));
    let mut wire = mesh.connect(&hello).await;
    let same = at(&eve, ("s", 8, "/q"));
    let mut eves = vec![mesh.connect(&same).await];
    for _ in 0..66 {
        eves.push(mesh.connect(&at(&eve, ("s", 8, "/q"))).await);
    }
    let _bobs = mesh.connect(&at(&bob, ("s", 9, "/a"))).await;
    for status in ["working", "idle", "working"] {
        let body = json!({"cwd": "/a", "pid": 7, "session_id": "s", "status": status});
        assert_eq!(said(&hook(&mesh, body).await), about(&wire));
        assert_eq!(status_of(&mut wire, &hello).await, status);
        let seen: Vec<_> = eves[0].peers().await.iter().map(|peer| peer["status"].clone()).collect();
        assert_eq!(seen, vec![json!("idle"); 67]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_uses_up_what_a_session_may_say_with_its_token() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("token").await;
    let wire = mesh.connect(&at(&ann, ("s", 1, "/a"))).await;
    let token = wire.greeting["hookToken"].as_str().unwrap();
    let body = json!({"cwd": "/a", "pid": 1, "status": "working"});
    while hook(&mesh, body.clone()).await.status != 429 {}
    assert_eq!(hook_with(&mesh, "no token", body.clone()).await.status, 429);
    for _ in 0..30 {
        assert_eq!(said(&hook_with(&mesh, token, body.clone()).await), about(&wire));
    }
    assert_eq!(said(&hook_with(&mesh, token, body).await), refused(429, "rate limited"));
}

/// R13: behind a proxy that is not trusted everybody has one address.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_that_is_not_trusted_a_hook_needs_its_token() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("proxy").await;
    let hello = at(&ann, ("s", 1, "/a"));
    let mut wire = connect_from(&mesh, "198.51.100.7", &hello).await;
    let body = json!({"cwd": "/a", "pid": 1, "session_id": "s", "status": "working"});
    for (header, value) in [("X-Forwarded-For", "198.51.100.7"), ("Forwarded", "for=198.51.100.7")] {
        let answer = mesh.http(&Request::post("/hook/set-status", &body).header(header, value)).await;
        assert_eq!(said(&answer), refused(200, "behind this proxy the hook token of the session is needed"));
    }
    assert_eq!(status_of(&mut wire, &hello).await, "idle");
    let token = format!("Bearer {}", wire.greeting["hookToken"].as_str().unwrap());
    let request = Request::post("/hook/set-status", &body).header("X-Forwarded-For", "203.0.113.9");
    assert_eq!(said(&mesh.http(&request.header("Authorization", &token)).await), about(&wire));
}

/// websocket 5.1 ▶
#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_hook_outranks_inference() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("fresh").await;
    let hello = at(&ann, ("s", 1, "/a"));
    let mut wire = mesh.connect(&hello).await;
    hook(&mesh, json!({"cwd": "/a", "status": "working"})).await;
    let infer = json!({"type": "set_status", "status": "idle", "source": "jsonl"});
    mesh.clock.pass(Duration::from_secs(29));
    wire.say(&infer).await;
    assert_eq!(status_of(&mut wire, &hello).await, "working");
    mesh.clock.pass(Duration::from_secs(2));
    wire.say(&infer).await;
    assert_eq!(status_of(&mut wire, &hello).await, "idle");
}

/// A report is for connections that are open: the rest is only waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_line_hears_no_hook() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    let session = bob.session();
    let hello = merged(session.hello(), json!({"pid": 1, "cwd": "/a"}));
    let wire = mesh.connect(&hello).await;
    let token = wire.greeting["hookToken"].as_str().unwrap().to_owned();
    wire.break_off();
    eventually("it is seen to be broken", async || mesh.metric("broker_connections_active").await == Some(1)).await;
    let body = json!({"cwd": "/a", "pid": 1, "status": "working"});
    assert_eq!(hook_with(&mesh, &token, body.clone()).await.status, 401);
    assert_eq!(hook(&mesh, body).await.json(), json!({"ok": true, "pending": true}));
    assert_eq!(status_of(&mut watcher, &hello).await, "idle");
    let back = mesh.connect(&merged(session.hello(), json!({"pid": 1, "cwd": "/a"}))).await;
    assert_eq!(status_of(&mut watcher, &hello).await, "working");
    drop(back);
}
