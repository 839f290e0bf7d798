//! The gate: the steps of `test` and `check`, in order, each with its time.
//!
//! A failed step does not hide the ones after it, except that nothing is tested when the build failed.

use std::io::IsTerminal as _;

use clap::ValueEnum;

use crate::postgres::{Cluster, Programs};
use crate::run::{Stop, now, run, run_counting};
use crate::tally::Tally;
use crate::workspace::{cargo, has};
use crate::{edges, sizes};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    Edges,
    Sizes,
    Fmt,
    Clippy,
    Deny,
    Build,
    Test,
}

/// What a caller of `test` wants.
#[derive(Debug)]
pub(crate) struct Wish {
    steps: Vec<Step>,
    nextest: bool,
    arguments: Vec<String>,
}

impl Wish {
    /// All steps when none is named.
    pub(crate) fn new(only: Vec<Step>, nextest: bool, arguments: Vec<String>) -> Self {
        let steps = if only.is_empty() { Step::value_variants().to_vec() } else { only };
        Self { steps, nextest, arguments }
    }
}

/// What became of a step.
enum Outcome {
    Passed,
    Failed,
    Skipped(&'static str),
}

impl From<bool> for Outcome {
    fn from(passed: bool) -> Self {
        if passed { Self::Passed } else { Self::Failed }
    }
}

/// Every step; the last line is how many tests passed and failed.
pub(crate) fn test(stop: &Stop, wish: &Wish) -> anyhow::Result<bool> {
    let cluster = if wish.steps.contains(&Step::Test) {
        let start = now();
        heading("PostgreSQL");
        let cluster = Cluster::start(stop, &Programs::find_or_install(stop)?)?;
        println!("ready, {:.1} s", start.elapsed().as_secs_f64());
        Some(cluster)
    } else {
        None
    };
    let mut tally = Tally::default();
    let failed = all(&wish.steps, stop, |step| match (step, &cluster) {
        (Step::Test, Some(cluster)) => {
            let (passed, counted) = run_tests(stop, wish, &cluster.url())?;
            tally = counted;
            Ok(passed.into())
        }
        _ => small_step(stop, step),
    })?;
    drop(cluster);
    println!();
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    println!("{tally}");
    Ok(failed.is_empty() && tally.failed == 0)
}

/// The steps that build no program and need no database.
pub(crate) fn check(stop: &Stop) -> anyhow::Result<bool> {
    let steps = [Step::Edges, Step::Sizes, Step::Fmt, Step::Clippy, Step::Deny];
    let failed = all(&steps, stop, |step| small_step(stop, step))?;
    println!();
    if failed.is_empty() {
        println!("all checks passed");
    } else {
        println!("failed: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}

/// Runs the steps in the order of their declaration; the names of those that failed.
fn all(
    steps: &[Step],
    stop: &Stop,
    mut take: impl FnMut(Step) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Vec<&'static str>> {
    let mut failed = Vec::new();
    for step in Step::value_variants() {
        if !steps.contains(step) || (*step == Step::Test && failed.contains(&name(Step::Build))) {
            continue;
        }
        heading(name(*step));
        let start = now();
        let outcome = take(*step)?;
        anyhow::ensure!(!stop.asked(), "interrupted");
        let seconds = start.elapsed().as_secs_f64();
        match outcome {
            Outcome::Passed => println!("passed, {seconds:.1} s"),
            Outcome::Skipped(reason) => println!("skipped: {reason}"),
            Outcome::Failed => {
                println!("FAILED, {seconds:.1} s");
                failed.push(name(*step));
            }
        }
    }
    Ok(failed)
}

fn small_step(stop: &Stop, which: Step) -> anyhow::Result<Outcome> {
    let passed = match which {
        Step::Edges => edges::check()?,
        Step::Sizes => sizes::check()?,
        Step::Fmt if !has("fmt") => return Ok(Outcome::Skipped("rustfmt is not installed")),
        Step::Fmt => run(stop, &mut cargo(&["fmt", "--all", "--check"]))?,
        Step::Clippy if !has("clippy") => return Ok(Outcome::Skipped("clippy is not installed")),
        Step::Clippy => run(stop, &mut cargo(&CLIPPY))?,
        Step::Deny if !has("deny") => return Ok(Outcome::Skipped("cargo-deny is not installed")),
        Step::Deny => run(stop, &mut cargo(&["deny", "check", "bans", "licenses", "sources"]))?,
        Step::Build => run(stop, &mut cargo(&BUILD))?,
        Step::Test => return Ok(Outcome::Skipped("it needs PostgreSQL")),
    };
    Ok(passed.into())
}

fn run_tests(stop: &Stop, wish: &Wish, url: &str) -> anyhow::Result<(bool, Tally)> {
    let nextest = wish.nextest && has("nextest");
    let selection = selection(&wish.arguments);
    let mut command = if nextest {
        cargo(&["nextest", "run", "--no-fail-fast", "--no-tests=pass"])
    } else {
        cargo(&["test", "--no-fail-fast"])
    };
    command.args(selection).args(&wish.arguments);
    let (mut passed, mut tally) = run_counting(stop, dress(&mut command, url))?;
    // nextest runs no examples in documentation. A filter is about one test, so they are left out then.
    if nextest && wish.arguments.is_empty() && !stop.asked() {
        let mut command = cargo(&["test", "--doc", "--workspace", "--no-fail-fast"]);
        let (also_passed, counted) = run_counting(stop, dress(&mut command, url))?;
        passed &= also_passed;
        tally += counted;
    }
    Ok((passed, tally))
}

/// The whole workspace, unless the caller's arguments name packages: cargo would ignore those beside it.
fn selection(arguments: &[String]) -> &'static [&'static str] {
    let names_a_package = arguments
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word.starts_with("-p") || word.starts_with("--package") || word.starts_with("--manifest-path"));
    if names_a_package { &[] } else { &["--workspace"] }
}

/// What every test runner of ours is given. On a machine whose word counts, no test may be left out for want of a tool.
pub(crate) fn dress<'a>(command: &'a mut std::process::Command, url: &str) -> &'a mut std::process::Command {
    command.env("CLAUDEMESH_TEST_POSTGRES", url);
    if std::env::var_os("CI").is_some() {
        command.env("CLAUDEMESH_TEST_ALL", "1");
    }
    if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        // Its output goes through us, so it cannot see the terminal.
        command.env("CARGO_TERM_COLOR", "always");
    }
    command
}

fn name(step: Step) -> &'static str {
    match step {
        Step::Edges => "edges",
        Step::Sizes => "sizes",
        Step::Fmt => "fmt",
        Step::Clippy => "clippy",
        Step::Deny => "deny",
        Step::Build => "build",
        Step::Test => "test",
    }
}

fn heading(text: &str) {
    println!("\n== {text}");
}

const CLIPPY: [&str; 6] = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];

/// Programs with the tests, not alone: the features of what they share are then those of the test run, and
/// nothing is compiled twice. Tests start the programs from where this leaves them.
const BUILD: [&str; 4] = ["build", "--workspace", "--bins", "--tests"];

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(arguments: &[&str]) -> &'static [&'static str] {
        let arguments: Vec<_> = arguments.iter().map(|&word| word.to_owned()).collect();
        selection(&arguments)
    }

    #[test]
    fn named_packages_replace_the_whole_workspace() {
        assert_eq!(selected(&[]), ["--workspace"]);
        assert_eq!(selected(&["topic", "--", "-p"]), ["--workspace"]);
        assert!(selected(&["-p", "xtask"]).is_empty());
        assert!(selected(&["--package=xtask"]).is_empty());
    }
}
