//! The REST interface: who may what with which key (R5, R6, R9), what every route has in common, and who is here.

use std::collections::BTreeMap;
use std::time::Duration;

use claudemesh_testkit::{Answer, Member, Request, Setup, TestMesh, Wire, eventually, merged};
use serde_json::{Value, json};

use crate::api_key;

on_both!(
    members_are_listed_as_they_are,
    peers_are_those_with_a_connection_and_those_whose_keys_are_used,
    a_key_ends_with_its_member_its_mesh_and_its_time,
    that_a_key_is_used_is_noted_once_a_minute,
);

/// Asks with a key.
pub(crate) async fn ask(mesh: &TestMesh, method: &str, path: &str, (key, body): (&str, Option<&Value>)) -> Answer {
    mesh.http(&Request::of(method, path, body).header("Authorization", &format!("Bearer {key}"))).await
}

pub(crate) async fn get(mesh: &TestMesh, path: &str, key: &str) -> Answer {
    ask(mesh, "GET", path, (key, None)).await
}

/// A key of a member's own, made by a connection that sees no mail.
pub(crate) async fn key_of(mesh: &TestMesh, member: &Member, fields: Value) -> String {
    let mut wire = command(mesh, member).await;
    let (_, secret) = api_key::key(&mut wire, fields).await;
    wire.close(1000).await;
    secret
}

pub(crate) async fn command(mesh: &TestMesh, member: &Member) -> Wire {
    mesh.connect(&merged(member.hello(), json!({"capabilities": ["quiet"]}))).await
}

/// An admin makes somebody an admin, or a member again.
pub(crate) async fn promote(admin: &mut Wire, whom: &Member, role: &str) {
    let updated = admin.ask(json!({"type": "member_update", "memberId": whom.id, "role": role})).await;
    assert_eq!(updated["type"], "member_updated", "{updated}");
}

/// A refusal in the shape of those that every route has in common.
pub(crate) fn is_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let problem = answer.json();
    assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)));
    assert!(problem["message"].as_str().is_some_and(|words| !words.is_empty() && words != code), "{problem}");
    let timestamp = problem["timestamp"].as_str().unwrap();
    assert_eq!((timestamp.len(), timestamp.ends_with('Z')), (24, true), "{timestamp}");
    assert_eq!(problem.as_object().unwrap().len(), 5, "{problem}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

/// http 2.3.
async fn members_are_listed_as_they_are(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&of_ann, &ann, "Cid").await;
    let key = key_of(&mesh, &ann, json!({})).await;
    let mut wire = mesh.connect(&bob.session().hello()).await;
    wire.say(&json!({"type": "set_summary", "summary": "first"})).await;
    wire.fence().await;
    mesh.clock.pass(Duration::from_secs(1));
    let mut newest = mesh.connect(&bob.session().hello()).await;
    newest.say(&json!({"type": "set_status", "status": "working"})).await;
    newest.say(&json!({"type": "set_summary", "summary": "second"})).await;
    newest.fence().await;
    let mut hidden = mesh.connect(&cid.hello()).await;
    hidden.ask(json!({"type": "set_visible", "visible": false})).await;
    let member = |of: &Member, name: &str, role: &str| {
        json!({
            "memberId": of.id, "pubkey": of.key(), "displayName": name, "role": role, "isHuman": false,
            "online": false, "status": "offline", "summary": null,
        })
    };
    let bob_now = merged(member(&bob, "Bob", "member"), json!({"online": true, "status": "working"}));
    let mut expected = vec![
        member(&ann, "Ann", "admin"),
        merged(bob_now, json!({"summary": "second"})),
        member(&cid, "Cid", "member"),
    ];
    for path in ["/v1/members", "/api/v1/members"] {
        let answer = get(&mesh, path, &key).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let shown = without(&answer.json()["members"], "joinedAt");
        for (shown, expected) in shown.iter().zip(&mut expected) {
            // A null takes a field away where two are merged.
            expected["summary"] = expected.get("summary").cloned().unwrap_or_default();
            assert_eq!(shown, expected);
        }
        assert_eq!(shown.len(), 3);
    }
    // To itself nobody hides.
    let of_cid = key_of(&mesh, &cid, json!({})).await;
    let shown = get(&mesh, "/v1/members", &of_cid).await.json();
    assert_eq!((&shown["members"][2]["online"], &shown["members"][2]["status"]), (&json!(true), &json!("idle")));
    mesh.database.sql(&format!("update member set revoked_at = 1 where id = '{}'", bob.id)).await;
    assert_eq!(get(&mesh, "/v1/members", &key).await.json()["members"].as_array().unwrap().len(), 2);
    drop((wire, newest, hidden));
}

