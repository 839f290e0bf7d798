//! Topics over HTTP: writing into them, and reading them as they are written.

use std::time::Duration;

use claudemesh_testkit::{Events, Member, Setup, TestMesh, Wire, eventually, merged};
use serde_json::{Value, json};

use crate::api_key;
use crate::post::{general, post};
use crate::rest::{ask, command, get, is_problem, key_of, promote};
use crate::topic::create;

on_both!(
    what_is_posted_over_http_is_a_message_like_any_other,
    a_post_is_refused_with_the_documented_words,
    a_stream_tells_what_is_written_from_then_on_and_resumes_exactly,
    a_stream_ends_when_its_key_or_its_member_may_read_no_more,
    a_busy_stream_ends_once_its_key_lets_read_no_more,
    a_stream_that_nobody_reads_ends_all_the_same,
    a_member_has_a_hundred_streams_however_many_are_asked_for_at_once,
    a_stream_is_for_members_of_the_topic_with_a_key_for_it,
    notifications_are_listed_and_read,
);

async fn open(mesh: &TestMesh, topic: &str, key: &str, last: Option<&str>) -> Events {
    let bearer = format!("Bearer {key}");
    let mut headers = vec![("Authorization", bearer.as_str())];
    headers.extend(last.map(|id| ("Last-Event-ID", id)));
    Events::open(mesh.address, &format!("/v1/topics/{topic}/stream"), &headers).await
}

/// Opens one and reads no further than that it is open.
async fn open_unread(mesh: &TestMesh, key: &str) -> Events {
    let bearer = format!("Bearer {key}");
    let path = "/v1/topics/general/stream";
    let events = Events::open_narrow(mesh.address, path, &[("Authorization", &bearer)]).await;
    assert_eq!(events.status, 200);
    events
}

async fn until_streams(mesh: &TestMesh, open: u64) {
    eventually("streams end", async || mesh.metric("broker_streams_active").await == Some(open)).await;
}

/// More than the system takes for one who does not read.
async fn flood(from: &mut Wire, topic: &str) {
    for _ in 0..120 {
        post(from, topic, &"x".repeat(48_000), json!({})).await;
    }
}

async fn say(mesh: &TestMesh, key: &str, fields: Value) -> (u16, Value) {
    let body = merged(json!({"topic": "general", "ciphertext": "aGVsbG8=", "nonce": ""}), fields);
    let answer = ask(mesh, "POST", "/v1/messages", (key, Some(&body))).await;
    (answer.status, answer.json())
}

async fn writer(mesh: &TestMesh, member: &Member) -> String {
    key_of(mesh, member, json!({"capabilities": ["read", "send"]})).await
}

/// http 2.3.
async fn what_is_posted_over_http_is_a_message_like_any_other(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let key = writer(&mesh, &ann).await;
    let mut to = mesh.connect(&bob.hello()).await;
    let topic = general(&mut to).await;
    let (status, first) = say(&mesh, &key, json!({"mentions": ["bob"], "ext": {"hop": 2}})).await;
    assert_eq!(status, 200, "{first}");
    let id = first["messageId"].as_str().unwrap();
    let expected = json!({
        "messageId": id, "historyId": id, "queueId": id, "topic": "general", "topicId": topic, "notifications": 1,
        "bodyVersion": 1, "seq": 1,
    });
    assert_eq!(first, expected);
    let (push, text) = to.push().await;
    assert_eq!((text.as_str(), &push["messageId"], &push["ext"]), ("hello", &first["messageId"], &json!({"hop": 2})));
    let (_, reply) = say(&mesh, &key, json!({"replyToId": id, "bodyVersion": 2, "nonce": "A".repeat(32)})).await;
    assert_eq!((&reply["replyToId"], &reply["seq"], &reply["notifications"]), (&json!(id), &json!(2), &json!(0)));
    let (_, once) = say(&mesh, &key, json!({"clientMessageId": "once"})).await;
    let (_, again) = say(&mesh, &key, json!({"clientMessageId": "once"})).await;
    assert_eq!(once["messageId"], again["messageId"], "D6");
    assert_eq!(mesh.metric("broker_messages_routed_total{priority=\"next\"}").await, Some(4));
    let answer = get(&mesh, "/v1/topics/general/messages", &key).await.json();
    assert_eq!(answer["messages"].as_array().unwrap().len(), 3);
}

