//! Topics, their messages and their keys over REST (http 2.3, R7, R8).

use claudemesh_proto::text::base64;
use claudemesh_testkit::{Answer, Member, Setup, TestMesh, Wire, merged};
use serde_json::{Value, json};

use crate::greeting::shape;
use crate::post::post as write;
use crate::rest::{ask, command, get, is_problem, key_of};
use crate::topic::create;

on_both!(
    topics_are_listed_as_far_as_key_and_member_go,
    history_is_read_back_page_by_page,
    a_copy_is_sealed_for_who_waits_and_never_replaced,
    a_topic_without_a_key_gets_one_from_the_first_who_claims,
    a_topic_is_closed_to_who_is_not_in_it,
);

/// A refusal of the route's own.
fn is(answer: &Answer, status: u16, error: &str, topic: &str) {
    let body = answer.json();
    assert_eq!((answer.status, &body["error"], &body["topic"]), (status, &json!(error), &json!(topic)), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

async fn post(mesh: &TestMesh, path: &str, key: &str, body: Value) -> Answer {
    ask(mesh, "POST", path, (key, Some(&body))).await
}

async fn join(wire: &mut Wire, topic: &str) {
    wire.say(&json!({"type": "topic_join", "topic": topic})).await;
    wire.fence().await;
}

/// Writes so many messages into a topic; their ids.
async fn fill(from: &mut Wire, made: &Value, count: usize) -> Vec<String> {
    let topic = made["topic"]["id"].as_str().unwrap();
    let mut ids = Vec::new();
    for _ in 0..count {
        let fields = json!({"bodyVersion": 2, "mentions": ["bob"], "ext": {"a": 1}});
        let ack = write(from, topic, "body", fields).await;
        ids.push(ack["messageId"].as_str().unwrap().to_owned());
    }
    ids
}

async fn topics_are_listed_as_far_as_key_and_member_go(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (mut admin, mut member) = (command(&mesh, &ann).await, command(&mesh, &bob).await);
    let log = create(&mut admin, json!({"name": "log", "description": "what happened"})).await;
    create(&mut admin, json!({"name": "hidden", "visibility": "private"})).await;
    join(&mut member, "log").await;
    fill(&mut admin, &log, 3).await;
    let (of_ann, of_bob) = (key_of(&mesh, &ann, json!({})).await, key_of(&mesh, &bob, json!({})).await);
    let listed = async |key: &str| {
        let topics = get(&mesh, "/v1/topics", key).await.json()["topics"].as_array().unwrap().clone();
        topics.iter().map(|it| (it["name"].as_str().unwrap().to_owned(), it["unread"].as_i64())).collect::<Vec<_>>()
    };
    let of = |name: &str, unread| (name.to_owned(), Some(unread));
    assert_eq!(listed(&of_ann).await, [of("general", 0), of("hidden", 0), of("log", 0)], "one's own are not unread");
    assert_eq!(listed(&of_bob).await, [of("general", 0), of("log", 3)], "R7");
    insta::assert_snapshot!("rest_topics", shape(&get(&mesh, "/v1/topics", &of_bob).await.json()));
    let answer = ask(&mesh, "PATCH", "/v1/topics/log/read", (&of_bob, None)).await;
    insta::assert_snapshot!("rest_topic_read", shape(&answer.json()));
    assert_eq!(listed(&of_bob).await[1], of("log", 0));
    let scoped = key_of(&mesh, &bob, json!({"topicScopes": ["Log", "hidden"]})).await;
    assert_eq!(listed(&scoped).await, [of("log", 0)]);
    assert_eq!(get(&mesh, "/v1/topics/LOG/messages", &scoped).await.status, 200);
    is_problem(&get(&mesh, "/v1/topics/general/messages", &scoped).await, 403, "error.api_key_topic_out_of_scope");
    is_problem(&get(&mesh, "/v1/topics/%23log/messages", &scoped).await, 403, "error.api_key_topic_out_of_scope");
    let none = key_of(&mesh, &bob, json!({"topicScopes": []})).await;
    assert!(listed(&none).await.is_empty());
}

async fn history_is_read_back_page_by_page(setup: Setup) {
    let mesh = setup.with(|config| config.send_rate_per_min = 0).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (mut admin, mut member) = (command(&mesh, &ann).await, command(&mesh, &bob).await);
    let log = create(&mut admin, json!({"name": "log"})).await;
    let other = create(&mut admin, json!({"name": "other"})).await;
    join(&mut member, "log").await;
    let ids = fill(&mut admin, &log, 120).await;
    let of_other = fill(&mut admin, &other, 1).await;
    let key = key_of(&mesh, &bob, json!({})).await;
    let page = async |query: &str| {
        let answer = get(&mesh, &format!("/api/v1/topics/log/messages{query}"), &key).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let messages = answer.json()["messages"].as_array().unwrap().clone();
        messages.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let newest: Vec<String> = ids.iter().rev().take(50).cloned().collect();
    assert_eq!(page("").await, newest);
    let mut all = Vec::new();
    loop {
        let before = all.last().map(|id| format!("&before={id}")).unwrap_or_default();
        let next = page(&format!("?limit=45{before}")).await;
        if next.is_empty() {
            break;
        }
        all.extend(next);
    }
    assert_eq!(all, ids.iter().rev().cloned().collect::<Vec<_>>(), "each once");
    assert_eq!(page("?limit=200").await.len(), 120);
    for unknown in [of_other[0].as_str(), &"0".repeat(32), "abc"] {
        assert_eq!(page(&format!("?before={unknown}")).await, newest, "an id that is none of the topic's");
    }
    for (query, named) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=1.5", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("limit=1&limit=2", "limit"),
        ("before=", "before"),
        ("before=a%20b", "before"),
        ("before=%00", "before"),
        ("before=%ff", "before"),
    ] {
        let answer = get(&mesh, &format!("/v1/topics/log/messages?{query}"), &key).await;
        is_problem(&answer, 422, "error.validation");
        assert!(answer.json()["message"].as_str().unwrap().contains(named), "{query}: {answer:?}");
    }
    let answer = get(&mesh, "/v1/topics/log/messages?limit=1", &key).await.json();
    assert_eq!(answer["messages"][0]["senderPubkey"], ann.key(), "the key that the member has");
    insta::assert_snapshot!("rest_topic_messages", shape(&answer).replace(&ann.key(), "<key>"));
}

fn copy(fill: u8) -> Value {
    json!({"encryptedKey": base64(&[fill; 80]), "nonce": base64(&[fill; 24])})
}

/// R8.
async fn a_copy_is_sealed_for_who_waits_and_never_replaced(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&of_ann, &ann, "Cid").await;
    let (_, eve) = mesh.mesh("elsewhere").await;
    let (mut admin, mut member) = (command(&mesh, &ann).await, command(&mesh, &bob).await);
    create(&mut admin, json!({"name": "keyed"})).await;
    join(&mut member, "keyed").await;
    join(&mut command(&mesh, &cid).await, "keyed").await;
    let mut keys = Vec::new();
    for member in [&ann, &bob, &cid] {
        keys.push(key_of(&mesh, member, json!({"topicScopes": ["keyed"]})).await);
    }
    let [of_ann, of_bob, of_cid] = keys.try_into().unwrap();
    let own = get(&mesh, "/v1/topics/keyed/key", &of_ann).await;
    assert_eq!(own.status, 200, "{own:?}");
    let pubkey = own.json()["senderPubkey"].clone();
    assert_eq!(pubkey.as_str().unwrap().len(), 64);
    let mut shown = own.json();
    (shown["encryptedKey"], shown["nonce"], shown["senderPubkey"]) =
        (json!("<copy>"), json!("<nonce>"), json!("<key>"));
    insta::assert_snapshot!("rest_topic_key", shape(&shown));
    is(&get(&mesh, "/v1/topics/keyed/key", &of_bob).await, 404, "key_not_sealed_for_member", "keyed");
    let pending = async || get(&mesh, "/v1/topics/keyed/pending-seals", &of_ann).await.json();
    let waiting = |of: &Member, name: &str| json!({"memberId": of.id, "pubkey": of.key(), "displayName": name});
    let list = pending().await;
    assert_eq!((&list["senderPubkey"], &list["topic"]), (&pubkey, &json!("keyed")));
    assert_eq!(list["pending"], json!([waiting(&bob, "Bob"), waiting(&cid, "Cid")]));
    let seal = async |key: &str, whom: &str, copy: Value| {
        post(&mesh, "/v1/topics/keyed/seal", key, merged(copy, json!({"memberId": whom}))).await
    };
    let copies = async || mesh.database.number("select count(*) from topic_member_key").await;
    // Nothing of this is stored.
    is(&seal(&of_bob, &cid.id, copy(9)).await, 403, "sealer_has_no_key", "keyed");
    for stranger in [eve.id.as_str(), "nobody"] {
        is(&seal(&of_ann, stranger, copy(9)).await, 404, "recipient_not_in_topic", "keyed");
    }
    is(&seal(&of_ann, &ann.id, copy(9)).await, 409, "already_sealed", "keyed");
    let bad = [
        (json!({"encryptedKey": base64(&[1; 79])}), "encryptedKey"),
        (json!({"encryptedKey": base64(&[1; 81])}), "encryptedKey"),
        (json!({"encryptedKey": "x"}), "encryptedKey"),
        (json!({"encryptedKey": 5}), "encryptedKey"),
        (json!({"encryptedKey": null}), "encryptedKey"),
        (json!({"nonce": base64(&[1; 23])}), "nonce"),
        (json!({"nonce": ""}), "nonce"),
        (json!({"memberId": "a b"}), "memberId"),
        (json!({"memberId": null}), "memberId"),
    ];
    for (change, named) in bad {
        let body = merged(merged(copy(9), json!({"memberId": bob.id})), change);
        let answer = post(&mesh, "/v1/topics/keyed/seal", &of_ann, body).await;
        is_problem(&answer, 422, "error.validation");
        assert!(answer.json()["message"].as_str().unwrap().contains(named), "{named}: {answer:?}");
    }
    assert_eq!(copies().await, 1);
    // A key that only reads seals for who waits.
    let answer = seal(&of_ann, &bob.id, copy(1)).await;
    assert_eq!((answer.status, &answer.json()["memberId"]), (200, &json!(bob.id)), "{answer:?}");
    insta::assert_snapshot!("rest_topic_seal", shape(&answer.json()));
    is(&seal(&of_ann, &bob.id, copy(2)).await, 409, "already_sealed", "keyed");
    let of_bob_now = get(&mesh, "/v1/topics/keyed/key", &of_bob).await.json();
    assert_eq!(of_bob_now["encryptedKey"], copy(1)["encryptedKey"]);
    // Whoever got one may pass it on, and whoever rejects one gets another.
    assert_eq!(seal(&of_bob, &cid.id, copy(3)).await.status, 200);
    assert_eq!(pending().await["pending"], json!([]));
    let answer = ask(&mesh, "POST", "/v1/topics/keyed/key/reject", (&of_cid, None)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    insta::assert_snapshot!("rest_topic_key_rejected", shape(&answer.json()));
    for path in ["key", "key/reject"] {
        let method = if path == "key" { "GET" } else { "POST" };
        let answer = ask(&mesh, method, &format!("/v1/topics/keyed/{path}"), (&of_cid, None)).await;
        is(&answer, 404, "key_not_sealed_for_member", "keyed");
    }
    is(&seal(&of_cid, &bob.id, copy(9)).await, 403, "sealer_has_no_key", "keyed");
    assert_eq!(pending().await["pending"], json!([waiting(&cid, "Cid")]));
    assert_eq!(seal(&of_ann, &cid.id, copy(4)).await.status, 200);
    assert_eq!(get(&mesh, "/v1/topics/keyed/key", &of_cid).await.json()["encryptedKey"], copy(4)["encryptedKey"]);
    assert_eq!(copies().await, 3);
    // Whoever was removed waits for nothing and seals nothing.
    admin.ask(json!({"type": "ban", "target": cid.key()})).await;
    is_problem(&seal(&of_cid, &bob.id, copy(9)).await, 401, "error.api_key_invalid");
    is(&seal(&of_ann, &cid.id, copy(9)).await, 404, "recipient_not_in_topic", "keyed");
}

async fn a_topic_without_a_key_gets_one_from_the_first_who_claims(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let both = json!({"capabilities": ["read", "send"]});
    let (of_ann, of_bob) = (key_of(&mesh, &ann, both.clone()).await, key_of(&mesh, &bob, both).await);
    is(&get(&mesh, "/v1/topics/general/key", &of_ann).await, 409, "topic_unencrypted", "general");
    let answer = ask(&mesh, "POST", "/v1/topics/general/key/reject", (&of_ann, None)).await;
    is(&answer, 409, "topic_unencrypted", "general");
    let waiting = get(&mesh, "/v1/topics/general/pending-seals", &of_ann).await.json();
    assert_eq!((&waiting["pending"], &waiting["senderPubkey"]), (&json!([]), &Value::Null));
    let sealed = merged(copy(1), json!({"memberId": bob.id}));
    is(&post(&mesh, "/v1/topics/general/seal", &of_ann, sealed).await, 409, "topic_unencrypted", "general");
    let claim = |fill: u8| merged(copy(fill), json!({"encryptedKeyPubkey": format!("{fill:02x}").repeat(32)}));
    for (change, named) in [
        (json!({"encryptedKeyPubkey": "02".repeat(32)}), "encryptedKeyPubkey"),
        (json!({"encryptedKeyPubkey": "01".repeat(31)}), "encryptedKeyPubkey"),
        (json!({"encryptedKeyPubkey": null}), "encryptedKeyPubkey"),
        (json!({"encryptedKey": base64(&[1; 48])}), "encryptedKey"),
        (json!({"nonce": base64(&[1; 25])}), "nonce"),
    ] {
        let answer = post(&mesh, "/v1/topics/general/claim-key", &of_ann, merged(claim(1), change)).await;
        is_problem(&answer, 422, "error.validation");
        assert!(answer.json()["message"].as_str().unwrap().contains(named), "{named}: {answer:?}");
    }
    for body in ["", "[]", "{", "null", "\u{0}"] {
        let request = claudemesh_testkit::Request::post_bytes("/v1/topics/general/claim-key", body.into());
        let answer = mesh.http(&request.header("Authorization", &format!("Bearer {of_ann}"))).await;
        is_problem(&answer, 422, "error.validation");
    }
    let large = merged(claim(1), json!({"more": "x".repeat(70_000)}));
    is_problem(&post(&mesh, "/v1/topics/general/claim-key", &of_ann, large).await, 413, "error.too_large");
    assert_eq!(mesh.database.number("select count(*) from topic_member_key").await, 0);
    // Many at once: one wins, and the others learn whose key it is.
    let claims = (1..=8_u8).map(|fill| {
        let key = if fill % 2 == 0 { &of_ann } else { &of_bob };
        let mesh = &mesh;
        async move { post(mesh, "/v1/topics/general/claim-key", key, claim(fill)).await }
    });
    let answers = futures_util::future::join_all(claims).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 7));
    let won = won[0].json();
    assert_eq!((&won["claimed"], &won["topic"]), (&json!(true), &json!("general")));
    for answer in lost {
        is(&answer, 409, "already_encrypted", "general");
        assert_eq!(answer.json()["senderPubkey"], won["senderPubkey"]);
    }
    let (winner, other) = if won["memberId"] == ann.id { (of_ann, of_bob) } else { (of_bob, of_ann) };
    assert_eq!(get(&mesh, "/v1/topics/general/key", &winner).await.status, 200);
    is(&get(&mesh, "/v1/topics/general/key", &other).await, 404, "key_not_sealed_for_member", "general");
    // The only copy is not rejected; an admin may replace it while it is the only one, and the member may not.
    let answer = ask(&mesh, "POST", "/v1/topics/general/key/reject", (&winner, None)).await;
    is(&answer, 409, "last_copy", "general");
    let (of_ann, of_bob) = if won["memberId"] == ann.id { (winner, other) } else { (other, winner) };
    let replace = merged(claim(9), json!({"replace": true}));
    is(
        &post(&mesh, "/v1/topics/general/claim-key", &of_bob, replace.clone()).await,
        409,
        "already_encrypted",
        "general",
    );
    let answer = post(&mesh, "/v1/topics/general/claim-key", &of_ann, replace).await;
    assert_eq!((answer.status, &answer.json()["senderPubkey"]), (200, &json!("09".repeat(32))), "{answer:?}");
    assert_eq!(get(&mesh, "/v1/topics/general/key", &of_ann).await.json()["encryptedKey"], copy(9)["encryptedKey"]);
    assert_eq!(mesh.database.number("select count(*) from topic_member_key").await, 1);
}

