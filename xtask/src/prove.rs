//! The proofs of the promises at their long sizes: which tests they are, how large they become, and a table of what came out.
//!
//! A proof is a test like any other, which asks `CLAUDEMESH_PROVE_<its number>` how large to be and says at the end how many trials
//! it made. They are built with the checks of a debug build and the speed of a release, and run one at a time. One is no test: `API`
//! is what Schemathesis says of the REST interface.

use std::fmt;

use crate::api;
use crate::gate::dress;
use crate::postgres::{Cluster, Programs};
use crate::run::{Stop, now, run, run_counting};
use crate::tally::Tally;
use crate::workspace::cargo;

/// One proof of `docs/delivery.md`.
struct Proof {
    name: &'static str,
    what: &'static str,
    /// The tests, by a part of their names; none for `API`.
    tests: &'static [&'static str],
    /// How large it is here. In the test command it is as large as fits there.
    long: u64,
    unit: &'static str,
}

const PROOFS: [Proof; 9] = [
    Proof {
        name: "T1",
        what: "random lives against a model of the store",
        tests: &["model::sqlite::lives_agree", "model::postgres::lives_agree"],
        long: 200_000,
        unit: "lives",
    },
    Proof {
        name: "T2",
        what: "every state of a small world",
        tests: &["states::no_order_of_events_breaks_a_promise", "states::each_mistake"],
        long: 20_000_000,
        unit: "states",
    },
    Proof {
        name: "T4",
        what: "kill -9 under load",
        tests: &["kills_at_random_moments_lose_nothing"],
        long: 2_000,
        unit: "kills",
    },
    Proof {
        name: "T8",
        what: "PostgreSQL restarted under load",
        tests: &["cluster::a_database_server_that_crashes"],
        long: 200,
        unit: "crashes",
    },
    Proof {
        name: "T13",
        what: "a quarter of the readers stops reading",
        tests: &["backpressure::a_quarter_of_the_readers"],
        long: 3_600,
        unit: "s",
    },
    Proof { name: "T14", what: "floods", tests: &["floods::floods_keep_nobody"], long: 600, unit: "s each" },
    Proof {
        name: "T15",
        what: "malformed frames of every type",
        tests: &["malformed::a_hundred_thousand_malformed_frames"],
        long: 100_000_000,
        unit: "frames",
    },
    Proof {
        name: "T22",
        what: "what twenty meshes hear of each other",
        tests: &["canaries::sqlite::nothing_of_a_mesh", "canaries::postgres::nothing_of_a_mesh"],
        long: 28_800,
        unit: "s on each database",
    },
    Proof {
        name: "API",
        what: "requests made of the REST description",
        tests: &[],
        long: 1_000,
        unit: "requests of each operation",
    },
];

/// How many requests of each operation are a look at it.
const FEW_REQUESTS: u64 = 20;

/// What a caller of `prove` wants.
#[derive(Debug)]
pub(crate) struct Wish {
    /// Which proofs; none named means all.
    pub(crate) only: Vec<String>,
    /// The sizes of the test command.
    pub(crate) short: bool,
    /// A part of the long sizes.
    pub(crate) scale: f64,
}

/// What came out of a proof.
struct Row {
    name: &'static str,
    what: &'static str,
    tally: Tally,
    seconds: f64,
}

