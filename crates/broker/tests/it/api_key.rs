//! Keys to the REST interface over the WebSocket: who may make, see and end which (R9). How they work is in `rest`.

use std::time::Duration;

use claudemesh_keys::sha256_hex;
use claudemesh_testkit::{Setup, TestMesh, Wire, merged};
use serde_json::{Value, json};

use crate::greeting::shape;

on_both!(
    a_key_is_made_shown_once_listed_and_revoked,
    members_manage_their_own_keys_and_admins_all,
    a_key_never_lets_do_more_than_its_member_may,
    keys_are_of_their_mesh,
    a_prefix_of_an_id_means_one_key_or_none,
    a_member_makes_only_so_many_keys_in_an_hour,
);

pub(crate) async fn create(wire: &mut Wire, fields: Value) -> Value {
    let request = json!({"type": "apikey_create", "label": "ci", "capabilities": ["read"]});
    wire.ask(merged(request, fields)).await
}

/// A key's id and secret.
pub(crate) async fn key(wire: &mut Wire, fields: Value) -> (String, String) {
    let created = create(wire, fields).await;
    assert_eq!(created["type"], "apikey_created", "{created}");
    (created["id"].as_str().unwrap().to_owned(), created["secret"].as_str().unwrap().to_owned())
}

pub(crate) async fn revoke(wire: &mut Wire, id: &str) -> Value {
    merged(wire.ask(json!({"type": "apikey_revoke", "id": id})).await, json!({"_reqId": null, "type": null}))
}

async fn list(wire: &mut Wire) -> Vec<Value> {
    let answer = wire.ask(json!({"type": "apikey_list"})).await;
    assert_eq!(answer["type"], "apikey_list_response", "{answer}");
    answer["keys"].as_array().unwrap().clone()
}

fn is(error: &Value, code: &str, message: &str) {
    assert_eq!((&error["code"], &error["message"]), (&json!(code), &json!(message)));
}

async fn logged(mesh: &TestMesh, event: &str) -> i64 {
    mesh.database.number(&format!("select count(*) from audit_log where event_type = '{event}'")).await
}

/// websocket 6.3.
async fn a_key_is_made_shown_once_listed_and_revoked(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann) = mesh.mesh("keys").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let until = mesh.clock.now().plus(Duration::from_mins(5)).to_string();
    let asked = json!({
        "label": " ci\u{202E} ", "capabilities": ["send", "read", "read"], "topicScopes": ["General"], "expiresAt": until,
    });
    let created = create(&mut wire, asked).await;
    let (id, secret) = (created["id"].as_str().unwrap(), created["secret"].as_str().unwrap());
    assert!(secret.starts_with("cm_") && secret.len() == 46, "{secret}");
    assert_eq!(created["prefix"], secret[..11]);
    let fixed = json!({"secret": "<secret>", "prefix": "<prefix>", "_reqId": null});
    insta::assert_snapshot!("apikey_created", shape(&merged(created.clone(), fixed)));
    // Of the secret only its hash and its beginning are kept.
    let hashed = format!("select count(*) from api_key where secret_hash = '{}'", sha256_hex(secret));
    assert_eq!(mesh.database.number(&hashed).await, 1);
    let shown = wire.ask(json!({"type": "apikey_list"})).await;
    assert!(!shown.to_string().contains(secret));
    assert_eq!((&shown["keys"][0]["id"], &shown["keys"][0]["expiresAt"]), (&json!(id), &json!(until)));
    let fixed = json!({"prefix": "<prefix>"});
    let first = merged(shown["keys"][0].clone(), fixed);
    insta::assert_snapshot!("apikey_list_response", shape(&merged(shown, json!({"keys": [first], "_reqId": null}))));
    for _ in 0..2 {
        assert_eq!(revoke(&mut wire, id).await, json!({"status": "revoked", "id": id}));
    }
    assert!(list(&mut wire).await[0]["revokedAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!((logged(&mesh, "apikey_created").await, logged(&mesh, "apikey_revoked").await), (1, 1));
    let log = wire.ask(json!({"type": "audit_query", "eventType": "apikey_created"})).await;
    let payload = json!({
        "id": id, "label": "ci", "capabilities": ["read", "send"], "topicScopes": ["general"], "expiresAt": until,
    });
    assert_eq!(log["entries"][0]["payload"], payload);
    let log = wire.ask(json!({"type": "audit_query", "eventType": "apikey_revoked"})).await;
    assert_eq!(log["entries"][0]["payload"], json!({"id": id}));
}

/// R9.
async fn members_manage_their_own_keys_and_admins_all(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (mut admin, mut member) = (mesh.connect(&ann.hello()).await, mesh.connect(&bob.session().hello()).await);
    let of_ann = key(&mut admin, json!({})).await.0;
    mesh.clock.pass(Duration::from_secs(1));
    let of_bob = key(&mut member, json!({"topicScopes": []})).await.0;
    let ids = |keys: Vec<Value>| keys.iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(list(&mut admin).await), [of_bob.clone(), of_ann.clone()], "newest first");
    let own = list(&mut member).await;
    assert_eq!(own[0]["topicScopes"], json!([]));
    assert_eq!(own[0]["issuedByMemberId"], json!(bob.id));
    assert_eq!(own.len(), 1);
    assert_eq!(ids(own)[0], of_bob);
    assert_eq!(revoke(&mut member, &of_ann).await, json!({"status": "not_found"}));
    assert_eq!(logged(&mesh, "apikey_revoked").await, 0);
    assert_eq!(revoke(&mut admin, &of_bob).await, json!({"status": "revoked", "id": of_bob}));
    // Asked anew each time: a role that was taken away is gone at once.
    mesh.database.sql("update member set role = 'member'").await;
    assert_eq!(ids(list(&mut admin).await), [of_ann]);
}

