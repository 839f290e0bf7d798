//! `POST /join`: every code in its order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use claudemesh_keys::Identity;
use claudemesh_testkit::{Mesh, Request, Setup, TestMesh, Wire, eventually, invite_token, merged};
use serde_json::{Value, json};
use tokio::task::JoinSet;

on_both!(
    each_check_comes_before_the_next,
    a_key_joins_once_and_uses_one_use,
    a_key_that_somebody_only_claims_can_join,
    the_last_use_goes_to_one_of_many,
);

fn key() -> String {
    Identity::generate().unwrap().public().to_string()
}

async fn register(wire: &mut Wire, token: &str, uses: u32) -> String {
    let created = wire.ask(json!({"type": "invite_create", "token": token, "maxUses": uses})).await;
    created["id"].as_str().unwrap_or_else(|| panic!("{created}")).to_owned()
}

async fn refused(mesh: &TestMesh, body: &Value, error: &str) {
    let answer = mesh.http(&Request::post("/join", body)).await;
    assert_eq!((answer.status, answer.json()), (400, json!({"ok": false, "error": error})), "{body}");
}

async fn each_check_comes_before_the_next(setup: Setup) {
    let mesh = setup.start().await;
    let (one, ann) = mesh.mesh("one").await;
    let (two, eve) = mesh.mesh("two").await;
    let (mut ann, mut eve) = (mesh.connect(&ann.hello()).await, mesh.connect(&eve.hello()).await);
    let required = "invite_token, invite_payload, peer_pubkey, display_name required";
    let (payload, token) = one.token("member");
    let whole = json!({"invite_token": "t", "invite_payload": {}, "peer_pubkey": "P", "display_name": ""});
    for field in ["invite_token", "invite_payload", "peer_pubkey", "display_name"] {
        refused(&mesh, &merged(whole.clone(), json!({field: null})), required).await;
    }
    refused(&mesh, &json!({}), required).await;
    refused(&mesh, &whole, "peer_pubkey must be 64 hex chars (32 bytes)").await;
    // A point of small order: nobody could seal for it.
    let weak = merged(whole, json!({"peer_pubkey": format!("01{}", "00".repeat(31))}));
    refused(&mesh, &weak, "peer_pubkey is not a usable ed25519 public key").await;
    let body = merged(weak, json!({"peer_pubkey": key()}));
    refused(&mesh, &body, "display_name must be 1-64 visible characters").await;
    for name in ["@dev", "#topic", "*", "All"] {
        let words = "display_name must not begin with @ or #, or be * or all";
        refused(&mesh, &merged(body.clone(), json!({"display_name": name})), words).await;
    }
    let body = merged(body, json!({"display_name": "Bob"}));
    let with = |payload: &Value| merged(body.clone(), json!({"invite_payload": payload}));
    for wrong in [
        json!({}),
        json!(5),
        merged(payload.clone(), json!({"role": "admin"})),
        merged(payload.clone(), json!({"mesh_id": two.id})),
        merged(payload.clone(), json!({"expires_at": 4_000_000_000_i64})),
        merged(payload.clone(), json!({"v": 2})),
    ] {
        refused(&mesh, &with(&wrong), "invite_bad_signature").await;
    }
    let nowhere = Mesh { id: "0".repeat(32), ..one.clone() };
    refused(&mesh, &with(&nowhere.token("member").0), "mesh_not_found").await;
    let posing = Identity::generate().unwrap();
    let expires_at = payload["expires_at"].as_i64().unwrap();
    let (by_another, _) = invite_token(&one, &posing, ("member", expires_at));
    refused(&mesh, &with(&by_another), "invite_owner_mismatch").await;
    refused(&mesh, &with(&payload), "invite_not_found").await;
    let (_, of_two) = two.token("member");
    register(&mut eve, &of_two, 1).await;
    refused(&mesh, &merged(with(&payload), json!({"invite_token": of_two})), "invite_mesh_mismatch").await;
    // A registered token for a member, and a payload for an admin that the owner signed as well.
    let id = register(&mut ann, &token, 1).await;
    let (for_admin, _) = one.token("admin");
    let body = merged(body, json!({"invite_token": token}));
    let with = |payload: &Value| merged(body.clone(), json!({"invite_payload": payload}));
    refused(&mesh, &with(&for_admin), "invite_bad_signature").await;
    // Used up, expired, revoked and a banned key at once.
    let key = body["peer_pubkey"].as_str().unwrap();
    mesh.database.sql(&format!("update invite set expires_at = 1, used_count = 1 where id = '{id}'")).await;
    let joined = "insert into member (mesh_id, id, peer_pubkey, display_name, role, joined_at, revoked_at) values";
    mesh.database.sql(&format!("{joined} ('{}', 'm', '{key}', 'Bob', 'member', 0, 1)", one.id)).await;
    ann.ask(json!({"type": "invite_revoke", "id": id})).await;
    refused(&mesh, &with(&payload), "invite_revoked").await;
    mesh.database.sql("update invite set revoked_at = null").await;
    refused(&mesh, &with(&payload), "invite_expired").await;
    mesh.database.sql("update invite set expires_at = 4000000000000").await;
    // An invite that lets nobody in does not tell who was removed.
    refused(&mesh, &with(&payload), "invite_exhausted").await;
    mesh.database.sql("update invite set used_count = 0").await;
    refused(&mesh, &with(&payload), "member_revoked").await;
    mesh.database.sql("update invite set used_count = 1").await;
    mesh.database.sql("update member set revoked_at = null").await;
    let answer = mesh.http(&Request::post("/join", &with(&payload))).await;
    assert_eq!(answer.json(), json!({"ok": true, "memberId": "m", "alreadyMember": true}));
    mesh.database.sql("delete from member where id = 'm'").await;
    refused(&mesh, &with(&payload), "invite_exhausted").await;
    mesh.database.sql("update invite set used_count = 0").await;
    let answer = mesh.http(&Request::post("/join", &with(&payload))).await;
    assert_eq!((answer.status, &answer.json()["ok"]), (200, &json!(true)));
}

