//! What a process has used so far, as Linux counts it.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::http::metrics;
use crate::number::float;

/// CPU time and memory of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(u32);

impl Process {
    pub(crate) fn new(pid: u32) -> Self {
        Self(pid)
    }

    /// CPU time of all its threads, in user and kernel mode.
    pub(crate) fn cpu(self) -> anyhow::Result<Duration> {
        let stat = self.read("stat")?;
        // The name stands in parentheses and may hold anything; field 3 follows it, the times are fields 14 and 15.
        let fields = stat.rsplit_once(')').context("no name in stat")?.1;
        let times: Vec<u64> = fields.split_whitespace().skip(11).take(2).filter_map(|text| text.parse().ok()).collect();
        Ok(ticks(times.iter().sum()))
    }

    /// Memory in KiB: a line of `smaps_rollup`, such as `Rss` or `Pss`.
    pub(crate) fn memory_kib(self, line: &str) -> anyhow::Result<u64> {
        kib(&self.read("smaps_rollup")?, line)
    }

    /// The most memory that was ever resident, in KiB.
    pub(crate) fn peak_kib(self) -> anyhow::Result<u64> {
        kib(&self.read("status")?, "VmHWM")
    }

    fn read(self, file: &str) -> anyhow::Result<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.0)).context("the broker is gone")
    }
}

/// Counts from its making what is used by whom, and what the broker's journal does.
#[derive(Debug)]
pub(crate) struct Meter {
    broker: Process,
    address: SocketAddr,
    journal: [u64; 3],
    started: Instant,
    at_start: Used,
}

/// CPU time so far.
#[derive(Debug, Clone, Copy)]
struct Used {
    broker: Duration,
    load: Duration,
    machine: Duration,
}

/// What was used while something was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) wall: Duration,
    /// CPU time of the broker.
    pub(crate) broker: Duration,
    /// CPU time of the load generator.
    pub(crate) load: Duration,
    /// CPU time of everybody else on this machine: a database server, or a neighbour who makes the figures worse.
    pub(crate) others: Duration,
    pub(crate) journal: Journal,
}

/// The transactions of the broker's journal while something was measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Journal {
    /// Sends, claims, acks and the like in one of them.
    pub(crate) requests_per_batch: f64,
    /// From the start of one to the end of its commit.
    pub(crate) batch_us: f64,
}

impl Meter {
    pub(crate) async fn start(broker: &Broker) -> anyhow::Result<Self> {
        let (broker, address) = (broker.process(), broker.address);
        let journal = metrics(address, JOURNAL).await?;
        Ok(Self { broker, address, journal, at_start: Used::now(broker)?, started: Instant::now() })
    }

    pub(crate) async fn stop(self) -> anyhow::Result<Spent> {
        let wall = self.started.elapsed();
        let (start, end) = (self.at_start, Used::now(self.broker)?);
        let mut counts = metrics(self.address, JOURNAL).await?;
        counts.iter_mut().zip(self.journal).for_each(|(count, start)| *count -= start);
        let [batches, requests, micros] = counts.map(float);
        let journal = Journal { requests_per_batch: requests / batches.max(1.0), batch_us: micros / batches.max(1.0) };
        let (broker, load) = (end.broker.saturating_sub(start.broker), end.load.saturating_sub(start.load));
        let others = end.machine.saturating_sub(start.machine + broker + load);
        Ok(Spent { wall, broker, load, others, journal })
    }
}

impl Used {
    fn now(broker: Process) -> anyhow::Result<Self> {
        let own = Process::new(std::process::id());
        Ok(Self { broker: broker.cpu()?, load: own.cpu()?, machine: machine()? })
    }
}

/// CPU time that the whole machine was busy.
fn machine() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    // cpu user nice system idle iowait irq softirq steal
    let busy = line.split_whitespace().skip(1).take(8).enumerate().filter(|(index, _)| !matches!(index, 3 | 4));
    Ok(ticks(busy.filter_map(|(_, text)| text.parse::<u64>().ok()).sum()))
}

/// Linux shows times in hundredths of a second to programs, whatever it counts in.
fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 10)
}

fn kib(text: &str, line: &str) -> anyhow::Result<u64> {
    let value = text.lines().find_map(|other| other.strip_prefix(line)?.strip_prefix(':'));
    let value = value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse().ok());
    value.with_context(|| format!("the kernel shows no {line}"))
}

/// What the broker's metrics say of its journal.
const JOURNAL: [&str; 3] =
    ["broker_journal_batches_total", "broker_journal_requests_total", "broker_journal_commit_microseconds_total"];
