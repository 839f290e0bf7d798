//! D15: after a failed sync nobody knows what is on the disk. Whoever asked for it, nothing more is acknowledged, and the process ends.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use claudemesh_client::{Cipher, Connection, Creation, Dial, Draft, Home, Membership, Pushes};
use claudemesh_proto::{MessageId, Priority};
use claudemesh_testkit::process::{Broker, Database};
use claudemesh_testkit::proof;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::mesh::{control, mesh};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_of_a_commit_is_never_acknowledged() {
    let Some(faults) = Faults::build() else { return };
    let mut scene = Scene::set(&faults).await;
    scene.send(5).await;
    assert_eq!(scene.sent.len(), 5);
    faults.fail("broker.db-wal");
    scene.send(1).await;
    assert_eq!(scene.sent.len(), 5, "acknowledged without a sync");
    scene.ends_and_keeps_what_was_acknowledged(&faults).await;
}

/// Large batches are synced while the next one is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_under_load_is_never_acknowledged_and_ends_the_process_too() {
    const IN_FLIGHT: usize = 256;
    const FAILS_AT: usize = 1_000;
    let Some(faults) = Faults::build() else { return };
    let mut scene = Scene::set(&faults).await;
    let cipher = Cipher::new(scene.members[0].identity.clone());
    let to = scene.recipient.handshake.sender().public();
    let draft = Draft { to: &to, reference: "sync", priority: Priority::Next, text: "hello" };
    let mut waiting = VecDeque::new();
    for number in 0..3_000 {
        if number == FAILS_AT {
            faults.fail("broker.db-wal");
        }
        let Ok(sent) = scene.sender.0.submit(cipher.compose(&draft).unwrap()).await else { break };
        waiting.push_back(sent);
        if waiting.len() == IN_FLIGHT {
            let ack = waiting.pop_front().unwrap().ack().await;
            assert!(number >= FAILS_AT || ack.as_ref().is_ok_and(|ack| ack.queued), "{number}: {ack:?}");
            let Ok(ack) = ack.map(|ack| ack.queued.then_some(ack.message_id)) else { break };
            let Some(id) = ack else { break };
            scene.sent.push(id.parse().unwrap());
        }
    }
    let acknowledged = scene.sent.len();
    // What was sent after syncs began to fail was not on the disk.
    assert!((1..=FAILS_AT).contains(&acknowledged), "{acknowledged} were acknowledged, {FAILS_AT} were sent before");
    scene.ends_and_keeps_what_was_acknowledged(&faults).await;
}

/// A mesh is made beside the journal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_beside_the_journal_ends_the_process_too() {
    let Some(faults) = Faults::build() else { return };
    let mut scene = Scene::set(&faults).await;
    scene.send(5).await;
    // The checkpoint after the last batch is not what fails here.
    sleep(Duration::from_secs(1)).await;
    faults.fail("broker.db-wal");
    let creation = Creation {
        slug: "other".parse().unwrap(),
        broker: scene.broker.url().parse().unwrap(),
        display_name: "Ann".parse().unwrap(),
        token: None,
    };
    let home = tempfile::tempdir().unwrap();
    let made = claudemesh_client::create(&Home::at(home.path().join("home")), &creation).await;
    assert!(made.is_err(), "a mesh that may not be on the disk: {made:?}");
    assert!(scene.broker.log_end().contains("a mesh could not be made"), "{}", scene.broker.log_end());
    scene.ends_and_keeps_what_was_acknowledged(&faults).await;
}

/// Nobody waits for a checkpoint: commits go on to succeed beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_of_a_checkpoint_ends_the_process_too() {
    let Some(faults) = Faults::build() else { return };
    let mut scene = Scene::set(&faults).await;
    faults.fail("broker.db");
    scene.send(5).await;
    assert!(!scene.sent.is_empty(), "commits are not what fails here");
    scene.ends_and_keeps_what_was_acknowledged(&faults).await;
}

