//! `ban`, `unban` and `list_bans`.

use std::time::Duration;

use claudemesh_testkit::{Member, Setup, TestMesh, Wire, eventually, merged};
use serde_json::{Value, json};
use tokio::time::Instant;

on_both!(
    a_ban_closes_everything_of_the_member_and_refuses_it_from_then_on,
    what_waits_for_the_banned_ends_and_does_not_revive,
    a_ban_while_mail_is_pushed_loses_nothing_and_pushes_nothing_more,
    a_ban_during_a_handshake_leaves_nothing_open,
    who_cannot_be_banned_and_by_whom,
    an_unban_names_one_of_the_banned,
);

/// Behind a target that means nobody or several, and is no key.
pub(crate) const HINT: &str = ": give the key, or at least its first 12 characters";

/// An answer without its `_reqId`.
async fn ask(wire: &mut Wire, request: Value) -> Value {
    merged(wire.ask(request).await, json!({"_reqId": null}))
}

fn error(code: &str, message: &str) -> Value {
    json!({"type": "error", "code": code, "message": message})
}

async fn ban(wire: &mut Wire, target: &str) -> Value {
    ask(wire, json!({"type": "ban", "target": target, "reason": "not kept"})).await
}

async fn unban(wire: &mut Wire, target: &str) -> Value {
    ask(wire, json!({"type": "unban", "target": target})).await
}

async fn state(wire: &mut Wire, id: &str) -> Value {
    let status = wire.ask(json!({"type": "message_status", "messageId": id})).await;
    status["recipients"][0]["state"].clone()
}

fn banned_close() -> (u16, String) {
    (4002, "banned".to_owned())
}

async fn promote(mesh: &TestMesh, member: &Member) {
    mesh.database.sql(&format!("update member set role = 'admin' where id = '{}'", member.id)).await;
}

/// R10, D9, websocket 8.2 and 1.4.
async fn a_ban_closes_everything_of_the_member_and_refuses_it_from_then_on(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    let session = bob.session();
    let (mut admin, mut other) = (mesh.connect(&ann.hello()).await, mesh.connect(&cid.hello()).await);
    let mut wires =
        [mesh.connect(&bob.hello()).await, mesh.connect(&session.hello()).await, mesh.connect(&bob.cold()).await];
    mesh.connect(&bob.session().hello()).await.break_off();
    let started = Instant::now();
    assert_eq!(ban(&mut admin, "Bob").await, json!({"type": "ban_ack", "banned": "Bob"}));
    for wire in &mut wires {
        assert_eq!(wire.closed().await, banned_close());
    }
    assert!(started.elapsed() < Duration::from_secs(1), "D9");
    let names = |list: &[Value]| -> Vec<Value> { list.iter().map(|one| one["displayName"].clone()).collect() };
    assert_eq!(names(&other.peers().await), ["Ann", "Cid"], "a line that broke is no exception");
    let members = other.ask(json!({"type": "member_list"})).await;
    assert_eq!(names(members["members"].as_array().unwrap()), ["Ann", "Cid"]);
    for hello in [bob.hello(), session.hello(), bob.session().hello()] {
        let (code, message, close, reason) = mesh.refusal(&hello).await;
        assert_eq!((code.as_str(), (close, reason)), ("revoked", banned_close()));
        assert!(message.starts_with("You've been removed from \"pair\""), "{message}");
    }
    for key in [bob.key(), session.key()] {
        let ack = other.send(&key, "x").await;
        assert_eq!(ack["queued"], false);
        assert!(ack["error"].as_str().unwrap().starts_with("no connected peer"), "{ack}");
    }
    // Joining again with the key fails, and uses nothing up.
    let (payload, token) = mesh_of_ann.token("member");
    assert_eq!(admin.ask(json!({"type": "invite_create", "token": token})).await["type"], "invite_created");
    let answer = mesh.redeem(&payload, &token, (&bob.key(), "Bob")).await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("member_revoked")));
    assert_eq!(
        mesh.database.number("select max(used_count) from invite where revoked_at is null and used_count = 0").await,
        0
    );
    // Every member may ask who is banned; another mesh has its own list (R6).
    let bans = ask(&mut other, json!({"type": "list_bans"})).await;
    assert!(bans["bans"][0]["revokedAt"].as_str().unwrap().ends_with('Z'));
    let expected = json!({"name": "Bob", "pubkey": bob.key(), "revokedAt": bans["bans"][0]["revokedAt"]});
    assert_eq!(bans, json!({"type": "list_bans_result", "bans": [expected]}));
    let (_, eve) = mesh.mesh("elsewhere").await;
    let mut eve = mesh.connect(&eve.hello()).await;
    assert_eq!(ask(&mut eve, json!({"type": "list_bans"})).await["bans"], json!([]));
    assert_eq!(unban(&mut eve, &bob.key()).await["code"], "not_found");
    // A1: with its entry.
    let entries = "select count(*) from audit_log where event_type = 'member_banned' and payload = ";
    let payload = format!(r#"'{{"target":"Bob","targetPubkey":"{}"}}'"#, bob.key());
    assert_eq!(mesh.database.number(&format!("{entries}{payload}")).await, 1);
}

