//! The broker as a process of its own.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use claudemesh_client::BrokerUrl;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::database::Fresh;
use crate::http;
use crate::process::Process;

/// Where one broker keeps what it knows; removed with this.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) dir: TempDir,
    pub(crate) database: Option<Fresh>,
}

/// A running broker. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// From the start of the process until it said that it was ready.
    pub(crate) start_time: Duration,
}

impl Broker {
    /// Starts it and waits until it is ready, for at most a minute.
    pub(crate) async fn start(program: &Path, home: &Home) -> anyhow::Result<Self> {
        let started = Instant::now();
        let mut child =
            command(program, home)?.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let said = child.stdout.take().context("the broker has no standard output")?;
        let mut broker = Self { child, address: ([127, 0, 0, 1], 0).into(), start_time: Duration::ZERO };
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        let address = line.trim().rsplit_once("http://").and_then(|(_, address)| address.parse().ok());
        let Some(address) = address else {
            bail!("the broker did not start; it said {line:?}, and:\n{}", broker.log(home));
        };
        broker.address = address;
        let ready = async {
            while !matches!(http::get(address, "/health/ready").await, Ok((200, _))) {
                sleep(POLL).await;
            }
        };
        timeout(START_DEADLINE, ready).await.context("the broker was not ready in a minute")?;
        broker.start_time = started.elapsed();
        Ok(broker)
    }

    /// Where members find it.
    pub(crate) fn url(&self) -> anyhow::Result<BrokerUrl> {
        Ok(format!("http://{}", self.address).parse()?)
    }

    pub(crate) fn process(&self) -> Process {
        Process::new(self.child.id())
    }

    fn log(&mut self, home: &Home) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        std::fs::read_to_string(log_path(home)).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Limits that no load here may meet are lifted; everything else is as it comes, its log included.
fn command(program: &Path, home: &Home) -> anyhow::Result<Command> {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(log_path(home))?);
    command.args(["--port", "0", "--mesh-creation", "loopback", "--send-rate-per-min", "0"]);
    command.args(["--hello-rate-per-min", "0", "--request-rate-per-min", "0", "--hook-rate-limit-per-min", "0"]);
    command.args(["--max-connections", "30000", "--max-connections-per-mesh", "30000"]);
    command.args(["--max-connections-per-member", "30000", "--data-dir"]).arg(home.dir.path());
    if let Some(database) = &home.database {
        command.args(["--database-url", &database.url]);
    }
    Ok(command)
}

fn log_path(home: &Home) -> PathBuf {
    home.dir.path().join("broker.log")
}

const POLL: Duration = Duration::from_millis(1);
const START_DEADLINE: Duration = Duration::from_mins(1);
