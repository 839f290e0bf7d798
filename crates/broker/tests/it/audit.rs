//! `audit_query`, `audit_verify`, and the checkpoints that the broker signs.

use std::fs;
use std::time::Duration;

use claudemesh_keys::{Identity, audit_hash, sha256_hex, verify};
use claudemesh_proto::canonical::{self, SigningBytes};
use claudemesh_proto::{PublicKey, Signature, Timestamp};
use claudemesh_testkit::{Kind, Member, Mesh, Request, Setup, TestMesh, Wire, eventually, letter, merged};
use serde_json::{Value, json};

use crate::greeting::shape;

on_both!(
    admins_read_the_log_newest_first,
    the_log_names_members_by_their_own_names,
    what_one_request_logs_is_bounded,
    whatever_is_done_to_the_log_is_found,
    a_log_cut_off_together_with_its_head_is_found_by_its_checkpoints,
    a_log_written_anew_is_found_by_its_checkpoints,
    the_chain_never_forks,
    what_cannot_be_logged_does_not_happen,
    the_log_holds_metadata_only,
);

/// An answer without its `_reqId`.
async fn ask(wire: &mut Wire, request: Value) -> Value {
    merged(wire.ask(request).await, json!({"_reqId": null}))
}

async fn query(wire: &mut Wire, fields: Value) -> Value {
    ask(wire, merged(json!({"type": "audit_query"}), fields)).await
}

async fn verified(wire: &mut Wire) -> Value {
    ask(wire, json!({"type": "audit_verify"})).await
}

/// Waits until so many ends of connections are in the log: an end is written a moment later.
async fn have_left(mesh: &TestMesh, count: i64) {
    eventually("the log says who left", async || {
        mesh.database.number("select count(*) from audit_log where event_type = 'peer_left'").await == count
    })
    .await;
}

/// A log with some entries that does not grow, and an admin's connection.
async fn with_log(mesh: &TestMesh) -> (Mesh, Member, Wire) {
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    have_left(mesh, 1).await;
    let mut admin = mesh.connect(&ann.hello()).await;
    for _ in 0..2 {
        for kind in ["ban", "unban"] {
            let answer = admin.ask(json!({"type": kind, "target": bob.key()})).await;
            assert_ne!(answer["type"], "error", "{answer}");
        }
    }
    (mesh_of_ann, ann, admin)
}

fn forbidden() -> Value {
    json!({"type": "error", "code": "forbidden", "message": "only owner or admin can read the audit log"})
}