/// R10: an unban does not revive what was accepted before.
async fn what_waits_for_the_banned_ends_and_does_not_revive(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    let session = bob.session();
    let (mut admin, mut sender) = (mesh.connect(&ann.hello()).await, mesh.connect(&cid.hello()).await);
    let (mut daemon, live) = (mesh.connect(&bob.hello()).await, mesh.connect(&session.hello()).await);
    let had = sender.deliver(&bob.key(), "had").await;
    assert_eq!(daemon.receive().await, "had");
    eventually("it is settled", async || state(&mut sender, &had).await == "delivered").await;
    let held = sender.deliver(&bob.key(), "held").await;
    assert_eq!(daemon.push().await.1, "held", "handed over and not acknowledged");
    live.close(1000).await;
    let waiting = sender.deliver(&session.key(), "waiting").await;
    assert_eq!(ban(&mut admin, &bob.key()[..12]).await["banned"], "Bob");
    assert_eq!(daemon.closed().await, banned_close());
    for id in [&held, &waiting] {
        assert_eq!(state(&mut sender, id).await, "revoked");
    }
    assert_eq!(state(&mut sender, &had).await, "delivered");
    assert_eq!(mesh.database.number("select cast(coalesce(sum(queued_rows), 0) as bigint) from backlog").await, 0);
    assert_eq!(unban(&mut admin, "Bob").await, json!({"type": "unban_ack", "unbanned": "Bob"}));
    let (mut daemon, mut live) = (mesh.connect(&bob.hello()).await, mesh.connect(&session.hello()).await);
    daemon.nothing_else().await;
    sender.deliver(&bob.key(), "new").await;
    sender.deliver(&session.key(), "new too").await;
    assert_eq!((daemon.receive().await, live.receive().await), ("new".to_owned(), "new too".to_owned()));
    assert_eq!(state(&mut sender, &held).await, "revoked");
}

/// D9 and R10.
async fn a_ban_while_mail_is_pushed_loses_nothing_and_pushes_nothing_more(setup: Setup) {
    const MESSAGES: usize = 300;
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let (mut admin, mut sender) = (mesh.connect(&ann.hello()).await, mesh.connect(&ann.cold()).await);
    let mut reader = mesh.connect(&bob.hello()).await;
    let reading = async move {
        let mut received = 0;
        let closed = loop {
            match reader.push_or_close().await {
                Ok(push) => {
                    received += 1;
                    let ack = json!({"type": "client_ack", "brokerMessageId": push["messageId"]});
                    reader.try_say(&ack.to_string()).await;
                }
                Err(close) => break close,
            }
        };
        (received, closed)
    };
    let key = bob.key();
    let sending = async move {
        let mut ids = Vec::new();
        for _ in 0..MESSAGES {
            let ack = sender.send(&key, "x").await;
            if ack["queued"] != true {
                break;
            }
            ids.push(ack["messageId"].as_str().unwrap().to_owned());
        }
        ids
    };
    let banning = async {
        let pushed = async || mesh.metric("broker_messages_pushed_total").await.unwrap() >= 50;
        eventually("mail is being pushed", pushed).await;
        ban(&mut admin, "Bob").await
    };
    let ((received, closed), ids, banned) = tokio::join!(reading, sending, banning);
    assert_eq!((closed, &banned["type"]), (Some(banned_close()), &json!("ban_ack")));
    assert!(received <= ids.len(), "nothing came twice");
    let mut delivered = 0;
    for id in &ids {
        let state = state(&mut admin, id).await;
        assert!(state == "delivered" || state == "revoked", "{state}");
        delivered += usize::from(state == "delivered");
    }
    assert!(delivered <= received, "D3: {delivered} delivered, {received} received");
    assert_eq!(mesh.database.number("select count(*) from delivery where state = 'queued'").await, 0);
}