fn without(list: &Value, field: &str) -> Vec<Value> {
    let entries = list.as_array().unwrap().iter().cloned();
    let time = |entry: &Value| entry[field].as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z'));
    entries
        .map(|mut entry| {
            assert!(time(&entry), "{entry}");
            entry.as_object_mut().unwrap().remove(field);
            entry
        })
        .collect()
}

/// http 2.3.
async fn peers_are_those_with_a_connection_and_those_whose_keys_are_used(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let (cid, dan) = (mesh.join(&of_ann, &ann, "Cid").await, mesh.join(&of_ann, &ann, "Dan").await);
    let mut wire = mesh.connect(&merged(bob.hello(), json!({"groups": [{"name": "dev"}]}))).await;
    wire.say(&json!({"type": "set_summary", "summary": "reviews"})).await;
    wire.fence().await;
    let key = key_of(&mesh, &ann, json!({})).await;
    let of_dan = key_of(&mesh, &dan, json!({})).await;
    let mut hidden = mesh.connect(&dan.hello()).await;
    hidden.ask(json!({"type": "set_visible", "visible": false})).await;
    let cid_hides_later = key_of(&mesh, &cid, json!({})).await;
    let here = |of: &Member, name: &str, via: &str| {
        json!({
            "pubkey": of.key(), "displayName": name, "status": "idle", "summary": null, "groups": [], "via": via,
        })
    };
    let mut bob_here = here(&bob, "Bob", "ws");
    bob_here["summary"] = json!("reviews");
    bob_here["groups"] = json!([{"name": "dev"}]);
    let peers = async |key: &str| get(&mesh, "/v1/peers", key).await.json()["peers"].clone();
    let expected = json!([here(&ann, "Ann", "rest"), bob_here]);
    eventually("the use of the key is seen", async || peers(&key).await == expected).await;
    // Whoever hides is seen by itself alone, by connection and by key.
    eventually("Dan sees itself", async || {
        peers(&of_dan).await == json!([here(&ann, "Ann", "rest"), bob_here, here(&dan, "Dan", "ws")])
    })
    .await;
    assert_eq!(peers(&key).await, expected);
    hidden.close(1000).await;
    let mut seen = mesh.connect(&cid.hello()).await;
    eventually("Cid is seen once, with its connection", async || {
        peers(&cid_hides_later).await == json!([here(&ann, "Ann", "rest"), bob_here, here(&cid, "Cid", "ws")])
    })
    .await;
    seen.ask(json!({"type": "set_visible", "visible": false})).await;
    seen.close(1000).await;
    assert_eq!(peers(&key).await, expected, "the use of its key does not give away who hides");
    mesh.clock.pass(Duration::from_secs(301));
    let mut wire = mesh.connect(&merged(bob.hello(), json!({"groups": [{"name": "dev"}]}))).await;
    wire.fence().await;
    eventually("a key counts for five minutes", async || peers(&of_dan).await[0]["displayName"] == "Bob").await;
}

