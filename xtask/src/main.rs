//! The workspace's own tasks, run as `cargo xtask <task>`.
//!
//! - `test` is the one gate: it starts what the tests need, checks, builds and tests.
//! - `check` is the part of it that needs no database and runs nothing of ours.
//! - `edges` and `sizes` are two of those checks, alone.
//! - `prove` runs the proofs of the promises at their long sizes.
//! - `bench` builds the broker and its load generator for release and runs them.
//!
//! It asks for cargo and a Unix; every other tool is used when present and its absence is said.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this program's output is its report to a person")]

mod api;
mod bench;
mod edges;
mod gate;
mod postgres;
mod prove;
mod run;
mod sizes;
mod tally;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::gate::Step;
use crate::run::Stop;

#[derive(Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check everything and run every test, starting what the tests need
    Test {
        /// Run only these steps
        #[arg(long, value_delimiter = ',', hide = true)]
        only: Vec<Step>,
        /// Use `cargo test` even when cargo-nextest is installed
        #[arg(long)]
        no_nextest: bool,
        /// Passed to the test runner, for example `-p claudemesh-store`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Everything that `test` does short of building and testing
    Check,
    /// Run the proofs of docs/delivery.md at their long sizes: hours and days
    Prove {
        /// Which, for example `T1 T15`; all when none is named
        proofs: Vec<String>,
        /// The sizes of the test command instead
        #[arg(long, conflicts_with = "scale")]
        short: bool,
        /// A part of the long sizes, for example 0.01
        #[arg(long, default_value_t = 1.0)]
        scale: f64,
    },
    /// Build for release and run the benchmarks
    Bench {
        /// Measure on a throw-away PostgreSQL instead of the embedded database (give it first)
        #[arg(long)]
        postgres: bool,
        /// Passed to `claudemesh-bench`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Check that no source file has outgrown its limit
    Sizes,
    /// Check which crate may use which
    Edges,
}

fn main() -> ExitCode {
    let stop = match Stop::on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = run(&stop, Arguments::parse().task);
    if stop.asked() {
        eprintln!("interrupted");
        return ExitCode::from(INTERRUPTED);
    }
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the task found nothing wrong.
fn run(stop: &Stop, task: Task) -> anyhow::Result<bool> {
    match task {
        Task::Test { only, no_nextest, arguments } => gate::test(stop, &gate::Wish::new(only, !no_nextest, arguments)),
        Task::Check => gate::check(stop),
        Task::Prove { proofs, short, scale } => prove::run_all(stop, &prove::Wish { only: proofs, short, scale }),
        Task::Bench { postgres, arguments } => bench::run(stop, postgres, &arguments),
        Task::Sizes => sizes::check(),
        Task::Edges => edges::check(),
    }
}

/// What a shell reports for a program ended by Ctrl-C.
const INTERRUPTED: u8 = 130;
