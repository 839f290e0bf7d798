//! Topics over the WebSocket: making, listing, joining, leaving, adding, history (websocket 6.2.1, 6.2.2).

use std::time::Duration;

use claudemesh_proto::MessageId;
use claudemesh_testkit::{Member, Mesh, Setup, TestMesh, Wire, merged};
use serde_json::{Value, json};

on_both!(
    a_topic_is_made_once_and_found_by_name_and_by_id,
    everybody_is_in_general,
    a_public_topic_is_joined_read_and_left,
    a_private_topic_is_entered_by_being_added,
    a_topic_of_another_mesh_answers_like_none,
    the_name_of_an_archived_topic_stays_taken,
    history_is_paged_exactly_newest_first,
    a_removed_member_is_in_no_topic,
);

/// An answer without its `_reqId`, which came with it.
async fn ask(wire: &mut Wire, request: Value) -> Value {
    let answer = wire.ask(request).await;
    assert!(answer["_reqId"].is_string());
    merged(answer, json!({"_reqId": null}))
}

/// Says what has no answer.
async fn say(wire: &mut Wire, request: Value) {
    wire.say(&request).await;
    wire.nothing_else().await;
}

pub(crate) async fn create(wire: &mut Wire, fields: Value) -> Value {
    ask(wire, merged(json!({"type": "topic_create"}), fields)).await
}

async fn list(wire: &mut Wire) -> Vec<Value> {
    let answer = ask(wire, json!({"type": "topic_list"})).await;
    assert_eq!(answer["type"], "topic_list_response", "{answer}");
    answer["topics"].as_array().unwrap().clone()
}

/// The names of the topics that somebody sees.
async fn names(wire: &mut Wire) -> Vec<String> {
    list(wire).await.iter().map(|topic| topic["name"].as_str().unwrap().to_owned()).collect()
}

