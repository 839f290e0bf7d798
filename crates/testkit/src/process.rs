//! The real broker as a process that can be killed, stopped and started again on the same port, data and database.
//!
//! Everything here fails by panicking: it is for tests, which have nothing better to do.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr as _;
use std::time::Duration;

use claudemesh_keys::random_bytes;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::database::cluster;

/// Where a broker keeps the truth.
#[derive(Debug)]
pub enum Database {
    /// A file in the broker's data directory.
    Sqlite,
    /// A database of its own on a server.
    Postgres(Box<PostgresDatabase>),
}

impl Database {
    /// A new database on the server that the test command started.
    pub async fn postgres() -> Self {
        Self::Postgres(Box::new(PostgresDatabase::create(&cluster()).await))
    }
}

/// A database on a PostgreSQL server; [`PostgresDatabase::remove`] drops it.
#[derive(Debug)]
pub struct PostgresDatabase {
    server: PgConnectOptions,
    name: String,
    url: String,
}

impl PostgresDatabase {
    /// Creates a database with a name of its own; `server` is the address of another one on the same server.
    pub async fn create(server: &str) -> Self {
        let name = format!("crash_{:016x}", u64::from_le_bytes(random_bytes().expect("randomness")));
        let (cluster, _) = server.rsplit_once('/').expect("an address ends with the name of a database");
        let database = Self {
            server: PgConnectOptions::from_str(server).expect("CLAUDEMESH_TEST_POSTGRES is an address"),
            url: format!("{cluster}/{name}"),
            name,
        };
        database.execute(format!("create database {}", database.name)).await;
        database
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Drops it, whoever is connected.
    pub async fn remove(self) {
        self.execute(format!("drop database {} with (force)", self.name)).await;
    }

    async fn execute(&self, statement: String) {
        let mut connection = self.server.connect().await.expect("PostgreSQL takes connections");
        sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.expect("PostgreSQL does as told");
        connection.close().await.expect("PostgreSQL says goodbye");
    }
}

/// A broker that outlives its processes. Dropped, it kills the last one.
#[derive(Debug)]
pub struct Broker {
    program: PathBuf,
    port: u16,
    directory: TempDir,
    database: Database,
    settings: Vec<(String, String)>,
    child: Option<Child>,
}

/// The process ended before it was ready.
#[derive(Debug)]
pub struct Died(pub ExitStatus);

impl Broker {
    /// A broker that was never started, with these environment variables.
    pub fn new(database: Database, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self {
            program: program("claudemesh-broker"),
            port: free_port(),
            directory: tempfile::tempdir().expect("a temporary directory"),
            database,
            settings: settings.collect(),
            child: None,
        }
    }

    /// `http://127.0.0.1:PORT`, before and after every restart.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where it listens, before and after every restart.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// How much memory its process holds, in KiB; nothing where the system does not say so as Linux does.
    pub fn memory_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.as_ref()?.id())).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where its database is, as `DATABASE_URL` says it.
    pub fn database_url(&self) -> String {
        match &self.database {
            Database::Sqlite => format!("sqlite://{}", self.data().join("broker.db").display()),
            Database::Postgres(database) => database.url().to_owned(),
        }
    }

    /// Starts a process and waits until it is ready; how long that took.
    pub async fn start(&mut self) -> Duration {
        self.start_with(&[]).await
    }

    /// The same with more environment variables.
    pub async fn start_with(&mut self, settings: &[(&str, &str)]) -> Duration {
        let started = Instant::now();
        self.spawn(settings);
        if let Err(Died(status)) = self.ready().await {
            panic!("the broker ended with {status} before it was ready:\n{}", self.log_end());
        }
        started.elapsed()
    }

    /// Starts a process with more environment variables, and waits for nothing.
    pub fn spawn(&mut self, settings: &[(&str, &str)]) {
        assert!(self.child.is_none(), "one broker at a time");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let mut command = Command::new(&self.program);
        command
            .args(["--port", &self.port.to_string(), "--data-dir"])
            .arg(self.data())
            .env_clear()
            .env("DATABASE_URL", self.database_url())
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .envs(settings.iter().copied())
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log);
        self.child = Some(command.spawn().expect("the broker's program starts"));
    }

    /// Waits until it answers that it is ready.
    ///
    /// # Errors
    /// When the process ended instead.
    pub async fn ready(&mut self) -> Result<(), Died> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            if let Some(status) = self.ended() {
                return Err(Died(status));
            }
            if is_ready(self.port) {
                return Ok(());
            }
            assert!(Instant::now() < deadline, "the broker is not ready after 60 s:\n{}", self.log_end());
            sleep(POLL).await;
        }
    }

    /// `kill -9`, and nothing of it is left when this returns.
    pub fn kill(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running broker");
        child.kill().expect("a process of ours can be killed");
        child.wait().expect("a child is waited for")
    }

    /// Asks it to stop, as a supervisor does; how it ended and how long that took.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let pid = self.child.as_ref().expect("a running broker").id();
        let asked = Instant::now();
        signal(pid, "TERM");
        let status = self.end_within(Duration::from_secs(30)).await;
        (status.unwrap_or_else(|| panic!("the broker does not stop:\n{}", self.log_end())), asked.elapsed())
    }

    /// Waits for the process to end by itself; `None` when it goes on.
    pub async fn end_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            sleep(POLL).await;
        }
    }

    /// How the process ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut().expect("a started broker").try_wait().expect("a child is waited for")?;
        self.child = None;
        Some(status)
    }

    /// All that it said, over all its starts.
    pub fn log(&self) -> Vec<u8> {
        std::fs::read(self.log_path()).unwrap_or_default()
    }

    /// The last of what it said.
    pub fn log_end(&self) -> String {
        let log = self.log();
        let start = log.len().saturating_sub(8 << 10);
        String::from_utf8_lossy(log.get(start..).unwrap_or_default()).into_owned()
    }

    /// Ends it and removes all it has.
    pub async fn remove(mut self) {
        if self.child.is_some() {
            self.kill();
        }
        if let Database::Postgres(database) = std::mem::replace(&mut self.database, Database::Sqlite) {
            database.remove().await;
        }
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends a signal by the shell's own `kill`, since every Unix has a shell and the standard library has no signals.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &pid.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "process {pid} takes signals");
}

/// A port that nobody listens on.
///
/// It lies below those that systems give to outgoing connections: a client that dials a dead broker's port from that same port is
/// connected to itself, and the broker could never come back.
pub fn free_port() -> u16 {
    for _ in 0..1000 {
        let port = 10_000 + u16::from_le_bytes(random_bytes().expect("randomness")) % 20_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A program of this workspace, where the build of the running test has left it.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own file");
    let profile = test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
    let program = profile.join(name);
    assert!(
        program.is_file(),
        "{} is missing: run `cargo build --workspace --bins` with the profile of this test, or `cargo xtask test`",
        program.display()
    );
    program
}

fn is_ready(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b"200"))
    };
    ask().unwrap_or(false)
}

const POLL: Duration = Duration::from_millis(10);
const READY_DEADLINE: Duration = Duration::from_mins(1);