async fn a_key_joins_once_and_uses_one_use(setup: Setup) {
    let mesh = setup.start().await;
    let (one, ann) = mesh.mesh("one").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let (payload, token) = one.token("admin");
    register(&mut wire, &token, 2).await;
    let bob = key();
    let first = mesh.redeem(&payload, &token, (&bob, "  Bo\u{202E}b\n")).await.json();
    let again = mesh.redeem(&payload, &token, (&bob, "Robert")).await.json();
    assert_eq!(again, merged(first.clone(), json!({"alreadyMember": true})));
    let members = wire.ask(json!({"type": "member_list"})).await["members"].clone();
    let seen = (&members[1]["memberId"], &members[1]["displayName"], &members[1]["role"], &members[1]["pubkey"]);
    assert_eq!(seen, (&first["memberId"], &json!("Bob"), &json!("admin"), &json!(bob)));
    let owner = mesh.redeem(&payload, &token, (&ann.key(), "Ann")).await.json();
    assert_eq!((&owner["memberId"], &owner["alreadyMember"]), (&json!(ann.id), &json!(true)));
    assert_eq!(wire.ask(json!({"type": "invite_list"})).await["invites"][0]["usedCount"], 1);
}

/// R2: that somebody else names a key, without proof, keeps nobody out.
async fn a_key_that_somebody_only_claims_can_join(setup: Setup) {
    let mesh = setup.start().await;
    let (one, ann) = mesh.mesh("one").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let (payload, token) = one.token("member");
    register(&mut wire, &token, 2).await;
    let (newcomer, proven) = (key(), ann.session());
    mesh.connect(&proven.hello()).await;
    let squatter = mesh.connect(&merged(ann.hello(), json!({"sessionPubkey": newcomer}))).await;
    let joined = mesh.redeem(&payload, &token, (&newcomer, "Bob")).await;
    assert_eq!(joined.status, 200, "{joined:?}");
    squatter.break_off();
    let mut again = Wire::open(mesh.address).await;
    again.say(&merged(ann.hello(), json!({"sessionPubkey": newcomer}))).await;
    assert_eq!(again.next().await["code"], "bad_session_pubkey");
    let answer = mesh.redeem(&payload, &token, (&proven.key(), "Eve")).await.json();
    assert_eq!(answer["error"], "peer_pubkey is in use as a session key");
    mesh.database.sql("update invite set used_count = max_uses").await;
    let answer = mesh.redeem(&payload, &token, (&proven.key(), "Eve")).await.json();
    assert_eq!(answer["error"], "invite_exhausted", "an invite that lets nobody in tells nothing of a session");
}

