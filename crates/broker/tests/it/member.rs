//! `member_list`.

use claudemesh_testkit::Setup;
use serde_json::{Value, json};

use crate::greeting::shape;

on_both!(everybody_who_belongs_is_listed_and_the_banned_are_not);

async fn everybody_who_belongs_is_listed_and_the_banned_are_not(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    let (_, eve) = mesh.mesh("other").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let session = mesh.connect(&bob.session().hello()).await;
    let list = wire.ask(json!({"type": "member_list"})).await;
    assert_eq!(list["type"], "member_list_response");
    insta::assert_snapshot!("member_list_response", shape(&list["members"]));
    let of = |list: &Value, field: &str| -> Vec<Value> {
        list["members"].as_array().unwrap().iter().map(|member| member[field].clone()).collect()
    };
    assert_eq!(of(&list, "memberId"), [json!(ann.id), json!(bob.id), json!(cid.id)]);
    assert_eq!(of(&list, "online"), [true, true, false]);
    session.close(1000).await;
    mesh.database.sql(&format!("update member set revoked_at = 1 where id = '{}'", cid.id)).await;
    let list = wire.ask(json!({"type": "member_list"})).await;
    assert_eq!(of(&list, "memberId"), [json!(ann.id), json!(bob.id)]);
    assert_eq!(of(&list, "online"), [true, false]);
    // D8.
    let list = mesh.connect(&eve.hello()).await.ask(json!({"type": "member_list"})).await;
    assert_eq!(of(&list, "memberId"), [json!(eve.id)]);
}