/// http 2.3; nothing is stored.
async fn a_post_is_refused_with_the_documented_words(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let key = writer(&mesh, &bob).await;
    let mut lead = mesh.connect(&ann.hello()).await;
    create(&mut lead, json!({"name": "locked"})).await;
    create(&mut lead, json!({"name": "hidden", "visibility": "private"})).await;
    create(&mut lead, json!({"name": "open"})).await;
    lead.ask(json!({"type": "topic_add_member", "topic": "locked", "memberId": bob.id})).await;
    let cases = [
        (json!({"topic": "nowhere"}), 404, "topic_not_found"),
        (json!({"topic": "hidden"}), 404, "topic_not_found"),
        (json!({"topic": "open"}), 403, "not_in_topic"),
        (json!({"topic": "locked"}), 409, "topic_encrypted"),
    ];
    for (fields, status, error) in cases {
        let answer = say(&mesh, &key, fields.clone()).await;
        assert_eq!((answer.0, &answer.1["error"], &answer.1["topic"]), (status, &json!(error), &fields["topic"]));
    }
    for fields in
        [json!({"ciphertext": "?"}), json!({"bodyVersion": 7}), json!({"mentions": "x"}), json!({"nonce": "AA"})]
    {
        let body = merged(json!({"topic": "general", "ciphertext": "aGVsbG8=", "nonce": ""}), fields);
        is_problem(&ask(&mesh, "POST", "/v1/messages", (&key, Some(&body))).await, 422, "error.validation");
    }
    let reader = key_of(&mesh, &bob, json!({})).await;
    let body = json!({"topic": "general", "ciphertext": "aGVsbG8=", "nonce": ""});
    let answer = ask(&mesh, "POST", "/v1/messages", (&reader, Some(&body))).await;
    is_problem(&answer, 403, "error.api_key_missing_capability");
    mesh.database.sql("update mesh_head set topic_bytes = 8589934592").await;
    let answer = say(&mesh, &key, json!({"topic": "general"})).await;
    assert_eq!((answer.0, &answer.1["error"]), (507, &json!("mesh_topics_full")));
    mesh.database.sql("update mesh_head set topic_bytes = 0").await;
    assert_eq!(mesh.database.number("select count(*) from topic_message").await, 0);
    let once = json!({"clientMessageId": "once"});
    assert_eq!(say(&mesh, &key, once.clone()).await.0, 200);
    let reused = say(&mesh, &key, merged(once, json!({"ciphertext": "b3RoZXI="}))).await;
    assert_eq!(reused, (409, json!({"error": "client_message_id_reused"})));
    assert_eq!(mesh.database.number("select count(*) from topic_message").await, 1);
    // As over the WebSocket: a request that makes no sense, and one that is not for this member.
    for (reason, count) in [("parse_or_handler", 4), ("forbidden", 4)] {
        let name = format!("broker_messages_rejected_total{{reason=\"{reason}\"}}");
        assert_eq!(mesh.metric(&name).await, Some(count), "{name}");
    }
}

/// http 2.4, D12.
async fn a_stream_tells_what_is_written_from_then_on_and_resumes_exactly(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut from = mesh.connect(&ann.hello()).await;
    let topic = general(&mut from).await;
    let key = key_of(&mesh, &bob, json!({})).await;
    post(&mut from, &topic, "before", json!({})).await;
    let mut events = open(&mesh, "general", &key, None).await;
    assert_eq!(events.status, 200);
    let ready = events.next().await.unwrap();
    assert_eq!((ready.event.as_str(), &ready.json()["topicId"]), ("ready", &json!(topic)));
    let mut second = open(&mesh, "general", &key, None).await;
    second.expect("ready").await;
    let mut ids = Vec::new();
    // A stream looks every 5 s by itself: without being rung this would take 25 s.
    let told = tokio::time::timeout(Duration::from_secs(15), async {
        for number in 0..5 {
            let id = post(&mut from, &topic, &number.to_string(), json!({})).await["messageId"].clone();
            for stream in [&mut events, &mut second] {
                let event = stream.next().await.unwrap();
                assert_eq!((event.event.as_str(), json!(event.id)), ("message", id.clone()));
                let message = event.json();
                assert_eq!((&message["id"], &message["seq"]), (&id, &json!(number + 2)));
                assert_eq!((&message["senderPubkey"], &message["senderName"]), (&json!(ann.key()), &json!("Ann")));
            }
            ids.push(id);
        }
    });
    told.await.expect("a stream is rung");
    drop(events);
    let mut resumed = open(&mesh, "general", &key, ids[1].as_str()).await;
    resumed.expect("ready").await;
    for id in &ids[2..] {
        assert_eq!(json!(resumed.next().await.unwrap().id), *id, "each once, and none left out");
    }
    let last = post(&mut from, &topic, "last", json!({})).await;
    assert_eq!(json!(resumed.next().await.unwrap().id), last["messageId"]);
    assert_eq!(json!(second.next().await.unwrap().id), last["messageId"]);
}

