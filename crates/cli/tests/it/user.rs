//! A person with a directory of their own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) struct User {
    _dir: TempDir,
    home: PathBuf,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl User {
    /// The directory does not exist yet: the program makes it.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("claudemesh");
        Self { _dir: dir, home }
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claudemesh"));
        command.args(line).env_clear().env("CLAUDEMESH_CONFIG_DIR", &self.home).env("USER", "somebody");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, line: &[&str]) -> Said {
        said(self.command(line).spawn().unwrap())
    }

    pub(crate) fn run_with_input(&self, line: &[&str], input: &[u8]) -> Said {
        let mut child = self.command(line).stdin(Stdio::piped()).spawn().unwrap();
        // A command that refuses its arguments does not read.
        let _ = child.stdin.take().unwrap().write_all(input);
        said(child)
    }

    /// Runs what must succeed, with `--json`, and reads the lines.
    pub(crate) fn json(&self, line: &[&str]) -> Vec<Value> {
        let said = self.run(&[line, &["--json"]].concat());
        assert_eq!(said.code, 0, "{line:?}: {said:?}");
        said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The same for what answers with one value.
    pub(crate) fn json_one(&self, line: &[&str]) -> Value {
        let mut values = self.json(line);
        assert_eq!(values.len(), 1, "{line:?}");
        values.remove(0)
    }
}

impl Said {
    /// For snapshots: without what differs from run to run.
    pub(crate) fn without(&self, changing: &[(&str, &str)]) -> String {
        let mut text = format!("exit {}\n{}---\n{}", self.code, self.stdout, self.stderr);
        for (this, that) in changing {
            text = text.replace(this, that);
        }
        text
    }
}

fn said(child: Child) -> Said {
    let output = child.wait_with_output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