/// Who is in a topic: names and roles.
async fn members(wire: &mut Wire, topic: &str) -> Vec<(String, String)> {
    let answer = ask(wire, json!({"type": "topic_members", "topic": topic})).await;
    assert_eq!((&answer["type"], &answer["topic"]), (&json!("topic_members_response"), &json!(topic)), "{answer}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let members = answer["members"].as_array().unwrap();
    members.iter().map(|member| (text(&member["displayName"]), text(&member["role"]))).collect()
}

fn pairs(members: &[(&str, &str)]) -> Vec<(String, String)> {
    members.iter().map(|(name, role)| ((*name).to_owned(), (*role).to_owned())).collect()
}

fn not_found(topic: &str) -> Value {
    json!({"type": "error", "code": "topic_not_found", "message": format!("topic \"{topic}\" not found")})
}

fn forbidden(message: &str) -> Value {
    json!({"type": "error", "code": "forbidden", "message": message})
}

const NOT_IN: &str = "you are not in this topic";

/// Everything that is asked of one topic.
fn of_topic(topic: &str) -> Vec<Value> {
    ["topic_members", "topic_history", "topic_mark_read", "topic_join", "topic_leave"]
        .into_iter()
        .map(|kind| json!({"type": kind, "topic": topic}))
        .collect()
}

/// How often a mesh's log has an event.
async fn logged(mesh: &TestMesh, of: &Mesh, event: &str) -> i64 {
    let query = format!("select count(*) from audit_log where mesh_id = '{}' and event_type = '{event}'", of.id);
    mesh.database.number(&query).await
}

/// websocket 6.2.1: idempotent on mesh and name; whoever asks again is in it, and leads it only if it made it.
async fn a_topic_is_made_once_and_found_by_name_and_by_id(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let (mut ann, mut bob) = (mesh.connect(&ann.hello()).await, mesh.connect(&bob.hello()).await);
    let made = create(&mut ann, json!({"name": "Deploys", "description": " what\u{202E} went\nout "})).await;
    let id = made["topic"]["id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 32);
    let topic = json!({"id": id, "name": "deploys", "visibility": "public"});
    assert_eq!(made, json!({"type": "topic_created", "topic": topic, "created": true}));
    // What the second asks for does not change what the first made.
    let found = create(&mut bob, json!({"name": "deploys", "visibility": "private", "description": "mine"})).await;
    assert_eq!(found, json!({"type": "topic_created", "topic": topic, "created": false}));
    let both = pairs(&[("Ann", "lead"), ("Bob", "member")]);
    for named in ["deploys", "DEPLOYS", id.as_str()] {
        assert_eq!(members(&mut ann, named).await, both, "{named}");
    }
    let listed = list(&mut bob).await;
    let created_at = listed[0]["createdAt"].clone();
    assert!(created_at.as_str().unwrap().ends_with('Z'));
    let expected = json!({
        "id": id, "name": "deploys", "description": "what wentout", "visibility": "public", "memberCount": 2,
        "createdAt": created_at,
    });
    assert_eq!(listed[0], expected);
    assert_eq!(names(&mut bob).await, ["deploys", "general"]);
    // Who made it and left is a member like others when it comes back.
    say(&mut ann, json!({"type": "topic_leave", "topic": "deploys"})).await;
    assert_eq!(create(&mut ann, json!({"name": "deploys"})).await["created"], false);
    assert_eq!(members(&mut bob, "deploys").await, pairs(&[("Ann", "member"), ("Bob", "member")]));
    let counts = [("topic_created", 1), ("topic_member_joined", 2), ("topic_member_left", 1)];
    for (event, count) in counts {
        assert_eq!(logged(&mesh, &of_ann, event).await, count, "{event}");
    }
    let log = ann.ask(json!({"type": "audit_query", "eventType": "topic_created"})).await;
    let payload = json!({"topic": "deploys", "topicId": id, "visibility": "public"});
    assert_eq!(log["entries"][0]["payload"], payload);
}

/// websocket 6.2.2: made with the mesh and led by its creator; who joins is in it, by whichever way.
async fn everybody_is_in_general(setup: Setup) {
    let mut mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let mut wire = mesh.connect(&bob.hello()).await;
    let listed = list(&mut wire).await;
    assert_eq!(listed.len(), 1);
    let general = &listed[0];
    assert_eq!(
        (&general["name"], &general["visibility"], &general["memberCount"]),
        (&json!("general"), &json!("public"), &json!(2))
    );
    assert_eq!(general["description"], "Everybody in the mesh");
    assert_eq!(members(&mut wire, "general").await, pairs(&[("Ann", "lead"), ("Bob", "member")]));
    let keyless = mesh.database.number("select count(*) from topic where encrypted_key_pubkey is null").await;
    assert_eq!(keyless, 1, "it waits for a member to make its key");
    mesh.join(&of_ann, &ann, "Cid").await;
    // It is left like any other, and stays what it is when the broker starts again.
    say(&mut wire, json!({"type": "topic_leave", "topic": "general"})).await;
    wire.close(1000).await;
    mesh.restart().await;
    let mut wire = mesh.connect(&ann.hello()).await;
    assert_eq!(members(&mut wire, "general").await, pairs(&[("Ann", "lead"), ("Cid", "member")]));
}

/// websocket 6.2.1.
async fn a_public_topic_is_joined_read_and_left(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (mut lead, mut wire) = (mesh.connect(&ann.hello()).await, mesh.connect(&bob.hello()).await);
    create(&mut lead, json!({"name": "ops"})).await;
    assert_eq!(names(&mut wire).await, ["general", "ops"]);
    // R7: it is seen, and what is in it is for those in it.
    for kind in ["topic_members", "topic_history", "topic_mark_read"] {
        assert_eq!(ask(&mut wire, json!({"type": kind, "topic": "ops"})).await, forbidden(NOT_IN), "{kind}");
    }
    let as_lead = json!({"type": "topic_join", "topic": "ops", "role": "lead"});
    assert_eq!(ask(&mut wire, as_lead.clone()).await, forbidden("nobody makes oneself the lead of a topic"));
    say(&mut wire, json!({"type": "topic_join", "topic": "ops", "role": "observer"})).await;
    for again in [as_lead, json!({"type": "topic_join", "topic": "ops"})] {
        say(&mut wire, again).await;
        assert_eq!(members(&mut wire, "ops").await, pairs(&[("Ann", "lead"), ("Bob", "observer")]));
    }
    mesh.clock.pass(Duration::from_secs(1));
    say(&mut wire, json!({"type": "topic_mark_read", "topic": "ops"})).await;
    let answer = ask(&mut wire, json!({"type": "topic_members", "topic": "ops"})).await;
    let [of_ann, of_bob] = [0, 1].map(|index| answer["members"][index].clone());
    assert_eq!((&of_ann["lastReadAt"], &of_ann["pubkey"]), (&Value::Null, &json!(ann.key())));
    assert_eq!((&of_bob["memberId"], &of_bob["pubkey"]), (&json!(bob.id), &json!(bob.key())));
    assert!(of_bob["lastReadAt"].as_str().unwrap() > of_bob["joinedAt"].as_str().unwrap());
    for _ in 0..2 {
        say(&mut wire, json!({"type": "topic_leave", "topic": "ops"})).await;
    }
    assert_eq!(ask(&mut wire, json!({"type": "topic_members", "topic": "ops"})).await, forbidden(NOT_IN));
    assert_eq!(members(&mut lead, "ops").await, pairs(&[("Ann", "lead")]));
}

async fn make_admin(mesh: &TestMesh, member: &Member) {
    mesh.database.sql(&format!("update member set role = 'admin' where id = '{}'", member.id)).await;
}

fn add(topic: &str, whom: &Member, role: Option<&str>) -> Value {
    merged(json!({"type": "topic_add_member", "topic": topic, "memberId": whom.id}), json!({"role": role}))
}

/// R7: to others it does not exist; admins see that it is there, and get in by an entry in the log.
async fn a_private_topic_is_entered_by_being_added(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let (cid, dan) = (mesh.join(&of_ann, &ann, "Cid").await, mesh.join(&of_ann, &ann, "Dan").await);
    make_admin(&mesh, &dan).await;
    let mut lead = mesh.connect(&bob.hello()).await;
    let mut other = mesh.connect(&cid.hello()).await;
    let mut admin = mesh.connect(&dan.hello()).await;
    for visibility in ["private", "dm"] {
        let made = create(&mut lead, json!({"name": visibility, "visibility": visibility})).await;
        assert_eq!(made["topic"]["visibility"], visibility);
        let id = made["topic"]["id"].as_str().unwrap().to_owned();
        let name = visibility;
        assert!(!names(&mut other).await.contains(&name.to_owned()));
        for topic in [name, id.as_str()] {
            for request in of_topic(topic).into_iter().chain([add(topic, &cid, None)]) {
                assert_eq!(ask(&mut other, request.clone()).await, not_found(topic), "{request}");
            }
        }
        let taken = forbidden("there is a topic of this name that is joined by being added");
        assert_eq!(create(&mut other, json!({"name": name})).await, taken);
        assert!(names(&mut admin).await.contains(&name.to_owned()));
        for kind in ["topic_members", "topic_history", "topic_mark_read"] {
            assert_eq!(ask(&mut admin, json!({"type": kind, "topic": name})).await, forbidden(NOT_IN), "{kind}");
        }
        let join = json!({"type": "topic_join", "topic": name});
        assert_eq!(ask(&mut admin, join).await, forbidden("this topic is joined by being added"));
        assert_eq!(members(&mut lead, name).await, pairs(&[("Bob", "lead")]), "nobody else got in");
        // The lead adds; who is in it cannot.
        let added = ask(&mut lead, add(name, &cid, Some("observer"))).await;
        let expected = json!({"type": "topic_member_added", "topic": name, "memberId": cid.id, "role": "observer"});
        assert_eq!(added, expected);
        assert!(names(&mut other).await.contains(&name.to_owned()));
        let words = "only a lead of the topic or an admin can add somebody";
        for whom in [&dan, &cid] {
            assert_eq!(ask(&mut other, add(name, whom, Some("lead"))).await, forbidden(words));
        }
        // An admin adds as well, itself too, and makes leads.
        assert_eq!(ask(&mut admin, add(name, &cid, None)).await["role"], "observer");
        assert_eq!(ask(&mut admin, add(name, &cid, Some("lead"))).await["role"], "lead");
        assert_eq!(ask(&mut admin, add(name, &dan, None)).await["role"], "member");
        let all = pairs(&[("Bob", "lead"), ("Cid", "lead"), ("Dan", "member")]);
        assert_eq!(members(&mut other, name).await, all);
        assert_eq!(create(&mut other, json!({"name": name})).await["created"], false);
        // Out is out.
        say(&mut other, json!({"type": "topic_leave", "topic": name})).await;
        assert_eq!(ask(&mut other, json!({"type": "topic_join", "topic": name})).await, not_found(name));
    }
    assert_eq!(logged(&mesh, &of_ann, "topic_member_added").await, 6);
    let log =
        mesh.connect(&ann.hello()).await.ask(json!({"type": "audit_query", "eventType": "topic_member_added"})).await;
    let (last, topic_id) = (&log["entries"][0], log["entries"][0]["payload"]["topicId"].clone());
    let payload = json!({"topic": "dm", "topicId": topic_id, "memberId": dan.id, "role": "member"});
    assert_eq!((&last["actor"], &last["payload"]), (&json!("Dan"), &payload));
}

/// R6: ids and names of topics, and ids of members.
async fn a_topic_of_another_mesh_answers_like_none(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, _) = mesh.pair().await;
    let (_, eve) = mesh.mesh("two").await;
    let (mut wire, mut other) = (mesh.connect(&ann.hello()).await, mesh.connect(&eve.hello()).await);
    let made = create(&mut wire, json!({"name": "ours"})).await;
    let id = made["topic"]["id"].as_str().unwrap().to_owned();
    for topic in ["ours", id.as_str(), &"0".repeat(32), "", "#ours", "general ", &"x".repeat(100)] {
        let shown: String = topic.trim().chars().take(64).collect();
        for request in of_topic(topic).into_iter().chain([add(topic, &eve, None)]) {
            assert_eq!(ask(&mut other, request.clone()).await, not_found(&shown), "{request}");
        }
    }
    assert_eq!(names(&mut other).await, ["general"]);
    assert_eq!(list(&mut other).await[0]["memberCount"], 1);
    let no_member = json!({"type": "error", "code": "not_found", "message": "member not found"});
    for whom in [eve.id.as_str(), &"0".repeat(32), "", "a b"] {
        let request = json!({"type": "topic_add_member", "topic": "ours", "memberId": whom});
        assert_eq!(ask(&mut wire, request).await, no_member, "{whom}");
    }
    // The same name there is a topic of its own.
    assert_eq!(create(&mut other, json!({"name": "ours"})).await["created"], true);
    assert_eq!(members(&mut wire, "ours").await, pairs(&[("Ann", "lead")]));
}

async fn the_name_of_an_archived_topic_stays_taken(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, _) = mesh.pair().await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let made = create(&mut wire, json!({"name": "old"})).await;
    mesh.database.sql("update topic set archived_at = 1 where name = 'old'").await;
    let taken = json!({
        "type": "error", "code": "invalid_argument", "message": "name is that of an archived topic",
    });
    assert_eq!(create(&mut wire, json!({"name": "OLD"})).await, taken);
    let id = made["topic"]["id"].as_str().unwrap();
    for topic in ["old", id] {
        for request in of_topic(topic) {
            assert_eq!(ask(&mut wire, request).await, not_found(topic));
        }
    }
    assert_eq!(names(&mut wire).await, ["general"]);
}