/// websocket 9 ▶ (ours: for admins, with a cap)
async fn admins_read_the_log_newest_first(setup: Setup) {
    let mesh = setup.start().await;
    let (mesh_of_ann, ann, mut admin) = with_log(&mesh).await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    have_left(&mesh, 2).await;
    let all = query(&mut admin, json!({})).await;
    let entries = all["entries"].as_array().unwrap();
    assert_eq!((&all["type"], &all["total"]), (&json!("audit_result"), &json!(entries.len())));
    let ids: Vec<_> = entries.iter().map(|entry| entry["id"].as_i64().unwrap()).collect();
    let newest_first: Vec<_> = (1..=i64::try_from(entries.len()).unwrap()).rev().collect();
    assert_eq!(ids, newest_first);
    let of_bans = query(&mut admin, json!({"eventType": "member_banned"})).await;
    assert_eq!(of_bans["total"], 2);
    insta::assert_snapshot!("audit_entry", shape(&merged(of_bans["entries"][0].clone(), json!({"hash": "<hash>"}))));
    let page = query(&mut admin, json!({"limit": 2, "offset": 1})).await;
    assert_eq!((&page["entries"], &page["total"]), (&json!(entries[1..3]), &all["total"]));
    // A name, else an id.
    let made = query(&mut admin, json!({"eventType": "mesh_created"})).await;
    assert_eq!(made["entries"][0]["actor"], "Ann");
    assert_eq!(of_bans["entries"][0]["actor"], "Ann");
    let invited = query(&mut admin, json!({"eventType": "invite_created"})).await;
    assert_eq!(
        (&invited["entries"][0]["actor"], &invited["entries"][0]["actorMemberId"]),
        (&json!("Ann"), &json!(ann.id))
    );
    for fields in [json!({"eventType": "never"}), json!({"eventType": "\u{0}"}), json!({"offset": u32::MAX})] {
        assert_eq!(query(&mut admin, fields).await["entries"], json!([]));
    }
    for limit in [0, 501, u32::MAX] {
        let refused = query(&mut admin, json!({"limit": limit})).await;
        assert_eq!(refused, json!({"type": "error", "code": "invalid_argument", "message": "limit must be 1 to 500"}));
    }
    for (field, value) in [("limit", json!(-1)), ("limit", json!("5")), ("offset", json!(-1)), ("eventType", json!(5))]
    {
        crate::hello::named(&mut admin, json!({"type": "audit_query", field: value}), field).await;
    }
    let mut member = mesh.connect(&cid.hello()).await;
    assert_eq!(query(&mut member, json!({"limit": 0})).await, forbidden());
    assert_eq!(verified(&mut member).await, forbidden());
    // R6 and D8: each mesh has its own.
    let (_, eve) = mesh.mesh("other").await;
    let foreign = query(&mut mesh.connect(&eve.hello()).await, json!({"eventType": "mesh_created"})).await;
    assert_eq!(foreign["entries"][0]["payload"]["slug"], "other");
    assert_eq!(foreign["total"], 1);
}

/// Whatever a connection calls itself, the log says which member it is of.
async fn the_log_names_members_by_their_own_names(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    have_left(&mesh, 1).await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let mut posing = mesh.connect(&merged(bob.hello(), json!({"displayName": "Ann"}))).await;
    posing.deliver("*", "in another's name").await;
    posing.close(1000).await;
    have_left(&mesh, 2).await;
    let mut renamed = mesh.connect(&merged(bob.hello(), json!({"displayName": "Ann"}))).await;
    let answer = admin.ask(json!({"type": "member_update", "memberId": bob.id, "displayName": "Robert"})).await;
    assert_eq!(answer["type"], "member_updated", "{answer}");
    renamed.deliver(&ann.key(), "under a new one").await;
    renamed.close(1000).await;
    have_left(&mesh, 3).await;
    let of_bob = query(&mut admin, json!({})).await;
    let of_bob = of_bob["entries"].as_array().unwrap().iter().filter(|entry| entry["actorMemberId"] == json!(bob.id));
    let seen: Vec<_> =
        of_bob.map(|entry| (entry["eventType"].as_str().unwrap(), entry["actor"].as_str().unwrap())).collect();
    let expected = [
        ("peer_left", "Robert"),
        ("message_sent", "Robert"),
        ("peer_joined", "Bob"),
        ("peer_left", "Bob"),
        ("message_sent", "Bob"),
        ("peer_joined", "Bob"),
    ];
    assert_eq!(seen[..6], expected);
    let updated = query(&mut admin, json!({"eventType": "member_updated"})).await["entries"][0].clone();
    assert_eq!((&updated["actor"], &updated["actorMemberId"]), (&json!("Ann"), &json!(ann.id)));
    let payload =
        json!({"memberId": bob.id, "fields": ["displayName"], "displayName": {"from": "Bob", "to": "Robert"}});
    assert_eq!(updated["payload"], payload);
    admin.ask(json!({"type": "ban", "target": bob.key()})).await;
    admin.ask(json!({"type": "unban", "target": bob.key()})).await;
    let unbanned = query(&mut admin, json!({"eventType": "member_unbanned"})).await["entries"][0].clone();
    assert_eq!(unbanned["payload"], json!({"target": "Robert", "targetPubkey": bob.key()}));
}