/// Runs the proofs and prints the table; whether all of them held.
pub(crate) fn run_all(stop: &Stop, wish: &Wish) -> anyhow::Result<bool> {
    let names: Vec<&str> = PROOFS.iter().map(|proof| proof.name).collect();
    for name in &wish.only {
        anyhow::ensure!(names.contains(&name.as_str()), "there is no proof {name}; there are {}", names.join(", "));
    }
    anyhow::ensure!(wish.scale.is_finite() && wish.scale > 0.0, "--scale is a number above 0");
    let chosen = |proof: &&Proof| wish.only.is_empty() || wish.only.iter().any(|name| name == proof.name);
    let cluster = if PROOFS.iter().filter(chosen).any(|proof| !proof.tests.is_empty()) {
        if !run(stop, &mut cargo(&BUILD))? {
            return Ok(false);
        }
        Some(Cluster::start(stop, &Programs::find_or_install(stop)?)?)
    } else {
        None
    };
    let mut rows = Vec::new();
    for proof in PROOFS.iter().filter(chosen) {
        let size = (!wish.short).then(|| scaled(proof.long, wish.scale));
        let size_text =
            size.map_or_else(|| "as in the test command".to_owned(), |size| format!("{size} {}", proof.unit));
        println!("\n== {}: {}, {size_text}", proof.name, proof.what);
        let start = now();
        let (passed, mut tally) = match &cluster {
            Some(cluster) if !proof.tests.is_empty() => run_counting(stop, &mut command(proof, size, &cluster.url()))?,
            _ => api::run_all(stop, size.unwrap_or(FEW_REQUESTS))?,
        };
        anyhow::ensure!(!stop.asked(), "interrupted");
        // A test that was not found, or that said nothing, has proved nothing.
        if tally.failed == 0 && (!passed || tally.trials == 0) {
            tally.failed = 1;
        }
        rows.push(Row { name: proof.name, what: proof.what, tally, seconds: start.elapsed().as_secs_f64() });
    }
    drop(cluster);
    print_table(&rows);
    Ok(rows.iter().all(|row| row.tally.failed == 0))
}

fn command(proof: &Proof, size: Option<u64>, url: &str) -> std::process::Command {
    let mut command = cargo(&TEST);
    command.args(["--", "--nocapture", "--test-threads=1"]).args(proof.tests);
    dress(&mut command, url).env_remove(variable(proof));
    if let Some(size) = size {
        command.env(variable(proof), size.to_string());
    }
    command
}

fn variable(proof: &Proof) -> String {
    format!("CLAUDEMESH_PROVE_{}", proof.name)
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a size need not be exact, and a float saturates"
)]
fn scaled(long: u64, scale: f64) -> u64 {
    ((long as f64 * scale).ceil() as u64).max(1)
}

fn print_table(rows: &[Row]) {
    println!("\n{:<5} {:<42} {:>12} {:>9} {:>9}  fails at most", "proof", "", "n", "failures", "seconds");
    for Row { name, what, tally, seconds } in rows {
        let bound = Bound { trials: tally.trials, failures: tally.failed };
        println!("{name:<5} {what:<42} {:>12} {:>9} {seconds:>9.0}  {bound}", tally.trials, tally.failed);
    }
    println!("(with no failure in n trials, the rate of failures is below 3/n at a confidence of 95 %)");
}

/// What so many trials without a failure say about the rate of failures.
struct Bound {
    trials: u64,
    failures: u64,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.failures, self.trials / 3) {
            (0, 0) => f.write_str("too few trials to say"),
            (0, third) => write!(f, "1 in {third}"),
            _ => f.write_str("IT HAS FAILED"),
        }
    }
}

/// Debug assertions stay: crash points and invariants are checked by them. The broker's program is built with its tests.
#[rustfmt::skip]
const BUILD: [&str; 11] = [
    "build", "--profile", "prove", "--bins", "--tests", "-p", "claudemesh-store", "-p", "claudemesh-broker", "-p",
    "claudemesh-testkit",
];
#[rustfmt::skip]
const TEST: [&str; 12] = [
    "test", "--profile", "prove", "--test", "it", "--no-fail-fast", "-p", "claudemesh-store", "-p", "claudemesh-broker",
    "-p", "claudemesh-testkit",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_said_for_what_never_failed() {
        let said = |trials, failures| Bound { trials, failures }.to_string();
        assert_eq!(said(2_000, 0), "1 in 666");
        assert_eq!(said(2, 0), "too few trials to say");
        assert_eq!(said(2_000, 1), "IT HAS FAILED");
    }

    #[test]
    fn a_scale_makes_a_size_smaller_and_never_nothing() {
        assert_eq!([scaled(200_000, 0.01), scaled(200, 0.001), scaled(3, 2.0)], [2_000, 1, 6]);
    }
}
