//! `join_group`, `leave_group`, and groups in handshakes.

use claudemesh_testkit::{Member, Session, Setup, TestMesh, Wire, merged};
use serde_json::{Value, json};

on_both!(groups_are_the_member_s_and_come_back_with_it, a_change_by_a_short_lived_connection_reaches_the_live_sessions,);

/// The groups that a presence shows, by its key and session id.
async fn shown(wire: &mut Wire, hello: &Value) -> Value {
    let peers = wire.peers().await;
    let key = if hello["sessionPubkey"].is_null() { &hello["pubkey"] } else { &hello["sessionPubkey"] };
    let is_it = |peer: &Value| peer["sessionId"] == hello["sessionId"] && peer["pubkey"] == *key;
    let peer = peers.into_iter().find(is_it);
    peer.expect("a presence of that session id")["groups"].clone()
}

/// Says something that has no answer, and waits until it is done.
async fn say(wire: &mut Wire, request: Value) {
    wire.say(&request).await;
    wire.nothing_else().await;
}

fn join(name: &str) -> Value {
    json!({"type": "join_group", "name": name})
}

fn with_id(session: &Session, id: &str) -> Value {
    merged(session.hello(), json!({"sessionId": id}))
}

fn cold(member: &Member, id: &str) -> Value {
    merged(member.cold(), json!({"sessionId": id}))
}

/// websocket 6.1 ▶: kept per member; websocket 1.6.
async fn groups_are_the_member_s_and_come_back_with_it(setup: Setup) {
    let mut mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let hello = ann.hello();
    let mut wire = mesh.connect(&hello).await;
    say(&mut wire, json!({"type": "join_group", "name": "Dev", "role": "lead"})).await;
    say(&mut wire, join("ops")).await;
    say(&mut wire, join("front/end")).await;
    say(&mut wire, json!({"type": "leave_group", "name": "OPS"})).await;
    let groups = json!([{"name": "Dev", "role": "lead"}, {"name": "front/end"}]);
    assert_eq!(shown(&mut wire, &hello).await, groups);
    wire.close(1000).await;
    mesh.restart().await;
    // A fresh connection without groups has the member's, and says so; one with groups brings the member's.
    let hello = ann.hello();
    let mut wire = mesh.connect(&hello).await;
    assert_eq!(wire.greeting["restoredGroups"], groups);
    assert_eq!(shown(&mut wire, &hello).await, groups);
    let hello = merged(ann.hello(), json!({"groups": [{"name": "web"}, {"name": "WEB", "role": "x"}]}));
    let mut second = mesh.connect(&hello).await;
    let web = json!([{"name": "WEB", "role": "x"}]);
    assert_eq!(shown(&mut second, &hello).await, web);
    assert_eq!(second.greeting["restoredGroups"], Value::Null);
    assert_eq!(second.greeting["restored"], true);
    let hello = ann.hello();
    assert_eq!(mesh.connect(&hello).await.greeting["restoredGroups"], web);
    // A session shows its own, which the member gets too; none and unsaid change nothing.
    for (groups, shows) in
        [(json!([{"name": "css"}]), json!([{"name": "css"}])), (json!([]), json!([])), (Value::Null, json!([]))]
    {
        let hello = merged(ann.session().hello(), json!({"groups": groups}));
        let mut session = mesh.connect(&hello).await;
        assert_eq!(shown(&mut session, &hello).await, shows);
        assert_eq!(session.greeting["restoredGroups"], Value::Null);
    }
    let all = json!([{"name": "WEB", "role": "x"}, {"name": "css"}]);
    assert_eq!(mesh.connect(&ann.hello()).await.greeting["restoredGroups"], all);
    // What is sent to a group reaches who is in it, now and by what the database knows.
    let mut sender = mesh.connect(&bob.hello()).await;
    sender.deliver("@css", "to the painters").await;
    sender.deliver("@dev", "to nobody any more").await;
    assert_eq!(wire.receive().await, "to the painters");
    wire.nothing_else().await;
}

/// websocket 1.6 ▶: of those with its session id, else of all of its member.
async fn a_change_by_a_short_lived_connection_reaches_the_live_sessions(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (daemon, one, two) = (ann.hello(), with_id(&ann.session(), "one"), with_id(&ann.session(), "two"));
    let other = with_id(&bob.session(), "one");
    let mut wire = mesh.connect(&daemon).await;
    let open = [mesh.connect(&one).await, mesh.connect(&two).await, mesh.connect(&other).await];
    // What came before the Close is done before it is answered.
    let mut command = mesh.connect(&cold(&ann, "one")).await;
    command.say(&join("dev")).await;
    command.close(1000).await;
    let dev = json!([{"name": "dev"}]);
    for (hello, groups) in [(&one, &dev), (&two, &json!([])), (&daemon, &json!([])), (&other, &json!([]))] {
        assert_eq!(shown(&mut wire, hello).await, *groups, "{hello}");
    }
    let quiet = merged(ann.hello(), json!({"capabilities": ["quiet"], "sessionId": "cli-7"}));
    for hello in [cold(&ann, "nowhere"), quiet] {
        let mut command = mesh.connect(&hello).await;
        command.say(&join("ops")).await;
        command.close(1000).await;
        let (both, ops) = (json!([{"name": "dev"}, {"name": "ops"}]), json!([{"name": "ops"}]));
        for (hello, groups) in [(&one, &both), (&two, &ops), (&daemon, &ops), (&other, &json!([]))] {
            assert_eq!(shown(&mut wire, hello).await, *groups, "{hello}");
        }
        let mut command = mesh.connect(&hello_again(&ann, &hello)).await;
        command.say(&json!({"type": "leave_group", "name": "ops"})).await;
        command.close(1000).await;
        assert_eq!(shown(&mut wire, &two).await, json!([]));
    }
    drop(open);
}

