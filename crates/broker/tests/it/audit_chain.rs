//! What is logged is what happened, once, in one chain (A1, A2).

use claudemesh_keys::Identity;
use claudemesh_proto::text::base64;
use claudemesh_testkit::{Kind, Member, Setup, TestMesh, Wire, eventually, merged, send_frame};
use serde_json::{Value, json};

use crate::audit::{have_left, verified};
use crate::{rest, topic};

on_both!(the_chain_never_forks, what_cannot_be_logged_does_not_happen,);

/// A2: whoever writes to it at the same time.
async fn the_chain_never_forks(setup: Setup) {
    const ROUNDS: usize = 15;
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&of_ann, &ann, "Cid").await;
    let mut banning = mesh.connect(&ann.hello()).await;
    let mut inviting = mesh.connect(&ann.cold()).await;
    let (mut sending, mut verifying) = (mesh.connect(&cid.hello()).await, mesh.connect(&ann.cold()).await);
    let bans = async {
        for _ in 0..ROUNDS {
            assert_eq!(banning.ask(json!({"type": "ban", "target": bob.key()})).await["type"], "ban_ack");
            assert_eq!(banning.ask(json!({"type": "unban", "target": bob.key()})).await["type"], "unban_ack");
        }
    };
    let invites = async {
        for _ in 0..ROUNDS {
            let token = of_ann.token("member").1;
            let created = inviting.ask(json!({"type": "invite_create", "token": token})).await;
            assert_eq!(inviting.ask(json!({"type": "invite_revoke", "id": created["id"]})).await["status"], "revoked");
        }
    };
    let sends = async {
        for _ in 0..ROUNDS {
            let frames: Vec<Value> = (0..20).map(|_| send_frame(&ann.key(), "x")).collect();
            for frame in &frames {
                sending.feed(frame).await;
            }
            sending.flush().await;
            for _ in frames {
                assert_eq!(sending.ack_or_close().await.unwrap()["queued"], true);
            }
        }
    };
    let comings = async {
        for _ in 0..ROUNDS {
            mesh.connect(&cid.session().hello()).await.close(1000).await;
            mesh.connect(&ann.session().hello()).await.break_off();
        }
    };
    let joins = async {
        for number in 0..ROUNDS {
            mesh.join(&of_ann, &ann, &format!("Member {number}")).await;
        }
    };
    let broadcasts = async {
        let mut crier = mesh.connect(&ann.session().hello()).await;
        for _ in 0..ROUNDS {
            crier.deliver("*", "x").await;
            crier.deliver(&cid.key(), "x").await;
        }
    };
    let verifications = async {
        for _ in 0..ROUNDS {
            let found = verified(&mut verifying).await;
            assert_eq!(found["valid"], true, "also while it grows: {found}");
        }
    };
    tokio::join!(bans, invites, sends, comings, joins, broadcasts, verifications);
    // Who has left is logged a moment later.
    eventually("every entry is verified", async || {
        let found = verified(&mut banning).await;
        assert_eq!(found["valid"], true, "{found}");
        let rows = mesh.database.number("select count(*) from audit_log").await;
        found["entries"] == rows && rows == mesh.database.number("select max(seq) from audit_log").await
    })
    .await;
    for (event, of_the_test) in [("message_sent", 22), ("member_banned", 1), ("member_joined", 1), ("peer_joined", 2)] {
        let count = format!("select count(*) from audit_log where event_type = '{event}'");
        let least = i64::try_from(of_the_test * ROUNDS).unwrap();
        assert!(mesh.database.number(&count).await >= least, "{event}");
    }
    let sent = mesh.database.number("select count(*) from audit_log where event_type = 'message_sent'").await;
    assert_eq!(sent, mesh.database.number("select count(*) from message").await, "one for each");
}

/// Topics for what is refused below, with or without Ann and Bob in them, one with a copy of its key for Ann. An API key of Ann's.
async fn prepare_topics(mesh: &TestMesh, (ann, admin): (&Member, &mut Wire), bob: &Member) -> String {
    let mut of_bob = rest::command(mesh, bob).await;
    topic::create(admin, json!({"name": "anns"})).await;
    for name in ["bobs", "crew"] {
        topic::create(&mut of_bob, json!({"name": name})).await;
    }
    topic::create(admin, json!({"name": "private", "visibility": "private"})).await;
    admin.say(&json!({"type": "topic_join", "topic": "crew"})).await;
    of_bob.say(&json!({"type": "topic_join", "topic": "anns"})).await;
    of_bob.fence().await;
    of_bob.close(1000).await;
    admin.fence().await;
    let both = json!({"capabilities": ["read", "send"]});
    let of_bob = rest::key_of(mesh, bob, both.clone()).await;
    let sealed = rest::ask(mesh, "POST", "/v1/topics/crew/seal", (&of_bob, Some(&copy_for(Some(ann))))).await;
    assert_eq!(sealed.status, 200, "{}", sealed.body);
    rest::key_of(mesh, ann, both).await
}

/// What the broker takes for a sealed copy, for somebody or for whoever claims.
fn copy_for(whom: Option<&Member>) -> Value {
    let copy = json!({"encryptedKey": base64(&[1; 80]), "nonce": base64(&[2; 24])});
    let whose =
        whom.map_or_else(|| json!({"encryptedKeyPubkey": "01".repeat(32)}), |whom| json!({"memberId": whom.id}));
    merged(copy, whose)
}

