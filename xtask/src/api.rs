//! The REST interface against its own description: Schemathesis makes requests of `/openapi.json`, whole and broken ones, and looks
//! whether each answer is one that is described.
//!
//! It asks a broker of its own, with the key of a member that the command line made, and leaves nothing behind but its installation.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::run::{Stop, run, run_counting, run_quietly};
use crate::tally::Tally;
use crate::workspace::{cargo, target_directory};

const VERSION: &str = "4.32.5";

/// Streams have no end. That a request is in order says not yet that it is granted: signatures are made up, and what is named may be missing.
const ARGUMENTS: [&str; 8] = [
    "--checks",
    "all",
    "--exclude-checks",
    "positive_data_acceptance",
    "--exclude-path",
    "/topics/{name}/stream",
    "--continue-on-failure",
    "--no-color",
];

/// Asks so many times for each operation, besides what follows from the description; whether every answer was in order, and how many.
pub(crate) fn run_all(stop: &Stop, examples: u64) -> anyhow::Result<(bool, Tally)> {
    let built = run(stop, &mut cargo(&["build", "--profile", "prove", "-p", "claudemesh-broker", "-p", "claudemesh"]))?;
    ensure!(built, "the programs could not be built");
    let programs = target_directory()?.join("prove");
    let schemathesis = installed(stop)?;
    let directory = Directory::create()?;
    let broker = Broker::start(&programs, &directory.0)?;
    let key = key(&programs, &directory.0, &broker.url)?;
    let mut command = Command::new(schemathesis);
    command.current_dir(&directory.0).args(["run", &format!("{}/openapi.json", broker.url)]);
    command.args(["--header", &format!("Authorization: Bearer {key}"), "--max-examples", &examples.to_string()]);
    run_counting(stop, command.args(ARGUMENTS))
}

/// The program, in an environment of its own under `target/`.
fn installed(stop: &Stop) -> anyhow::Result<PathBuf> {
    let environment = target_directory()?.join(format!("schemathesis-{VERSION}"));
    let program = environment.join("bin/schemathesis");
    if program.exists() {
        return Ok(program);
    }
    println!("Schemathesis {VERSION} is missing: installing it");
    run_quietly(stop, Command::new("python3").args(["-m", "venv"]).arg(&environment))
        .context("this proof needs Python with venv (on Debian: apt-get install python3-venv)")?;
    let mut pip = Command::new(environment.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]).arg(format!("schemathesis=={VERSION}"));
    run_quietly(stop, &mut pip)?;
    Ok(program)
}

/// Makes a mesh with two topics, one of them with a key; the secret of an API key that lets do everything.
fn key(programs: &Path, directory: &Path, url: &str) -> anyhow::Result<String> {
    let say = |arguments: &[&str]| {
        let mut command = Command::new(programs.join("claudemesh"));
        command.args(arguments).env("CLAUDEMESH_CONFIG_DIR", directory.join("config"));
        let output = command.stderr(Stdio::inherit()).output().context("cannot start claudemesh")?;
        ensure!(output.status.success(), "claudemesh {} failed", arguments.join(" "));
        Ok(output.stdout)
    };
    say(&["create", "prove", "--broker", url, "--name", "ann"])?;
    say(&["topic", "create", "deploys"])?;
    say(&["topic", "post", "general", "hello, @bob"])?;
    let made: Value =
        serde_json::from_slice(&say(&["apikey", "create", "prove", "--can", "admin,read,send", "--json"])?)?;
    Ok(made.get("secret").and_then(Value::as_str).context("claudemesh printed no secret")?.to_owned())
}

/// A broker that asks nobody to slow down; it is killed when its value is dropped.
#[derive(Debug)]
struct Broker {
    process: Child,
    /// Read no further, and kept so that it can still be written to.
    _output: BufReader<ChildStdout>,
    url: String,
}

impl Broker {
    fn start(programs: &Path, directory: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(programs.join("claudemesh-broker"));
        command.args(["--port", "0", "--data-dir"]).arg(directory.join("data"));
        for limit in ["REQUEST_RATE_PER_MIN", "SEARCH_RATE_PER_MIN", "SEND_RATE_PER_MIN", "CREATION_RATE_PER_MIN"] {
            command.env(limit, "0");
        }
        command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.process_group(0).spawn().context("cannot start claudemesh-broker")?;
        let mut output = BufReader::new(process.stdout.take().context("a pipe from the broker")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let mut broker = Self { process, _output: output, url: String::new() };
        let (_, url) = line.trim().split_once("listening on ").context("the broker did not say where it listens")?;
        url.clone_into(&mut broker.url);
        Ok(broker)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A new directory that is removed when its value is dropped.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn create() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("claudemesh-api-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
