//! What a member's connection gets back of earlier ones.

use claudemesh_testkit::{Member, Setup, TestMesh, Wire};
use serde_json::{Value, json};

use crate::greeting::shape;

on_both!(what_is_remembered_comes_back_with_a_hello_and_only_then);

async fn remember(mesh: &TestMesh, who: &Member, sets: &str) {
    mesh.database.sql(&format!("update peer_state set {sets} where member_id = '{}'", who.id)).await;
}

async fn own(wire: &mut Wire, hello: &Value) -> Value {
    let mut peers = wire.peers().await.into_iter();
    peers.find(|peer| peer["sessionId"] == hello["sessionId"]).expect("its own presence")
}

/// websocket 1.5, 1.6.
async fn what_is_remembered_comes_back_with_a_hello_and_only_then(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann) = mesh.mesh("restore").await;
    let first = mesh.connect(&ann.hello()).await;
    let restored = |greeting: &Value| {
        let fields = ["restored", "lastSeenAt", "lastSummary", "restoredGroups", "restoredStats"];
        fields.map(|field| greeting[field].clone())
    };
    let nothing = [const { Value::Null }; 5];
    assert_eq!(restored(&first.greeting), nothing);
    first.close(1000).await;
    remember(
        &mesh,
        &ann,
        r#"visible = 0, profile = '{"title":"Cook"}', last_summary = 'soup', cumulative_stats = '{"messagesIn":3}',
           groups = '[{"name":"kitchen"}]'"#,
    )
    .await;
    let hello = ann.hello();
    let mut wire = mesh.connect(&hello).await;
    insta::assert_snapshot!("hello_ack_restored", shape(&wire.greeting));
    let peer = own(&mut wire, &hello).await;
    assert_eq!((&peer["visible"], &peer["profile"]), (&json!(false), &json!({"title": "Cook"})));
    // A session is a new thing each time.
    let hello = ann.session().hello();
    let mut session = mesh.connect(&hello).await;
    assert_eq!(restored(&session.greeting), nothing);
    let peer = own(&mut session, &hello).await;
    assert_eq!((&peer["visible"], &peer["profile"]), (&json!(true), &Value::Null));
}

/// websocket 1.6: the end of a connection is when its member was last seen, also for who did not say goodbye.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_was_last_seen_when_its_last_connection_ended() {
    let mut mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let wire = mesh.connect(&bob.session().hello()).await;
    let seen = async |mesh: &TestMesh| -> String {
        let list = mesh.connect(&ann.hello()).await.ask(json!({"type": "member_list"})).await;
        list["members"][1]["lastSeenAt"].as_str().unwrap().to_owned()
    };
    let came = seen(&mesh).await;
    mesh.clock.pass(std::time::Duration::from_mins(10));
    wire.close(1000).await;
    let left = seen(&mesh).await;
    assert!(left > came, "{came} {left}");
    // The broker's stop ends connections too.
    let wire = mesh.connect(&bob.session().hello()).await;
    mesh.clock.pass(std::time::Duration::from_mins(10));
    mesh.restart().await;
    wire.break_off();
    let stopped = seen(&mesh).await;
    assert!(stopped > left, "{left} {stopped}");
}
