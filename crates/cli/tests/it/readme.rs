//! The README's section "Start", typed into a shell as it stands: what is written there must work, and must not show the broker
//! what only the members may know.
//!
//! Two things differ from what a reader does. `cargo` is a script that knows the README's two lines and answers with the
//! programs that were built for this test, because a release build takes minutes. And where the README's port is taken, the
//! broker gets a free one and the lines say that one instead.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use claudemesh_client::{Body, Cipher, Dial, Home, MAIL, Membership};
use claudemesh_proto::text::from_base64;
use serde_json::Value;
use tempfile::TempDir;

use crate::broker::{files_below, port_in, program};
use crate::spelling::{hex, places};

#[test]
fn what_the_readme_says_works_and_the_broker_sees_neither_texts_nor_secrets() {
    let readme = Readme::read();
    let machine = Machine::new();
    let broker = machine.run_broker(&readme, None);
    let shell = Shell { machine: &machine, port: broker.port, first: &readme.build };
    let said = shell.run(&readme.talk);
    assert!(said.lines().any(|line| line == "  hello, bob"), "{said}");
    let [ask, answer, read, listen] = readme.prose.as_slice() else { panic!("other words: {:?}", readme.prose) };
    let (be_bob, bob_listens) = readme.bob.trim_end().rsplit_once('\n').expect("a line before the last");
    let bob = Shell { first: be_bob, ..shell };
    let mut bob_listening = bob.start(&format!("exec {bob_listens}"));
    shell.run(ask);
    assert_hears_and_ends(&mut bob_listening, "  are you there?");
    bob.run(answer);
    let ciphertext = waiting_for(&machine.ann(), "hello, ann");
    let kept = machine.files_of_the_broker();
    assert!(kept.iter().any(|(path, _)| path.ends_with("broker.db-wal")), "{kept:?}", kept = paths(&kept));
    assert_ne!(places(&kept, &ciphertext), Vec::<String>::new(), "the search finds what is there");
    let said = shell.run(read);
    assert!(said.lines().any(|line| line == "  hello, ann"), "{said}");
    let mut listening = shell.start(&format!("exec {listen}"));
    bob.run(answer);
    assert_hears_and_ends(&mut listening, "  hello, ann");
    machine.assert_ignorant(machine.files_of_the_broker(), broker.kill());
}

#[test]
fn what_was_sent_as_the_readme_says_is_there_after_a_kill_of_the_broker() {
    let readme = Readme::read();
    let machine = Machine::new();
    // Not the README's port, which somebody else may take while the broker is down.
    let broker = machine.run_broker(&readme, Some(0));
    let shell = Shell { machine: &machine, port: broker.port, first: &readme.build };
    let (send, inbox) = readme.talk.split_once(" && ").expect("one line sends and reads");
    shell.run(send);
    let port = broker.port;
    let (printed, kept) = (broker.kill(), machine.files_of_the_broker());
    let broker = machine.run_broker(&readme, Some(port));
    machine.assert_ignorant(kept, printed);
    let said = shell.run(inbox);
    assert!(said.lines().any(|line| line == "  hello, bob"), "{said}");
    broker.kill();
}

#[test]
fn the_packages_that_the_readme_builds_have_the_programs_that_it_runs() {
    let metadata = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    for name in ["claudemesh-broker", "claudemesh"] {
        let package = metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == name).unwrap();
        let targets = package["targets"].as_array().unwrap().iter();
        let programs: Vec<_> = targets.filter(|target| target["kind"][0] == "bin").map(|one| &one["name"]).collect();
        assert_eq!(programs, [name], "cargo run and target/release/{name} mean this one");
    }
}

/// What the section says to type.
struct Readme {
    broker: String,
    build: String,
    talk: String,
    bob: String,
    /// The commands in its sentences.
    prose: Vec<String>,
}

