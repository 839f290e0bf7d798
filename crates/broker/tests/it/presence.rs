//! `list_peers`.

use claudemesh_testkit::{TestMesh, merged};
use serde_json::{Value, json};

use crate::greeting::shape;

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
    let groups: Vec<Value> = (0..40).map(|n| json!({"name": format!("g{n}\u{200B}"), "role": nasty})).collect();
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
