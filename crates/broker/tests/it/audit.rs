//! `audit_query`: who may read the audit log, and what is in it.

use std::fs;

use claudemesh_testkit::{Member, Mesh, Request, Setup, TestMesh, Wire, eventually, merged};
use serde_json::{Value, json};

use crate::greeting::shape;
use crate::post::post;

on_both!(
    admins_read_the_log_newest_first,
    the_log_names_members_by_their_own_names,
    what_one_request_logs_is_bounded,
    the_log_holds_metadata_only,
);

/// An answer without its `_reqId`.
async fn ask(wire: &mut Wire, request: Value) -> Value {
    merged(wire.ask(request).await, json!({"_reqId": null}))
}

pub(crate) async fn query(wire: &mut Wire, fields: Value) -> Value {
    ask(wire, merged(json!({"type": "audit_query"}), fields)).await
}

pub(crate) async fn verified(wire: &mut Wire) -> Value {
    ask(wire, json!({"type": "audit_verify"})).await
}

/// Waits until so many ends of connections are in the log: an end is written a moment later.
pub(crate) async fn have_left(mesh: &TestMesh, count: i64) {
    eventually("the log says who left", async || {
        mesh.database.number("select count(*) from audit_log where event_type = 'peer_left'").await == count
    })
    .await;
}

/// A log with some entries that does not grow, and an admin's connection.
pub(crate) async fn with_log(mesh: &TestMesh) -> (Mesh, Member, Wire) {
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    have_left(mesh, 1).await;
    let mut admin = mesh.connect(&ann.hello()).await;
    for _ in 0..2 {
        for kind in ["ban", "unban"] {
            let answer = admin.ask(json!({"type": kind, "target": bob.key()})).await;
            assert_ne!(answer["type"], "error", "{answer}");
        }
    }
    (mesh_of_ann, ann, admin)
}

fn forbidden() -> Value {
    json!({"type": "error", "code": "forbidden", "message": "only owner or admin can read the audit log"})
}

/// websocket 9 ▶ (ours: for admins, with a cap)
async fn admins_read_the_log_newest_first(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, mut admin) = with_log(&mesh).await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    have_left(&mesh, 2).await;
    let all = query(&mut admin, json!({})).await;
    let entries = all["entries"].as_array().unwrap();
    assert_eq!((&all["type"], &all["total"]), (&json!("audit_result"), &json!(entries.len())));
    let ids: Vec<_> = entries.iter().map(|entry| entry["id"].as_i64().unwrap()).collect();
    let newest_first: Vec<_> = (1..=i64::try_from(entries.len()).unwrap()).rev().collect();
    assert_eq!(ids, newest_first);
    let of_bans = query(&mut admin, json!({"eventType": "member_banned"})).await;
    assert_eq!(of_bans["total"], 2);
    insta::assert_snapshot!("audit_entry", shape(&merged(of_bans["entries"][0].clone(), json!({"hash": "<hash>"}))));
    let page = query(&mut admin, json!({"limit": 2, "offset": 1})).await;
    assert_eq!((&page["entries"], &page["total"]), (&json!(entries[1..3]), &all["total"]));
    // A name, else an id.
    let made = query(&mut admin, json!({"eventType": "mesh_created"})).await;
    assert_eq!(made["entries"][0]["actor"], "Ann");
    assert_eq!(of_bans["entries"][0]["actor"], "Ann");
    let invited = query(&mut admin, json!({"eventType": "invite_created"})).await;
    assert_eq!(
        (&invited["entries"][0]["actor"], &invited["entries"][0]["actorMemberId"]),
        (&json!("Ann"), &json!(ann.id))
    );
    for fields in [json!({"eventType": "never"}), json!({"eventType": "\u{0}"}), json!({"offset": u32::MAX})] {
        assert_eq!(query(&mut admin, fields).await["entries"], json!([]));
    }
    for limit in [0, 501, u32::MAX] {
        let refused = query(&mut admin, json!({"limit": limit})).await;
        assert_eq!(refused, json!({"type": "error", "code": "invalid_argument", "message": "limit must be 1 to 500"}));
    }
    for (field, value) in [("limit", json!(-1)), ("limit", json!("5")), ("offset", json!(-1)), ("eventType", json!(5))]
    {
        crate::hello::named(&mut admin, json!({"type": "audit_query", field: value}), field).await;
    }
    let mut member = mesh.connect(&cid.hello()).await;
    assert_eq!(query(&mut member, json!({"limit": 0})).await, forbidden());
    assert_eq!(verified(&mut member).await, forbidden());
    // R6 and D8: each mesh has its own.
    let (_, eve) = mesh.mesh("other").await;
    let foreign = query(&mut mesh.connect(&eve.hello()).await, json!({"eventType": "mesh_created"})).await;
    assert_eq!(foreign["entries"][0]["payload"]["slug"], "other");
    assert_eq!(foreign["total"], 1);
}

