//! A throw-away PostgreSQL: a fresh cluster on a free port of the loopback, gone when its value is dropped.
//!
//! - The server's programs come from the system (`programs.rs`).
//! - They refuse to run as root, so root hands them to an account that may do little (`account.rs`).
//! - A small shell keeps the server and watches a pipe from us. When the pipe closes, because we drop it or
//!   because we were killed with no chance to, the shell stops the server and removes its directory.
//! - It is as durable as a real one: the broker refuses a database that loses what it acknowledged.

mod account;
mod programs;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use self::account::Account;
pub(crate) use self::programs::Programs;
use crate::run::{Stop, now, run_quietly};

/// A running server.
#[derive(Debug)]
pub(crate) struct Cluster {
    keeper: Child,
    directory: Directory,
    port: u16,
}

impl Cluster {
    /// Makes a cluster and waits until it takes connections.
    pub(crate) fn start(stop: &Stop, programs: &Programs) -> anyhow::Result<Self> {
        let account = Account::for_server()?;
        let mut last = None;
        // A port that was free may be taken before the server binds it.
        for _ in 0..ATTEMPTS {
            match Self::try_start(stop, programs, &account) {
                Err(error) if !stop.asked() => last = Some(error),
                outcome => return outcome,
            }
        }
        Err(last.context("PostgreSQL was never started")?)
    }

    /// Where it is: any name of a user and no password are accepted, from this machine only.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn try_start(stop: &Stop, programs: &Programs, account: &Account) -> anyhow::Result<Self> {
        let directory = Directory::create(account)?;
        let data = directory.path.join("data");
        let mut initdb = account.command(&programs.path("initdb"), &directory.path);
        initdb
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync", "--pgdata"])
            .arg(&data);
        run_quietly(stop, &mut initdb).context("cannot make a PostgreSQL cluster")?;
        fs::write(data.join("pg_hba.conf"), HOST_BASED_ACCESS).context("cannot limit PostgreSQL to the loopback")?;
        let port = free_port()?;
        let keeper = keeper(account, &directory.path, &server(programs, &data, port))?;
        let cluster = Self { keeper, directory, port };
        cluster.wait_until_ready(stop)?;
        Ok(cluster)
    }

    fn wait_until_ready(&self, stop: &Stop) -> anyhow::Result<()> {
        let directory = &self.directory.path;
        let log = || fs::read_to_string(directory.join("log")).unwrap_or_default();
        let deadline = now() + START_DEADLINE;
        while !is_ready(&directory.join("data")) {
            if directory.join("exited").exists() {
                bail!("PostgreSQL did not start:\n{}", log());
            }
            if now() > deadline {
                bail!("PostgreSQL was not ready after {} s:\n{}", START_DEADLINE.as_secs(), log());
            }
            if stop.asked() {
                bail!("interrupted");
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let deadline = now() + STOP_DEADLINE;
        while matches!(self.keeper.try_wait(), Ok(None)) {
            if now() > deadline {
                println!("PostgreSQL in {} does not stop", self.directory.path.display());
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// A new directory that is removed when its value is dropped.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn create(account: &Account) -> anyhow::Result<Self> {
        let parent = account.temporary_directory()?;
        for number in 0..1000 {
            let path = parent.join(format!("claudemesh-postgres-{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                outcome => {
                    outcome.with_context(|| format!("cannot create {}", path.display()))?;
                    let directory = Self { path };
                    account.give(&directory.path)?;
                    return Ok(directory);
                }
            }
        }
        bail!("{} is full of old clusters", parent.display())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // The keeper has removed it in most cases.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

fn server(programs: &Programs, data: &Path, port: u16) -> Vec<std::ffi::OsString> {
    let mut words = vec![programs.path("postgres").into(), "-D".into(), data.into()];
    let port = format!("port={port}");
    for setting in SETTINGS.into_iter().chain([port.as_str()]) {
        words.extend(["-c".into(), setting.into()]);
    }
    words
}

fn keeper(account: &Account, directory: &Path, server: &[std::ffi::OsString]) -> anyhow::Result<Child> {
    account
        .command(Path::new("/bin/sh"), Path::new("/"))
        .args(["-c", KEEPER, "claudemesh-postgres"])
        .arg(directory)
        .args(server)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A Ctrl-C of the terminal is for us; the keeper hears of it when we are done.
        .process_group(0)
        .spawn()
        .context("cannot start a shell to keep PostgreSQL")
}

/// A server writes its state into the eighth line of its pid file, as `pg_ctl` reads it.
fn is_ready(data: &Path) -> bool {
    fs::read_to_string(data.join("postmaster.pid"))
        .is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "ready"))
}

const ATTEMPTS: u32 = 3;
const POLL: Duration = Duration::from_millis(20);
/// Recovery of nothing takes a second; a machine that compiles meanwhile is given more.
const START_DEADLINE: Duration = Duration::from_mins(1);
/// An immediate stop takes milliseconds; the server itself kills what lingers after 5 s.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

const HOST_BASED_ACCESS: &str = "host all all 127.0.0.1/32 trust\n";

const SETTINGS: [&str; 5] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=on",
    "synchronous_commit=on",
    "max_connections=200",
];

/// Arguments: the directory, then the server with its arguments. SIGQUIT is the immediate stop, right for data
/// that nobody will read again. Descriptor 3 is the pipe: a background command's own input is empty.
const KEEPER: &str = r#"
directory=$1; shift
exec 3<&0
"$@" >"$directory/log" 2>&1 3<&- & server=$!
( read -r _ <&3; [ -e "$directory/exited" ] || kill -s QUIT "$server" ) &
exec 3<&-
wait "$server"; echo "$?" >"$directory/exited"
wait
rm -rf "$directory"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_ready_when_its_pid_file_says_so() {
        let account = Account::for_server().unwrap();
        let directory = Directory::create(&account).unwrap();
        let file = directory.path.join("postmaster.pid");
        assert!(!is_ready(&directory.path));
        fs::write(&file, "1\n/d\n2\n3\n\n127.0.0.1\n\nstarting\n").unwrap();
        assert!(!is_ready(&directory.path));
        fs::write(&file, "1\n/d\n2\n3\n\n127.0.0.1\n\nready   \n").unwrap();
        assert!(is_ready(&directory.path));
        let path = directory.path.clone();
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn a_cluster_answers_while_it_lives_and_leaves_nothing() {
        let stop = Stop::default();
        let Ok(programs) = Programs::find() else {
            return;
        };
        let cluster = Cluster::start(&stop, &programs).unwrap();
        let address = (Ipv4Addr::LOCALHOST, cluster.port);
        assert!(std::net::TcpStream::connect(address).is_ok());
        let path = cluster.directory.path.clone();
        drop(cluster);
        assert!(std::net::TcpStream::connect(address).is_err());
        assert!(!path.exists());
    }

    /// The test command hands every test an address; where it does, there is a server behind it.
    #[test]
    fn the_address_in_the_environment_is_a_servers() {
        let Ok(url) = std::env::var("CLAUDEMESH_TEST_POSTGRES") else {
            return;
        };
        let (_, rest) = url.split_once('@').unwrap();
        let (address, _) = rest.split_once('/').unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok());
    }
}
