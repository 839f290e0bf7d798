//! T8: the PostgreSQL server itself is restarted under load, on a cluster that belongs to this test alone: D1, D2 and D15.

use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use claudemesh_testkit::checker::Trouble;
use claudemesh_testkit::process::{Broker, Database, Died, PostgresDatabase, free_port, signal};
use claudemesh_testkit::proof;
use tokio::time::{Instant, sleep};

use crate::load::{Load, broker};
use crate::seed::Seed;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_server_that_crashes_loses_nothing() {
    let Some(mut cluster) = Cluster::start().await else {
        return proof::skip("initdb is not installed");
    };
    let mut seed = Seed::of_run();
    let database = PostgresDatabase::create(&cluster.url()).await;
    let mut broker = broker(Database::Postgres(Box::new(database)));
    broker.start().await;
    let mut load = Load::start(&broker, &seed.branch(1000)).await;
    let crashes = proof::size("T8", 2);
    // An immediate stop is a crash of the server; a fast one rolls back what is open.
    for how in ["QUIT", "INT"].into_iter().cycle().take(crashes) {
        sleep(seed.millis(1000, 2500)).await;
        load.fail_with_clients();
        cluster.stop(how);
        sleep(seed.millis(0, 1500)).await;
        cluster.run(&[]).await;
        sleep(seed.millis(1000, 2000)).await;
        if let Some(status) = broker.ended() {
            println!("the broker ended with {status} and is started again");
            broker.start().await;
        }
    }
    let tally = load.judge(&broker, Trouble::Database).await;
    assert!(tally.acked > 100, "too little happened: {tally:?}");
    broker.remove().await;
    proof::held("T8", crashes, "crashes of PostgreSQL");
}

/// D1: what such a server has said to be kept may be gone after a power cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_is_refused_by_the_name_of_its_setting() {
    let Some(mut cluster) = Cluster::start().await else {
        return proof::skip("initdb is not installed");
    };
    let database = PostgresDatabase::create(&cluster.url()).await;
    let mut broker = Broker::new(Database::Postgres(Box::new(database)), &[]);
    for (setting, allowed) in
        [("fsync", "on"), ("full_page_writes", "on"), ("synchronous_commit", "on or remote_apply")]
    {
        cluster.stop("INT");
        cluster.run(&[&format!("{setting}=off")]).await;
        broker.spawn(&[]);
        let Err(Died(status)) = broker.ready().await else { panic!("it started with {setting}=off") };
        assert_eq!(status.code(), Some(1), "{}", broker.log_end());
        let why = format!("does not keep what it commits: show {setting} is \"off\", and must be {allowed}");
        assert!(broker.log_end().contains(&why), "{}", broker.log_end());
    }
    cluster.stop("INT");
    cluster.run(&[]).await;
    broker.start().await;
    broker.remove().await;
}

/// A server of our own.
struct Cluster {
    programs: PathBuf,
    /// Whom the server runs as: it refuses to be root.
    account: Option<(u32, u32)>,
    directory: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    async fn start() -> Option<Self> {
        let programs = programs()?;
        let account = (id("-u", None)? == 0).then(|| {
            let of = |name| Some((id("-u", Some(name))?, id("-g", Some(name))?));
            of("postgres").or_else(|| of("nobody")).expect("an account that is not root")
        });
        let name = format!("claudemesh-crash-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&directory).unwrap();
        if let Some((user, group)) = account {
            std::os::unix::fs::chown(&directory, Some(user), Some(group)).unwrap();
        }
        let mut cluster = Self { programs, account, directory, port: free_port(), server: None };
        let made = cluster.command("initdb").args(INITDB).arg(cluster.data()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        cluster.run(&[]).await;
        Some(cluster)
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts the server with more settings and waits until it takes connections.
    async fn run(&mut self, more: &[&str]) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        for setting in SETTINGS.iter().chain(&[format!("port={}", self.port).as_str()]).chain(more) {
            command.args(["-c", setting]);
        }
        self.server = Some(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_mins(1);
        // It writes its state into the eighth line of its pid file.
        let is_ready = |data: &Path| {
            let file = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            file.lines().nth(7).is_some_and(|line| line.trim() == "ready")
        };
        while !is_ready(&self.data()) {
            assert!(Instant::now() < deadline, "PostgreSQL does not start");
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn stop(&mut self, how: &str) {
        let mut server = self.server.take().unwrap();
        signal(server.id(), how);
        server.wait().unwrap();
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.stop("QUIT");
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The directory of `initdb`, behind a link on the search path or where Debian keeps it.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path);
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut candidates = on_path.chain(versions.map(|version| version.path().join("bin")));
    candidates.find_map(|directory| directory.join("initdb").canonicalize().ok()?.parent().map(Path::to_owned))
}

fn id(which: &str, of: Option<&str>) -> Option<u32> {
    let output = Command::new("id").arg(which).args(of).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Numbers the servers of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

const INITDB: [&str; 6] =
    ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"];
const SETTINGS: [&str; 4] =
    ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", "fsync=on"];
