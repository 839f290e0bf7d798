//! A4: no setting makes the process write down what passes through it.

use std::sync::Arc;

use claudemesh_proto::text::base64;
use claudemesh_testkit::process::Database;
use claudemesh_testkit::{Member, Request, Site, TestClock, Wire, merged, send_frame};
use serde_json::json;

use crate::load::broker;
use crate::mesh::mesh;

on_both!(no_log_level_shows_frames);

async fn no_log_level_shows_frames(database: Database) {
    let mut broker = broker(database);
    let mut secrets = Vec::new();
    for level in ["debug", "trace", "info,tungstenite::protocol=trace,tokio_tungstenite=trace,log=trace"] {
        broker.start_with(&[("RUST_LOG", level)]).await;
        let slug = format!("team-{}", secrets.len());
        let members = mesh(&broker.url(), &slug, 2).await;
        let address = broker.url().trim_start_matches("http://").parse().unwrap();
        let wire = |number: usize| Member {
            mesh: members[number].mesh_id.to_string(),
            id: members[number].member_id.to_string(),
            identity: Arc::clone(&members[number].identity),
            clock: TestClock::default(),
        };
        let (ann, bob) = (wire(0), wire(1));
        let mut sender = Wire::open(address).await;
        sender.greet(&merged(ann.hello(), json!({"cwd": "/canary/directory", "displayName": "canary name"}))).await;
        let mut receiver = Wire::open(address).await;
        receiver.greet(&bob.hello()).await;
        let (body, nonce) = (base64(b"canary body of a message"), base64(&[0x5a; 24]));
        let fields = json!({"ciphertext": body, "nonce": nonce, "ext": {"canary": "extension"}});
        sender.say(&merged(send_frame(&bob.key(), "x"), fields)).await;
        sender.expect("ack").await;
        let (push, _) = receiver.push().await;
        receiver.acknowledge(&push).await;
        receiver.fence().await;
        // Plain text in base64, which is in the database and nowhere else.
        sender.deliver("*", "canary broadcast").await;
        receiver.receive().await;
        sender.say(&json!({"type": "set_summary", "summary": "canary summary"})).await;
        sender.say(&json!({"type": "join_group", "name": "canary-group", "role": "canary role"})).await;
        sender.ask(json!({"type": "set_profile", "title": "canary title"})).await;
        sender.fence().await;
        let metrics = Site::at(address).http(&Request::get("/metrics")).await.body;
        assert!(!metrics.contains("canary") && !metrics.contains(&base64(b"canary broadcast")), "{metrics}");
        sender.say_text(&format!("{{\"type\":\"{body}\"")).await;
        sender.expect("error").await;
        broker.terminate().await;
        secrets.extend([body, nonce, ann.key(), bob.key()]);
    }
    secrets.push(base64(b"canary broadcast"));
    secrets.extend(["extension", "canary", "hello_ack", "targetSpec"].map(str::to_owned));
    let log = broker.log();
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("DEBUG") && log.contains("stopping"), "more than a broker usually tells");
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} is in the log");
    }
    broker.remove().await;
}
