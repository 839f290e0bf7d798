//! A real broker: the program, on a free port, with a directory of its own.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Once, mpsc};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

pub(crate) struct Broker {
    child: Child,
    settings: Vec<(&'static str, &'static str)>,
    url: String,
    port: u16,
    dir: TempDir,
    printed: Arc<Mutex<String>>,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With these environment variables.
    pub(crate) fn start_with(settings: &[(&'static str, &'static str)]) -> Self {
        Self::on(0, tempfile::tempdir().unwrap(), settings.to_vec())
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Kills the broker as `kill -9` does.
    pub(crate) fn crash(&mut self) {
        self.stop();
    }

    /// Kills the broker as `kill -9` does, if it still runs, and starts another on the same files and port.
    pub(crate) fn crash_and_restart(mut self) -> Self {
        self.stop();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        let settings = self.settings.clone();
        Self::on(self.port, dir, settings)
    }

    /// Where the broker keeps its files.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Every byte that the broker keeps on disk.
    pub(crate) fn bytes_on_disk(&self) -> Vec<u8> {
        files_below(self.dir.path()).into_iter().flat_map(|(_, bytes)| bytes).collect()
    }

    /// Every line that it has printed, its log among them.
    pub(crate) fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    fn on(port: u16, dir: TempDir, settings: Vec<(&'static str, &'static str)>) -> Self {
        let data = dir.path().join("data");
        let mut child = Command::new(program())
            .args(["--port", &port.to_string(), "--data-dir"])
            .arg(&data)
            .env_clear()
            .env("RUST_LOG", "info")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (found, address) = mpsc::sync_channel(1);
        let printed = Arc::default();
        watch(child.stdout.take().unwrap(), found.clone(), Arc::clone(&printed));
        watch(child.stderr.take().unwrap(), found, Arc::clone(&printed));
        let port = address.recv_timeout(Duration::from_secs(30)).expect("the broker prints its address");
        Self { child, settings, url: format!("http://127.0.0.1:{port}"), port, dir, printed }
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads a stream to its end, so that the broker never blocks on it, keeps what it says, and tells the first port it names.
fn watch(stream: impl Read + Send + 'static, found: mpsc::SyncSender<u16>, printed: Arc<Mutex<String>>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            printed.lock().unwrap().extend([line.as_str(), "\n"]);
            if let Some(port) = port_in(&line) {
                // Only the first is waited for.
                let _ = found.try_send(port);
            }
        }
    });
}

/// The port of the first address of this machine in a line.
pub(crate) fn port_in(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("127.0.0.1:")?;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok().filter(|port| *port != 0)
}

/// Every file below a directory with its bytes. A running broker may remove one meanwhile.
pub(crate) fn files_below(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            match fs::read(&path) {
                Ok(bytes) => files.push((path, bytes)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{}", path.display()),
            }
        }
    }
    files
}

/// The broker's program beside ours. A whole build has made it; a build of this crate alone has not, and makes it here.
pub(crate) fn program() -> PathBuf {
    static BUILD: Once = Once::new();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_claudemesh")).with_file_name("claudemesh-broker");
    BUILD.call_once(|| {
        if !program.exists() {
            let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let built = Command::new(cargo).args(["build", "-p", "claudemesh-broker"]).status().unwrap();
            assert!(built.success(), "the broker builds");
        }
    });
    program
}