/// The log is kept for ever: no request writes much into it.
async fn what_one_request_logs_is_bounded(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let grants: serde_json::Map<String, Value> =
        (0..1000).map(|_| (claudemesh_testkit::stranger().to_string(), json!([]))).collect();
    let answer = admin.ask(json!({"type": "grant_set", "grants": grants})).await;
    assert_eq!(answer["type"], "grant_set_response");
    let payload = query(&mut admin, json!({"eventType": "grants_changed"})).await["entries"][0]["payload"].clone();
    assert_eq!((&payload["count"], payload["keys"].as_array().unwrap().len()), (&json!(1000), 16));
    let groups: Vec<_> = (0..32).map(|n| json!({"name": format!("g{n}"), "role": "x".repeat(64)})).collect();
    mesh.connect(&merged(bob.hello(), json!({"groups": groups}))).await;
    let payload = query(&mut admin, json!({"eventType": "peer_joined"})).await["entries"][0]["payload"].clone();
    let names: Vec<_> = (0..32).map(|n| format!("g{n}")).collect();
    assert_eq!(payload["groups"], json!(names));
}

/// What the database holds of logs, put aside and put back.
struct Aside<'a>(&'a TestMesh);

impl<'a> Aside<'a> {
    async fn of(mesh: &'a TestMesh) -> Self {
        for table in ["audit_log", "audit_checkpoint", "mesh_head"] {
            mesh.database.sql(&format!("create table kept_{table} as select * from {table}")).await;
        }
        Self(mesh)
    }

    async fn put_back(&self) {
        let head = "audit_seq audit_hash audit_hash2".split(' ').map(|column| {
            format!("{column} = (select k.{column} from kept_mesh_head k where k.mesh_id = mesh_head.mesh_id)")
        });
        let head = head.collect::<Vec<_>>().join(", ");
        for table in ["audit_log", "audit_checkpoint"] {
            let again = format!("delete from {table}; insert into {table} select * from kept_{table}");
            self.0.database.sql(&again).await;
        }
        self.0.database.sql(&format!("update mesh_head set {head}")).await;
    }
}

