//! `list_peers`.

use claudemesh_testkit::{TestMesh, merged};
use serde_json::{Value, json};

use crate::greeting::shape;

/// websocket 5.6 ▶: existing commands take the first row of a name.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_before_control_planes_each_by_when_they_came() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let place = |name: &str| json!({"displayName": name, "sessionId": name});
    let first = mesh.connect(&merged(ann.hello(), place("first"))).await;
    let second = mesh.connect(&merged(bob.session().hello(), place("second"))).await;
    let third = mesh.connect(&merged(bob.cold(), place("third"))).await;
    let mut fourth = mesh.connect(&merged(ann.session().hello(), place("fourth"))).await;
    let names = |peers: &[Value]| -> Vec<String> {
        peers.iter().map(|peer| peer["displayName"].as_str().unwrap().to_owned()).collect()
    };
    let peers = fourth.peers().await;
    assert_eq!(names(&peers), ["second", "fourth", "first", "third"]);
    assert_eq!(peers[0]["peerRole"], "session");
    assert_eq!(peers[3]["peerRole"], "control-plane");
    assert_eq!(peers[2]["pubkey"], ann.key());
    assert!(peers[3]["pubkey"] != bob.key() && peers[3]["memberPubkey"] == bob.key());
    drop((first, second, third));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_the_fields_that_clients_read() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("fields").await;
    let place = json!({
        "displayName": "Ann", "hostname": "box", "peerType": "ai", "channel": "claudemesh-session", "model": "opus",
        "groups": [{"name": "dev", "role": "lead"}, {"name": "ops"}], "cwd": "/home/ann/proj",
    });
    let mut session = mesh.connect(&merged(ann.session().hello(), place)).await;
    let bare = json!({
        "sessionId": null, "pid": null, "cwd": null, "hostname": null, "peerType": null, "channel": null,
        "capabilities": null,
    });
    let _bare = mesh.connect(&merged(ann.hello(), bare)).await;
    let answer = session.ask(json!({"type": "list_peers"})).await;
    insta::assert_snapshot!("peers_list", shape(&merged(answer, json!({"_reqId": null}))));
}

/// R16: what a peer says of itself ends up in other people's terminals.
#[tokio::test(flavor = "multi_thread")]
async fn what_peers_say_of_themselves_is_cleaned_and_cut() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("clean").await;
    let nasty = format!("a\u{1b}[31m\u{202E}b\n{}", "x".repeat(5000));
    let groups: Vec<Value> = (0..32).map(|n| json!({"name": format!("g{n}"), "role": nasty})).collect();
    let place = json!({
        "displayName": "A\u{7}nn", "sessionId": nasty, "cwd": nasty, "hostname": nasty, "peerType": nasty,
        "channel": nasty, "model": nasty, "groups": groups,
    });
    let mut wire = mesh.connect(&merged(ann.hello(), place)).await;
    let peer = wire.peers().await.remove(0);
    assert_eq!(peer["displayName"], "Ann");
    for field in ["sessionId", "hostname", "peerType", "channel", "model", "cwd"] {
        let text = peer[field].as_str().unwrap();
        assert!(text.starts_with("a[31mb") && text.len() <= if field == "cwd" { 4096 } else { 128 }, "{field}: {text}");
    }
    let groups = peer["groups"].as_array().unwrap();
    assert_eq!((groups.len(), &groups[31]["name"]), (32, &json!("g31")));
    assert!(groups.iter().all(|group| group["role"].as_str().unwrap().chars().count() <= 64));
}

/// For a session an empty array says "no groups"; without one it starts with the member's.
#[tokio::test(flavor = "multi_thread")]
async fn groups_that_are_not_said_are_the_members() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("groups").await;
    mesh.database.sql("update member set default_groups = '[{\"name\":\"crew\"}]'").await;
    let crew = json!([{"name": "crew"}]);
    for (hello, groups, expected) in [
        (ann.session().hello(), Value::Null, &crew),
        (ann.session().hello(), json!([]), &json!([])),
        (ann.hello(), Value::Null, &crew),
        (ann.hello(), json!([]), &crew),
        (ann.hello(), json!([{"name": "own"}]), &json!([{"name": "own"}])),
    ] {
        let mut hello = hello;
        hello["groups"] = groups;
        let mut wire = mesh.connect(&hello).await;
        let presence = wire.peers().await.into_iter().find(|peer| peer["sessionId"] == hello["sessionId"]).unwrap();
        assert_eq!(&presence["groups"], expected, "{hello}");
        assert_eq!(wire.greeting["memberProfile"]["groups"], crew);
    }
}