impl Readme {
    fn read() -> Self {
        let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
        let (_, rest) = text.split_once("\n## Start\n").expect("a section Start");
        let (section, _) = rest.split_once("\n## ").expect("another section");
        let mut blocks = Vec::new();
        let mut sentences = String::new();
        for (index, part) in section.split("```").enumerate() {
            match part.strip_prefix("sh\n") {
                Some(block) if index % 2 == 1 => blocks.push(block.to_owned()),
                _ => sentences.push_str(part),
            }
        }
        let code = sentences.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " "));
        let prose = code.filter(|code| code.contains("claudemesh ")).collect();
        let [broker, build, talk, bob] = blocks.try_into().expect("four blocks of shell");
        Self { broker, build, talk, bob, prose }
    }
}

/// A machine on which nobody has used claudemesh yet.
struct Machine {
    dir: TempDir,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["home", "tmp", "bin", "checkout"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let cargo = dir.path().join("bin/cargo");
        fs::write(&cargo, CARGO).unwrap();
        fs::set_permissions(&cargo, Permissions::from_mode(0o700)).unwrap();
        Self { dir }
    }

    fn shell(&self, script: &str) -> Command {
        let mut path = self.dir.path().join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        let mut command = Command::new("sh");
        command.args(["-e", "-c", script]).env_clear().current_dir(self.dir.path().join("checkout"));
        command.env("PATH", path).env("HOME", self.home()).env("TMPDIR", self.dir.path().join("tmp"));
        command
            .env("PID_FILE", self.pid_file())
            .env("BROKER", program())
            .env("CLIENT", env!("CARGO_BIN_EXE_claudemesh"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The first terminal. With `port`, that one; else the README's where it is free.
    fn run_broker(&self, readme: &Readme, port: Option<u16>) -> RunningBroker {
        let start = |port: Option<u16>| {
            let port = port.map(|port| ("BROKER_PORT", port.to_string()));
            RunningBroker::start(self.shell(&readme.broker).env("RUST_LOG", "trace").envs(port), self.pid_file())
        };
        match start(port) {
            Ok(broker) => broker,
            Err(said) if port.is_none() && said.contains("cannot listen on 127.0.0.1:7900") => start(Some(0)).unwrap(),
            Err(said) => panic!("the broker does not start: {said}"),
        }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.path().join("bin/broker.pid")
    }

    fn ann(&self) -> Membership {
        Home::at(self.home().join(".claudemesh")).config().unwrap().mesh(None).unwrap().clone()
    }

    fn bob(&self) -> Membership {
        Home::at(self.home().join(".claudemesh-bob")).config().unwrap().mesh(None).unwrap().clone()
    }

    /// All that is on the machine, without what is the members' own.
    fn files_of_the_broker(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let all = [files_below(&self.home()), files_below(&self.dir.path().join("tmp"))].concat();
        all.into_iter().filter(|(path, _)| !path.to_string_lossy().contains("/.claudemesh")).collect()
    }

    /// Nothing that only the members may know is in what the broker kept and printed, and what it must know is.
    fn assert_ignorant(&self, kept: Vec<(PathBuf, Vec<u8>)>, printed: Vec<u8>) {
        assert!(String::from_utf8_lossy(&printed).contains("DEBUG"), "more than a broker usually tells");
        let seen = [kept, vec![("what it printed".into(), printed)]].concat();
        let (ann, bob) = (self.ann(), self.bob());
        let owner = fs::read_to_string(Home::at(self.home().join(".claudemesh")).owner_path(&ann.mesh_id)).unwrap();
        let owner: Value = serde_json::from_str(&owner).unwrap();
        for secret in [ann.identity.secret_hex().as_str(), &bob.identity.secret_hex(), text(&owner["ownerSecretKey"])] {
            // The seed and the public key: only the first half is secret.
            assert_eq!(places(&seen, &hex(&secret[..64])), Vec::<String>::new(), "a secret key");
            assert_ne!(
                places(&seen, &hex(&secret[64..])),
                Vec::<String>::new(),
                "its public key, which the broker knows"
            );
        }
        for words in ["hello, bob", "hello, ann", "are you there?"] {
            assert_eq!(places(&seen, words.as_bytes()), Vec::<String>::new(), "{words}");
        }
    }
}

/// The second or third terminal: each time a new shell, in which its first line has been typed.
#[derive(Clone, Copy)]
struct Shell<'a> {
    machine: &'a Machine,
    port: u16,
    first: &'a str,
}

impl Shell<'_> {
    fn start(&self, lines: &str) -> Child {
        let script = format!("{}\n{lines}", self.first).replace("127.0.0.1:7900", &format!("127.0.0.1:{}", self.port));
        self.machine.shell(&script).spawn().unwrap()
    }

    /// Runs what must succeed; what it printed.
    fn run(&self, lines: &str) -> String {
        let output = self.start(lines).wait_with_output().unwrap();
        assert!(output.status.success(), "{lines}\n{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The broker in its terminal, killed at the end.
struct RunningBroker {
    shell: Child,
    pid_file: PathBuf,
    port: u16,
    printed: Vec<JoinHandle<Vec<u8>>>,
}

impl RunningBroker {
    /// # Errors
    /// What it printed when it ends without naming its address.
    fn start(shell: &mut Command, pid_file: PathBuf) -> Result<Self, String> {
        let mut shell = shell.spawn().unwrap();
        let (found, address) = mpsc::sync_channel(1);
        let printed =
            vec![collect(shell.stdout.take().unwrap(), found.clone()), collect(shell.stderr.take().unwrap(), found)];
        let mut broker = Self { shell, pid_file, port: 0, printed };
        match address.recv_timeout(Duration::from_secs(30)) {
            Ok(port) => broker.port = port,
            Err(_) => return Err(String::from_utf8_lossy(&broker.kill()).into_owned()),
        }
        Ok(broker)
    }

    /// `kill -9`; all that it printed.
    fn kill(mut self) -> Vec<u8> {
        self.end();
        std::mem::take(&mut self.printed).into_iter().flat_map(|one| one.join().unwrap()).collect()
    }

    fn end(&mut self) {
        if let Ok(pid) = fs::read_to_string(&self.pid_file) {
            signal("KILL", pid.trim().parse().unwrap());
            fs::remove_file(&self.pid_file).unwrap();
        }
        let _ = self.shell.wait();
    }
}

impl Drop for RunningBroker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads a stream to its end and tells the address that the broker names when it listens.
fn collect(stream: impl Read + Send + 'static, found: SyncSender<u16>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        let mut stream = BufReader::new(stream);
        let mut from = 0;
        while stream.read_until(b'\n', &mut all).unwrap() > 0 {
            let line = String::from_utf8_lossy(&all[from..]);
            if let Some(port) = line.contains(" listening on ").then(|| port_in(&line)).flatten() {
                let _ = found.try_send(port);
            }
            from = all.len();
        }
        all
    })
}

/// The ciphertext of a message that waits for somebody and holds these words. It is not acknowledged, so it waits on.
fn waiting_for(member: &Membership, words: &str) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (_connection, mut pushes) = Dial::member(member, MAIL).unwrap().open().await.unwrap();
        let push = pushes.next().await.unwrap();
        assert_eq!(Cipher::new(member.identity.clone()).open(&push), Body::Text(words.into()));
        from_base64(&push.ciphertext).unwrap()
    })
}

fn assert_hears_and_ends(listening: &mut Child, words: &str) {
    let mut lines = BufReader::new(listening.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == words), "{words}");
    signal("INT", listening.id());
    assert_eq!(listening.wait().unwrap().code(), Some(0), "Ctrl-C ends it");
}

fn signal(name: &str, process: u32) {
    // Nobody minds that it ended by itself.
    let _ = Command::new("sh").args(["-c", &format!("kill -{name} {process} 2>/dev/null")]).status().unwrap();
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn paths(files: &[(PathBuf, Vec<u8>)]) -> Vec<&Path> {
    files.iter().map(|(path, _)| path.as_path()).collect()
}

/// Stands for cargo where the README calls it, word for word.
const CARGO: &str = r#"#!/bin/sh
case "$*" in
"run --release -p claudemesh-broker") echo $$ > "$PID_FILE" && exec "$BROKER" ;;
"build --release -p claudemesh-broker -p claudemesh") mkdir -p target/release && ln -sf "$CLIENT" target/release/claudemesh ;;
*) echo "not a line of the README that this test knows: cargo $*" >&2 && exit 1 ;;
esac
"#;