/// R9.
async fn a_key_ends_with_its_member_its_mesh_and_its_time(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let until = mesh.clock.now().plus(Duration::from_mins(5)).to_string();
    let short = key_of(&mesh, &bob, json!({"expiresAt": until})).await;
    let long = key_of(&mesh, &bob, json!({})).await;
    let works = async |key: &str| match get(&mesh, "/v1/members", key).await {
        answer if answer.status == 200 => true,
        answer => {
            is_problem(&answer, 401, "error.api_key_invalid");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            false
        }
    };
    assert!(works(&short).await && works(&long).await);
    mesh.clock.pass(Duration::from_mins(5));
    assert!(!works(&short).await && works(&long).await, "expired");
    let mut admin = command(&mesh, &ann).await;
    admin.ask(json!({"type": "ban", "target": bob.key()})).await;
    assert!(!works(&long).await, "its member was removed");
    admin.ask(json!({"type": "unban", "target": bob.key()})).await;
    assert!(works(&long).await);
    mesh.database.sql("update mesh set archived_at = 1").await;
    assert!(!works(&long).await, "the mesh is none any more");
    mesh.database.sql("update mesh set archived_at = null").await;
    let (mut wire, revoked) = (command(&mesh, &bob).await, "select count(*) from api_key where revoked_at is not null");
    let keys = wire.ask(json!({"type": "apikey_list"})).await;
    for key in keys["keys"].as_array().unwrap() {
        api_key::revoke(&mut wire, key["id"].as_str().unwrap()).await;
    }
    assert_eq!((works(&long).await, mesh.database.number(revoked).await), (false, 2));
    // An admin's key that lets do everything lets do nothing once its member is none.
    let all = key_of(&mesh, &ann, json!({"capabilities": ["admin"]})).await;
    assert!(works(&all).await);
    mesh.database.sql("update member set role = 'member'").await;
    is_problem(&get(&mesh, "/v1/members", &all).await, 403, "error.api_key_missing_capability");
    mesh.database.sql("update member set role = 'admin'").await;
    assert!(works(&all).await);
}

async fn that_a_key_is_used_is_noted_once_a_minute(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann) = mesh.mesh("used").await;
    let key = key_of(&mesh, &ann, json!({})).await;
    let noted = "select coalesce(max(last_used_at), 0) from api_key";
    assert_eq!(mesh.database.number(noted).await, 0);
    let other = if key.ends_with('A') { "E" } else { "A" };
    is_problem(&get(&mesh, "/v1/members", &format!("{}{other}", &key[..45])).await, 401, "error.api_key_invalid");
    let first = mesh.clock.now().as_millis();
    get(&mesh, "/v1/members", &key).await;
    eventually("the first use is noted", async || mesh.database.number(noted).await >= first).await;
    let before = mesh.database.number(noted).await;
    mesh.clock.pass(Duration::from_secs(59));
    for _ in 0..10 {
        get(&mesh, "/v1/members", &key).await;
    }
    assert_eq!(mesh.database.number(noted).await, before);
    mesh.clock.pass(Duration::from_secs(2));
    get(&mesh, "/v1/members", &key).await;
    eventually("the next minute's is noted", async || mesh.database.number(noted).await > before).await;
}