async fn the_last_use_goes_to_one_of_many(setup: Setup) {
    let mesh = setup.start().await;
    let (one, ann) = mesh.mesh("one").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let (payload, token) = one.token("member");
    register(&mut wire, &token, 3).await;
    let keys: Vec<String> = (0..12).map(|_| key()).collect();
    let joining = keys.iter().map(|key| mesh.redeem(&payload, &token, (key, "Bob")));
    let answers = futures_util::future::join_all(joining).await;
    let joined = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(joined, 3);
    assert!(answers.iter().all(|answer| answer.status == 200 || answer.json()["error"] == "invite_exhausted"));
    assert_eq!(wire.ask(json!({"type": "member_list"})).await["members"].as_array().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_json_or_too_large_is_refused_and_said() {
    let mesh = TestMesh::start().await;
    for body in [b"".to_vec(), b"{".to_vec(), b"[]".to_vec(), b"\xff\xfe".to_vec(), b"{\"peer_pubkey\":5}".to_vec()] {
        let answer = mesh.http(&Request::post_bytes("/join", body)).await;
        assert_eq!((answer.status, &answer.json()["ok"]), (400, &json!(false)), "{answer:?}");
    }
    let answer = mesh.http(&Request::post_bytes("/join", vec![b' '; 65_537])).await;
    assert_eq!((answer.status, answer.json()), (413, json!({"ok": false, "error": "payload too large"})));
    let nested = format!("{{\"invite_payload\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
    assert_eq!(mesh.http(&Request::post_bytes("/join", nested.into_bytes())).await.status, 400);
}

/// Whoever has an invite may ask again and again. Messages do not wait behind all who do.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_joins_does_not_hold_up_messages() {
    const FLOOD: usize = 64;
    const MESSAGES: usize = 30;
    let mesh = TestMesh::start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    let (payload, token) = mesh_of_ann.token("member");
    sender.ask(json!({"type": "invite_create", "token": token})).await;
    let again = json!({
        "invite_token": token, "invite_payload": payload, "peer_pubkey": bob.key(), "display_name": "Bob",
    });
    let joins = Arc::new(AtomicUsize::new(0));
    let mut flood = JoinSet::new();
    for _ in 0..FLOOD {
        let (address, again, joins) = (mesh.address, again.clone(), Arc::clone(&joins));
        flood.spawn(async move {
            loop {
                let answer = Request::post("/join", &again).send(address).await;
                assert_eq!(answer.json()["alreadyMember"], true);
                joins.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    eventually("the flood is under way", async || joins.load(Ordering::Relaxed) > FLOOD).await;
    let before = joins.load(Ordering::Relaxed);
    for _ in 0..MESSAGES {
        sender.deliver(&bob.key(), "x").await;
        receiver.receive().await;
    }
    let meanwhile = joins.load(Ordering::Relaxed) - before;
    assert!(meanwhile < 20 * MESSAGES, "{meanwhile} joins went before {MESSAGES} messages");
    flood.shutdown().await;
}
