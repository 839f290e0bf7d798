//! `member_list`.

use claudemesh_testkit::{Setup, TestMesh, Wire, merged};
use serde_json::{Value, json};

use crate::greeting::shape;

on_both!(
    everybody_who_belongs_is_listed_and_the_banned_are_not,
    what_is_updated_is_listed_shown_and_told,
    an_update_is_made_by_whoever_may_and_changes_nothing_otherwise,
);

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

fn update(fields: Value) -> Value {
    merged(json!({"type": "member_update"}), fields)
}

/// What is shown of the connection with this session id: its name and its groups.
async fn shown(wire: &mut Wire, hello: &Value) -> (Value, Value) {
    let peers = wire.peers().await;
    let peer = peers.into_iter().find(|peer| peer["sessionId"] == hello["sessionId"]).expect("a presence");
    (peer["displayName"].clone(), peer["groups"].clone())
}

/// websocket 4.2, 8.3; http 1.8.
async fn what_is_updated_is_listed_shown_and_told(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let plain = bob.session().hello();
    let own = merged(bob.session().hello(), json!({"displayName": "bob-api", "groups": [{"name": "api"}]}));
    let mut wire = mesh.connect(&plain).await;
    let mut second = mesh.connect(&own).await;
    let fields = json!({
        "displayName": " Rob\u{7}ert ", "roleTag": "cook", "groups": [{"name": "kitchen", "role": "chef"}],
        "messageMode": "inbox",
    });
    let updated = wire.ask(update(fields)).await;
    insta::assert_snapshot!("member_updated", shape(&merged(updated.clone(), json!({"_reqId": null}))));
    let list = admin.ask(json!({"type": "member_list"})).await;
    assert_eq!(list["members"][1], updated["member"]);
    // What a connection said of itself stays.
    let kitchen = json!([{"name": "kitchen", "role": "chef"}]);
    assert_eq!(shown(&mut admin, &plain).await, (json!("Robert"), kitchen.clone()));
    assert_eq!(shown(&mut admin, &own).await, (json!("bob-api"), json!([{"name": "api"}])));
    for wire in [&mut wire, &mut second] {
        let event = wire.event("profile_updated").await;
        assert_eq!(
            (&event["type"], &event["subtype"], &event["priority"]),
            (&json!("push"), &json!("system"), &json!("low"))
        );
        let data = json!({
            "name": "Robert", "displayName": "Robert", "roleTag": "cook", "groups": kitchen, "messageMode": "inbox",
        });
        assert_eq!(event["eventData"], data);
    }
    // By an admin, and only what is new is told; nothing new is told to nobody.
    let updated =
        admin.ask(update(json!({"memberId": bob.id, "roleTag": "", "messageMode": "inbox", "role": "admin"}))).await;
    assert_eq!((&updated["member"]["roleTag"], &updated["member"]["role"]), (&Value::Null, &json!("admin")));
    let event = wire.event("profile_updated").await;
    assert_eq!(event["eventData"], json!({"name": "Robert", "roleTag": null}));
    let same = wire.ask(update(json!({"displayName": "Robert"}))).await;
    assert_eq!(same["type"], "member_updated");
    assert!(!wire.events().await.contains(&"profile_updated".to_owned()));
    assert!(!admin.events().await.contains(&"profile_updated".to_owned()));
    // New connections begin with it.
    let hello = bob.session().hello();
    let mut later = mesh.connect(&hello).await;
    assert_eq!(later.greeting["memberDisplayName"], "Robert");
    let profile = json!({"roleTag": null, "groups": [{"name": "kitchen", "role": "chef"}], "messageMode": "inbox"});
    assert_eq!(later.greeting["memberProfile"], profile);
    assert_eq!(shown(&mut later, &hello).await.1, kitchen);
}