async fn a_key_never_lets_do_more_than_its_member_may(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (mut admin, mut member) = (mesh.connect(&ann.hello()).await, mesh.connect(&bob.hello()).await);
    let all = json!({"capabilities": ["send", "read", "state_write", "admin"]});
    is(&create(&mut member, all.clone()).await, "forbidden", "only owner or admin can make keys with admin");
    assert_eq!((list(&mut member).await.len(), logged(&mesh, "apikey_created").await), (0, 0));
    key(&mut admin, all).await;
    key(&mut member, json!({"capabilities": ["send", "read", "state_write"]})).await;
    mesh.database.sql("update member set revoked_at = 1").await;
    is(&create(&mut admin, json!({})).await, "forbidden", "you are no member of this mesh any more");
    assert_eq!(mesh.database.number("select count(*) from api_key").await, 2);
}

/// R6.
async fn keys_are_of_their_mesh(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann) = mesh.mesh("one").await;
    let (_, eve) = mesh.mesh("two").await;
    let (mut ann, mut eve) = (mesh.connect(&ann.hello()).await, mesh.connect(&eve.hello()).await);
    let id = key(&mut ann, json!({})).await.0;
    assert_eq!(revoke(&mut eve, &id).await, json!({"status": "not_found"}));
    assert!(list(&mut eve).await.is_empty());
    assert_eq!(list(&mut ann).await[0]["revokedAt"], Value::Null);
}

async fn a_prefix_of_an_id_means_one_key_or_none(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann) = mesh.mesh("prefix").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    for (id, number) in [("aa", 1), ("ab", 2)] {
        let made = key(&mut wire, json!({})).await.0;
        let long = format!("{id}{}", number.to_string().repeat(30));
        mesh.database.sql(&format!("update api_key set id = '{long}' where id = '{made}'")).await;
    }
    for id in ["b", "A", "a%", "a_", "_", "a\0", &"0".repeat(32), &"x".repeat(1000), "ä"] {
        assert_eq!(revoke(&mut wire, id).await, json!({"status": "not_found"}), "{id}");
    }
    assert_eq!(revoke(&mut wire, "a").await, json!({"status": "not_unique", "matches": 2}));
    assert_eq!(logged(&mesh, "apikey_revoked").await, 0);
    let whole = format!("ab{}", "2".repeat(30));
    assert_eq!(revoke(&mut wire, "ab2").await, json!({"status": "revoked", "id": whole}));
    for request in [json!({}), json!({"id": ""})] {
        is(&wire.ask(merged(json!({"type": "apikey_revoke"}), request)).await, "invalid_args", "id required");
    }
}

