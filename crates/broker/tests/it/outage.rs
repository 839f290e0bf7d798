//! A database that is down at the start or goes away, a disk that is full, a directory that cannot be written (D15).

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use claudemesh_broker::MeshCreation;
use claudemesh_store::DatabaseUrl;
use claudemesh_testkit::{Kind, Request, Setup, TestDatabase, TestMesh, Wall, eventually};
use serde_json::json;

const UNAVAILABLE: &str = "temporarily unavailable, try again";

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_is_said_and_comes_back_under_open_connections() {
    let own = tempfile::tempdir().unwrap();
    let database = TestDatabase::make(Kind::Postgres, own.path()).await;
    let TestDatabase::Postgres { url, .. } = &database else { unreachable!("it is PostgreSQL") };
    let (head, rest) = url.split_once('@').unwrap();
    let (server, name) = rest.split_once('/').unwrap();
    let wall = Wall::before(server.to_owned()).await;
    let through = format!("{head}@{}/{name}", wall.address);
    let mesh = Setup::sqlite().with(|config| config.database_url = Some(DatabaseUrl::Postgres(through))).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    sender.deliver(&bob.key(), "before").await;
    assert_eq!(receiver.receive().await, "before");
    sender.deliver(&bob.key(), "unacknowledged").await;
    let (push, _) = receiver.push().await;
    wall.shut();
    let ack = sender.send(&bob.key(), "meanwhile").await;
    assert_eq!((&ack["error"], &ack["queued"], &ack["messageId"]), (&json!(UNAVAILABLE), &json!(false), &json!("")));
    let error = sender.ask(json!({"type": "member_list"})).await;
    assert_eq!((&error["code"], &error["message"]), (&json!("unavailable"), &json!(UNAVAILABLE)));
    sender.fence().await;
    let ready = mesh.http(&Request::get("/health/ready")).await;
    assert_eq!((ready.status, ready.json()), (503, json!({"status": "not_ready", "reason": "db_down"})));
    let health = mesh.http(&Request::get("/health")).await;
    assert_eq!((health.status, &health.json()["db"]), (200, &json!("down")));
    assert_eq!(mesh.metric("broker_db_healthy").await, Some(0));
    // A handshake is told to try again, and the socket stays for that.
    let mut waiting = claudemesh_testkit::Wire::open(mesh.address).await;
    waiting.say(&bob.session().hello()).await;
    assert_eq!(waiting.next().await["code"], "unavailable");
    wall.open();
    eventually("it is ready again", async || mesh.http(&Request::get("/health/ready")).await.status == 200).await;
    waiting.greet(&bob.session().hello()).await;
    sender.deliver(&bob.key(), "after").await;
    assert_eq!(receiver.receive().await, "after");
    receiver.acknowledge(&push).await;
    assert_eq!(sender.ask(json!({"type": "member_list"})).await["type"], "member_list_response");
    receiver.nothing_else().await;
}

