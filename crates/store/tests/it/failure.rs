//! D15: what cannot be kept is said to be unavailable, and nothing of it is there; what is said to be kept is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use claudemesh_proto::MessageId;
use claudemesh_store::{Appended, Claim, DatabaseUrl, NewMessage, OpenError, Options, Store, StoreError, Withdraw};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::ground::Ground;
use crate::people::{Town, fresh_connection, kept};

/// A small file system of its own, which only root can make.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(directory: &Path, options: &str) -> Option<Self> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "claudemesh-test"]).arg(directory).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success()).then(|| Self(directory.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn numbered(town: &Town, number: usize) -> NewMessage {
    NewMessage {
        client_message_id: Some(format!("message {number}")),
        request_fingerprint: Some(number.to_string()),
        ..town.letter(&town.ada, town.bob.key, &"x".repeat(32 << 10))
    }
}

/// Where all tests must be made (`CLAUDEMESH_TEST_ALL`), one that cannot be made is a failure.
#[expect(clippy::print_stdout, reason = "a person reads which tests were left out")]
fn skip(why: &str) {
    assert!(std::env::var_os("CLAUDEMESH_TEST_ALL").is_none(), "cannot be tested here: {why}");
    println!("SKIPPED, which proves nothing: {why}");
}

/// Where no small disk can be mounted there is nothing to fill.
#[tokio::test]
async fn a_full_disk_loses_nothing_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(directory.path(), "size=16m") else {
        return skip("a small disk cannot be mounted: it takes root on Linux");
    };
    let ballast = directory.path().join("ballast");
    std::fs::write(&ballast, vec![0; 13 << 20]).unwrap();
    let ground = Ground::sqlite();
    let url = DatabaseUrl::Sqlite(directory.path().join("broker.db"));
    let store = Store::open(Options { url, ..ground.options("alpha") }).await.unwrap();
    let town = Town::found(&store).await;
    let mut ids = HashMap::new();
    let mut failed = Vec::new();
    for number in 0..200 {
        match town.append(numbered(&town, number)).await {
            Ok(appended) => assert!(ids.insert(number, kept(appended)).is_none()),
            Err(StoreError::Unavailable(_)) => failed.push(number),
            Err(refused) => panic!("{refused}"),
        }
    }
    assert!(!ids.is_empty() && failed.len() > 50, "{} kept, {} failed", ids.len(), failed.len());
    // Reads go on.
    assert!(store.is_up().await);
    assert_eq!(store.queue_depth().await.unwrap(), i64::try_from(ids.len()).unwrap());
    assert_eq!(store.members(&town.mesh).await.unwrap().len(), 2);
    // What was kept has the same id after the disk has room, and what was not is sent again.
    std::fs::remove_file(&ballast).unwrap();
    for number in failed.into_iter().take(20) {
        ids.insert(number, kept(town.append(numbered(&town, number)).await.unwrap()));
    }
    for (number, id) in &ids {
        assert_eq!(town.append(numbered(&town, *number)).await.unwrap(), Appended::Kept(id.clone()));
    }
    assert_eq!(store.queue_depth().await.unwrap(), i64::try_from(ids.len()).unwrap());
    assert!(!town.bob_gets(&fresh_connection()).await.is_empty());
    store.close().await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(directory.path(), "ro,size=1m");
    if disk.is_none() {
        let mut permissions = std::fs::metadata(directory.path()).unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(directory.path(), permissions).unwrap();
    }
    let url = DatabaseUrl::Sqlite(directory.path().join("broker.db"));
    let error = Store::open(Options { url, ..Ground::sqlite().options("alpha") }).await.unwrap_err();
    assert!(matches!(&error, OpenError::File { .. }), "{error}");
    assert!(error.to_string().contains("broker"), "{error}");
}

const KILL: &str = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() \
                    and pid <> pg_backend_pid()";

/// Kills the store's connections while messages are sent; each is tried again until it is kept.
#[tokio::test]
async fn killed_connections_lose_nothing() {
    let ground = Ground::postgres().await;
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let mut ids: HashMap<usize, MessageId> = HashMap::new();
    let mut failures = 0;
    for number in (0..60).chain(0..60) {
        let mut outcome = if number % 3 == 0 {
            tokio::join!(town.append(numbered(&town, number)), ground.sql(KILL)).0
        } else {
            town.append(numbered(&town, number)).await
        };
        let id = loop {
            match outcome {
                Ok(appended) => break kept(appended),
                Err(StoreError::Unavailable(_)) => failures += 1,
                Err(refused) => panic!("{refused}"),
            }
            outcome = town.append(numbered(&town, number)).await;
        };
        assert_eq!(ids.entry(number).or_insert_with(|| id.clone()), &id);
    }
    assert!(failures > 0, "nothing was killed in the midst of something");
    let stored = ground.rows("select id from message order by seq").await;
    assert_eq!(stored.len(), 60);
    assert!(ids.values().all(|id| stored.contains(&id.to_string())));
    assert_eq!(store.queue_depth().await.unwrap(), 60);
    store.close().await;
}

/// A database that is made read-only under us: refused with a transient wording, read on, and written again later.
#[tokio::test]
async fn a_server_that_takes_no_writes_is_unavailable() {
    let ground = Ground::postgres().await;
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let alter = async |change: &str| {
        ground.sql(&format!("set transaction read write; alter database {} {change}", ground.name())).await;
        ground.sql(KILL).await;
    };
    alter("set default_transaction_read_only = on").await;
    let outcome = town.append(town.letter(&town.ada, town.bob.key, "x")).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    assert_eq!(store.members(&town.mesh).await.unwrap().len(), 2);
    alter("reset default_transaction_read_only").await;
    town.tell_bob("again").await;
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["again"]);
    store.close().await;
}

/// Somebody else holds the heads of two meshes the other way round; the batch that gives way is tried again.
#[tokio::test]
async fn a_deadlock_is_tried_again() {
    let ground = Ground::postgres().await;
    let store = ground.open().await;
    let town = Town::found(&store).await;
    // It takes the member first and the head later; a batch takes the head first and the member (last seen) later.
    let other = ground.sql(
        "begin; set local deadlock_timeout = '10s'; update member set role_tag = 'x'; select pg_sleep(0.3); \
         update mesh_head set audit_hash2 = 'x'; commit",
    );
    let hello = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        town.admit(town.hello(town.bob.key, None)).await
    };
    let ((), admitted) = tokio::join!(other, hello);
    assert!(matches!(admitted, claudemesh_store::Admitted::Welcome(_)));
    store.close().await;
}

/// Whoever withdrew a claim waits for its end, and takes no mail until then.
#[tokio::test]
async fn a_claim_is_withdrawn_although_nothing_can_be_written() {
    let ground = Ground::sqlite();
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let connection = fresh_connection();
    let waiting = store.claim(Claim { waits: true, ..town.wish(town.bob.recipient(), &connection) }).await;
    let mut other = SqliteConnectOptions::new().filename(ground.file()).connect().await.unwrap();
    sqlx::query("begin immediate").execute(&mut other).await.unwrap();
    drop(store.withdraw(Withdraw { mesh_id: town.mesh.clone(), connection }).await);
    let ended = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    assert!(ended.expect("the claim ends").unwrap().is_empty());
    other.close().await.unwrap();
    store.close().await;
}