/// security 4: 600 in an hour, whichever connection asks; and a thousand at a time. What is over long ago is forgotten.
async fn a_member_makes_only_so_many_keys_in_an_hour(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (mut wire, mut other) = (mesh.connect(&ann.hello()).await, mesh.connect(&ann.session().hello()).await);
    for _ in 0..30 {
        key(&mut wire, json!({})).await;
        key(&mut other, json!({})).await;
    }
    let copies = format!(
        "with recursive n(n) as (select 1 union all select n + 1 from n where n < 540) \
         insert into api_key (mesh_id, id, label, secret_prefix, secret_hash, capabilities, issued_by_member_id, created_at) \
         select '{}', 'c' || n, 'x', 'x', 'c' || n, '[]', '{}', {} from n",
        ann.mesh,
        ann.id,
        mesh.clock.now().as_millis()
    );
    mesh.database.sql(&copies).await;
    for wire in [&mut wire, &mut other] {
        is(&create(wire, json!({})).await, "rate_limit", "max 600 keys/h, slow down");
    }
    key(&mut mesh.connect(&bob.hello()).await, json!({})).await;
    mesh.clock.pass(Duration::from_mins(61));
    let (id, _) = key(&mut wire, json!({})).await;
    assert_eq!((list(&mut wire).await.len(), logged(&mesh, "apikey_created").await), (602, 62));
    let ended = format!("update api_key set revoked_at = 1 where id <> '{id}' and issued_by_member_id = '{}'", ann.id);
    mesh.database.sql(&ended).await;
    key(&mut wire, json!({})).await;
    assert_eq!(mesh.database.number("select count(*) from api_key where revoked_at is not null").await, 0);
    mesh.database
        .sql(&format!(
            "with recursive n(n) as (select 1 union all select n + 1 from n where n < 998) \
             insert into api_key (mesh_id, id, label, secret_prefix, secret_hash, capabilities, issued_by_member_id, created_at) \
             select '{}', 'k' || n, 'x', 'x', 'h' || n, '[]', '{}', 1 from n",
            ann.mesh, ann.id
        ))
        .await;
    is(&create(&mut wire, json!({})).await, "capacity", "you have 1000 keys; revoke one first");
    revoke(&mut wire, &id).await;
    key(&mut wire, json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_key_is_refused_and_nothing_is_stored() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("refused").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let incomplete = "label and at least one capability required";
    let scope = "topicScopes must be names of topics without #, each 1-64 of a-z, 0-9, _ and -";
    let expiry = "expiresAt must be an ISO-8601 UTC time such as 2026-01-02T03:04:05.678Z";
    let now = mesh.clock.now().to_string();
    for (fields, words) in [
        (json!({"label": null}), incomplete),
        (json!({"label": " \u{200B}"}), incomplete),
        (json!({"capabilities": null}), incomplete),
        (json!({"capabilities": []}), incomplete),
        (json!({"label": "x".repeat(65)}), "label must be at most 64 characters"),
        (json!({"capabilities": ["read", "fly"]}), "capabilities must be send, read, state_write or admin"),
        (json!({"topicScopes": ["#general"]}), scope),
        (json!({"topicScopes": [""]}), scope),
        (json!({"topicScopes": ["a\u{0}"]}), scope),
        (json!({"topicScopes": vec!["a"; 65]}), "topicScopes must be 64 topics at most"),
        (json!({"expiresAt": "tomorrow"}), expiry),
        (json!({"expiresAt": ""}), expiry),
        (json!({"expiresAt": "2026-01-02"}), expiry),
        (json!({"expiresAt": now}), "expiresAt must be in the future"),
    ] {
        is(&create(&mut wire, fields).await, "invalid_args", words);
    }
    for (field, value) in [
        ("label", json!(5)),
        ("capabilities", json!("read")),
        ("topicScopes", json!("general")),
        ("expiresAt", json!(1_790_000_000_000_i64)),
    ] {
        let request = json!({"type": "apikey_create", "label": "ci", "capabilities": ["read"]});
        crate::hello::named(&mut wire, merged(request, json!({field: value})), field).await;
    }
    crate::hello::named(&mut wire, json!({"type": "apikey_revoke", "id": 5}), "id").await;
    assert!(list(&mut wire).await.is_empty());
    assert_eq!(logged(&mesh, "apikey_created").await, 0);
}