/// R16, and websocket 5.5: what is said of oneself is cleaned, cut, merged and seen by everybody.
#[tokio::test(flavor = "multi_thread")]
async fn summary_profile_and_stats_are_shown_as_they_were_said_and_within_limits() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    let mut wire = mesh.connect(&bob.session().hello()).await;
    let first = async |watcher: &mut claudemesh_testkit::Wire| watcher.peers().await.remove(0);
    wire.say(&json!({"type": "set_summary", "summary": "fix\u{1b}[31m the\u{202E} \nbuild"})).await;
    wire.say(&json!({"type": "set_stats", "stats": {"messagesIn": 3, "uptime": 1.5}})).await;
    let ack = wire
        .ask(json!({"type": "set_profile", "title": "Re\u{200B}viewer\n", "avatar": "🦀", "bio": "One\nTwo"}))
        .await;
    let expected =
        json!({"type": "ack", "id": ack["_reqId"], "messageId": "", "queued": false, "_reqId": ack["_reqId"]});
    assert_eq!(ack, expected);
    let peer = first(&mut watcher).await;
    assert_eq!(peer["summary"], "fix[31m the build");
    assert_eq!(peer["stats"], json!({"messagesIn": 3, "uptime": 1.5}));
    assert_eq!(peer["profile"], json!({"title": "Reviewer", "avatar": "🦀", "bio": "One\nTwo"}));
    // What is not said stays; what is emptied goes.
    wire.ask(json!({"type": "set_profile", "avatar": "", "capabilities": ["rust\u{7}", "", "x".repeat(100)]})).await;
    wire.say(&json!({"type": "set_summary"})).await;
    wire.fence().await;
    let peer = first(&mut watcher).await;
    let skills = json!(["rust", "x".repeat(64)]);
    assert_eq!(peer["profile"], json!({"title": "Reviewer", "bio": "One\nTwo", "capabilities": skills}));
    assert_eq!(peer["summary"], Value::Null);
    let long = "ü".repeat(5000);
    wire.say(&json!({"type": "set_summary", "summary": long})).await;
    let many: Vec<_> = (0..100).map(|number| format!("skill {number}")).collect();
    wire.ask(json!({"type": "set_profile", "title": long, "avatar": long, "bio": long, "capabilities": many})).await;
    let peer = first(&mut watcher).await;
    let chars = |text: &Value| text.as_str().unwrap().chars().count();
    assert_eq!(chars(&peer["summary"]), 512);
    let profile = &peer["profile"];
    assert_eq!((chars(&profile["title"]), chars(&profile["avatar"]), chars(&profile["bio"])), (64, 512, 1024));
    assert_eq!(profile["capabilities"].as_array().unwrap().len(), 32);
    for wrong in [
        json!({"type": "set_summary", "summary": 5}),
        json!({"type": "set_profile", "title": ["x"]}),
        json!({"type": "set_profile", "capabilities": "rust"}),
        json!({"type": "set_stats", "stats": {"messagesIn": -1}}),
        json!({"type": "set_stats", "stats": "many"}),
        json!({"type": "set_stats", "stats": {"uptime": "long"}}),
    ] {
        let error = wire.ask(wrong.clone()).await;
        assert_eq!(error["code"], "invalid_argument", "{wrong}: {error}");
    }
    assert_eq!(first(&mut watcher).await, peer);
}

/// websocket 5.6 ▶: a row is a presence's own, also where two connections have one key.
#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_key_keep_what_is_theirs() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    let place = |name: &str| json!({"sessionId": name, "channel": name, "hostname": name, "cwd": name});
    let mut wires = Vec::new();
    for name in ["one", "two", "three"] {
        let mut wire = mesh.connect(&merged(bob.hello(), place(name))).await;
        wire.say(&json!({"type": "set_stats", "stats": {"toolCalls": wires.len()}})).await;
        wire.ask(json!({"type": "set_profile", "title": name})).await;
        wires.push(wire);
    }
    wires[1].ask(json!({"type": "set_visible", "visible": false})).await;
    for (watcher, names) in [(&mut watcher, vec!["one", "three"]), (&mut wires[0], vec!["one", "two", "three"])] {
        let peers = watcher.peers().await;
        let of_bob: Vec<_> = peers.iter().filter(|peer| peer["pubkey"] == bob.key()).collect();
        assert_eq!(of_bob.len(), names.len());
        for (peer, name) in of_bob.into_iter().zip(names) {
            for field in ["sessionId", "channel", "hostname", "cwd"] {
                assert_eq!(peer[field], name);
            }
            assert_eq!(peer["profile"], json!({"title": name}));
            let number = ["one", "two", "three"].iter().position(|one| *one == name).unwrap();
            assert_eq!(peer["stats"], json!({"toolCalls": number}));
            assert_eq!(peer["visible"], json!(name != "two"));
        }
    }
}