/// R7: of a private topic nothing is said to who is not in it, and a public one is joined first.
async fn a_topic_is_closed_to_who_is_not_in_it(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut admin = command(&mesh, &ann).await;
    create(&mut admin, json!({"name": "open"})).await;
    create(&mut admin, json!({"name": "closed", "visibility": "private"})).await;
    create(&mut admin, json!({"name": "old"})).await;
    mesh.database.sql("update topic set archived_at = 1 where name = 'old'").await;
    let key = key_of(&mesh, &bob, json!({"capabilities": ["read", "send"]})).await;
    let claim = merged(copy(1), json!({"encryptedKeyPubkey": "01".repeat(32)}));
    let seal = merged(copy(1), json!({"memberId": bob.id}));
    let before = mesh.database.number("select count(*) from topic_member").await;
    for (method, route, body) in [
        ("PATCH", "read", None),
        ("GET", "messages", None),
        ("GET", "key", None),
        ("POST", "key/reject", None),
        ("POST", "claim-key", Some(&claim)),
        ("GET", "pending-seals", None),
        ("POST", "seal", Some(&seal)),
    ] {
        let at = async |topic: &str| ask(&mesh, method, &format!("/v1/topics/{topic}/{route}"), (&key, body)).await;
        for topic in ["closed", "old", "nothing"] {
            is(&at(topic).await, 404, "topic_not_found", topic);
        }
        is(&at("%23open").await, 404, "topic_not_found", "#open");
        is(&at("%ff").await, 404, "topic_not_found", "");
        is(&at("a%00%E2%80%AEb").await, 404, "topic_not_found", "ab");
        is(&at("open").await, 403, "not_in_topic", "open");
    }
    assert_eq!(mesh.database.number("select count(*) from topic_member").await, before);
    assert_eq!(mesh.database.number("select count(*) from topic_member_key").await, 3);
}