/// R9, D9.
async fn a_stream_ends_when_its_key_or_its_member_may_read_no_more(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let mut wire = command(&mesh, &bob).await;
    let (id, revoked) = api_key::key(&mut wire, json!({})).await;
    let (_, of_banned) = api_key::key(&mut wire, json!({})).await;
    let mut first = open(&mesh, "general", &revoked, None).await;
    let mut second = open(&mesh, "general", &of_banned, None).await;
    first.expect("ready").await;
    second.expect("ready").await;
    api_key::revoke(&mut wire, &id).await;
    assert_eq!(first.next().await, None);
    admin.ask(json!({"type": "ban", "target": "Bob"})).await;
    assert_eq!(second.next().await, None);
    assert_eq!(open(&mesh, "general", &of_banned, None).await.status, 401);
    let key = key_of(&mesh, &ann, json!({})).await;
    let mut left = open(&mesh, "general", &key, None).await;
    left.expect("ready").await;
    create(&mut admin, json!({"name": "other"})).await;
    let mut other = open(&mesh, "other", &key, None).await;
    other.expect("ready").await;
    admin.say(&json!({"type": "topic_leave", "topic": "general"})).await;
    let ended = tokio::time::timeout(Duration::from_secs(3), left.next()).await;
    assert_eq!(ended.expect("before anybody asks again"), None);
    // What another broker changed is seen by asking.
    mesh.database.sql("update topic set archived_at = 1").await;
    let ended = tokio::time::timeout(Duration::from_secs(7), other.next()).await;
    assert_eq!(ended.expect("within five seconds"), None);
}

/// R9: what the key lets do is asked again also while there is always something to tell.
async fn a_busy_stream_ends_once_its_key_lets_read_no_more(setup: Setup) {
    let mesh = setup.with(|config| config.send_rate_per_min = 0).start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let mut from = mesh.connect(&bob.hello()).await;
    let topic = general(&mut from).await;
    let boss = mesh.join(&of_ann, &ann, "Boss").await;
    let mut admin = command(&mesh, &ann).await;
    promote(&mut admin, &boss, "admin").await;
    let key = key_of(&mesh, &boss, json!({"capabilities": ["admin"]})).await;
    let mut events = open(&mesh, "general", &key, None).await;
    events.expect("ready").await;
    promote(&mut admin, &boss, "member").await;
    let write = async {
        loop {
            post(&mut from, &topic, "more", json!({})).await;
        }
    };
    let read = async { while events.next().await.is_some() {} };
    let ended = tokio::time::timeout(Duration::from_secs(7), async {
        tokio::select! {
            () = read => {}
            () = write => {}
        }
    });
    ended.await.expect("within five seconds");
}

/// D9, R9: a line that takes nothing more is closed as well, and what waits for it goes.
async fn a_stream_that_nobody_reads_ends_all_the_same(setup: Setup) {
    let mesh = setup.with(|config| config.send_rate_per_min = 0).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut from = mesh.connect(&ann.hello()).await;
    let topic = general(&mut from).await;
    let (key, of_bob) = (key_of(&mesh, &ann, json!({})).await, key_of(&mesh, &bob, json!({})).await);
    let mut read = open(&mesh, "general", &key, None).await;
    let mut stuck = Vec::new();
    for _ in 0..3 {
        stuck.push(open_unread(&mesh, &of_bob).await);
    }
    flood(&mut from, &topic).await;
    for _ in 0..120 {
        read.expect("message").await;
    }
    assert_eq!(mesh.metric("broker_streams_active").await, Some(4));
    from.ask(json!({"type": "ban", "target": "Bob"})).await;
    until_streams(&mesh, 1).await;
    for mut stream in stuck {
        let mut told = 0;
        while stream.next().await.is_some() {
            told += 1;
        }
        assert!(told < 120, "it read all along");
    }
}

