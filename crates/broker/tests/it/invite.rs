//! Invites over the WebSocket: made by owner and admins, from tokens that the owner signed.

use claudemesh_keys::Identity;
use claudemesh_testkit::{Mesh, Setup, TestMesh, Wire, invite_token, merged};
use serde_json::{Value, json};

use crate::greeting::shape;

on_both!(an_admin_makes_lists_and_revokes_invites, invites_are_of_their_mesh, only_admins_manage_invites);

const DAY: i64 = 86_400;

async fn create(wire: &mut Wire, token: &str) -> Value {
    wire.ask(json!({"type": "invite_create", "token": token, "maxUses": 3})).await
}

async fn an_admin_makes_lists_and_revokes_invites(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann) = mesh.mesh("invites").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let (payload, token) = mesh_of_ann.token("member");
    let created = create(&mut wire, &token).await;
    assert_eq!(created["url"], format!("http://{}/join/{token}", mesh.address));
    let fixed = json!({"url": "<url>", "_reqId": null});
    insta::assert_snapshot!("invite_created", shape(&merged(created.clone(), fixed)));
    let again = create(&mut wire, &token).await;
    assert_eq!((&again["code"], &again["message"]), (&json!("invalid_invite"), &json!("token is registered already")));
    let identity = Identity::generate().unwrap();
    assert_eq!(mesh.redeem(&payload, &token, (&identity.public().to_string(), "Bob")).await.status, 200);
    mesh.clock.pass(std::time::Duration::from_secs(1));
    let (_, second) = mesh_of_ann.token("admin");
    let once = wire.ask(json!({"type": "invite_create", "token": second})).await;
    assert_eq!((&once["maxUses"], &once["role"]), (&json!(1), &json!("admin")));
    let list = wire.ask(json!({"type": "invite_list"})).await;
    let invites = list["invites"].as_array().unwrap();
    assert_eq!((&invites[0]["id"], &invites[1]["id"]), (&once["id"], &created["id"]), "newest first");
    insta::assert_snapshot!("invite_list_response", shape(&merged(list.clone(), json!({"_reqId": null}))));
    assert!(!list.to_string().contains(&token), "a token is never shown again");
    for _ in 0..2 {
        let revoked = wire.ask(json!({"type": "invite_revoke", "id": created["id"]})).await;
        let expected = json!({"type": "invite_revoke_response", "id": created["id"], "status": "revoked"});
        assert_eq!(merged(revoked, json!({"_reqId": null})), expected);
    }
    let list = wire.ask(json!({"type": "invite_list"})).await;
    assert!(list["invites"][1]["revokedAt"].as_str().unwrap().ends_with('Z'));
    for id in ["", "0", "../..", &"0".repeat(32), &"x".repeat(100)] {
        let missing = wire.ask(json!({"type": "invite_revoke", "id": id})).await;
        assert_eq!((&missing["status"], &missing["id"]), (&json!("not_found"), &json!(id)));
    }
}

/// R6 and D8.
async fn invites_are_of_their_mesh(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann) = mesh.mesh("one").await;
    let (mesh_of_eve, eve) = mesh.mesh("two").await;
    let (mut ann, mut eve) = (mesh.connect(&ann.hello()).await, mesh.connect(&eve.hello()).await);
    let created = create(&mut ann, &mesh_of_ann.token("member").1).await;
    let foreign = eve.ask(json!({"type": "invite_revoke", "id": created["id"]})).await;
    assert_eq!(foreign["status"], "not_found");
    assert_eq!(eve.ask(json!({"type": "invite_list"})).await["invites"], json!([]));
    let wrong = create(&mut eve, &mesh_of_ann.token("member").1).await;
    assert_eq!((&wrong["code"], &wrong["message"]), (&json!("invalid_invite"), &json!("token is for another mesh")));
    // A mesh of the same name in another place.
    let renamed = Mesh { slug: "two".to_owned(), ..mesh_of_ann.clone() };
    assert_eq!(create(&mut eve, &renamed.token("member").1).await["message"], "token is for another mesh");
    let posing = Mesh { id: mesh_of_eve.id.clone(), slug: mesh_of_eve.slug.clone(), ..mesh_of_ann };
    assert_eq!(create(&mut eve, &posing.token("member").1).await["message"], "token is not signed by the mesh's owner");
    assert_eq!(ann.ask(json!({"type": "invite_list"})).await["invites"][0]["revokedAt"], Value::Null);
}