/// R5, http 2.1.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_read_from_one_header_in_one_spelling() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("spelling").await;
    let key = key_of(&mesh, &ann, json!({})).await;
    let with = async |path: &str, headers: &[(&str, &str)]| {
        let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(name, value));
        mesh.http(&request).await
    };
    let bearer = format!("Bearer {key}");
    assert_eq!(with("/v1/members", &[("Authorization", &bearer)]).await.status, 200);
    for authorization in [format!("bearer {key}"), format!("Basic {key}"), key.clone(), String::new()] {
        let answer = with("/v1/members", &[("Authorization", &authorization)]).await;
        is_problem(&answer, 401, "error.api_key_missing");
        assert_eq!(answer.json()["path"], "/v1/members");
    }
    for shape in ["", "cm_", "x", &key[1..], &format!("{key} "), &format!("{key}x"), &key.to_uppercase(), &key[..45]] {
        let answer = with("/api/v1/members", &[("Authorization", &format!("Bearer {shape}x"))]).await;
        is_problem(&answer, 401, "error.api_key_invalid");
        assert_eq!(answer.json()["path"], "/api/v1/members");
    }
    for query in ["key", "token", "api_key", "authorization", "access_token"] {
        let answer = with(&format!("/v1/members?{query}={key}"), &[]).await;
        is_problem(&answer, 401, "error.api_key_missing");
        assert!(!answer.body.contains(&key), "the query is not said again");
    }
    assert_eq!(with("/v1/members?limit=5", &[("Authorization", &bearer)]).await.status, 200);
    is_problem(&with("/v1/members", &[("Cookie", &bearer), ("X-Api-Key", &key)]).await, 401, "error.api_key_missing");
    // A page of another site.
    let foreign = [("Authorization", bearer.as_str()), ("Origin", "https://elsewhere.example")];
    is_problem(&with("/v1/members", &foreign).await, 403, "error.origin_not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_asks_only_so_much_in_a_minute_whatever_its_keys() {
    let limits = |config: &mut claudemesh_broker::Config| {
        (config.request_rate_per_min, config.request_burst) = (60, 10);
    };
    let mesh = Setup::sqlite().with(limits).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let keys = [key_of(&mesh, &ann, json!({})).await, key_of(&mesh, &ann, json!({})).await];
    let of_bob = key_of(&mesh, &bob, json!({})).await;
    mesh.clock.pass(Duration::from_mins(1));
    for number in 0..10 {
        assert_eq!(get(&mesh, "/v1/peers", &keys[number % 2]).await.status, 200);
    }
    for key in &keys {
        is_problem(&get(&mesh, "/v1/peers", key).await, 429, "error.rate_limited");
    }
    assert_eq!(get(&mesh, "/v1/peers", &of_bob).await.status, 200);
    mesh.clock.pass(Duration::from_secs(1));
    assert_eq!(get(&mesh, "/v1/peers", &keys[0]).await.status, 200);
}

/// Every operation that is described, with the statuses that it may answer.
pub(crate) async fn described(mesh: &TestMesh) -> BTreeMap<(String, String), Vec<String>> {
    let description = mesh.http(&Request::get("/openapi.json")).await.json();
    let mut operations = BTreeMap::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let statuses = operation["responses"].as_object().unwrap().keys().cloned().collect();
            operations.insert((method.clone(), path.clone()), statuses);
        }
    }
    operations
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interface_describes_itself() {
    let mesh = TestMesh::start().await;
    let json = mesh.http(&Request::get("/openapi.json")).await;
    assert_eq!(json.header("content-type"), Some("application/json"));
    let description = json.json();
    assert_eq!(description["openapi"], "3.1.0");
    assert_eq!(description["servers"], json!([{"url": "/v1"}, {"url": "/api/v1"}]));
    insta::assert_snapshot!("openapi", serde_json::to_string_pretty(&description).unwrap());
    for (path, item) in description["paths"].as_object().unwrap() {
        let parameters = item.as_object().unwrap().values().filter_map(|operation| operation["parameters"].as_array());
        for parameter in parameters.flatten() {
            let (name, place) = (parameter["name"].as_str().unwrap(), &parameter["in"]);
            assert_eq!(place == "path", path.contains(&format!("{{{name}}}")), "{name} of {path}");
        }
    }
    let page = mesh.http(&Request::get("/docs")).await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    for (_, path) in described(&mesh).await.into_keys() {
        assert!(page.body.contains(&format!(" {path}</code>")), "{path} is not on the page");
    }
    let words = page.body.split("<h2>Shapes").next().unwrap();
    assert!(words.contains("<code>Authorization: Bearer</code>") && !words.contains('`'));
    assert!(!page.body.contains("<script") && !page.body.contains("http://") && !page.body.contains("https://"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert_eq!(
        mesh.http(&Request::get("/docs/style.css")).await.header("content-type"),
        Some("text/css; charset=utf-8")
    );
    for path in ["/v1", "/v1/nothing", "/api/v1/nothing", "/api/openapi.json"] {
        assert_eq!(mesh.http(&Request::get(path)).await.status, 404, "{path}");
    }
}
