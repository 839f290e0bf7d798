//! `kick` and `disconnect`: closing connections of others.

use std::time::Duration;

use claudemesh_testkit::{Member, Session, Setup, TestMesh, Wire, merged};
use serde_json::{Value, json};

use crate::ban::HINT;

on_both!(only_the_owner_and_admins_close_connections_of_others, whom_an_admin_sent_away_is_in_the_log);

/// An answer without its `_reqId`.
async fn ask(wire: &mut Wire, request: Value) -> Value {
    merged(wire.ask(request).await, json!({"_reqId": null}))
}

fn error(code: &str, message: &str) -> Value {
    json!({"type": "error", "code": code, "message": message})
}

fn gone(kind: &str, names: &[&str]) -> Value {
    json!({"type": kind, "kicked": names, "affected": names})
}

fn named(hello: Value, name: &str) -> Value {
    merged(hello, json!({"displayName": name}))
}

async fn connect(mesh: &TestMesh, session: &Session, name: &str) -> Wire {
    mesh.connect(&named(session.hello(), name)).await
}

/// Makes somebody an admin.
async fn promote(mesh: &TestMesh, member: &Member) {
    mesh.database.sql(&format!("update member set role = 'admin' where id = '{}'", member.id)).await;
}

/// websocket 8.2
async fn only_the_owner_and_admins_close_connections_of_others(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (mut admin, mut member) = (mesh.connect(&ann.hello()).await, mesh.connect(&bob.hello()).await);
    for (kind, done) in [("kick", "kicked"), ("disconnect", "disconnected")] {
        for fields in [json!({"target": "Ann"}), json!({"stale": 0}), json!({"all": true}), json!({})] {
            let answer = ask(&mut member, merged(json!({"type": kind}), fields)).await;
            assert_eq!(answer, error("forbidden", &format!("only owner or admin can {done}")));
        }
    }
    admin.fence().await;
    assert_eq!(ask(&mut admin, json!({"type": "kick"})).await, gone("kick_ack", &[]));
    // An admin of now may, not of the time it connected.
    for role in ["admin", "member"] {
        let changed = ask(&mut admin, json!({"type": "member_update", "memberId": bob.id, "role": role})).await;
        assert_eq!(changed["type"], "member_updated", "{changed}");
        let expected = match role {
            "admin" => gone("kick_ack", &[]),
            _ => error("forbidden", "only owner or admin can kicked"),
        };
        assert_eq!(ask(&mut member, json!({"type": "kick"})).await, expected);
    }
}

/// Who did it, to whom, and to how many connections; nothing is logged where nobody was meant.
async fn whom_an_admin_sent_away_is_in_the_log(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let _sessions = [
        mesh.connect(&bob.session().hello()).await,
        mesh.connect(&bob.session().hello()).await,
        mesh.connect(&cid.session().hello()).await,
        mesh.connect(&cid.hello()).await,
    ];
    for request in [
        json!({"type": "kick", "target": "nobody"}),
        json!({"type": "disconnect"}),
        json!({"type": "kick", "all": true}),
        json!({"type": "disconnect", "target": "Cid"}),
    ] {
        ask(&mut admin, request).await;
    }
    let mut ids = [&bob.id, &cid.id];
    ids.sort();
    for (event, members, count) in [("member_kicked", json!(ids), 3), ("member_disconnected", json!([cid.id]), 1)] {
        let found = ask(&mut admin, json!({"type": "audit_query", "eventType": event})).await;
        assert_eq!(found["total"], 1, "{found}");
        assert_eq!(found["entries"][0]["payload"], json!({"memberIds": members, "count": count}));
        assert_eq!(found["entries"][0]["actor"], "Ann");
    }
}

