//! What must be nowhere: tokens, and the fields that logs may not hold. The broker is given ciphertext only, so that what it is
//! given stands for what it must not show.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use claudemesh_proto::text::base64;
use claudemesh_testkit::{Request, Setup, TestMesh, merged, send_frame};
use serde_json::json;

/// Where logs go.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<u8>>>);

impl Write for Pages {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    found
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A4, D8.
#[tokio::test(flavor = "multi_thread")]
async fn logs_hold_no_body_nonce_token_place_or_whole_key() {
    let pages = Pages::default();
    let writer = pages.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("trace,sqlx=debug")
        .json()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let mesh = TestMesh::start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let place = json!({"cwd": "/canary/working/directory", "hostname": "canary-host", "displayName": "canary name"});
    let mut sender = mesh.connect(&merged(ann.hello(), place)).await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    let (body, nonce) = (base64(b"canary body of a message"), base64(&[0x5a; 24]));
    let fields = json!({"ciphertext": body, "nonce": nonce, "ext": {"canary": "extension"}});
    for change in
        [json!({}), json!({"priority": "bad"}), json!({"client_message_id": "\n"}), json!({"targetSpec": "x"})]
    {
        sender.say(&merged(merged(send_frame(&bob.key(), "x"), fields.clone()), change)).await;
        sender.expect("ack").await;
    }
    receiver.receive().await;
    // A broadcast is plain text in base64, and the database has it. Logs and metrics must not, in either form.
    sender.deliver("*", "canary broadcast").await;
    receiver.receive().await;
    sender.say(&json!({"type": "set_summary", "summary": "canary summary"})).await;
    sender.say(&json!({"type": "join_group", "name": "canary-group", "role": "canary role"})).await;
    sender.ask(json!({"type": "set_profile", "title": "canary title"})).await;
    sender.ask(json!({"type": "ban", "target": "canary target", "reason": "canary reason"})).await;
    sender.say_text(&format!("{{\"type\":\"{body}\"")).await;
    let (_, token) = mesh_of_ann.token("member");
    sender.ask(json!({"type": "invite_create", "token": token})).await;
    sender.ask(json!({"type": "invite_create", "token": format!("{token}x")})).await;
    let (_, api_key) = crate::api_key::key(&mut sender, json!({})).await;
    mesh.refusal(&merged(ann.hello(), json!({"signature": "00"}))).await;
    let hook_token = sender.greeting["hookToken"].as_str().unwrap().to_owned();
    let hook = Request::post("/hook/set-status", &json!({"cwd": "/canary/working/directory", "status": "working"}));
    for authorization in [hook_token.clone(), format!("{hook_token}x")] {
        mesh.http(&hook.clone().header("Authorization", &format!("Bearer {authorization}"))).await;
    }
    let setup_token = std::fs::read_to_string(mesh.data_dir().join("setup-token")).unwrap();
    let log = pages.0.lock().unwrap().clone();
    assert!(holds(&log, "a mesh was made"), "something was logged");
    let secrets = [
        body.as_str(),
        &nonce,
        "extension",
        &token,
        &setup_token,
        &hook_token,
        &api_key,
        "/canary",
        "canary-host",
        "canary name",
        &ann.key(),
        &bob.key(),
    ];
    let broadcast = base64(b"canary broadcast");
    let metrics = mesh.http(&Request::get("/metrics")).await.body;
    for secret in secrets.into_iter().chain([broadcast.as_str(), "canary"]) {
        assert!(!holds(&log, secret), "{secret} is in the logs");
        assert!(!metrics.contains(secret), "{secret} is in the metrics");
    }
    // Invites and API keys are kept as hashes.
    for (path, bytes) in files(mesh.data_dir()) {
        assert!(!holds(&bytes, &token), "an invite's token is in {path}");
        assert!(!holds(&bytes, &api_key), "an API key is in {path}");
    }
}

/// R12.
#[tokio::test(flavor = "multi_thread")]
async fn everything_in_the_data_directory_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let mesh = Setup::sqlite().start().await;
    mesh.pair().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(mesh.data_dir()), 0o700);
    for (path, _) in files(mesh.data_dir()) {
        assert_eq!(mode(Path::new(&path)), 0o600, "{path}");
    }
}
