//! `docs/walkthrough.md`, typed into the real programs: what it shows is what they print. With `UPDATE_DOCS=1` it is written anew.
//!
//! In its blocks of `console`, `NAME$ COMMAND` is typed by somebody, `NAME^C` stops what listens in a terminal, and `NAME…` is
//! followed by what that terminal has printed meanwhile.

use std::collections::HashMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use claudemesh_client::{Home, hostname};
use tempfile::TempDir;

use crate::broker::Broker;
use crate::placeholders::Placeholders;

#[test]
fn the_walkthrough_shows_what_the_programs_print() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/walkthrough.md"));
    let written = fs::read_to_string(path).unwrap();
    let is_update = env::var_os("UPDATE_DOCS").is_some();
    let mut stage = Stage::new(is_update);
    let mut shown = String::new();
    let mut lines = written.lines().peekable();
    let mut is_console = false;
    while let Some(line) = lines.next() {
        shown.push_str(line);
        shown.push('\n');
        is_console = if is_console { line != "```" } else { line == "```console" };
        if !is_console || line == "```console" {
            continue;
        }
        let mut expected = 0;
        while lines.next_if(|next| *next != "```" && Step::read(next).is_none()).is_some() {
            expected += 1;
        }
        let step = Step::read(line).unwrap_or_else(|| panic!("a block begins with what somebody does: {line}"));
        let printed = stage.play(&step, expected);
        shown.push_str(&printed);
    }
    stage.end();
    if is_update {
        fs::write(path, shown).unwrap();
    } else {
        assert_eq!(shown, written, "docs/walkthrough.md is not what runs; UPDATE_DOCS=1 writes it anew");
    }
}

/// One thing that somebody does.
enum Step<'a> {
    Type(&'a str, &'a str),
    Interrupt(&'a str),
    Look(&'a str),
}

impl<'a> Step<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let is_name =
            |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        if let Some((name, command)) = line.split_once("$ ").filter(|(name, _)| is_name(name)) {
            return Some(Self::Type(name, command));
        }
        let interrupted = line.strip_suffix("^C").filter(|name| is_name(name)).map(Self::Interrupt);
        interrupted.or_else(|| line.strip_suffix('…').filter(|name| is_name(name)).map(Self::Look))
    }
}

/// The machine, the broker and the terminals.
struct Stage {
    dir: TempDir,
    /// What each person has told the shells of theirs.
    exports: HashMap<String, String>,
    broker: Option<Broker>,
    listening: HashMap<String, Terminal>,
    placeholders: Placeholders,
    is_update: bool,
}

/// Somebody listens in it.
struct Terminal {
    child: Child,
    lines: Receiver<String>,
}