/// websocket 8.2 and 1.4: code, reason, and that the presence is gone at once.
#[tokio::test(flavor = "multi_thread")]
async fn disconnect_closes_what_a_name_a_key_or_the_beginning_of_one_means() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let (api, web) = (bob.session(), bob.session());
    let all = ["Bob", "api", "web"];
    let cases = [
        ("api".to_owned(), vec!["api"]),
        (" a\u{202e}pi\n".to_owned(), vec!["api"]),
        ("Bob".to_owned(), all.to_vec()),
        (bob.key(), all.to_vec()),
        (bob.key()[..12].to_owned(), all.to_vec()),
        (web.key(), vec!["web"]),
        (web.key()[..12].to_owned(), vec!["web"]),
        (web.key()[..63].to_owned(), vec!["web"]),
    ];
    for (target, wanted) in cases {
        let mut wires =
            [mesh.connect(&bob.hello()).await, connect(&mesh, &api, "api").await, connect(&mesh, &web, "web").await];
        let answer = ask(&mut admin, json!({"type": "disconnect", "target": target})).await;
        assert_eq!(answer, gone("disconnect_ack", &wanted), "{target}");
        assert_eq!(admin.peers().await.len(), 1 + all.len() - wanted.len(), "gone at once, without a lease");
        for (name, wire) in all.iter().zip(&mut wires) {
            if wanted.contains(name) {
                assert_eq!(wire.closed().await, (1000, "disconnected".to_owned()), "{target}");
            } else {
                wire.fence().await;
            }
        }
        for wire in wires {
            wire.break_off();
        }
        let _ = ask(&mut admin, json!({"type": "disconnect", "target": "Bob"})).await;
    }
    // Who was disconnected may come back at once.
    connect(&mesh, &api, "api").await.fence().await;
    for target in [&bob.key()[..11], &bob.key()[1..20], &bob.key().to_uppercase(), "bob", "nobody", "", " ", "\u{200b}"]
    {
        let answer = ask(&mut admin, json!({"type": "disconnect", "target": target})).await;
        assert_eq!(answer, gone("disconnect_ack", &[]), "{target:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_means_more_than_one_closes_nothing() {
    let mesh = TestMesh::start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let (cid, _away) = (mesh.join(&mesh_of_ann, &ann, "Cid").await, mesh.join(&mesh_of_ann, &ann, "api").await);
    let mut admin = mesh.connect(&ann.hello()).await;
    let prefix = bob.key()[..12].to_owned();
    let mut wires = [
        connect(&mesh, &bob.session(), "api").await,
        connect(&mesh, &bob.session(), "build").await,
        connect(&mesh, &cid.session(), "build").await,
        connect(&mesh, &cid.session(), &prefix).await,
        connect(&mesh, &cid.session(), &bob.key()).await,
    ];
    // A session's name that is a member's, also of one who is away; sessions of two; a name that is the beginning of a key.
    for target in ["api", "build", &prefix] {
        for kind in ["kick", "disconnect"] {
            let answer = ask(&mut admin, json!({"type": kind, "target": target})).await;
            assert_eq!(answer, error("invalid", &format!("\"{target}\" is ambiguous{HINT}")));
        }
    }
    for wire in &mut wires {
        wire.fence().await;
    }
    // A full key is never somebody's name.
    let answer = ask(&mut admin, json!({"type": "disconnect", "target": bob.key()})).await;
    assert_eq!(answer["kicked"], json!(["api", "build"]));
    for wire in &mut wires[2..] {
        wire.fence().await;
    }
}

/// websocket 8.2 ▶
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_kicked_is_refused_for_a_minute() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let (api, web) = (bob.session(), bob.session());
    let mut daemon = mesh.connect(&bob.hello()).await;
    let (mut first, mut other) = (connect(&mesh, &api, "api").await, connect(&mesh, &web, "web").await);
    let kicked = ask(&mut admin, json!({"type": "kick", "target": api.key()})).await;
    assert_eq!(kicked, gone("kick_ack", &["api"]));
    assert_eq!(first.closed().await, (4001, "kicked".to_owned()));
    assert_eq!(admin.peers().await.len(), 3);
    let refused =
        |left: u32| ("forbidden".to_owned(), format!("kicked: try again in {left} s"), 4001, "kicked".to_owned());
    let refusal = mesh.refusal(&api.hello()).await;
    assert!(refusal == refused(60) || refusal == refused(59), "{refusal:?}");
    mesh.clock.pass(Duration::from_secs(50));
    let refusal = mesh.refusal(&api.hello()).await;
    assert!(refusal == refused(10) || refusal == refused(9), "{refusal:?}");
    // Neither its siblings nor its member are meant.
    other.fence().await;
    daemon.fence().await;
    connect(&mesh, &bob.session(), "new").await.fence().await;
    mesh.clock.pass(Duration::from_secs(10));
    connect(&mesh, &api, "api").await.fence().await;
    assert_eq!(mesh.metric("broker_connections_rejected_total{reason=\"kicked\"}").await, Some(2));
}

