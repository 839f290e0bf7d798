//! D11: an answer is no longer than a slow reader may keep the broker from forgetting. What is left out of it is no name.

use claudemesh_testkit::{Member, TestMesh, Wire, merged};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// A session that says of itself all that it may: some 25 KB.
async fn talker(mesh: &TestMesh, member: &Member) -> Wire {
    let much = |chars: usize| "🦀".repeat(chars);
    let groups: Vec<Value> =
        (0..32).map(|number| json!({"name": format!("g{number}{}", "x".repeat(60)), "role": much(64)})).collect();
    let says = json!({"displayName": much(16), "cwd": much(1000), "groups": groups});
    let mut wire = mesh.connect(&merged(member.session().hello(), says)).await;
    wire.say(&json!({"type": "set_summary", "summary": much(512)})).await;
    let skills = vec![much(64); 32];
    let profile = json!({"type": "set_profile", "avatar": much(512), "bio": much(1024), "capabilities": skills});
    assert_eq!(wire.ask(profile).await["type"], "ack");
    wire
}

/// The answer and the length of its text.
async fn weighed(wire: &mut Wire, request: Value) -> (Value, usize) {
    // What happened before is told before.
    wire.fence().await;
    wire.listen();
    wire.heard();
    let answer = wire.ask(request).await;
    (answer, wire.heard().len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_peers_names_everybody_and_is_short() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let mut talkers = Vec::new();
    for _ in 0..90 {
        talkers.push(talker(&mesh, &bob).await);
    }
    let (answer, length) = weighed(&mut wire, json!({"type": "list_peers"})).await;
    assert!((MIB..2 * MIB).contains(&length), "{length} bytes");
    let peers = answer["peers"].as_array().unwrap();
    assert_eq!(peers.len(), 91);
    let is_whole = |peer: &&Value| peer["profile"]["bio"].is_string() && peer["groups"][0]["role"].is_string();
    let whole = peers.iter().take_while(is_whole).count();
    assert!((30..60).contains(&whole), "{whole} have all that they say");
    for (index, (peer, talker)) in peers.iter().zip(&talkers).enumerate() {
        assert_eq!(peer["displayName"], "🦀".repeat(16).as_str());
        assert!(peer["summary"].is_string() == (index < whole), "in the order of the list");
        assert!(peer["connectedAt"].is_string() && peer["pubkey"].is_string(), "{}", talker.greeting);
        assert_eq!(peer["groups"].as_array().unwrap().len(), 32, "of groups the names stay");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_the_audit_log_is_short_and_pages_hold_all_of_it() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("talk").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let keys: Vec<String> = (0..1000).map(|number| format!("{number:064x}")).collect();
    for round in 0..40 {
        let change = if round % 2 == 0 { json!([]) } else { Value::Null };
        let grants: Value =
            keys.iter().map(|key| (key.clone(), change.clone())).collect::<serde_json::Map<_, _>>().into();
        assert_eq!(wire.ask(json!({"type": "grant_set", "grants": grants})).await["type"], "grant_set_response");
    }
    let mut seen = Vec::new();
    loop {
        let page = json!({"type": "audit_query", "limit": 500, "offset": seen.len()});
        let (page, length) = weighed(&mut wire, page).await;
        assert!(length < MIB + MIB / 4, "{length} bytes");
        let total = page["total"].as_u64().unwrap();
        let entries = page["entries"].as_array().unwrap();
        assert!(!entries.is_empty());
        seen.extend(entries.iter().map(|entry| entry["id"].as_u64().unwrap()));
        if seen.len() as u64 == total {
            assert_eq!(seen, (1..=total).rev().collect::<Vec<_>>());
            break;
        }
    }
    assert!(seen.len() > 40);
}

/// A list that cannot be shortened enough is refused, and the connection goes on: it hears of what else there is.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_long_makes_nobody_deaf() {
    let mesh = TestMesh::start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let more = format!(
        "insert into member (mesh_id, id, peer_pubkey, display_name, role, joined_at) \
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 80000) \
         select '{}', printf('%032d', i), printf('%064d', i), 'somebody', 'member', 0 from n",
        mesh_of_ann.id
    );
    mesh.database.sql(&more).await;
    let answer = wire.ask(json!({"type": "member_list"})).await;
    assert_eq!(answer["code"], "not_supported", "{}", answer["message"]);
    let mut sender = mesh.connect(&bob.hello()).await;
    sender.deliver(&ann.key(), "still here?").await;
    assert_eq!(wire.receive().await, "still here?");
}
