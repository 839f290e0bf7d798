//! T20: every route of the REST interface with every kind of key.

use std::time::Duration;

use claudemesh_proto::text::base64;
use claudemesh_testkit::{Request, TestMesh, merged, stranger};
use serde_json::{Value, json};

use crate::rest::{command, is_problem, key_of, promote};
use crate::{api_key, rest};

/// What a key must let do on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// No key.
    Nothing,
    /// A key.
    Key,
    /// One of these capabilities.
    One(&'static [&'static str]),
}

/// One route, and what answers who may.
struct Row {
    route: (&'static str, &'static str),
    needs: Needs,
    /// Where it is asked.
    path: &'static str,
    body: Option<Value>,
    /// The status for who may.
    allowed: u16,
    /// The status for who may, in another mesh.
    elsewhere: u16,
    /// Whether it is about a topic.
    is_scoped: bool,
}

fn row(route: (&'static str, &'static str), needs: Needs) -> Row {
    Row { route, needs, path: route.1, body: None, allowed: 200, elsewhere: 200, is_scoped: false }
}

/// A route of a topic that the other mesh does not have.
fn of_topic(route: (&'static str, &'static str), path: &'static str, needs: Needs) -> Row {
    Row { path, elsewhere: 404, is_scoped: true, ..row(route, needs) }
}

/// T20: every route there is. The test below fails for one that is described and has no row.
fn matrix() -> Vec<Row> {
    const READ: Needs = Needs::One(&["read"]);
    const SEND: Needs = Needs::One(&["send"]);
    const EITHER: Needs = Needs::One(&["read", "send"]);
    let made = row(("post", "/meshes"), Needs::Nothing);
    let key = of_topic(("get", "/topics/{name}/key"), "/topics/plain/key", READ);
    let reject = of_topic(("post", "/topics/{name}/key/reject"), "/topics/plain/key/reject", READ);
    let claim = of_topic(("post", "/topics/{name}/claim-key"), "/topics/locked/claim-key", SEND);
    let seal = of_topic(("post", "/topics/{name}/seal"), "/topics/plain/seal", EITHER);
    let copy = json!({"memberId": "m", "encryptedKey": base64(&[1; 80]), "nonce": base64(&[2; 24])});
    let own = merged(copy.clone(), json!({"memberId": null, "encryptedKeyPubkey": "01".repeat(32)}));
    let change = row(("post", "/me/peer-pubkey"), Needs::Key);
    let post = json!({"topic": "plain", "ciphertext": base64(b"text"), "nonce": ""});
    vec![
        Row { body: Some(json!({})), allowed: 400, elsewhere: 400, ..made },
        row(("get", "/members"), READ),
        row(("get", "/peers"), READ),
        Row { is_scoped: true, elsewhere: 404, body: Some(post), ..row(("post", "/messages"), SEND) },
        row(("get", "/notifications"), READ),
        Row { body: Some(json!({"all": true})), ..row(("post", "/notifications/read"), READ) },
        row(("get", "/topics"), READ),
        row(("get", "/me/workspace"), READ),
        row(("get", "/me/topics"), READ),
        row(("get", "/me/notifications"), READ),
        row(("get", "/me/activity"), READ),
        Row { path: "/me/search?q=plain", ..row(("get", "/me/search"), READ) },
        row(("get", "/me/tasks"), READ),
        row(("get", "/me/state"), READ),
        row(("get", "/me/memory"), READ),
        // Of a topic that there is, the answer has no end.
        Row { allowed: 404, ..of_topic(("get", "/topics/{name}/stream"), "/topics/nothing/stream", READ) },
        of_topic(("patch", "/topics/{name}/read"), "/topics/plain/read", READ),
        of_topic(("get", "/topics/{name}/messages"), "/topics/plain/messages", READ),
        Row { allowed: 409, ..key },
        Row { allowed: 409, ..reject },
        Row { allowed: 409, body: Some(own), ..claim },
        of_topic(("get", "/topics/{name}/pending-seals"), "/topics/plain/pending-seals", READ),
        Row { allowed: 409, body: Some(copy), ..seal },
        Row { body: Some(json!({"pubkey": stranger()})), allowed: 409, elsewhere: 409, ..change },
    ]
}

/// Whose key it is, and what it must be answered.
struct Holder {
    who: &'static str,
    authorization: Option<String>,
    /// A valid key's capabilities; else the code of the refusal.
    is: Result<&'static [&'static str], &'static str>,
    is_scoped: bool,
    is_elsewhere: bool,
}

fn expected(row: &Row, holder: &Holder) -> (u16, Option<&'static str>) {
    if row.needs == Needs::Nothing {
        return (row.allowed, None);
    }
    let suffices = |has: &&str| *has == "admin" || matches!(row.needs, Needs::One(needed) if needed.contains(has));
    match holder.is {
        Err(code) => (401, Some(code)),
        Ok(has) if row.needs != Needs::Key && !has.iter().any(suffices) => {
            (403, Some("error.api_key_missing_capability"))
        }
        Ok(_) if row.is_scoped && holder.is_scoped => (403, Some("error.api_key_topic_out_of_scope")),
        Ok(_) if holder.is_elsewhere => (row.elsewhere, None),
        Ok(_) => (row.allowed, None),
    }
}