/// websocket 8.2 ▶: a lease that broke is not taken up again, and mail for the session goes on waiting (D2).
#[tokio::test(flavor = "multi_thread")]
async fn a_kicked_session_takes_up_no_lease_and_gets_its_mail_later() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let api = bob.session();
    connect(&mesh, &api, "api").await.break_off();
    claudemesh_testkit::eventually("the line is seen to be broken", async || {
        admin.peers().await.len() == 2 && mesh.metric("broker_connections_active").await == Some(1)
    })
    .await;
    assert_eq!(ask(&mut admin, json!({"type": "kick", "target": "api"})).await, gone("kick_ack", &["api"]));
    assert_eq!(admin.peers().await.len(), 1);
    assert_eq!(mesh.refusal(&api.hello()).await.3, "kicked");
    admin.deliver(&api.key(), "later").await;
    mesh.clock.pass(Duration::from_mins(1));
    assert_eq!(connect(&mesh, &api, "api").await.receive().await, "later");
}

/// websocket 8.2: daemons and commands do not heed a kick.
#[tokio::test(flavor = "multi_thread")]
async fn kick_leaves_control_plane_connections_alone_and_disconnect_does_not() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let (mut daemon, mut cold) = (mesh.connect(&bob.hello()).await, mesh.connect(&named(bob.cold(), "cmd")).await);
    let mut session = connect(&mesh, &bob.session(), "api").await;
    let kicked = ask(&mut admin, json!({"type": "kick", "target": "Bob"})).await;
    let skipped = json!({"skipped_control_plane": ["Bob", "cmd"]});
    assert_eq!(kicked, merged(gone("kick_ack", &["api"]), skipped));
    assert_eq!(session.closed().await, (4001, "kicked".to_owned()));
    daemon.fence().await;
    cold.fence().await;
    let gone_too = ask(&mut admin, json!({"type": "disconnect", "target": "Bob"})).await;
    assert_eq!(gone_too, gone("disconnect_ack", &["Bob", "cmd"]));
    assert_eq!(daemon.closed().await, (1000, "disconnected".to_owned()));
    assert_eq!(cold.closed().await, (1000, "disconnected".to_owned()));
}