/// R10 and D9.
async fn a_ban_during_a_handshake_leaves_nothing_open(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let (mut let_in, mut refused) = (0, 0);
    for _ in 0..12 {
        let hello = bob.session().hello();
        let greeting = async {
            let mut wire = Wire::open(mesh.address).await;
            wire.say(&hello).await;
            let answer = wire.next().await;
            (answer["type"] == "hello_ack", wire.closed().await)
        };
        let banning = async { ban(&mut admin, "Bob").await };
        let ((was_let_in, closed), banned) = tokio::join!(greeting, banning);
        assert_eq!((closed, &banned["type"]), (banned_close(), &json!("ban_ack")));
        let_in += usize::from(was_let_in);
        refused += usize::from(!was_let_in);
        assert_eq!(admin.peers().await.len(), 1);
        assert_eq!(unban(&mut admin, "Bob").await["type"], "unban_ack");
    }
    assert_eq!(let_in + refused, 12);
}

/// websocket 8.2: the order of the checks, and that a refusal changes nothing.
async fn who_cannot_be_banned_and_by_whom(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let (cid, dan) = (mesh.join(&mesh_of_ann, &ann, "Cid").await, mesh.join(&mesh_of_ann, &ann, "Twin").await);
    mesh.join(&mesh_of_ann, &ann, "Twin").await;
    let eve = mesh.mesh("other").await.1;
    promote(&mesh, &bob).await;
    let mut wires = [
        mesh.connect(&ann.hello()).await,
        mesh.connect(&bob.hello()).await,
        mesh.connect(&cid.hello()).await,
        mesh.connect(&dan.hello()).await,
    ];
    let logged = "select count(*) from audit_log where event_type like 'member_%banned'";
    let required = error("invalid", "target required");
    let forbidden = |what: &str| error("forbidden", &format!("only owner or admin can {what}"));
    for target in [json!(null), json!(""), json!(" \u{200b}\n")] {
        for kind in ["ban", "unban"] {
            let request = merged(json!({"type": kind}), json!({"target": target}));
            assert_eq!(ask(&mut wires[2], request).await, required, "before who asks is looked at");
        }
    }
    for target in ["Bob", "nobody", "Cid", "Ann", "Twin"] {
        assert_eq!(ban(&mut wires[2], target).await, forbidden("ban"));
        assert_eq!(unban(&mut wires[2], target).await, forbidden("unban"));
    }
    let admin = &mut wires[1];
    let nobody = |text: &str| error("not_found", &format!("peer \"{text}\" not found"));
    for target in
        ["nobody", "cid", &cid.key()[..11], &cid.key()[4..30], &cid.key().to_uppercase(), &eve.key(), "%", "_"]
    {
        assert_eq!(ban(admin, target).await, nobody(target), "{target}");
    }
    assert_eq!(ban(admin, &format!("\u{202e}{}\n", "x".repeat(500))).await, nobody(&"x".repeat(64)));
    assert_eq!(ban(admin, "Twin").await, error("invalid", &format!("\"Twin\" is ambiguous{HINT}")));
    for target in ["Bob", &bob.key(), &bob.key()[..12]] {
        assert_eq!(ban(admin, target).await, error("invalid", "cannot ban yourself"));
    }
    for target in ["Ann", &ann.key(), &ann.key()[..12]] {
        assert_eq!(ban(admin, target).await, error("forbidden", "the owner cannot be banned"));
    }
    assert_eq!(ban(&mut wires[0], "Ann").await, error("invalid", "cannot ban yourself"), "the owner neither");
    crate::hello::named(&mut wires[0], json!({"type": "ban", "target": 5}), "target").await;
    assert_eq!(mesh.database.number(logged).await, 0);
    assert_eq!(mesh.database.number("select count(*) from member where revoked_at is not null").await, 0);
    for wire in &mut wires {
        wire.fence().await;
    }
    // A full key means its owner alone, whoever is called so; and admins may remove admins.
    mesh.join(&mesh_of_ann, &ann, &bob.key()).await;
    promote(&mesh, &dan).await;
    assert_eq!(ban(&mut wires[3], &bob.key()).await["banned"], "Bob");
    assert_eq!(wires[1].closed().await, banned_close());
    assert_eq!(ban(&mut wires[3], &bob.key()).await["code"], "not_found", "a second time");
}