/// websocket 1.7: whoever takes up a lease is in the groups it was in, unless it says otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_comes_back_is_in_its_groups() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("back").await;
    let session = ann.session();
    let mut wire = mesh.connect(&session.hello()).await;
    say(&mut wire, join("dev")).await;
    wire.break_off();
    let hello = session.hello();
    let mut wire = mesh.connect(&hello).await;
    assert_eq!(shown(&mut wire, &hello).await, json!([{"name": "dev"}]));
    let hello = merged(session.hello(), json!({"groups": []}));
    let mut wire = mesh.connect(&hello).await;
    assert_eq!(shown(&mut wire, &hello).await, json!([]));
}

/// The same handshake, signed anew.
fn hello_again(member: &Member, hello: &Value) -> Value {
    let signed = member.hello();
    merged(hello.clone(), json!({"timestamp": signed["timestamp"], "signature": signed["signature"]}))
}

/// websocket 6.1 ▶: names outside the grammar and a 33rd group are refused, nothing changes (R1).
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_group_is_refused_and_nothing_changes() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("grammar").await;
    let hello = ann.hello();
    let mut wire = mesh.connect(&hello).await;
    for name in ["", "@dev", "/a", "a b", "ä", "a\u{200B}", &"a".repeat(65), "*", "'; drop table member; --"] {
        for kind in ["join_group", "leave_group"] {
            let error = wire.ask(json!({"type": kind, "name": name})).await;
            let words = "name must be 1-64 of a-z, 0-9 and _./-, beginning with a letter or digit";
            assert_eq!((&error["code"], &error["message"]), (&json!("invalid_argument"), &json!(words)), "{name}");
        }
    }
    let error = wire.ask(json!({"type": "join_group", "name": 5})).await;
    assert_eq!(error["message"], "name invalid type: integer `5`, expected a string");
    for number in 0..32 {
        say(&mut wire, join(&format!("g{number}"))).await;
    }
    let error = wire.ask(join("one-more")).await;
    assert_eq!(
        (&error["code"], &error["message"]),
        (&json!("invalid_argument"), &json!("you are in 32 groups; leave one first"))
    );
    let error = wire.ask(join("All")).await;
    let words = "name must not be all: @all means everybody";
    assert_eq!((&error["code"], &error["message"]), (&json!("invalid_argument"), &json!(words)));
    say(&mut wire, json!({"type": "join_group", "name": "G7", "role": " Cook\n\u{202E}"})).await;
    let groups = shown(&mut wire, &hello).await;
    assert_eq!((groups.as_array().unwrap().len(), &groups[7]), (32, &json!({"name": "G7", "role": "Cook"})));
}

/// The socket stays, as with every bad field of a handshake (R1).
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_with_what_is_no_group_is_answered_and_may_be_said_again() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("hello").await;
    let many: Vec<Value> = (0..33).map(|number| json!({"name": format!("g{number}")})).collect();
    for handshake in [ann.hello(), ann.session().hello()] {
        let mut wire = Wire::open(mesh.address).await;
        for (groups, field) in [(json!([{"name": "a"}, {"name": "@b"}]), "groups[1].name "), (json!(many), "groups ")] {
            let error = wire.ask(merged(handshake.clone(), json!({"groups": groups}))).await;
            assert_eq!(error["code"], "invalid_argument");
            assert!(error["message"].as_str().unwrap().starts_with(field), "{error}");
        }
        wire.greet(&merged(handshake, json!({"groups": many[..32]}))).await;
        wire.close(1000).await;
    }
    // A session's groups are its member's too, who is in 32 of them.
    let hello = merged(ann.session().hello(), json!({"groups": [{"name": "one-more"}]}));
    let (code, message, ..) = mesh.refusal(&hello).await;
    let words = "groups must be 32 groups at most, with those that the member is in";
    assert_eq!((code.as_str(), message.as_str()), ("invalid_argument", words));
    let counted = "broker_connections_rejected_total{reason=\"invalid_argument\"}";
    assert_eq!(mesh.metric(counted).await, Some(1));
    assert_eq!(mesh.connect(&ann.hello()).await.greeting["restoredGroups"].as_array().unwrap().len(), 32);
}