/// websocket 8.2: `all` over `stale` over `target`; both leave the caller alone.
#[tokio::test(flavor = "multi_thread")]
async fn all_and_stale_mean_everybody_else() {
    let mesh = TestMesh::start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let (mut silent, mut lively) =
        (connect(&mesh, &bob.session(), "silent").await, connect(&mesh, &cid.session(), "lively").await);
    mesh.clock.pass(Duration::from_secs(40));
    lively.ping().await;
    lively.fence().await;
    let stale = json!({"type": "disconnect", "stale": 60_000, "target": "lively"});
    assert_eq!(ask(&mut admin, stale).await, gone("disconnect_ack", &[]));
    let stale = json!({"type": "disconnect", "stale": 30_000, "target": "lively", "all": false});
    assert_eq!(ask(&mut admin, stale).await, gone("disconnect_ack", &["silent"]));
    assert_eq!(silent.closed().await, (1000, "disconnected_stale".to_owned()));
    mesh.clock.pass(Duration::from_secs(40));
    assert_eq!(ask(&mut admin, json!({"type": "kick", "stale": 30_000})).await, gone("kick_ack", &["lively"]));
    assert_eq!(lively.closed().await, (4001, "kicked_stale".to_owned()));
    let mut everybody = [connect(&mesh, &bob.session(), "a").await, connect(&mesh, &cid.session(), "b").await];
    let all = json!({"type": "kick", "all": true, "stale": 1_000_000, "target": "a"});
    assert_eq!(ask(&mut admin, all).await, gone("kick_ack", &["a", "b"]));
    for wire in &mut everybody {
        assert_eq!(wire.closed().await, (4001, "kicked".to_owned()));
    }
    for fields in [json!({}), json!({"all": false}), json!({"target": null}), json!({"target": ""})] {
        let nobody = ask(&mut admin, merged(json!({"type": "kick"}), fields)).await;
        assert_eq!(nobody, gone("kick_ack", &[]));
    }
    let negative = ask(&mut admin, json!({"type": "kick", "stale": -1})).await;
    assert_eq!(negative, error("invalid_argument", "stale must be 0 or more milliseconds"));
    for (field, value) in [("stale", json!("soon")), ("stale", json!(1.5)), ("all", json!("yes")), ("target", json!(5))]
    {
        crate::hello::named(&mut admin, json!({"type": "kick", field: value}), field).await;
    }
    // Oneself may be meant by name.
    assert_eq!(ask(&mut admin, json!({"type": "disconnect", "target": "Ann"})).await, gone("disconnect_ack", &["Ann"]));
    assert_eq!(admin.closed().await, (1000, "disconnected".to_owned()));
}

/// R3: nobody else disconnects the owner, and other meshes are not touched (R6).
#[tokio::test(flavor = "multi_thread")]
async fn the_owner_and_other_meshes_are_out_of_reach() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (_, eve) = mesh.mesh("other").await;
    promote(&mesh, &bob).await;
    let mut owner = mesh.connect(&ann.hello()).await;
    let (mut session, mut foreign) =
        (connect(&mesh, &ann.session(), "api").await, connect(&mesh, &eve.session(), "foreign").await);
    let mut admin = mesh.connect(&bob.hello()).await;
    for (kind, done) in [("kick", "kicked"), ("disconnect", "disconnected")] {
        for target in [ann.key(), "Ann".to_owned(), "api".to_owned()] {
            let answer = ask(&mut admin, json!({"type": kind, "target": target})).await;
            assert_eq!(answer, error("forbidden", &format!("the owner cannot be {done}")));
        }
        for fields in
            [json!({"all": true}), json!({"stale": 0}), json!({"target": eve.key()}), json!({"target": "foreign"})]
        {
            let answer = ask(&mut admin, merged(json!({"type": kind}), fields)).await;
            assert_eq!(answer["kicked"], json!([]));
        }
    }
    for wire in [&mut owner, &mut session, &mut foreign] {
        wire.fence().await;
    }
    // The owner's own commands may.
    assert_eq!(ask(&mut owner, json!({"type": "kick", "target": "api"})).await, gone("kick_ack", &["api"]));
}

/// websocket 4.2 and 9: who was sent away has left, for everybody and in the log.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_sent_away_has_left_for_the_others_and_for_the_log() {
    let mesh = TestMesh::start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    let (mut admin, mut other) = (mesh.connect(&ann.hello()).await, mesh.connect(&cid.hello()).await);
    let left = "select count(*) from audit_log where event_type = 'peer_left'";
    for (number, request) in [
        json!({"type": "disconnect", "target": "api"}),
        json!({"type": "kick", "target": "api"}),
        json!({"type": "ban", "target": "Bob"}),
    ]
    .into_iter()
    .enumerate()
    {
        let _session = connect(&mesh, &bob.session(), "api").await;
        claudemesh_testkit::eventually("the two before are logged", async || {
            mesh.database.number(left).await >= i64::try_from(number).unwrap()
        })
        .await;
        let before = mesh.database.number(left).await;
        assert_ne!(admin.ask(request.clone()).await["type"], "error", "{request}");
        assert_eq!(other.event("peer_left").await["eventData"]["displayName"], "api", "{request}");
        claudemesh_testkit::eventually("it is logged", async || mesh.database.number(left).await > before).await;
    }
}