impl Stage {
    fn new(is_update: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["home", "bin", "here"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_claudemesh"), dir.path().join("bin/claudemesh")).unwrap();
        let mut placeholders = Placeholders::new(&hostname().unwrap_or_default());
        placeholders.pair(&dir.path().join("home").to_string_lossy(), "/home/you");
        let (exports, listening) = (HashMap::new(), HashMap::new());
        Self { dir, exports, broker: None, listening, placeholders, is_update }
    }

    /// What is shown after the line.
    fn play(&mut self, step: &Step<'_>, expected: usize) -> String {
        let printed = match *step {
            Step::Type("broker", command) => {
                self.run_broker(command);
                String::new()
            }
            Step::Type(name, command) if command.ends_with("inbox --wait") => {
                self.listen(name, command);
                self.look(name, expected)
            }
            Step::Type(name, command) if command.starts_with("export ") => {
                self.exports.insert(name.to_owned(), command.to_owned());
                String::new()
            }
            Step::Type(name, command) => self.run(name, command),
            Step::Interrupt(name) => {
                let terminal = self.listening.remove(name).unwrap();
                terminal.interrupt()
            }
            Step::Look(name) => self.look(name, expected),
        };
        self.learn_keys();
        self.placeholders.hide(&printed)
    }

    fn end(self) {
        assert!(self.listening.is_empty(), "every terminal is stopped");
    }

    fn run_broker(&mut self, command: &str) {
        match (command, self.broker.take()) {
            (START, None) => {
                let broker = Broker::start();
                self.placeholders.pair(broker.url().strip_prefix("http://").unwrap(), "127.0.0.1:7900");
                self.broker = Some(broker);
            }
            (START, Some(broker)) => self.broker = Some(broker.crash_and_restart()),
            ("kill -9 $!", Some(mut broker)) => {
                broker.crash();
                self.broker = Some(broker);
            }
            _ => panic!("the broker does not do this: {command}"),
        }
    }

    fn shell(&self, name: &str, command: &str) -> Command {
        let person = name.split('-').next().unwrap();
        let command = self.placeholders.fill(command);
        let told = &self.exports[person];
        let mut path = self.dir.path().join("bin").into_os_string();
        path.push(":");
        path.push(env::var_os("PATH").unwrap());
        let mut shell = Command::new("sh");
        // One stream, as in a terminal: what is printed on both keeps its order.
        shell
            .args(["-c", &format!("exec 2>&1\n{told}\n{command}")])
            .env_clear()
            .current_dir(self.dir.path().join("here"));
        shell.env("PATH", path).env("HOME", self.dir.path().join("home")).stdin(Stdio::null()).stdout(Stdio::piped());
        shell
    }

    fn files_of(&self, person: &str) -> PathBuf {
        self.dir.path().join("home/walkthrough").join(person)
    }

    fn run(&self, name: &str, command: &str) -> String {
        let output = self.shell(name, command).output().unwrap();
        let mut printed = String::from_utf8(output.stdout).unwrap();
        if !output.status.success() {
            writeln!(printed, "[exit code {}]", output.status.code().unwrap()).unwrap();
        }
        printed
    }

    /// Returns when the broker knows that somebody listens there.
    fn listen(&mut self, name: &str, command: &str) {
        let before = self.present(name);
        let mut child = self.shell(name, &format!("exec {command}")).spawn().unwrap();
        let (found, lines) = mpsc::sync_channel(1000);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| found.send(line)));
        self.listening.insert(name.to_owned(), Terminal { child, lines });
        let is_there = (0..500).any(|_| self.present(name) != before);
        assert!(is_there, "{name} does not connect");
    }

    fn present(&self, name: &str) -> usize {
        let listed = self.run(name, "claudemesh peers --json 2>/dev/null");
        serde_json::from_str::<serde_json::Value>(&listed).unwrap()["peers"].as_array().unwrap().len()
    }

    /// The next `expected` lines of a terminal; all that come, when the page is written anew.
    fn look(&self, name: &str, expected: usize) -> String {
        let lines = &self.listening[name].lines;
        let patience = if self.is_update { QUIET } else { PATIENCE };
        let limit = if self.is_update { usize::MAX } else { expected };
        let next = || lines.recv_timeout(patience).ok();
        std::iter::from_fn(next).take(limit).map(|line| line + "\n").collect()
    }

    fn learn_keys(&mut self) {
        for (person, letter) in [("ann", "a"), ("bob", "b")] {
            let config = Home::at(self.files_of(person)).config().unwrap();
            let Ok(mesh) = config.mesh(None) else { continue };
            let key = mesh.identity.public().to_string();
            self.placeholders.pair(&key, &letter.repeat(64));
            self.placeholders.pair(&key[..12], &letter.repeat(12));
            self.placeholders.pair(mesh.mesh_id.as_str(), &format!("{:0<32}", "mesh"));
            self.placeholders.pair(mesh.member_id.as_str(), &format!("{person:0<32}"));
        }
    }
}

impl Terminal {
    /// What it printed that was not looked at.
    fn interrupt(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("sh").args(["-c", &format!("kill -INT {pid}")]).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "Ctrl-C ends it");
        self.lines.iter().map(|line| line + "\n").collect()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How the page starts the broker. Here it gets a free port and a directory of its own.
const START: &str = "claudemesh-broker --data-dir ~/walkthrough/broker &";
const PATIENCE: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_secs(2);