/// A3: rewritten, removed, reordered, added, cut off.
async fn whatever_is_done_to_the_log_is_found(setup: Setup) {
    let kind = setup.kind();
    let mesh = setup.start().await;
    let (_, _, mut admin) = with_log(&mesh).await;
    let whole = verified(&mut admin).await;
    let last = whole["entries"].as_i64().unwrap();
    assert_eq!((&whole["valid"], &whole["checkpoint"]["seq"]), (&json!(true), &json!(last)));
    // One may have been made while the log was still growing.
    mesh.database.sql(&format!("delete from audit_checkpoint where seq < {last}")).await;
    let aside = Aside::of(&mesh).await;
    let rewrite = |set: &str, seq: i64| format!("update audit_log set {set} where seq = {seq}");
    let zeros = |count: usize| "0".repeat(count);
    let copy = |seq: i64| {
        let columns = "event_type, actor_member_id, actor_display_name, payload";
        format!(
            "insert into audit_log (mesh_id, seq, {columns}, prev_hash, hash, hash2, created_at) \
             select mesh_id, {seq}, {columns}, 'x', hash, hash2, created_at from audit_log where seq = 2"
        )
    };
    let mut cases = vec![
        (rewrite("payload = '{\"slug\":\"evil\"}'", 1), 1),
        (rewrite("payload = payload || ' '", 4), 4),
        (rewrite("payload = 'no JSON'", 4), 4),
        (rewrite("event_type = 'member_unbanned'", 4), 4),
        (rewrite("actor_member_id = 'somebody'", 4), 4),
        (rewrite("actor_member_id = null", 4), 4),
        (rewrite("actor_display_name = 'Eve'", 1), 1),
        (rewrite("actor_display_name = 'Eve'", 4), 4),
        (rewrite("actor_display_name = ''", 4), 4),
        (rewrite("created_at = created_at + 1", 4), 4),
        (rewrite("hash = prev_hash", 4), 4),
        (rewrite("hash2 = hash", 4), 4),
        (rewrite("prev_hash = 'genesis ' ", 4), 4),
        (rewrite("payload = '{}'", last), last),
        ("delete from audit_log where seq = 1".into(), 1),
        ("delete from audit_log where seq = 4".into(), 4),
        (format!("delete from audit_log where seq = {last}"), last),
        ("delete from audit_log where seq > 3".into(), 4),
        ("delete from audit_log".into(), 1),
        (
            "update audit_log set seq = -1 where seq = 3; update audit_log set seq = 3 where seq = 4; \
             update audit_log set seq = 4 where seq = -1"
                .into(),
            3,
        ),
        ("update audit_log set seq = -1 where seq = 3; update audit_log set seq = seq - 1 where seq = 4".into(), -1),
        (copy(0), 0),
        (copy(last + 1), last + 1),
        (copy(last + 5), last + 1),
        (format!("update mesh_head set audit_seq = {}", last - 1), last - 1),
        (format!("update mesh_head set audit_seq = {}", last + 1), last + 1),
        ("update mesh_head set audit_hash = 'x'".into(), last),
        ("update mesh_head set audit_hash2 = 'x'".into(), last),
        ("update audit_checkpoint set hash = 'x'".into(), last),
        (format!("update audit_checkpoint set signature = '{}'", zeros(128)), last),
        (format!("update audit_checkpoint set pubkey = '{}'", zeros(64)), last),
        ("update audit_checkpoint set pubkey = 'no key'".into(), last),
        ("update audit_checkpoint set signed_at = signed_at + 1".into(), last),
        ("update audit_checkpoint set seq = 2".into(), 2),
        (format!("update audit_checkpoint set seq = {}", last + 1), last + 1),
    ];
    if kind == Kind::Sqlite {
        cases.push((rewrite("created_at = 'yesterday'", 4), 4));
    }
    for (change, broken_at) in cases {
        mesh.database.sql(&change).await;
        let found = verified(&mut admin).await;
        assert_eq!((&found["valid"], &found["brokenAt"]), (&json!(false), &json!(broken_at)), "{change}: {found}");
        assert!(!found["why"].as_str().unwrap().is_empty());
        aside.put_back().await;
        let whole = verified(&mut admin).await;
        assert_eq!((&whole["valid"], whole.get("brokenAt"), whole.get("why")), (&json!(true), None, None), "{whole}");
    }
    // The file of checkpoints, too. A line torn by a crash is none.
    let path = mesh.data_dir().join("audit-checkpoints.jsonl");
    let kept = fs::read_to_string(&path).unwrap();
    let line = kept.lines().last().unwrap();
    let forged = line.replace("\"seq\":", "\"seq\":1");
    for (change, is_valid) in [(format!("{kept}{}", &line[..40]), true), (format!("{kept}{forged}\n"), false)] {
        fs::write(&path, change).unwrap();
        assert_eq!(verified(&mut admin).await["valid"], is_valid);
    }
}

