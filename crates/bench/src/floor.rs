//! What the machine can do at best, at this moment: figures of a broker mean little without.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::Instant;

use crate::latency::Latencies;

/// The floors of one moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Floors {
    /// `fdatasync` of a 4 KiB block of a file that has its size: the least that making something durable takes.
    pub(crate) sync_p50_us: f64,
    pub(crate) sync_p99_us: f64,
    pub(crate) syncs_per_second: f64,
    /// One byte there and one back over TCP on the loopback, between two threads.
    pub(crate) tcp_p50_us: f64,
    pub(crate) tcp_p99_us: f64,
}

impl Floors {
    /// Measures in `dir`, which must be on the disk that the brokers use.
    pub(crate) fn measure(dir: &Path, rounds: usize) -> anyhow::Result<Self> {
        let syncs = syncs(dir, rounds).context("the sync floor")?;
        let total: Duration = syncs.iter().sum();
        let count = f64::from(u32::try_from(syncs.len())?);
        let (syncs, trips) = (Latencies::new(syncs), Latencies::new(round_trips(rounds).context("the TCP floor")?));
        Ok(Self {
            sync_p50_us: micros(syncs.percentile(50)),
            sync_p99_us: micros(syncs.percentile(99)),
            syncs_per_second: count / total.as_secs_f64(),
            tcp_p50_us: micros(trips.percentile(50)),
            tcp_p99_us: micros(trips.percentile(99)),
        })
    }
}

impl fmt::Display for Floors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sync_p50_us, sync_p99_us, syncs_per_second, tcp_p50_us, tcp_p99_us } = self;
        write!(
            f,
            "sync of 4 KiB p50 {sync_p50_us:.0} p99 {sync_p99_us:.0} µs, {syncs_per_second:.0}/s; \
             TCP there and back p50 {tcp_p50_us:.0} p99 {tcp_p99_us:.0} µs"
        )
    }
}

fn syncs(dir: &Path, rounds: usize) -> anyhow::Result<Vec<Duration>> {
    let path = dir.join("floor");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    file.write_all_at(&vec![1; BLOCK * BLOCKS], 0)?;
    file.sync_all()?;
    let block = [2; BLOCK];
    let mut times = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let started = Instant::now();
        file.write_all_at(&block, u64::try_from((round % BLOCKS) * BLOCK)?)?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    std::fs::remove_file(path)?;
    Ok(times)
}

fn round_trips(rounds: usize) -> anyhow::Result<Vec<Duration>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = thread::spawn(move || -> std::io::Result<()> {
        let mut byte = [0];
        while far.read(&mut byte)? > 0 {
            far.write_all(&byte)?;
        }
        Ok(())
    });
    let mut times = Vec::with_capacity(rounds);
    let mut byte = [7];
    for _ in 0..rounds {
        let started = Instant::now();
        near.write_all(&byte)?;
        near.read_exact(&mut byte)?;
        times.push(started.elapsed());
    }
    drop(near);
    echo.join().ok().context("the echo thread panicked")??;
    Ok(times)
}

/// A time in microseconds.
pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

const BLOCK: usize = 4096;
const BLOCKS: usize = 1024;