/// A1: an entry is committed with its event, or neither is.
async fn what_cannot_be_logged_does_not_happen(setup: Setup) {
    let kind = setup.kind();
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let (payload, open) = of_ann.token("member");
    assert_eq!(admin.ask(json!({"type": "invite_create", "token": open})).await["type"], "invite_created");
    let key = prepare_topics(&mesh, (&ann, &mut admin), &bob).await;
    let refuse = match kind {
        Kind::Sqlite => {
            "create trigger refuse before insert on audit_log begin select raise(abort, 'full'); end".to_owned()
        }
        Kind::Postgres => "create function refuse() returns trigger language plpgsql as \
             $$ begin raise exception 'full'; end $$; \
             create trigger refuse before insert on audit_log for each row execute function refuse()"
            .to_owned(),
    };
    let facts = async || {
        let mut facts = Vec::new();
        for count in [
            "select count(*) from member where revoked_at is not null",
            "select count(*) from member",
            "select count(*) from invite where revoked_at is null",
            "select cast(sum(used_count) as bigint) from invite",
            "select count(*) from mesh",
            "select count(*) from message",
            "select count(*) from delivery",
            "select count(*) from session",
            "select count(*) from handshake",
            "select count(*) from member_grant",
            "select count(*) from member_group",
            "select count(*) from member where role_tag is not null",
            "select count(*) from topic",
            "select count(*) from topic where encrypted_key_pubkey is not null",
            "select count(*) from topic_member",
            "select count(*) from topic_member_key",
            "select count(*) from topic_message",
            "select count(*) from notification",
            "select count(*) from api_key where revoked_at is null",
            "select cast(sum(audit_seq) as bigint) from mesh_head",
        ] {
            facts.push(mesh.database.number(count).await);
        }
        facts
    };
    let before = facts().await;
    mesh.database.sql(&refuse).await;
    let token = of_ann.token("member").1;
    for request in [
        json!({"type": "ban", "target": "Bob"}),
        json!({"type": "invite_create", "token": token}),
        json!({"type": "grant_set", "grants": {bob.key(): []}}),
        json!({"type": "member_update", "memberId": bob.id, "roleTag": "x"}),
        json!({"type": "topic_create", "name": "late"}),
        json!({"type": "topic_join", "topic": "bobs"}),
        json!({"type": "topic_leave", "topic": "crew"}),
        json!({"type": "topic_add_member", "topic": "private", "memberId": bob.id}),
        json!({"type": "apikey_create", "label": "x", "capabilities": ["read"]}),
    ] {
        let answer = admin.ask(request.clone()).await;
        assert_eq!(answer["type"], "error", "{request}: {answer}");
    }
    for (path, body) in [
        ("/v1/topics/general/claim-key", Some(copy_for(None))),
        ("/v1/topics/anns/seal", Some(copy_for(Some(&bob)))),
        ("/v1/topics/crew/key/reject", None),
        ("/v1/messages", Some(json!({"topic": "general", "ciphertext": base64(b"@Bob"), "nonce": ""}))),
    ] {
        let answer = rest::ask(&mesh, "POST", path, (&key, body.as_ref())).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.body);
    }
    let mut comer = Wire::open(mesh.address).await;
    for hello in [bob.hello(), bob.session().hello(), bob.cold()] {
        comer.say(&hello).await;
        let error = comer.next().await;
        assert_eq!(error["type"], "error", "nobody comes unnoted: {error}");
    }
    comer.break_off();
    assert_eq!(admin.peers().await.len(), 1);
    let comer = Identity::generate().unwrap().public().to_string();
    assert_ne!(mesh.redeem(&payload, &open, (&comer, "Cid")).await.status, 200);
    for target in [bob.key().as_str(), "*", "@all"] {
        assert_eq!(admin.send(target, "x").await["queued"], false);
    }
    assert_eq!(facts().await, before);
    let allow = if kind == Kind::Sqlite { "drop trigger refuse" } else { "drop trigger refuse on audit_log" };
    mesh.database.sql(allow).await;
    assert_eq!(admin.ask(json!({"type": "ban", "target": "Bob"})).await["type"], "ban_ack");
    assert_eq!(verified(&mut admin).await["valid"], true);
}

/// A1: a connection that comes while the one it would go on from closes is somebody who came, whichever of them was faster.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_while_its_forerunner_leaves_is_logged_as_often_as_it_leaves() {
    let mesh = Setup::sqlite().with(|config| config.hello_rate_per_min = 0).start().await;
    let (_, ann) = mesh.mesh("race").await;
    let count = async |event: &str| {
        mesh.database.number(&format!("select count(*) from audit_log where event_type = '{event}'")).await
    };
    for round in 0..100 {
        let hello = || merged(ann.hello(), json!({"sessionId": format!("race {round}"), "capabilities": ["quiet"]}));
        let mut old = mesh.connect(&hello()).await;
        let mut new = Wire::open(mesh.address).await;
        let frame = hello();
        tokio::join!(new.greet(&frame), old.say_close(1000));
        new.close(1000).await;
        old.break_off();
    }
    eventually("nobody is here", async || mesh.metric("broker_connections_active").await == Some(0)).await;
    eventually("all have left", async || count("peer_left").await >= 100).await;
    let (came, left) = (count("peer_joined").await, count("peer_left").await);
    assert!(came >= 100);
    have_left(&mesh, came).await;
    assert_eq!(count("peer_joined").await, came, "{left}");
}