/// Messages as they are kept, numbered from the next one on; all of one millisecond. Their ids, oldest first.
async fn fill(mesh: &TestMesh, (of, topic, by): (&Mesh, &str, &Member), bodies: &[String]) -> Vec<String> {
    let count = mesh.database.number("select count(*) from topic_message").await;
    let head = format!("select head_seq from topic where mesh_id = '{}' and id = '{topic}'", of.id);
    let first = mesh.database.number(&head).await + 1;
    let (mut ids, mut rows) = (Vec::new(), Vec::new());
    for (index, body) in (0_i64..).zip(bodies) {
        let (seq, message_seq) = (first + index, count + 1 + index);
        let id = MessageId::new(message_seq.try_into().unwrap(), [7; 24]);
        rows.push(format!(
            "('{}', '{topic}', {seq}, {message_seq}, '{id}', '{}', '{}', 'Ann', 'next', 'AAAA', '{body}', 2, 5)",
            of.id,
            by.id,
            by.key()
        ));
        ids.push(id.to_string());
    }
    let columns = "mesh_id, topic_id, seq, message_seq, id, sender_member_id, sender_pubkey, sender_name, priority, nonce, \
                   ciphertext, body_version, created_at";
    mesh.database.sql(&format!("insert into topic_message ({columns}) values {}", rows.join(", "))).await;
    let last = first - 1 + i64::try_from(bodies.len()).unwrap();
    mesh.database.sql(&format!("update topic set head_seq = {last} where id = '{topic}'")).await;
    ids
}

