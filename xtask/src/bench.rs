//! The benchmarks, on a release build and by default on the embedded database.

use std::process::Command;

use crate::postgres::{Cluster, Programs};
use crate::run::{self, Stop};
use crate::workspace::{cargo, release_directory, root};

/// Builds the broker and its load generator and runs the latter; false when either fails.
pub(crate) fn run(stop: &Stop, postgres: bool, arguments: &[String]) -> anyhow::Result<bool> {
    let mut build = cargo(&["build", "--release"]);
    build.args(["-p", "claudemesh-broker", "-p", "claudemesh-bench"]);
    if !run::run(stop, &mut build)? {
        return Ok(false);
    }
    let programs = release_directory()?;
    let mut bench = Command::new(programs.join("claudemesh-bench"));
    bench.current_dir(root()).arg("--broker").arg(programs.join("claudemesh-broker"));
    let cluster = if postgres {
        let cluster = Cluster::start(stop, &Programs::find_or_install(stop)?)?;
        bench.arg("--postgres-url").arg(cluster.url());
        Some(cluster)
    } else {
        None
    };
    let passed = run::run(stop, bench.args(arguments));
    drop(cluster);
    passed
}