async fn holders(mesh: &TestMesh) -> Vec<Holder> {
    let (of_ann, ann, bob) = mesh.pair().await;
    let banned = mesh.join(&of_ann, &ann, "Banned").await;
    let demoted = mesh.join(&of_ann, &ann, "Demoted").await;
    let (_, eve) = mesh.mesh("elsewhere").await;
    let (mut leads, mut joins) = (command(mesh, &ann).await, command(mesh, &bob).await);
    promote(&mut leads, &demoted, "admin").await;
    for name in ["plain", "locked"] {
        leads.ask(json!({"type": "topic_create", "name": name})).await;
        joins.say(&json!({"type": "topic_join", "topic": name})).await;
        joins.fence().await;
    }
    mesh.database.sql("update topic set encrypted_key_pubkey = null where name = 'plain'").await;
    let both = json!(["read", "send"]);
    let mut wire = command(mesh, &bob).await;
    let until = mesh.clock.now().plus(Duration::from_secs(1)).to_string();
    let (_, expired) = api_key::key(&mut wire, json!({"capabilities": both, "expiresAt": until})).await;
    let (id, revoked) = api_key::key(&mut wire, json!({"capabilities": both})).await;
    api_key::revoke(&mut wire, &id).await;
    let of_banned = key_of(mesh, &banned, json!({"capabilities": both})).await;
    let of_demoted = key_of(mesh, &demoted, json!({"capabilities": ["admin"]})).await;
    promote(&mut leads, &demoted, "member").await;
    leads.ask(json!({"type": "ban", "target": banned.key()})).await;
    mesh.clock.pass(Duration::from_secs(1));
    let holder = |who, authorization: Option<String>, is| Holder {
        who,
        authorization,
        is,
        is_scoped: false,
        is_elsewhere: false,
    };
    let bearer = |key: &str| Some(format!("Bearer {key}"));
    let (missing, invalid) = (Err("error.api_key_missing"), Err("error.api_key_invalid"));
    let read = key_of(mesh, &bob, json!({"capabilities": ["read"]})).await;
    let send = key_of(mesh, &bob, json!({"capabilities": ["send"]})).await;
    let state = key_of(mesh, &bob, json!({"capabilities": ["state_write"]})).await;
    let admin = key_of(mesh, &ann, json!({"capabilities": ["admin"]})).await;
    let scoped = key_of(mesh, &bob, json!({"capabilities": both, "topicScopes": ["general"]})).await;
    let none = key_of(mesh, &bob, json!({"capabilities": both, "topicScopes": []})).await;
    let other = key_of(mesh, &eve, json!({"capabilities": ["read", "send", "admin"]})).await;
    vec![
        holder("nobody", None, missing),
        holder("another scheme", Some(format!("bearer {read}")), missing),
        holder("malformed", bearer("cm_x"), invalid),
        holder("unknown", bearer(&format!("cm_{}", "A".repeat(43))), invalid),
        holder("expired", bearer(&expired), invalid),
        holder("revoked", bearer(&revoked), invalid),
        holder("banned", bearer(&of_banned), invalid),
        holder("read", bearer(&read), Ok(&["read"])),
        holder("send", bearer(&send), Ok(&["send"])),
        holder("state_write", bearer(&state), Ok(&["state_write"])),
        holder("admin", bearer(&admin), Ok(&["admin"])),
        holder("demoted", bearer(&of_demoted), Ok(&[])),
        Holder { is_scoped: true, ..holder("scoped elsewhere", bearer(&scoped), Ok(&["read", "send"])) },
        Holder { is_scoped: true, ..holder("scoped to nothing", bearer(&none), Ok(&["read", "send"])) },
        Holder { is_elsewhere: true, ..holder("another mesh", bearer(&other), Ok(&["read", "send", "admin"])) },
    ]
}

/// T20, R5, R6, R9: each route with each kind of key, under both prefixes; and no answer that is not described.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_whoever_may_not() {
    let mesh = TestMesh::start().await;
    let (holders, described) = (holders(&mesh).await, rest::described(&mesh).await);
    let rows = matrix();
    for route in described.keys() {
        assert!(rows.iter().any(|row| (row.route.0, row.route.1) == (&route.0, &route.1)), "{route:?} has no row");
    }
    let stored = async || {
        let tables = ["mesh", "member", "topic", "topic_member", "topic_member_key", "topic_message"];
        // Comings and goings are logged a moment later.
        let log = "audit_log where event_type not like 'peer_%'";
        let mut counts = Vec::new();
        for table in tables.into_iter().chain([log]) {
            counts.push(mesh.database.number(&format!("select count(*) from {table}")).await);
        }
        counts
    };
    for row in &rows {
        let statuses = &described[&(row.route.0.to_owned(), row.route.1.to_owned())];
        for (holder, prefix) in holders.iter().flat_map(|holder| [(holder, "/v1"), (holder, "/api/v1")]) {
            let before = stored().await;
            let method = row.route.0.to_uppercase();
            let mut request = Request::of(&method, &format!("{prefix}{}", row.path), row.body.as_ref());
            if let Some(authorization) = &holder.authorization {
                request = request.header("Authorization", authorization);
            }
            let answer = mesh.http(&request).await;
            let (status, code) = expected(row, holder);
            let cell = format!("{method} {prefix}{} with the key of {}: {answer:?}", row.path, holder.who);
            assert_eq!(answer.status, status, "{cell}");
            assert!(statuses.contains(&status.to_string()), "not described: {cell}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{cell}");
            if let Some(code) = code {
                is_problem(&answer, status, code);
                assert_eq!(stored().await, before, "something was stored: {cell}");
            }
        }
    }
}