async fn only_admins_manage_invites(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let mut member = mesh.connect(&bob.hello()).await;
    let requests = [
        json!({"type": "invite_create", "token": mesh_of_ann.token("member").1}),
        json!({"type": "invite_list"}),
        json!({"type": "invite_revoke", "id": "x"}),
    ];
    let forbidden = json!({
        "type": "error", "code": "forbidden", "message": "only owner or admin can manage invites",
    });
    for request in &requests {
        assert_eq!(merged(member.ask(request.clone()).await, json!({"_reqId": null})), forbidden);
    }
    // Asked anew each time: a role that was taken away is gone at once.
    let mut admin = mesh.connect(&ann.hello()).await;
    assert_eq!(admin.ask(requests[1].clone()).await["type"], "invite_list_response");
    mesh.database.sql("update member set role = 'member'").await;
    assert_eq!(admin.ask(requests[1].clone()).await["code"], "forbidden");
    mesh.database.sql("update member set role = 'admin', revoked_at = 1").await;
    assert_eq!(admin.ask(requests[1].clone()).await["code"], "forbidden", "a banned admin is none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_accepted_is_refused_with_the_reason() {
    let mesh = TestMesh::start().await;
    let (mesh_of_ann, ann) = mesh.mesh("tokens").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let now = mesh.clock.now().as_millis() / 1000;
    let signed = |role: &str, expires_at: i64| invite_token(&mesh_of_ann, &mesh_of_ann.owner, (role, expires_at)).1;
    let (payload, good) = mesh_of_ann.token("member");
    let altered =
        |change: Value| claudemesh_proto::text::base64url(merged(payload.clone(), change).to_string().as_bytes());
    let stranger = Identity::generate().unwrap();
    let cases = [
        (String::new(), "token is not an invite token"),
        ("e30".to_owned(), "token is not an invite token"),
        (format!("{good}="), "token is not an invite token"),
        ("A".repeat(5000), "token is not an invite token"),
        (altered(json!({"role": "admin"})), "token signature is not valid"),
        (altered(json!({"v": 2})), "token signature is not valid"),
        (altered(json!({"owner_pubkey": stranger.public()})), "token signature is not valid"),
        (altered(json!({"signature": "00"})), "token signature is not valid"),
        (signed("member", now - 1), "token is expired"),
        (signed("member", i64::MIN), "token is expired"),
        (signed("member", now + 367 * DAY), "token lasts longer than 366 days"),
        (signed("member", i64::MAX), "token lasts longer than 366 days"),
        (signed("owner", now + DAY), "token role must be admin or member"),
        (invite_token(&mesh_of_ann, &stranger, ("member", now + DAY)).1, "token is not signed by the mesh's owner"),
    ];
    for (token, why) in cases {
        let error = create(&mut wire, &token).await;
        assert_eq!((&error["code"], &error["message"]), (&json!("invalid_invite"), &json!(why)), "{token}");
    }
    for uses in [0, 1001, 4_000_000_000_u32] {
        let error = wire.ask(json!({"type": "invite_create", "token": good, "maxUses": uses})).await;
        let expected = (&json!("invalid_argument"), &json!("maxUses must be 1 to 1000"));
        assert_eq!((&error["code"], &error["message"]), expected);
    }
    for (field, value) in
        [("token", json!(5)), ("maxUses", json!("3")), ("maxUses", json!(-1)), ("maxUses", json!(1.5))]
    {
        let request = merged(json!({"type": "invite_create", "token": good}), json!({field: value}));
        crate::hello::named(&mut wire, request, field).await;
    }
    crate::hello::named(&mut wire, json!({"type": "invite_revoke", "id": 5}), "id").await;
    assert_eq!(wire.ask(json!({"type": "invite_list"})).await["invites"], json!([]));
    assert_eq!(create(&mut wire, &good).await["type"], "invite_created");
}
