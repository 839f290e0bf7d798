//! Load on a broker: two meshes, ten clients, everybody writes to everybody and into `general`. Mail for a member that has several
//! connections goes to one of them, so the meshes have members with a control connection, with one session or two, and with both.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claudemesh_client::{Cipher, Dial, Membership};
use claudemesh_proto::PublicKey;
use claudemesh_testkit::checker::{self, Account, Tally, Trouble};
use claudemesh_testkit::history::History;
use claudemesh_testkit::ledger::{self, Ledger, Owner, Target};
use claudemesh_testkit::process::{Broker, Database};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::{Client, DRAIN_DEADLINE, Phase, Progress};
use crate::general;
use crate::mesh::{control, mesh, session};
use crate::seed::Seed;

/// Clients at work.
pub(crate) struct Load {
    phase: watch::Sender<Phase>,
    progress: Arc<Mutex<Progress>>,
    tasks: JoinSet<()>,
    ledgers: Vec<(String, PathBuf)>,
    /// The members of each mesh, once for each of their clients.
    meshes: Vec<Vec<(Membership, Dial)>>,
    directory: TempDir,
}

/// A broker for load: no rate limit, and leases short enough for what is not acknowledged to come again within a run.
pub(crate) fn broker(database: Database) -> Broker {
    Broker::new(
        database,
        &[
            ("SEND_RATE_PER_MIN", "0"),
            ("CLAIM_LEASE_SECONDS", "2"),
            ("RUST_LOG", "info,sqlx=warn"),
            ("RUST_BACKTRACE", "1"),
        ],
    )
}

impl Load {
    /// Sets the clients to work on a broker that runs.
    pub(crate) async fn start(broker: &Broker, seed: &Seed) -> Self {
        let mut load = Self {
            phase: watch::Sender::new(Phase::Load),
            progress: Arc::default(),
            tasks: JoinSet::new(),
            ledgers: Vec::new(),
            meshes: Vec::new(),
            directory: TempDir::new().unwrap(),
        };
        let large = mesh(&broker.url(), "large", 5).await;
        let small = mesh(&broker.url(), "small", 2).await;
        let roles = |members: &[Membership], roles: &[(usize, bool)]| -> Vec<(Membership, Dial)> {
            let dial = |&(number, is_session): &(usize, bool)| {
                let member = &members[number];
                (member.clone(), if is_session { session(member) } else { control(member) })
            };
            roles.iter().map(dial).collect()
        };
        let large = roles(&large, &[(0, false), (1, false), (2, true), (2, true), (3, false), (3, true), (4, true)]);
        let small = roles(&small, &[(0, false), (1, false), (1, true)]);
        load.add("large", large, seed).await;
        load.add("small", small, seed).await;
        load
    }

    async fn add(&mut self, mesh: &str, dials: Vec<(Membership, Dial)>, seed: &Seed) {
        // A session key is known once it was proven.
        for (_, dial) in &dials {
            let (connection, _pushes) = dial.open().await.unwrap();
            connection.close().await;
        }
        let keys: HashMap<PublicKey, PublicKey> = dials
            .iter()
            .flat_map(|(member, dial)| {
                let key = member.identity.public();
                [(key, key), (dial.handshake.sender().public(), key)]
            })
            .collect();
        let general = general::topic(&dials[0].0).await;
        for (number, (member, dial)) in dials.iter().enumerate() {
            let key = dial.handshake.sender().public();
            let mut targets: Vec<PublicKey> = keys.keys().copied().collect();
            targets.sort_unstable_by_key(|key| *key.as_bytes());
            // A member's mail to itself is refused while it has no other connection.
            targets.retain(|target| *target != key && *target != member.identity.public());
            let name = format!("{mesh}-{number}");
            let path = self.directory.path().join(format!("{name}.ledger"));
            let mesh = match &dial.handshake {
                claudemesh_client::Handshake::Member { mesh, .. }
                | claudemesh_client::Handshake::Session { mesh, .. } => mesh,
            };
            let owner = Owner { mesh: mesh.clone(), member: member.identity.public(), key };
            let client = Client {
                cipher: Cipher::new(Arc::clone(dial.handshake.sender())),
                member_cipher: Cipher::new(Arc::clone(&member.identity)),
                dial: dial.clone(),
                ledger: Ledger::create(&path, &owner).unwrap(),
                member: member.identity.public(),
                keys: keys.clone(),
                general: general.clone(),
                targets: targets.into_iter().map(Target::Key).chain([Target::General]).collect(),
                seed: seed.branch(u64::try_from(self.ledgers.len()).unwrap()),
                phase: self.phase.subscribe(),
                progress: Arc::clone(&self.progress),
                connection: 0,
                open: VecDeque::new(),
                withheld: VecDeque::new(),
            };
            self.tasks.spawn(client.run());
            self.ledgers.push((name, path));
        }
        self.meshes.push(dials);
    }

    /// Lets everybody bring everything to its end, and asks the ledgers.
    pub(crate) async fn judge(mut self, broker: &Broker, trouble: Trouble) -> Tally {
        let _ = self.phase.send_replace(Phase::Drain);
        let started = Instant::now();
        while !self.is_drained() && started.elapsed() < DRAIN_DEADLINE {
            self.fail_with_clients();
            sleep(Duration::from_millis(50)).await;
        }
        let (open, undelivered) = self.progress.lock().unwrap().missing();
        println!(
            "drained in {:.1?}; without an answer: {open}, acked and not received: {undelivered}",
            started.elapsed()
        );
        // Whatever comes too often comes now.
        sleep(Duration::from_millis(300)).await;
        let _ = self.phase.send_replace(Phase::End);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let read =
            |(name, path): &(String, PathBuf)| Account { name: name.clone(), entries: ledger::read(path).unwrap() };
        let accounts: Vec<Account> = self.ledgers.iter().map(read).collect();
        let mut histories: Vec<History> = Vec::new();
        for dials in &self.meshes {
            histories.push(general::history(&dials[0].0).await);
        }
        match checker::check(&accounts, &histories, trouble) {
            Ok(tally) => {
                assert_eq!(open, 0, "messages without an answer; the broker says:\n{}", broker.log_end());
                for dials in &self.meshes {
                    general::nothing_is_left(dials).await;
                }
                println!("{tally:?}");
                tally
            }
            Err(breaches) => {
                self.keep();
                let shown: Vec<String> = breaches.iter().take(20).map(ToString::to_string).collect();
                panic!(
                    "{} promises broken:\n{}\nthe broker says:\n{}",
                    breaches.len(),
                    shown.join("\n"),
                    broker.log_end()
                );
            }
        }
    }

    fn is_drained(&self) -> bool {
        self.progress.lock().unwrap().is_drained()
    }

    /// A client that panicked has found something.
    pub(crate) fn fail_with_clients(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            ended.unwrap();
        }
    }

    fn keep(&self) {
        let Some(directory) = std::env::var_os("CLAUDEMESH_CRASH_KEEP").map(PathBuf::from) else { return };
        std::fs::create_dir_all(&directory).unwrap();
        for (name, path) in &self.ledgers {
            std::fs::copy(path, directory.join(name)).unwrap();
        }
    }
}
