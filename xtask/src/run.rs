//! Running other programs so that none outlives us.
//!
//! Every child leads a process group of its own. A signal to us ends that group, and the caller, whose wait
//! is over, leaves by the ordinary way with its guards dropped. A second signal kills the group.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::tally::{Counter, Tally};

/// Whether we were asked to stop, and the group that has to hear of it.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    signals: AtomicU32,
    group: Mutex<Option<u32>>,
}

impl Stop {
    /// Listens to SIGINT, SIGTERM and SIGHUP from now on.
    pub(crate) fn on_signals() -> anyhow::Result<Arc<Self>> {
        let stop = Arc::new(Self::default());
        let heard = Arc::clone(&stop);
        ctrlc::set_handler(move || heard.hear()).context("cannot listen to signals")?;
        Ok(stop)
    }

    pub(crate) fn asked(&self) -> bool {
        self.signals.load(Ordering::SeqCst) > 0
    }

    fn hear(&self) {
        let before = self.signals.fetch_add(1, Ordering::SeqCst);
        // The lock is held while a child is started, so a group is either seen here or never made.
        if let Some(group) = *self.group() {
            signal_group(group, if before == 0 { "TERM" } else { "KILL" });
        }
    }

    fn group(&self) -> MutexGuard<'_, Option<u32>> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, command: &mut Command) -> anyhow::Result<Child> {
        let mut group = self.group();
        anyhow::ensure!(!self.asked(), "interrupted");
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        *group = Some(child.id());
        Ok(child)
    }

    fn wait(&self, child: &mut Child) -> anyhow::Result<ExitStatus> {
        let status = child.wait();
        *self.group() = None;
        status.context("lost a child")
    }
}

/// Runs a program to its end; whether it succeeded.
pub(crate) fn run(stop: &Stop, command: &mut Command) -> anyhow::Result<bool> {
    let mut child = stop.start(command)?;
    Ok(stop.wait(&mut child)?.success())
}

/// Runs a program to its end and says nothing unless it fails: then its output is the error.
pub(crate) fn run_quietly(stop: &Stop, command: &mut Command) -> anyhow::Result<()> {
    let child = stop.start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let output = child.wait_with_output();
    *stop.group() = None;
    let output = output.context("lost a child")?;
    anyhow::ensure!(
        output.status.success(),
        "{} failed:\n{}{}",
        command.get_program().display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Runs a test runner to its end, passing its output on as it comes and counting the results in it.
pub(crate) fn run_counting(stop: &Stop, command: &mut Command) -> anyhow::Result<(bool, Tally)> {
    let mut child = stop.start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let group = child.id();
    let (done, finished) = sync_channel(2);
    if let Some(output) = child.stdout.take() {
        pass_on(output, std::io::stdout(), done.clone());
    }
    if let Some(output) = child.stderr.take() {
        pass_on(output, std::io::stderr(), done);
    }
    let status = stop.wait(&mut child)?;
    let mut tally = Tally::default();
    let complete = collect(&finished, &mut tally) || {
        println!("a program that a test left running still holds the output: ending it");
        signal_group(group, "KILL");
        collect(&finished, &mut tally);
        false
    };
    Ok((status.success() && complete, tally))
}

/// Copies a stream in the pieces it comes in (a test prints its name before its result) and sends what it counted.
fn pass_on(mut from: impl Read + Send + 'static, mut to: impl Write + Send + 'static, done: SyncSender<Tally>) {
    std::thread::spawn(move || {
        let mut counter = Counter::default();
        let mut piece = [0; 8192];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            let piece = piece.get(..length).unwrap_or_default();
            counter.read(piece);
            // Counting goes on when nobody reads our output any more.
            let _ = to.write_all(piece).and_then(|()| to.flush());
        }
        let _ = done.send(counter.finish());
    });
}

/// Adds what both streams counted; false when one of them is still open after a while.
fn collect(finished: &Receiver<Tally>, tally: &mut Tally) -> bool {
    loop {
        match finished.recv_timeout(Duration::from_secs(5)) {
            Ok(part) => *tally += part,
            Err(error) => return error == RecvTimeoutError::Disconnected,
        }
    }
}

/// Signals a process group by the shell's own `kill`, since every Unix has a shell and some lack the program.
fn signal_group(group: u32, signal: &str) {
    let _ = Command::new("sh")
        .args(["-c", "kill -s \"$1\" -- \"-$2\"", "sh", signal])
        .arg(group.to_string())
        .stderr(Stdio::null())
        .status();
}

/// The moment, for measuring how long a step took and for giving up on one.
#[expect(clippy::disallowed_methods, reason = "a person reads the durations of real steps; there is no Clock to ask")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