/// D11.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_of_a_stream_is_dropped() {
    let impatient = |config: &mut claudemesh_broker::Config| {
        (config.write_timeout, config.send_rate_per_min) = (Duration::from_millis(500), 0);
    };
    let mesh = Setup::sqlite().with(impatient).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut from = mesh.connect(&ann.hello()).await;
    let topic = general(&mut from).await;
    let stuck = open_unread(&mesh, &key_of(&mesh, &bob, json!({})).await).await;
    flood(&mut from, &topic).await;
    until_streams(&mesh, 0).await;
    drop(stuck);
}

/// http 2.4.
async fn a_member_has_a_hundred_streams_however_many_are_asked_for_at_once(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann) = mesh.mesh("many").await;
    let key = key_of(&mesh, &ann, json!({})).await;
    let asked = (0..130).map(|_| open(&mesh, "general", &key, None));
    let streams = futures_util::future::join_all(asked).await;
    let count = |status| streams.iter().filter(|stream| stream.status == status).count();
    assert_eq!((count(200), count(429)), (100, 30));
}

/// R7.
async fn a_stream_is_for_members_of_the_topic_with_a_key_for_it(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut lead = mesh.connect(&ann.hello()).await;
    create(&mut lead, json!({"name": "hidden", "visibility": "private"})).await;
    create(&mut lead, json!({"name": "other"})).await;
    let scoped = key_of(&mesh, &bob, json!({"topicScopes": ["other"]})).await;
    let all = key_of(&mesh, &bob, json!({})).await;
    for (topic, key, status) in
        [("hidden", &all, 404), ("other", &all, 403), ("general", &scoped, 403), ("none", &all, 404)]
    {
        let stream = open(&mesh, topic, key, None).await;
        assert_eq!(stream.status, status, "{topic}");
        assert!(!stream.rest().await.contains("ready"));
    }
}

/// http 2.3, R7.
async fn notifications_are_listed_and_read(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut from = mesh.connect(&ann.hello()).await;
    let topic = general(&mut from).await;
    let key = key_of(&mesh, &bob, json!({})).await;
    let first = post(&mut from, &topic, "@bob look", json!({})).await;
    mesh.clock.pass(Duration::from_secs(1));
    let second = post(&mut from, &topic, "noise", json!({"bodyVersion": 2, "mentions": ["bob"]})).await;
    let list = async |query: &str| {
        let answer = get(&mesh, &format!("/v1/notifications{query}"), &key).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let all = list("").await;
    let ids: Vec<_> = all["notifications"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, [second["messageId"].clone(), first["messageId"].clone()], "newest first");
    let newest = &all["notifications"][0];
    let expected = json!({"topicId": topic, "topicName": "general", "senderName": "Ann", "senderPubkey": ann.key(),
        "bodyVersion": 2, "kind": "mention", "readAt": null});
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(newest[field], *value, "{field} of {newest}");
    }
    assert_eq!(all["mentionedAs"], "bob");
    let read_by = async |key: &str, body: Value| ask(&mesh, "POST", "/v1/notifications/read", (key, Some(&body))).await;
    let read = async |body: Value| read_by(&key, body).await;
    // Somebody else's are not seen, and marking them changes nothing.
    let of_ann = key_of(&mesh, &ann, json!({})).await;
    assert_eq!(get(&mesh, "/v1/notifications", &of_ann).await.json()["notifications"], json!([]));
    for body in [json!({"ids": [newest["notificationId"]]}), json!({"all": true})] {
        assert_eq!(read_by(&of_ann, body).await.status, 200);
    }
    assert_eq!(list("?unread=1").await["notifications"].as_array().unwrap().len(), 2);
    let marked = read(json!({"ids": [newest["notificationId"]]})).await;
    assert_eq!((marked.status, &marked.json()["marked"]), (200, &json!(1)));
    let unread = list("?unread=1").await;
    assert_eq!(unread["notifications"].as_array().unwrap().len(), 1);
    assert_eq!(unread["notifications"][0]["id"], first["messageId"]);
    assert_eq!(read(json!({"all": true})).await.json()["marked"], "all");
    eventually("all are read", async || list("?unread=1").await["notifications"] == json!([])).await;
    assert_eq!(get(&mesh, "/v1/notifications?since=soon", &key).await.json()["error"], "invalid_since");
    assert_eq!(read(json!({"all": true, "before": "soon"})).await.json()["error"], "invalid_before");
    for body in [json!({}), json!({"ids": []}), json!({"ids": ["x"], "all": true}), json!({"ids": ["a b"]})] {
        is_problem(&read(body).await, 422, "error.validation");
    }
}
