//! What concerns a key's member: its mesh, its topics, what happened there (http 2.3).

use std::time::Duration;

use claudemesh_testkit::{Setup, TestMesh};
use serde_json::{Value, json};

use crate::post::{general, post};
use crate::rest::{get, is_problem, key_of};
use crate::topic::create;

on_both!(what_concerns_a_member_is_what_it_may_read, a_key_for_some_topics_sees_those_alone,);

async fn me(mesh: &TestMesh, key: &str, what: &str) -> Value {
    let answer = get(mesh, &format!("/v1/me/{what}"), key).await;
    assert_eq!(answer.status, 200, "{what}: {answer:?}");
    answer.json()
}

fn field(list: &Value, name: &str) -> Vec<Value> {
    list.as_array().unwrap().iter().map(|entry| entry[name].clone()).collect()
}

/// R7: private topics that one is not in are in none of it.
async fn what_concerns_a_member_is_what_it_may_read(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let mut from = mesh.connect(&ann.hello()).await;
    let topic = general(&mut from).await;
    let hidden = create(&mut from, json!({"name": "hidden", "visibility": "private"})).await["topic"]["id"].clone();
    let key = key_of(&mesh, &bob, json!({})).await;
    let clear = post(&mut from, &topic, "ask @bob about the Plan", json!({})).await;
    mesh.clock.pass(Duration::from_secs(1));
    let sealed = post(&mut from, &topic, "noise", json!({"bodyVersion": 2, "mentions": ["bob"]})).await;
    post(&mut from, hidden.as_str().unwrap(), "the secret plan", json!({"mentions": ["bob"]})).await;

    let workspace = me(&mesh, &key, "workspace").await;
    assert_eq!(workspace["userId"], bob.id);
    let totals = json!({"meshes": 1, "peers": 2, "online": 1, "topics": 1, "unreadMentions": 2});
    assert_eq!(workspace["totals"], totals);
    let of = &workspace["meshes"][0];
    assert_eq!((&of["meshId"], &of["myRole"]), (&json!(of_ann.id), &json!("member")));

    let topics = me(&mesh, &key, "topics").await;
    assert_eq!(field(&topics["topics"], "name"), [json!("general")]);
    assert_eq!(topics["totals"], json!({"topics": 1, "unread": 2}));
    assert!(topics["topics"][0]["lastMessageAt"].as_str().unwrap().ends_with('Z'));

    let notifications = me(&mesh, &key, "notifications").await;
    assert_eq!(
        field(&notifications["notifications"], "messageId"),
        [sealed["messageId"].clone(), clear["messageId"].clone()]
    );
    assert_eq!(field(&notifications["notifications"], "snippet"), [json!(null), json!("ask @bob about the Plan")]);
    assert_eq!(notifications["totals"], json!({"unread": 2, "total": 2}));

    let activity = me(&mesh, &key, "activity").await;
    assert_eq!(field(&activity["activity"], "messageId"), [sealed["messageId"].clone(), clear["messageId"].clone()]);
    assert_eq!(activity["totals"], json!({"events": 2}));
    assert_eq!(me(&mesh, &key, "activity?since=2999-01-01T00:00:00.000Z").await["totals"]["events"], 0);
    let own = key_of(&mesh, &ann, json!({})).await;
    assert_eq!(me(&mesh, &own, "activity").await["totals"]["events"], 0, "one's own is no news");

    let found = me(&mesh, &key, "search?q=PLAN").await;
    assert_eq!(field(&found["messages"], "messageId"), [clear["messageId"].clone()], "what is sealed is not searched");
    assert_eq!(found["totals"], json!({"topics": 0, "messages": 1}));
    let long = format!("@bob {}", "€".repeat(10_000));
    let id = post(&mut from, &topic, &format!("{long}END"), json!({})).await["messageId"].clone();
    let found = me(&mesh, &key, "search?q=end").await;
    assert_eq!(field(&found["messages"], "messageId"), [id], "to its end");
    assert_eq!(found["messages"][0]["snippet"], long.chars().take(240).collect::<String>());
    assert_eq!(me(&mesh, &key, "search?q=gener").await["totals"], json!({"topics": 1, "messages": 0}));
    for (what, empty) in [("tasks", "tasks"), ("state", "entries"), ("memory?q=x", "memories")] {
        assert_eq!(me(&mesh, &key, what).await[empty], json!([]));
    }
    for bad in ["search", "search?q=x", "search?q=plan&limit=0", "search?q=plan&limit=x"] {
        is_problem(&get(&mesh, &format!("/v1/me/{bad}"), &key).await, 422, "error.validation");
    }
    for bad in ["activity?since=soon", "notifications?since=soon"] {
        let answer = get(&mesh, &format!("/v1/me/{bad}"), &key).await;
        assert_eq!((answer.status, answer.json()["error"].clone()), (400, json!("invalid_since")));
    }
}

/// Who looks for everything all the time does not keep others waiting.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_searches_only_so_often_in_a_minute() {
    let mesh = Setup::sqlite().with(|config| config.search_rate_per_min = 4).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let keys = [key_of(&mesh, &ann, json!({})).await, key_of(&mesh, &ann, json!({})).await];
    let of_bob = key_of(&mesh, &bob, json!({})).await;
    is_problem(&get(&mesh, "/v1/me/search?q=x", &keys[0]).await, 422, "error.validation");
    for key in &keys {
        me(&mesh, key, "search?q=plan").await;
        me(&mesh, key, "activity").await;
    }
    for what in ["search?q=plan", "activity"] {
        is_problem(&get(&mesh, &format!("/v1/me/{what}"), &keys[0]).await, 429, "error.rate_limited");
    }
    me(&mesh, &keys[0], "topics").await;
    me(&mesh, &of_bob, "search?q=plan").await;
    mesh.clock.pass(Duration::from_secs(15));
    me(&mesh, &keys[0], "activity").await;
}

/// R9.
async fn a_key_for_some_topics_sees_those_alone(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut from = mesh.connect(&ann.hello()).await;
    let topic = general(&mut from).await;
    post(&mut from, &topic, "ask @bob", json!({})).await;
    let all = key_of(&mesh, &bob, json!({})).await;
    let scoped = key_of(&mesh, &bob, json!({"topicScopes": ["genera1", "other"]})).await;
    for (what, total) in
        [("topics", "topics"), ("notifications", "total"), ("activity", "events"), ("search?q=ask", "messages")]
    {
        assert_eq!(me(&mesh, &all, what).await["totals"][total], 1, "{what}");
        assert_eq!(me(&mesh, &scoped, what).await["totals"][total], 0, "{what}");
    }
    let body = json!({"all": true});
    let read = crate::rest::ask(&mesh, "POST", "/v1/notifications/read", (&scoped, Some(&body))).await;
    assert_eq!(read.status, 200);
    assert_eq!(me(&mesh, &all, "notifications").await["totals"]["unread"], 1, "it is not for that topic");
}