/// What it waited for cannot be withdrawn in the database, and its mail goes to whoever is next all the same.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_the_database_is_away_is_gone_and_the_next_one_takes_its_mail() {
    let own = tempfile::tempdir().unwrap();
    let database = TestDatabase::make(Kind::Postgres, own.path()).await;
    let TestDatabase::Postgres { url, .. } = &database else { unreachable!("it is PostgreSQL") };
    let (head, rest) = url.split_once('@').unwrap();
    let (server, name) = rest.split_once('/').unwrap();
    let wall = Wall::before(server.to_owned()).await;
    let through = format!("{head}@{}/{name}", wall.address);
    let mesh = Setup::sqlite().with(|config| config.database_url = Some(DatabaseUrl::Postgres(through))).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let session = bob.session();
    let mut daemon = mesh.connect(&bob.hello()).await;
    let mut next = mesh.connect(&session.hello()).await;
    sender.deliver(&bob.key(), "before").await;
    assert_eq!(daemon.push().await.1, "before");
    // Both ask for what is next, and are heard before this is delivered.
    daemon.fence().await;
    sender.deliver(&session.key(), "for the session").await;
    assert_eq!(next.receive().await, "for the session");
    next.fence().await;
    assert_eq!(sender.send(&ann.session().key(), "for nobody").await["queued"], false);
    wall.shut();
    let is_ready = async || mesh.http(&Request::get("/health/ready")).await.status == 200;
    eventually("the database is away", async || !is_ready().await).await;
    daemon.break_off();
    eventually("it is gone", async || mesh.metric("broker_connections_active").await == Some(2)).await;
    wall.open();
    eventually("it is ready again", is_ready).await;
    sender.deliver(&bob.key(), "after").await;
    let mut received = [next.receive().await, next.receive().await];
    // What the daemon held is handed over anew, and may come later.
    received.sort();
    assert_eq!(received, ["after", "before"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_down_stops_the_start_with_what_and_why() {
    let own = tempfile::tempdir().unwrap();
    let url = "postgres://somebody:secret-word@127.0.0.1:1/nothing".to_owned();
    let why = TestMesh::refuses_to_start(Some(DatabaseUrl::Postgres(url)), own.path()).await;
    assert!(why.contains("cannot open PostgreSQL (DATABASE_URL)") && why.contains("refused"), "{why}");
    assert!(!why.contains("secret-word"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_used_is_named() {
    let own = tempfile::tempdir().unwrap();
    let file = own.path().join("file");
    std::fs::write(&file, b"").unwrap();
    for path in [file.as_path(), &file.join("below"), Path::new("/proc/nothing")] {
        let why = TestMesh::refuses_to_start(None, path).await;
        assert!(why.contains(&path.display().to_string()) && why.contains("--data-dir"), "{why}");
    }
    let private = own.path().join("private");
    let database = private.join("no/such/broker.db");
    let why = TestMesh::refuses_to_start(Some(DatabaseUrl::Sqlite(database)), &private).await;
    assert!(why.contains("no/such"), "{why}");
    std::fs::write(private.join("broker.db"), b"this is no database, but a text of some length").unwrap();
    let why = TestMesh::refuses_to_start(None, &private).await;
    assert!(why.contains("broker.db"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_others_is_refused_and_left_as_it_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let own = tempfile::tempdir().unwrap();
    let shared = own.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("somebody's file"), b"").unwrap();
    let mode = || std::fs::metadata(&shared).unwrap().permissions().mode();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o777)).unwrap();
    let before = mode();
    let why = TestMesh::refuses_to_start(None, &shared).await;
    assert!(why.contains("chmod 700") && why.contains("--data-dir"), "{why}");
    assert_eq!(mode(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_broker_on_the_same_file_does_not_start() {
    let mesh = TestMesh::start().await;
    let why = TestMesh::refuses_to_start(None, mesh.data_dir()).await;
    assert!(why.contains("in use by another broker"), "{why}");
}

/// A small file system in memory; unmounted when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with a line that says so, where this user may not mount one.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(directory.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(directory));
        }
        let _ = writeln!(std::io::stderr(), "skipped: a small disk needs the right to mount a tmpfs");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// D15.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_sends_for_the_moment_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.0.path().to_owned();
    let setup = Setup::sqlite().with(|config| {
        (config.data_dir, config.mesh_creation) = (Some(path.clone()), Some(MeshCreation::Open));
        config.database_url = Some(DatabaseUrl::Sqlite(path.join("broker.db")));
    });
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut kept = Vec::new();
    // Something that can be taken away again.
    std::fs::write(path.join("ballast"), vec![0; 1 << 20]).unwrap();
    let refused = loop {
        let text = format!("{}:{}", kept.len(), "x".repeat(20_000));
        let ack = sender.send(&bob.key(), &text).await;
        if ack["queued"] != true {
            break ack;
        }
        kept.push(text);
    };
    assert_eq!((&refused["error"], &refused["messageId"]), (&json!(UNAVAILABLE), &json!("")));
    assert!(kept.len() > 10);
    // Reads go on.
    assert_eq!(sender.ask(json!({"type": "member_list"})).await["members"].as_array().unwrap().len(), 2);
    assert_eq!(mesh.http(&Request::get("/health/ready")).await.status, 200);
    std::fs::remove_file(path.join("ballast")).unwrap();
    let mut after = json!(null);
    eventually("there is room again", async || {
        after = sender.send(&bob.key(), "after").await;
        after["queued"] == true
    })
    .await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    for text in &kept {
        assert_eq!(&receiver.receive().await, text);
    }
    assert_eq!(receiver.receive().await, "after");
    receiver.nothing_else().await;
    drop((sender, receiver, mesh));
}
