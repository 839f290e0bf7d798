//! What a member's connection gets back of earlier ones.

use claudemesh_testkit::{Member, Setup, TestMesh, Wire, eventually};
use serde_json::{Value, json};

use crate::greeting::shape;

on_both!(what_is_remembered_comes_back_with_a_hello_and_only_then, what_a_member_says_of_itself_is_remembered,);

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

/// websocket 1.6: what one connection says of the member is what the next one begins with, whichever opens first.
async fn what_a_member_says_of_itself_is_remembered(setup: Setup) {
    let mut mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut wire = mesh.connect(&ann.hello()).await;
    for request in [
        json!({"type": "set_profile", "title": "Cook", "bio": "Soups."}),
        json!({"type": "set_profile", "bio": ""}),
        json!({"type": "set_visible", "visible": false}),
    ] {
        assert_eq!(wire.ask(request).await["type"], "ack");
    }
    wire.say(&json!({"type": "set_summary", "summary": " onion\nsoup "})).await;
    wire.say(&json!({"type": "set_stats", "stats": {"messagesIn": 3, "toolCalls": 1}})).await;
    wire.say(&json!({"type": "set_stats", "stats": {"messagesIn": 4, "toolCalls": 1}})).await;
    wire.close(1000).await;
    // A command that did something too, and a broker that started again in between.
    mesh.restart().await;
    let mut wire = mesh.connect(&ann.cold()).await;
    wire.say(&json!({"type": "set_stats", "stats": {"messagesIn": 1, "errors": u64::MAX}})).await;
    wire.close(1000).await;
    let hello = ann.hello();
    let mut wire = mesh.connect(&hello).await;
    let stats = json!({"messagesIn": 5, "messagesOut": 0, "toolCalls": 1, "errors": 1_u64 << 40});
    assert_eq!((&wire.greeting["restoredStats"], &wire.greeting["lastSummary"]), (&stats, &json!("onionsoup")));
    let peer = own(&mut wire, &hello).await;
    assert_eq!((&peer["visible"], &peer["profile"]), (&json!(false), &json!({"title": "Cook"})));
    // Who hides gets no broadcast (websocket 3.5).
    let mut sender = mesh.connect(&bob.hello()).await;
    sender.deliver("*", "to all").await;
    sender.deliver(&ann.key(), "to Ann").await;
    assert_eq!(wire.receive().await, "to Ann");
    wire.nothing_else().await;
    assert_eq!(wire.ask(json!({"type": "set_visible", "visible": true})).await["type"], "ack");
    sender.deliver("*", "to all again").await;
    assert_eq!(wire.receive().await, "to all again");
}

/// What a connection counted is added once, also when its line breaks and it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_counted_before_a_break_is_not_counted_again() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("counts").await;
    let session = ann.session();
    for (said, sum) in [(json!({"messagesIn": 3}), 3), (json!({"messagesIn": 5}), 5), (json!({"messagesIn": 1}), 6)] {
        let mut wire = mesh.connect(&session.hello()).await;
        wire.say(&json!({"type": "set_stats", "stats": said})).await;
        wire.fence().await;
        wire.break_off();
        eventually("it is added", async || {
            let wire = mesh.connect(&ann.hello()).await;
            let restored = wire.greeting["restoredStats"]["messagesIn"].clone();
            wire.close(1000).await;
            restored == sum
        })
        .await;
    }
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