async fn history(wire: &mut Wire, fields: Value) -> Vec<String> {
    let answer = ask(wire, merged(json!({"type": "topic_history", "topic": "log"}), fields)).await;
    assert_eq!((&answer["type"], &answer["topic"]), (&json!("topic_history_response"), &json!("log")), "{answer}");
    let messages = answer["messages"].as_array().unwrap();
    messages.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect()
}

/// websocket 6.2.1, and its cursor exactly: of messages of one millisecond none is shown twice or left out.
async fn history_is_paged_exactly_newest_first(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let topic = create(&mut wire, json!({"name": "log"})).await["topic"]["id"].as_str().unwrap().to_owned();
    let other = create(&mut wire, json!({"name": "other"})).await["topic"]["id"].as_str().unwrap().to_owned();
    assert!(history(&mut wire, json!({})).await.is_empty());
    let mut ids = fill(&mesh, (&of_ann, &topic, &ann), &vec!["eA==".to_owned(); 450]).await;
    let strange = fill(&mesh, (&of_ann, &other, &ann), &vec!["eA==".to_owned(); 3]).await;
    ids.reverse();
    let mut page = history(&mut wire, json!({})).await;
    assert_eq!(page, ids[..50]);
    let mut read = page.clone();
    while let Some(last) = page.last() {
        page = history(&mut wire, json!({"beforeId": last, "limit": 7})).await;
        read.extend(page.clone());
    }
    assert_eq!(read, ids);
    for (limit, count) in [(0, 1), (-5, 1), (1, 1), (200, 200), (201, 200), (i64::MAX, 200)] {
        assert_eq!(history(&mut wire, json!({"limit": limit})).await, ids[..count]);
    }
    // What is no message of this topic has nothing before it; nor has half an id.
    let unknown = ids[0].replace('7', "8");
    for before in [&strange[0], &unknown, &ids[0][..8].to_owned(), &String::new(), &"'; --".to_owned()] {
        assert!(history(&mut wire, json!({"beforeId": before})).await.is_empty(), "{before}");
    }
    // A page is cut where it gets heavy, and goes on from there.
    let heavy: Vec<String> = vec!["A".repeat(400_000); 5];
    let mut heavy = fill(&mesh, (&of_ann, &topic, &ann), &heavy).await;
    heavy.reverse();
    let page = history(&mut wire, json!({"limit": 200})).await;
    assert_eq!(page, heavy[..2]);
    let page = history(&mut wire, json!({"limit": 2, "beforeId": page[1]})).await;
    assert_eq!(page, heavy[2..4]);
    let answer =
        ask(&mut wire, json!({"type": "topic_history", "topic": "log", "limit": 1, "beforeId": heavy[4]})).await;
    let expected = json!({
        "id": ids[0], "senderPubkey": ann.key(), "senderMemberId": ann.id, "senderName": "Ann", "nonce": "AAAA",
        "ciphertext": "eA==", "bodyVersion": 2, "createdAt": "1970-01-01T00:00:00.005Z", "seq": 450,
    });
    assert_eq!(answer["messages"], json!([expected]));
    // Who comes later reads what was before.
    let mut late = mesh.connect(&bob.hello()).await;
    say(&mut late, json!({"type": "topic_join", "topic": "log"})).await;
    assert_eq!(history(&mut late, json!({"beforeId": ids[440]})).await, ids[441..]);
    let cursors = format!(
        "select joined_seq + delivered_seq * 10000 from topic_member where topic_id = '{topic}' and member_id = '{}'",
        bob.id
    );
    assert_eq!(mesh.database.number(&cursors).await, 456 + 455 * 10000, "what was before is history, and not mail");
}