/// A3: whoever cuts the log and its head has to reach the checkpoints as well, those outside the database too.
async fn a_log_cut_off_together_with_its_head_is_found_by_its_checkpoints(setup: Setup) {
    let mesh = setup.start().await;
    let (_, _, mut admin) = with_log(&mesh).await;
    assert_eq!(verified(&mut admin).await["valid"], true);
    let cut = "update mesh_head set audit_seq = 5, \
         audit_hash = (select a.hash from audit_log a where a.mesh_id = mesh_head.mesh_id and a.seq = 5), \
         audit_hash2 = (select a.hash2 from audit_log a where a.mesh_id = mesh_head.mesh_id and a.seq = 5); \
         delete from audit_log where seq > 5";
    mesh.database.sql(cut).await;
    let found = verified(&mut admin).await;
    assert_eq!((&found["valid"], &found["brokenAt"]), (&json!(false), &json!(6)), "by the table: {found}");
    mesh.database.sql("delete from audit_checkpoint").await;
    let found = verified(&mut admin).await;
    assert_eq!((&found["valid"], &found["brokenAt"]), (&json!(false), &json!(6)), "by the file: {found}");
    assert!(found["checkpoint"]["seq"].as_i64().unwrap() > 5, "the one that is left");
    // The log goes on as if nothing had been, and is found out all the same.
    for _ in 0..4 {
        for kind in ["ban", "unban"] {
            assert_ne!(admin.ask(json!({"type": kind, "target": "Bob"})).await["type"], "error");
        }
    }
    assert_eq!(verified(&mut admin).await["valid"], false);
    // Whoever reaches the file too is found out by those alone who noted a checkpoint elsewhere.
    mesh.database.sql("delete from audit_checkpoint").await;
    fs::remove_file(mesh.data_dir().join("audit-checkpoints.jsonl")).unwrap();
    assert_eq!(verified(&mut admin).await["valid"], true);
}

/// A3: a whole log with other words in it, every hash in it right.
async fn a_log_written_anew_is_found_by_its_checkpoints(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, _, mut admin) = with_log(&mesh).await;
    assert_eq!(verified(&mut admin).await["valid"], true);
    let entries = query(&mut admin, json!({})).await["entries"].as_array().unwrap().clone();
    let (mut hash, mut hash2) = ("genesis".to_owned(), String::new());
    for seq in 1..=entries.len() {
        let payload = json!({"target": "nobody"});
        let created = Timestamp::from_millis(1_800_000_000_000);
        let fields =
            [&hash2, &of_ann.id, &seq.to_string(), "x", "", "", &canonical::json(&payload), &created.to_string()];
        let signed = fields.into_iter().fold(SigningBytes::new("audit"), SigningBytes::field);
        let next = audit_hash(&hash, &of_ann.id, "x", None, (&payload, created));
        hash2 = sha256_hex(signed.finish());
        let change = format!(
            "update audit_log set event_type = 'x', actor_member_id = null, actor_display_name = null, \
             payload = '{payload}', created_at = {}, prev_hash = '{hash}', hash = '{next}', hash2 = '{hash2}' \
             where seq = {seq} and mesh_id = '{}'",
            created.as_millis(),
            of_ann.id
        );
        mesh.database.sql(&change).await;
        hash = next;
    }
    mesh.database.sql(&format!("update mesh_head set audit_hash = '{hash}', audit_hash2 = '{hash2}'")).await;
    let first = mesh.database.number("select min(seq) from audit_checkpoint").await;
    let found = verified(&mut admin).await;
    assert_eq!((&found["valid"], &found["brokenAt"]), (&json!(false), &json!(first)), "by the table: {found}");
    mesh.database.sql("delete from audit_checkpoint").await;
    let found = verified(&mut admin).await;
    assert_eq!((&found["valid"], &found["brokenAt"]), (&json!(false), &json!(first)), "by the file: {found}");
    fs::remove_file(mesh.data_dir().join("audit-checkpoints.jsonl")).unwrap();
    assert_eq!(verified(&mut admin).await["valid"], true, "what was written is a log as it should be");
}

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
            let letters: Vec<Value> = (0..20).map(|_| letter(&ann.key(), "x")).collect();
            for letter in &letters {
                sending.feed(letter).await;
            }
            sending.flush().await;
            for _ in letters {
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

/// A1: an entry is committed with its event, or neither is.
async fn what_cannot_be_logged_does_not_happen(setup: Setup) {
    let kind = setup.kind();
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let (payload, open) = of_ann.token("member");
    assert_eq!(admin.ask(json!({"type": "invite_create", "token": open})).await["type"], "invite_created");
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
    ] {
        assert_eq!(admin.ask(request).await["type"], "error");
    }
    let mut comer = Wire::open(mesh.address).await;
    for hello in [bob.hello(), bob.session().hello(), bob.cold()] {
        comer.say(&hello).await;
        let error = comer.next().await;
        assert_eq!(error["type"], "error", "nobody comes unnoted: {error}");
    }
    comer.break_off();
    assert_eq!(admin.peers().await.len(), 1);
    let key = Identity::generate().unwrap().public().to_string();
    assert_ne!(mesh.redeem(&payload, &open, (&key, "Cid")).await.status, 200);
    for target in [bob.key().as_str(), "*", "@all"] {
        assert_eq!(admin.send(target, "x").await["queued"], false);
    }
    assert_eq!(facts().await, before);
    let allow = if kind == Kind::Sqlite { "drop trigger refuse" } else { "drop trigger refuse on audit_log" };
    mesh.database.sql(allow).await;
    assert_eq!(admin.ask(json!({"type": "ban", "target": "Bob"})).await["type"], "ban_ack");
    assert_eq!(verified(&mut admin).await["valid"], true);
}

