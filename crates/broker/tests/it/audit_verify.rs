//! `audit_verify`, and the checkpoints that the broker signs (A3).

use std::fs;
use std::time::Duration;

use claudemesh_keys::{audit_hash, sha256_hex, verify};
use claudemesh_proto::canonical::{self, SigningBytes};
use claudemesh_proto::{PublicKey, Signature, Timestamp};
use claudemesh_testkit::{Kind, Setup, TestMesh, eventually, merged};
use serde_json::{Value, json};

use crate::audit::{query, verified, with_log};
use crate::greeting::shape;

on_both!(
    whatever_is_done_to_the_log_is_found,
    a_log_cut_off_together_with_its_head_is_found_by_its_checkpoints,
    a_log_written_anew_is_found_by_its_checkpoints,
);

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
