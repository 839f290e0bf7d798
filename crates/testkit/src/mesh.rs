//! A real broker in this process.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use claudemesh_broker::{Broker, Config};
use claudemesh_keys::Identity;
use claudemesh_store::DatabaseUrl;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::clock::TestClock;
use crate::database::{Kind, TestDatabase};
use crate::http::{Answer, Request};
use crate::panics;
use crate::people::{Member, Mesh, merged, mesh_request};
use crate::wire::{DEADLINE, Wire};

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
    /// Where it listens.
    pub address: SocketAddr,
    /// The time that it sees.
    pub clock: TestClock,
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
        TestMesh { broker: Some(broker), config, address, clock: self.clock, database, data_dir }
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

    /// Makes a mesh; its creator is an admin called Ann.
    pub async fn mesh(&self, slug: &str) -> (Mesh, Member) {
        let (owner, ann) = (Arc::new(Identity::generate().unwrap()), Arc::new(Identity::generate().unwrap()));
        let request = mesh_request(slug, &owner, &ann, ("Ann", self.clock.tick()));
        let answer = self.http(&Request::post("/v1/meshes", &request)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let made = answer.json();
        let id = made["mesh_id"].as_str().unwrap().to_owned();
        let mesh = Mesh { id, slug: slug.to_owned(), owner, clock: self.clock.clone() };
        let ann = mesh.member(&made["member_id"], ann);
        (mesh, ann)
    }

    /// Invites somebody and lets them join.
    pub async fn join(&self, mesh: &Mesh, by: &Member, name: &str) -> Member {
        let (payload, token) = mesh.token("member");
        let mut wire = self.connect(&merged(by.hello(), json!({"capabilities": ["quiet"]}))).await;
        let created = wire.ask(json!({"type": "invite_create", "token": token})).await;
        assert_eq!(created["type"], "invite_created", "{created}");
        wire.close(1000).await;
        let identity = Arc::new(Identity::generate().unwrap());
        let answer = self.redeem(&payload, &token, (&identity.public().to_string(), name)).await;
        mesh.member(&answer.json()["memberId"], identity)
    }

    /// A mesh with two members.
    pub async fn pair(&self) -> (Mesh, Member, Member) {
        let (mesh, ann) = self.mesh("pair").await;
        let bob = self.join(&mesh, &ann, "Bob").await;
        (mesh, ann, bob)
    }

    /// `POST /join`.
    pub async fn redeem(&self, payload: &Value, token: &str, (key, name): (&str, &str)) -> Answer {
        let body = json!({"invite_token": token, "invite_payload": payload, "peer_pubkey": key, "display_name": name});
        self.http(&Request::post("/join", &body)).await
    }

    /// Sends an HTTP request.
    pub async fn http(&self, request: &Request) -> Answer {
        request.send(self.address).await
    }

    /// Opens a connection by a handshake that must be accepted.
    pub async fn connect(&self, hello: &Value) -> Wire {
        let mut wire = Wire::open(self.address).await;
        wire.greet(hello).await;
        wire
    }

    /// How a handshake is refused: code, message, close code, close reason.
    pub async fn refusal(&self, hello: &Value) -> (String, String, u16, String) {
        let mut wire = Wire::open(self.address).await;
        wire.say(hello).await;
        wire.refusal().await
    }

    /// One value of `/metrics`, by its name with labels.
    pub async fn metric(&self, name: &str) -> Option<u64> {
        let page = self.http(&Request::get("/metrics")).await.body;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
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
        (self.broker, self.address) = (Some(broker), address);
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