/// websocket 8.2
async fn an_unban_names_one_of_the_banned(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let (cid, namesake) = (mesh.join(&mesh_of_ann, &ann, "Cid").await, mesh.join(&mesh_of_ann, &ann, "Bob").await);
    let mut admin = mesh.connect(&ann.hello()).await;
    for member in [&bob, &cid] {
        assert_eq!(ban(&mut admin, &member.key()).await["type"], "ban_ack");
    }
    for target in ["nobody", "Ann", &ann.key(), &cid.key()[..11], &namesake.key()] {
        assert_eq!(unban(&mut admin, target).await, error("not_found", &format!("no banned peer \"{target}\"")));
    }
    assert_eq!(unban(&mut admin, "Bob").await["unbanned"], "Bob", "the other Bob is not banned");
    assert_eq!(unban(&mut admin, &cid.key()[..12]).await["unbanned"], "Cid");
    for member in [&bob, &cid] {
        mesh.connect(&member.hello()).await.fence().await;
    }
    for member in [&bob, &namesake] {
        assert_eq!(ban(&mut admin, &member.key()).await["banned"], "Bob");
    }
    assert_eq!(unban(&mut admin, "Bob").await, error("invalid", &format!("\"Bob\" is ambiguous{HINT}")));
    assert_eq!(unban(&mut admin, &bob.key()).await["unbanned"], "Bob");
    assert_eq!(ask(&mut admin, json!({"type": "list_bans"})).await["bans"][0]["pubkey"], namesake.key());
}

/// R10: nothing that was said on a connection after the ban is listened to.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_banned_connection_still_says_is_not_heard() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    promote(&mesh, &bob).await;
    let (mut admin, mut removed) = (mesh.connect(&ann.hello()).await, mesh.connect(&bob.hello()).await);
    assert_eq!(ban(&mut admin, "Bob").await["type"], "ban_ack");
    for request in ["list_peers", "member_list", "list_bans", "invite_list"] {
        removed.try_say(&json!({"type": request, "_reqId": "x"}).to_string()).await;
    }
    removed.try_say(&claudemesh_testkit::send_frame(&ann.key(), "x").to_string()).await;
    assert_eq!(removed.closed().await, banned_close());
    for kind in ["peers_list", "member_list_response", "list_bans_result", "invite_list_response", "ack"] {
        assert_eq!(removed.kept(kind), 0, "{kind}");
    }
}

/// D9: within 5 s on another broker of the same database.
#[tokio::test(flavor = "multi_thread")]
async fn a_ban_reaches_the_connections_of_other_brokers() {
    let here = Setup::postgres().start().await;
    let url = here.database.url();
    let there = Setup::postgres().with(|config| config.database_url = Some(url)).start().await;
    let (_, ann, bob) = here.pair().await;
    let (mut admin, mut removed) = (here.connect(&ann.hello()).await, there.connect(&bob.session().hello()).await);
    let started = Instant::now();
    assert_eq!(ban(&mut admin, "Bob").await["type"], "ban_ack");
    assert_eq!(removed.closed().await, banned_close());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