/// A4: what people say stays out of the log.
async fn the_log_holds_metadata_only(setup: Setup) {
    let mesh = setup.start().await;
    let (of_ann, ann, bob) = mesh.pair().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    let canary = "canary-5f1d";
    let told = json!({"ext": {"note": canary}, "client_message_id": canary});
    admin.say(&json!({"type": "join_group", "name": "crew", "role": canary})).await;
    for target in [bob.key().as_str(), "*", "@all", "@crew"] {
        let told = merged(told.clone(), json!({"client_message_id": format!("{canary}{target}")}));
        assert_eq!(admin.send_with(target, canary, told).await["queued"], true);
    }
    assert_eq!(admin.send_with("@crew!", canary, told).await["queued"], false);
    admin.say(&json!({"type": "set_summary", "summary": canary})).await;
    for request in [
        json!({"type": "set_profile", "avatar": canary, "title": canary, "bio": canary, "capabilities": [canary]}),
        json!({"type": "member_update", "roleTag": canary}),
    ] {
        assert_ne!(admin.ask(request).await["type"], "error");
    }
    let place = json!({"cwd": canary, "hostname": canary, "model": canary, "channel": canary});
    mesh.connect(&merged(bob.session().hello(), place)).await.close(1000).await;
    let token = of_ann.token("member").1;
    assert_eq!(admin.ask(json!({"type": "invite_create", "token": token})).await["type"], "invite_created");
    for kind in ["ban", "unban"] {
        let request = json!({"type": kind, "target": bob.key(), "reason": canary});
        assert_ne!(admin.ask(request).await["type"], "error");
    }
    let log = query(&mut admin, json!({"limit": 500})).await;
    let secret = [canary, &claudemesh_proto::text::base64(canary.as_bytes()), &token, &token[..40]];
    for word in secret {
        assert!(!log.to_string().contains(word), "{word}");
        let like = format!("select count(*) from audit_log where payload like '%{word}%' or hash like '%{word}%'");
        assert_eq!(mesh.database.number(&like).await, 0);
        let path = mesh.data_dir().join("audit-checkpoints.jsonl");
        assert!(!fs::read_to_string(path).unwrap_or_default().contains(word));
        assert!(!mesh.http(&Request::get("/metrics")).await.body.contains(word));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_read_is_told_in_its_own_words() {
    let mesh = TestMesh::start().await;
    let (_, _, mut admin) = with_log(&mesh).await;
    mesh.database.sql("alter table audit_log rename to hidden").await;
    let failed = |code: &str| json!({"type": "error", "code": code, "message": "temporarily unavailable, try again"});
    assert_eq!(query(&mut admin, json!({})).await, failed("audit_query_error"));
    assert_eq!(verified(&mut admin).await, failed("audit_verify_error"));
    mesh.database.sql("alter table hidden rename to audit_log").await;
    assert_eq!(verified(&mut admin).await["valid"], true);
}

/// A3: by itself, in the table and in the file, and it can be verified by whoever holds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_grows_gets_a_checkpoint_a_minute() {
    let mut mesh = TestMesh::start().await;
    let (of_ann, ann, mut admin) = with_log(&mesh).await;
    let count = async |mesh: &TestMesh| mesh.database.number("select count(*) from audit_checkpoint").await;
    eventually("the first checkpoint", async || count(&mesh).await >= 1).await;
    let before = verified(&mut admin).await["checkpoint"]["seq"].as_i64().unwrap();
    let then = count(&mesh).await;
    assert_eq!(admin.ask(json!({"type": "ban", "target": "Bob"})).await["type"], "ban_ack");
    mesh.clock.pass(Duration::from_secs(61));
    eventually("the next", async || count(&mesh).await == then + 1).await;
    let result = verified(&mut admin).await;
    let checkpoint = &result["checkpoint"];
    assert_eq!(checkpoint["seq"], before + 1);
    let fixed = json!({"hash": "<hash>", "hash2": "<hash>", "signature": "<signature>"});
    let fixed = json!({"checkpoint": merged(checkpoint.clone(), fixed)});
    insta::assert_snapshot!("audit_verify_result", shape(&merged(result.clone(), fixed)));
    let text = |field: &str| checkpoint[field].as_str().unwrap().to_owned();
    let signed = SigningBytes::new("audit-checkpoint")
        .field(&of_ann.id)
        .field(checkpoint["seq"].to_string())
        .field(text("hash"))
        .field(text("hash2"))
        .field(text("signedAt"))
        .finish();
    let (key, signature): (PublicKey, Signature) =
        (text("pubkey").parse().unwrap(), text("signature").parse().unwrap());
    assert!(verify(&key, &signed, &signature).is_ok());
    let file = fs::read_to_string(mesh.data_dir().join("audit-checkpoints.jsonl")).unwrap();
    let last: Value = serde_json::from_str(file.lines().last().unwrap()).unwrap();
    assert_eq!(last, merged(checkpoint.clone(), json!({"meshId": of_ann.id})));
    // After a restart it is the same key.
    mesh.restart().await;
    let mut admin = mesh.connect(&ann.hello()).await;
    assert_eq!(admin.ask(json!({"type": "unban", "target": "Bob"})).await["type"], "unban_ack");
    let result = verified(&mut admin).await;
    assert_eq!((&result["valid"], &result["checkpoint"]["pubkey"]), (&json!(true), &checkpoint["pubkey"]));
}

/// A3: brokers on one database sign with one key, or take each other's signatures for forgeries.
#[tokio::test(flavor = "multi_thread")]
async fn several_brokers_need_one_audit_key() {
    let key: claudemesh_broker::AuditKey = "ab".repeat(32).parse().unwrap();
    let with_key = |setup: Setup| setup.with(|config| config.audit_key = Some(key.clone()));
    let one = with_key(Setup::postgres()).start().await;
    let (url, another_url) = (one.database.url(), one.database.url());
    let two = with_key(Setup::postgres()).with(|config| config.database_url = Some(url)).start().await;
    let (_, ann, mut admin) = with_log(&one).await;
    assert_eq!(verified(&mut admin).await["valid"], true);
    assert!(!one.data_dir().join("audit.key").exists(), "the one that is given is not written down");
    let mut admin = two.connect(&ann.hello()).await;
    assert_eq!(verified(&mut admin).await["valid"], true);
    let other = Setup::postgres().with(|config| config.database_url = Some(another_url)).start().await;
    let found = verified(&mut other.connect(&ann.hello()).await).await;
    assert_eq!(found["valid"], false);
    assert_eq!(found["why"], "a checkpoint for it is not signed by this broker");
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
