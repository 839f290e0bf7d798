//! `message_status`: the path of a message, to whom it concerns.

use claudemesh_testkit::{Setup, Wire, eventually, merged};
use serde_json::{Value, json};

use crate::greeting::shape;

on_both!(
    the_sender_the_recipient_and_admins_see_the_path_and_nobody_else,
    the_state_follows_the_message,
    each_recipient_has_its_own_time,
    a_prefix_of_eight_names_one_message,
    what_waits_for_a_busy_recipient_is_held,
);

async fn ask(wire: &mut Wire, id: &str) -> Value {
    wire.ask(json!({"type": "message_status", "messageId": id})).await
}

async fn the_sender_the_recipient_and_admins_see_the_path_and_nobody_else(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let (cid, dan) = (mesh.join(&mesh_of_ann, &ann, "Cid").await, mesh.join(&mesh_of_ann, &ann, "Dan").await);
    let (_, eve) = mesh.mesh("other").await;
    let mut sender = mesh.connect(&bob.hello()).await;
    let id = sender.deliver(&cid.key(), "x").await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let mut recipient = mesh.connect(&merged(cid.hello(), json!({"capabilities": ["quiet"]}))).await;
    for wire in [&mut sender, &mut admin, &mut recipient] {
        let status = ask(wire, &id).await;
        assert_eq!((&status["type"], &status["targetSpec"]), (&json!("message_status_result"), &json!(cid.key())));
    }
    insta::assert_snapshot!(
        "message_status_result",
        shape(&merged(ask(&mut sender, &id).await, json!({"_reqId": null})))
    );
    // D8 and R6: somebody else's message, another mesh's and one that never was are told alike.
    let (mut stranger, mut foreigner) = (mesh.connect(&dan.hello()).await, mesh.connect(&eve.hello()).await);
    let not_found = |answer: Value| merged(answer, json!({"_reqId": null}));
    let expected = json!({"type": "error", "code": "not_found", "message": "message not found"});
    for wire in [&mut stranger, &mut foreigner] {
        assert_eq!(not_found(ask(wire, &id).await), expected);
        assert_eq!(not_found(ask(wire, &id[..8]).await), expected);
    }
    let wrong_rest = format!("{}{}", &id[..8], "0".repeat(24));
    for unknown in ["0".repeat(32), "zzzzzzzz".to_owned(), wrong_rest] {
        assert_eq!(not_found(ask(&mut sender, &unknown).await), expected, "{unknown}");
    }
    // An admin of now, not of the time it connected.
    mesh.database.sql(&format!("update member set role = 'member' where id = '{}'", ann.id)).await;
    assert_eq!(not_found(ask(&mut admin, &id).await), expected);
}

async fn each_recipient_has_its_own_time(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let id = sender.deliver("*", "x").await;
    let mut seen = Vec::new();
    for member in [&bob, &cid] {
        mesh.clock.pass(std::time::Duration::from_secs(5));
        let mut wire = mesh.connect(&member.hello()).await;
        wire.receive().await;
        wire.deliver(&ann.key(), "after the ack").await;
        seen.push(ask(&mut sender, &id).await);
    }
    let time = |status: &Value, name: &str| {
        let recipients = status["recipients"].as_array().unwrap();
        recipients.iter().find(|one| one["name"] == name).unwrap()["deliveredAt"].clone()
    };
    let (first, last) = (&seen[0], &seen[1]);
    assert_eq!((&first["deliveredAt"], time(first, "Cid")), (&Value::Null, Value::Null));
    assert!(time(first, "Bob").as_str().unwrap().ends_with('Z'));
    assert_eq!(time(last, "Bob"), time(first, "Bob"));
    assert_eq!(time(last, "Cid"), last["deliveredAt"]);
}

async fn the_state_follows_the_message(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let id = sender.deliver(&bob.key(), "x").await;
    let seen = |status: &Value| {
        let recipient = &status["recipients"][0];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&recipient["state"]), text(&recipient["status"]), status["delivered"].as_bool().unwrap())
    };
    let is = |state: &str, status: &str, delivered| (state.to_owned(), status.to_owned(), delivered);
    assert_eq!(seen(&ask(&mut sender, &id).await), is("queued", "disconnected", false));
    let mut receiver = mesh.connect(&bob.hello()).await;
    let (push, _) = receiver.push().await;
    let status = ask(&mut sender, &id).await;
    assert_eq!(seen(&status), is("claimed", "held", false));
    assert_eq!(status["deliveredAt"], Value::Null);
    receiver.acknowledge(&push).await;
    receiver.fence().await;
    // The journal writes in order: this is after the ack.
    receiver.deliver(&ann.key(), "back").await;
    let status = ask(&mut sender, &id).await;
    assert_eq!(seen(&status), is("delivered", "delivered", true));
    assert!(status["deliveredAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!(status["recipients"][0]["deliveredAt"], status["deliveredAt"]);
    mesh.database.sql("update delivery set state = 'expired'").await;
    assert_eq!(seen(&ask(&mut sender, &id).await).0, "expired");
}

async fn a_prefix_of_eight_names_one_message(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(sender.deliver(&bob.key(), "x").await);
    }
    for id in &ids {
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        for length in [8, 9, 31, 32] {
            let status = ask(&mut sender, &id[..length]).await;
            assert_eq!(status["messageId"], id[..length], "as it was given: {status}");
        }
    }
    let too_long = format!("{}0", ids[0]);
    for bad in ["", "short", &ids[0][..7], &too_long, "0000000-", "00000000 ", "äöüäöü", "' or 1=1"] {
        let error = ask(&mut sender, bad).await;
        let length = bad.chars().count();
        assert_eq!(error["code"], "invalid_argument", "{bad}: {error}");
        assert_eq!(error["message"], format!("messageId must be 8-32 base62 chars (got {length})"));
    }
    for value in [json!(5), json!([]), json!({})] {
        let error = sender.ask(json!({"type": "message_status", "messageId": value})).await;
        assert!(error["message"].as_str().unwrap().starts_with("messageId "), "{error}");
    }
}

/// delivery.md section 3: what waits for a busy recipient is `held`, and is handed over when it is idle again.
async fn what_waits_for_a_busy_recipient_is_held(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut busy = mesh.connect(&bob.session().hello()).await;
    busy.say(&json!({"type": "set_status", "status": "dnd"})).await;
    busy.fence().await;
    let held = sender.deliver(&bob.key(), "later").await;
    let fields = json!({"priority": "now"});
    let urgent = sender.send_with(&bob.key(), "at once", fields).await["messageId"].as_str().unwrap().to_owned();
    assert_eq!(busy.receive().await, "at once");
    busy.fence().await;
    let state = |status: Value| (status["recipients"][0]["state"].clone(), status["recipients"][0]["status"].clone());
    assert_eq!(state(ask(&mut sender, &held).await), (json!("held"), json!("held")));
    eventually("it has the urgent one", async || ask(&mut sender, &urgent).await["delivered"] == true).await;
    busy.nothing_else().await;
    busy.say(&json!({"type": "set_status", "status": "idle"})).await;
    assert_eq!(busy.receive().await, "later");
    eventually("it has the other one", async || ask(&mut sender, &held).await["delivered"] == true).await;
}
