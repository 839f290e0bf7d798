//! D8 and R6: two meshes on one broker know nothing of each other.

use claudemesh_testkit::{Setup, merged};
use serde_json::json;

use crate::send::NO_RECIPIENT;

on_both!(the_same_people_in_two_meshes_stay_apart);

async fn the_same_people_in_two_meshes_stay_apart(setup: Setup) {
    let mesh = setup.start().await;
    let (one, ann, bob) = mesh.pair().await;
    let (two, eve) = mesh.mesh("two").await;
    // Bob's key is a member of both, and so is the key of his session.
    let (payload, token) = two.token("member");
    let mut admin = mesh.connect(&eve.hello()).await;
    admin.ask(json!({"type": "invite_create", "token": token})).await;
    let joined = mesh.redeem(&payload, &token, (&bob.key(), "Bob")).await.json();
    let id = joined["memberId"].as_str().unwrap().to_owned();
    assert_ne!(id, bob.id);
    let bob_of_two = claudemesh_testkit::Member { mesh: two.id.clone(), id, ..bob.clone() };
    let session = bob.session();
    let session_of_two = claudemesh_testkit::Session { member: bob_of_two.clone(), ..session.clone() };
    let mut ann_wire = mesh.connect(&ann.hello()).await;
    let mut in_one = mesh.connect(&session.hello()).await;
    let mut in_two = mesh.connect(&session_of_two.hello()).await;
    assert_ne!(in_one.greeting["presenceId"], in_two.greeting["presenceId"]);
    ann_wire.deliver(&bob.key(), "one").await;
    admin.deliver(&bob.key(), "two").await;
    ann_wire.deliver(&session.key(), "one's session").await;
    admin.deliver(&session.key(), "two's session").await;
    for (wire, mesh_id, texts) in
        [(&mut in_one, &one.id, ["one", "one's session"]), (&mut in_two, &two.id, ["two", "two's session"])]
    {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (push, text) = wire.push().await;
            assert_eq!(&push["meshId"], mesh_id);
            seen.push(text);
        }
        seen.sort();
        assert_eq!(seen, texts);
        wire.nothing_else().await;
        assert_eq!(wire.peers().await.len(), 2);
    }
    // A member of the other mesh is nobody.
    assert_eq!(ann_wire.send(&eve.key(), "x").await["error"], NO_RECIPIENT);
    assert_eq!(admin.send(&ann.key(), "x").await["error"], NO_RECIPIENT);
    // The same client id in both is two messages; an id of the other mesh answers like none.
    let same = json!({"client_message_id": "same"});
    let ids = [
        ann_wire.send_with(&bob.key(), "x", same.clone()).await["messageId"].clone(),
        admin.send_with(&bob.key(), "x", same).await["messageId"].clone(),
    ];
    assert_ne!(ids[0], ids[1]);
    let status = admin.ask(json!({"type": "message_status", "messageId": ids[0]})).await;
    let expected = json!({"type": "error", "code": "not_found", "message": "message not found"});
    assert_eq!(merged(status, json!({"_reqId": null})), expected);
}