/// R10.
async fn a_removed_member_is_in_no_topic(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let topic = create(&mut wire, json!({"name": "log"})).await["topic"]["id"].as_str().unwrap().to_owned();
    ask(&mut wire, add("log", &bob, None)).await;
    assert_eq!(wire.ask(json!({"type": "ban", "target": bob.key()})).await["type"], "ban_ack");
    for topic in ["log", "general"] {
        assert_eq!(members(&mut wire, topic).await, pairs(&[("Ann", "lead")]));
    }
    assert!(list(&mut wire).await.iter().all(|topic| topic["memberCount"] == 1));
    let no_member = json!({"type": "error", "code": "not_found", "message": "member not found"});
    assert_eq!(ask(&mut wire, add("log", &bob, Some("lead"))).await, no_member);
    // Taken back, it is where it was; what was written meanwhile is history to it.
    fill(&mesh, (&of_ann, &topic, &ann), &vec!["eA==".to_owned(); 3]).await;
    assert_eq!(wire.ask(json!({"type": "unban", "target": bob.key()})).await["type"], "unban_ack");
    assert_eq!(members(&mut wire, "log").await, pairs(&[("Ann", "lead"), ("Bob", "member")]));
    let behind = "select count(*) from topic_member s join topic t on t.mesh_id = s.mesh_id and t.id = s.topic_id \
                  where s.delivered_seq < t.head_seq and s.member_id = ";
    assert_eq!(mesh.database.number(&format!("{behind} '{}'", bob.id)).await, 0);
    assert_eq!(history(&mut mesh.connect(&bob.hello()).await, json!({})).await.len(), 3);
}