/// Whatever a connection calls itself, the log says which member it is of.
async fn the_log_names_members_by_their_own_names(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    have_left(&mesh, 1).await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let mut posing = mesh.connect(&merged(bob.hello(), json!({"displayName": "Ann"}))).await;
    posing.deliver("*", "in another's name").await;
    posing.close(1000).await;
    have_left(&mesh, 2).await;
    let mut renamed = mesh.connect(&merged(bob.hello(), json!({"displayName": "Ann"}))).await;
    let answer = admin.ask(json!({"type": "member_update", "memberId": bob.id, "displayName": "Robert"})).await;
    assert_eq!(answer["type"], "member_updated", "{answer}");
    renamed.deliver(&ann.key(), "under a new one").await;
    renamed.close(1000).await;
    have_left(&mesh, 3).await;
    let of_bob = query(&mut admin, json!({})).await;
    let of_bob = of_bob["entries"].as_array().unwrap().iter().filter(|entry| entry["actorMemberId"] == json!(bob.id));
    let seen: Vec<_> =
        of_bob.map(|entry| (entry["eventType"].as_str().unwrap(), entry["actor"].as_str().unwrap())).collect();
    let expected = [
        ("peer_left", "Robert"),
        ("message_sent", "Robert"),
        ("peer_joined", "Bob"),
        ("peer_left", "Bob"),
        ("message_sent", "Bob"),
        ("peer_joined", "Bob"),
    ];
    assert_eq!(seen[..6], expected);
    let updated = query(&mut admin, json!({"eventType": "member_updated"})).await["entries"][0].clone();
    assert_eq!((&updated["actor"], &updated["actorMemberId"]), (&json!("Ann"), &json!(ann.id)));
    let payload =
        json!({"memberId": bob.id, "fields": ["displayName"], "displayName": {"from": "Bob", "to": "Robert"}});
    assert_eq!(updated["payload"], payload);
    admin.ask(json!({"type": "ban", "target": bob.key()})).await;
    admin.ask(json!({"type": "unban", "target": bob.key()})).await;
    let unbanned = query(&mut admin, json!({"eventType": "member_unbanned"})).await["entries"][0].clone();
    assert_eq!(unbanned["payload"], json!({"target": "Robert", "targetPubkey": bob.key()}));
}

/// The log is kept for ever: no request writes much into it.
async fn what_one_request_logs_is_bounded(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let grants: serde_json::Map<String, Value> =
        (0..1000).map(|_| (claudemesh_testkit::stranger().to_string(), json!([]))).collect();
    let answer = admin.ask(json!({"type": "grant_set", "grants": grants})).await;
    assert_eq!(answer["type"], "grant_set_response");
    let payload = query(&mut admin, json!({"eventType": "grants_changed"})).await["entries"][0]["payload"].clone();
    assert_eq!((&payload["count"], payload["keys"].as_array().unwrap().len()), (&json!(1000), 16));
    let groups: Vec<_> = (0..32).map(|n| json!({"name": format!("g{n}"), "role": "x".repeat(64)})).collect();
    mesh.connect(&merged(bob.hello(), json!({"groups": groups}))).await;
    let payload = query(&mut admin, json!({"eventType": "peer_joined"})).await["entries"][0]["payload"].clone();
    let names: Vec<_> = (0..32).map(|n| format!("g{n}")).collect();
    assert_eq!(payload["groups"], json!(names));
}

/// A4: what people say stays out of the log.
async fn the_log_holds_metadata_only(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let canary = "canary-5f1d";
    let told = json!({"ext": {"note": canary}, "client_message_id": canary});
    admin.say(&json!({"type": "join_group", "name": "crew", "role": canary})).await;
    for target in [bob.key().as_str(), "*", "@all", "@crew"] {
        let told = merged(told.clone(), json!({"client_message_id": format!("{canary}{target}")}));
        assert_eq!(admin.send_with(target, canary, told).await["queued"], true);
    }
    assert_eq!(admin.send_with("@crew!", canary, told).await["queued"], false);
    admin.say(&json!({"type": "set_summary", "summary": canary})).await;
    for request in [
        json!({"type": "set_profile", "avatar": canary, "title": canary, "bio": canary, "capabilities": [canary]}),
        json!({"type": "member_update", "roleTag": canary}),
    ] {
        assert_ne!(admin.ask(request).await["type"], "error");
    }
    let place = json!({"cwd": canary, "hostname": canary, "model": canary, "channel": canary});
    mesh.connect(&merged(bob.session().hello(), place)).await.close(1000).await;
    let topic = json!({"type": "topic_create", "name": "plans", "description": canary});
    let topic = admin.ask(topic).await["topic"]["id"].as_str().unwrap().to_owned();
    assert_eq!(post(&mut admin, &topic, canary, json!({})).await["queued"], true);
    let key = json!({"type": "apikey_create", "label": "x", "capabilities": ["read"]});
    assert_eq!(admin.ask(key).await["type"], "apikey_created");
    let token = of_ann.token("member").1;
    assert_eq!(admin.ask(json!({"type": "invite_create", "token": token})).await["type"], "invite_created");
    for kind in ["ban", "unban"] {
        let request = json!({"type": kind, "target": bob.key(), "reason": canary});
        assert_ne!(admin.ask(request).await["type"], "error");
    }
    let log = query(&mut admin, json!({"limit": 500})).await;
    let secret = [canary, &claudemesh_proto::text::base64(canary.as_bytes()), &token, &token[..40]];
    for word in secret {
        assert!(!log.to_string().contains(word), "{word}");
        let like = format!("select count(*) from audit_log where payload like '%{word}%' or hash like '%{word}%'");
        assert_eq!(mesh.database.number(&like).await, 0);
        let path = mesh.data_dir().join("audit-checkpoints.jsonl");
        assert!(!fs::read_to_string(path).unwrap_or_default().contains(word));
        assert!(!mesh.http(&Request::get("/metrics")).await.body.contains(word));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_read_is_told_in_its_own_words() {
    let mesh = TestMesh::start().await;
    let (_, _, mut admin) = with_log(&mesh).await;
    mesh.database.sql("alter table audit_log rename to hidden").await;
    let failed = |code: &str| json!({"type": "error", "code": code, "message": "temporarily unavailable, try again"});
    assert_eq!(query(&mut admin, json!({})).await, failed("audit_query_error"));
    assert_eq!(verified(&mut admin).await, failed("audit_verify_error"));
    mesh.database.sql("alter table hidden rename to audit_log").await;
    assert_eq!(verified(&mut admin).await["valid"], true);
}