/// A broker whose syncs can be made to fail, and two members; one is away.
struct Scene {
    broker: Broker,
    members: Vec<Membership>,
    recipient: Dial,
    sender: (Connection, Pushes),
    sent: Vec<MessageId>,
}

impl Scene {
    async fn set(faults: &Faults) -> Self {
        let mut broker = Broker::new(Database::Sqlite, &[("SEND_RATE_PER_MIN", "0"), ("REQUEST_RATE_PER_MIN", "0")]);
        let (library, trigger) = (faults.library.to_str().unwrap(), faults.trigger.to_str().unwrap());
        broker.start_with(&[("LD_PRELOAD", library), ("FAIL_SYNCS_OF", trigger)]).await;
        let members = mesh(&broker.url(), "team", 2).await;
        let recipient = control(&members[1]);
        let sender = control(&members[0]).open().await.unwrap();
        Self { broker, members, recipient, sender, sent: Vec::new() }
    }

    /// Sends messages until one is not acknowledged.
    async fn send(&mut self, count: usize) {
        let cipher = Cipher::new(self.members[0].identity.clone());
        let to = self.recipient.handshake.sender().public();
        for _ in 0..count {
            let draft = Draft { to: &to, reference: "sync", priority: Priority::Next, text: "hello" };
            let Ok(ack) = self.sender.0.send(cipher.compose(&draft).unwrap()).await else { return };
            if !ack.queued {
                return;
            }
            self.sent.push(ack.message_id.parse().unwrap());
        }
    }

    /// The process ends by itself and says why; after a start on a disk that works, everything acknowledged is there.
    async fn ends_and_keeps_what_was_acknowledged(mut self, faults: &Faults) {
        let asked = Instant::now();
        let status = self.broker.end_within(Duration::from_secs(10)).await;
        let status = status.unwrap_or_else(|| panic!("it goes on:\n{}", self.broker.log_end()));
        println!("ended with {status} in {:.1?}", asked.elapsed());
        let log = self.broker.log_end();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("a sync of the database failed; start again to read what is on disk"), "{log}");
        faults.heal();
        self.broker.start().await;
        let (connection, mut pushes) = self.recipient.open().await.unwrap();
        for sent in &self.sent {
            let push = timeout(Duration::from_secs(20), pushes.next()).await.expect("mail comes").unwrap();
            assert_eq!(&push.message_id, sent, "in the order in which it was accepted");
            connection.ack(&push).await.unwrap();
        }
        connection.close().await;
        self.broker.remove().await;
    }
}

/// A library that stands before the system's own syncs and fails those of the file that is named in another file.
struct Faults {
    library: PathBuf,
    trigger: PathBuf,
    _directory: TempDir,
}

impl Faults {
    /// Nothing where a library cannot be put before the system's.
    fn build() -> Option<Self> {
        if !cfg!(target_os = "linux") {
            proof::skip("it takes LD_PRELOAD as Linux has it");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("faults.c");
        std::fs::write(&source, SOURCE).unwrap();
        let (library, trigger) = (directory.path().join("faults.so"), directory.path().join("trigger"));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(&source);
        let built = compiler.output().expect("a C compiler");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Some(Self { library, trigger, _directory: directory })
    }

    /// From now on no sync of a file with this name succeeds.
    fn fail(&self, name: &str) {
        let whole = self.trigger.with_extension("new");
        std::fs::write(&whole, name).unwrap();
        std::fs::rename(whole, &self.trigger).unwrap();
    }

    fn heal(&self) {
        std::fs::remove_file(&self.trigger).unwrap();
    }
}

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int fd) {
    const char *trigger = getenv("FAIL_SYNCS_OF");
    int file = trigger ? open(trigger, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    char name[256], link[64], path[4096];
    ssize_t named = read(file, name, sizeof name - 1);
    close(file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (named <= 0 || length <= 0) return 0;
    name[named] = path[length] = 0;
    const char *last = strrchr(path, '/');
    return last && strcmp(last + 1, name) == 0;
}

int fsync(int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    return syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    if (fails(fd)) { errno = EIO; return -1; }
    return syscall(SYS_fdatasync, fd);
}
"#;