/// R1, and websocket 2 ▶: each refusal names its field and carries the request's id; nothing is stored.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_topic_is_refused_and_nothing_is_stored() {
    let mesh = TestMesh::start().await;
    let (_, ann, _) = mesh.pair().await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let invalid = |message: &str| json!({"type": "error", "code": "invalid_argument", "message": message});
    let grammar = invalid("name must be 1-64 of a-z, 0-9, _ and -, beginning with a letter or digit");
    for name in
        ["", "#a", "-a", "_a", "a b", "a.b", "a/b", "ä", "a\u{200B}", &"a".repeat(65), "'; drop table topic; --"]
    {
        assert_eq!(create(&mut wire, json!({"name": name})).await, grammar, "{name}");
    }
    let cases = [
        (json!({"name": "a", "visibility": "secret"}), "visibility must be public, private or dm"),
        (json!({"name": "a", "visibility": "Public"}), "visibility must be public, private or dm"),
        (json!({"name": "a", "description": "x".repeat(1025)}), "description must be 1024 characters at most"),
        (json!({"name": 5}), "name invalid type: integer `5`, expected a string"),
    ];
    for (fields, message) in cases {
        assert_eq!(create(&mut wire, fields).await, invalid(message));
    }
    for kind in ["topic_join", "topic_add_member"] {
        let request = json!({"type": kind, "topic": "general", "memberId": ann.id, "role": "king"});
        assert_eq!(ask(&mut wire, request).await, invalid("role must be lead, member or observer"));
    }
    let request = json!({"type": "topic_history", "topic": "general", "limit": "all"});
    assert_eq!(ask(&mut wire, request).await, invalid("limit invalid type: string \"all\", expected i64"));
    let request = json!({"type": "topic_members", "topic": ["general"]});
    assert_eq!(ask(&mut wire, request).await, invalid("topic invalid type: sequence, expected a string"));
    assert_eq!(names(&mut wire).await, ["general"]);
    assert_eq!(members(&mut wire, "general").await, pairs(&[("Ann", "lead"), ("Bob", "member")]));
    assert_eq!(create(&mut wire, json!({"name": "a", "description": "x".repeat(1024)})).await["created"], true);
}

/// Only what was made counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_makes_thirty_topics_an_hour() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (mut wire, mut sibling) = (mesh.connect(&ann.hello()).await, mesh.connect(&ann.session().hello()).await);
    for number in 0..30 {
        for created in [true, false] {
            assert_eq!(create(&mut wire, json!({"name": format!("t{number}")})).await["created"], created);
        }
        assert_eq!(create(&mut wire, json!({"name": "#"})).await["code"], "invalid_argument");
    }
    let too_many = json!({
        "type": "error", "code": "rate_limit", "message": "max 30 new topics/hour, slow down",
    });
    for wire in [&mut wire, &mut sibling] {
        assert_eq!(create(wire, json!({"name": "one-more"})).await, too_many);
    }
    let mut other = mesh.connect(&bob.hello()).await;
    assert_eq!(create(&mut other, json!({"name": "t0"})).await["created"], false);
    assert_eq!(create(&mut other, json!({"name": "hidden", "visibility": "private"})).await["created"], true);
    assert_eq!(create(&mut wire, json!({"name": "hidden"})).await, too_many, "nor is it told what names are taken");
    mesh.clock.pass(Duration::from_mins(2));
    assert_eq!(create(&mut wire, json!({"name": "later"})).await["created"], true);
    assert_eq!(create(&mut wire, json!({"name": "too-soon"})).await["code"], "rate_limit");
    mesh.clock.pass(Duration::from_mins(2));
    assert_eq!(create(&mut wire, json!({"name": "hidden"})).await["code"], "forbidden");
    assert_eq!(create(&mut wire, json!({"name": "too-soon"})).await["code"], "rate_limit", "what it was told counts");
}
