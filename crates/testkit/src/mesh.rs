//! A real broker in this process.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use claudemesh_broker::{Broker, Config};
use claudemesh_store::DatabaseUrl;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::clock::TestClock;
use crate::database::{Kind, TestDatabase};
use crate::panics;
use crate::site::Site;
use crate::wire::DEADLINE;

/// A broker that is about to start.
#[derive(Debug)]
pub struct Setup {
    kind: Kind,
    config: Config,
    clock: TestClock,
}

/// A broker that runs. When it is dropped it is stopped, and everything must have ended.
#[derive(Debug)]
pub struct TestMesh {
    broker: Option<Broker>,
    config: Config,
    site: Site,
    /// Its database.
    pub database: TestDatabase,
    data_dir: TempDir,
}

impl Setup {
    /// On a database of this kind, with the defaults of the program and no limit on sends.
    pub fn on(kind: Kind) -> Self {
        let config = Config::try_parse_from(["claudemesh-broker", "--port", "0", "--send-rate-per-min", "0"]).unwrap();
        Self { kind, config, clock: TestClock::default() }
    }

    /// On SQLite.
    pub fn sqlite() -> Self {
        Self::on(Kind::Sqlite)
    }

    /// On PostgreSQL.
    pub fn postgres() -> Self {
        Self::on(Kind::Postgres)
    }

    /// Which database it will have.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// With something set otherwise.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Starts it.
    pub async fn start(self) -> TestMesh {
        panics::watch();
        let data_dir = tempfile::tempdir().unwrap();
        let database = TestDatabase::make(self.kind, data_dir.path()).await;
        let mut config = self.config;
        config.data_dir.get_or_insert_with(|| data_dir.path().to_owned());
        config.database_url.get_or_insert_with(|| database.url());
        let (broker, address) = start(&config, &self.clock).await.expect("a broker that starts");
        let site = Site { address, clock: self.clock };
        TestMesh { broker: Some(broker), config, site, database, data_dir }
    }
}

async fn start(config: &Config, clock: &TestClock) -> anyhow::Result<(Broker, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((Broker::start(config.clone(), listener, clock.clock()).await?, address))
}

impl TestMesh {
    /// A broker on SQLite as it comes.
    pub async fn start() -> Self {
        Setup::sqlite().start().await
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        self.config.data_dir.as_deref().unwrap_or(self.data_dir.path())
    }

    /// The running broker.
    pub fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("a broker that runs")
    }

    /// Stops the broker as SIGTERM does, and starts it again on the same data.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.resume().await;
    }

    /// Stops the broker as SIGTERM does; everything must end by itself.
    pub async fn stop(&mut self) {
        let broker = self.broker.take().expect("a broker that runs");
        assert!(broker.stop().await, "something was left over when the broker stopped");
    }

    /// Starts it again on the same data.
    pub async fn resume(&mut self) {
        let (broker, address) = start(&self.config, &self.clock).await.expect("a broker that starts again");
        (self.broker, self.site.address) = (Some(broker), address);
    }

    /// Tries to start a broker with a configuration of a test's own; why it did not start.
    pub async fn refuses_to_start(database_url: Option<DatabaseUrl>, data_dir: &Path) -> String {
        let mut config = Setup::sqlite().config;
        (config.database_url, config.data_dir) = (database_url, Some(data_dir.to_owned()));
        match start(&config, &TestClock::default()).await {
            Ok(_) => panic!("it started"),
            Err(error) => format!("{error:#}"),
        }
    }
}

impl std::ops::Deref for TestMesh {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Drop for TestMesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if let Some(broker) = self.broker.take() {
            let handle = tokio::runtime::Handle::current();
            let is_clean = std::thread::spawn(move || handle.block_on(broker.stop())).join();
            assert!(is_clean.expect("a broker that stops"), "something was left over when the broker stopped");
        }
        assert_eq!(panics::seen(), Vec::<String>::new(), "a task has panicked");
    }
}

/// Asks again until the answer is yes. For what is visible only from outside and happens a moment later.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, asking).await.is_ok(), "never: {what}");
}