/// websocket 8.3: oneself as far as the mesh lets members, others and roles by admins; the owner stays one.
async fn an_update_is_made_by_whoever_may_and_changes_nothing_otherwise(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (_, eve) = mesh.mesh("other").await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let mut wire = mesh.connect(&bob.hello()).await;
    let before = wire.ask(json!({"type": "member_list"})).await["members"].clone();
    mesh.database.sql("update mesh set self_editable = '{\"groups\":false}'").await;
    let refused = async |wire: &mut Wire, fields: Value| {
        let error = wire.ask(update(fields)).await;
        (error["code"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
    };
    for (fields, words) in [
        (json!({"memberId": ann.id, "displayName": "X"}), "only owner or admin can update others"),
        (json!({"role": "admin"}), "only owner or admin can change role"),
        (json!({"displayName": "X", "groups": []}), "only owner or admin can change groups in this mesh"),
    ] {
        assert_eq!(refused(&mut wire, fields).await, ("forbidden".to_owned(), words.to_owned()));
    }
    let words = "role of the owner must be admin";
    assert_eq!(refused(&mut admin, json!({"role": "member"})).await, ("forbidden".to_owned(), words.to_owned()));
    for id in ["", "nobody", "a b", &eve.id] {
        let not_found = ("not_found".to_owned(), "member not found".to_owned());
        assert_eq!(refused(&mut admin, json!({"memberId": id, "displayName": "X"})).await, not_found);
    }
    let after = wire.ask(json!({"type": "member_list"})).await["members"].clone();
    assert_eq!(after, before);
    let done = admin.ask(update(json!({"memberId": bob.id, "groups": [{"name": "crew"}]}))).await;
    assert_eq!(done["type"], "member_updated");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_updated_is_named() {
    let mesh = TestMesh::start().await;
    let (_, ann) = mesh.mesh("named").await;
    let mut wire = mesh.connect(&ann.hello()).await;
    let many: Vec<Value> = (0..33).map(|number| json!({"name": format!("g{number}")})).collect();
    for (fields, words) in [
        (json!({}), "no fields to update"),
        (json!({"displayName": "\u{200B}"}), "displayName must be 1-64 visible characters"),
        (json!({"displayName": "ALL"}), "displayName must not begin with @ or #, or be * or all"),
        (json!({"displayName": "@ann"}), "displayName must not begin with @ or #, or be * or all"),
        (json!({"displayName": "x".repeat(65)}), "displayName must be 1-64 visible characters"),
        (json!({"roleTag": "x".repeat(65)}), "roleTag must be 64 characters at most"),
        (
            json!({"groups": [{"name": "@a"}]}),
            "groups[0].name must be 1-64 of a-z, 0-9 and _./-, beginning with a letter or digit",
        ),
        (json!({"groups": many}), "groups must be 32 groups at most"),
        (json!({"messageMode": "loud"}), "messageMode must be push, inbox or off"),
        (json!({"role": "king"}), "role must be admin or member"),
        (json!({"displayName": 5}), "displayName invalid type: integer `5`, expected a string"),
    ] {
        let error = wire.ask(update(fields)).await;
        assert_eq!((&error["code"], &error["message"]), (&json!("invalid_argument"), &json!(words)));
    }
}

/// Whoever hides is not here for others, but for admins.
#[tokio::test(flavor = "multi_thread")]
async fn who_hides_is_offline_to_others() {
    let mesh = TestMesh::start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    let mut wires =
        [mesh.connect(&ann.hello()).await, mesh.connect(&bob.hello()).await, mesh.connect(&cid.hello()).await];
    for (visible, seen) in [(false, [true, true, false]), (true, [true, true, true])] {
        wires[1].ask(json!({"type": "set_visible", "visible": visible})).await;
        for (wire, seen) in wires.iter_mut().zip(seen) {
            let list = wire.ask(json!({"type": "member_list"})).await;
            let member =
                list["members"].as_array().unwrap().iter().find(|member| member["memberId"] == bob.id.as_str());
            assert_eq!(member.unwrap()["online"], seen);
        }
    }
}
