//! The benchmarks: the real broker as a process of its own, members that join it over its real interface, and load on them.
//!
//! - [`rows`] is the table of what is measured, one file each; a new row is a function and a line there.
//! - A row gets a [`stage::Stage`], starts fresh brokers on it, and gives back [`figure::Figure`]s.
//! - [`floor`] measures what the machine itself can do, before and after: others use it too, and no two runs are alike.
//! - [`report`] prints the table and writes the same as JSON. Progress goes to standard error.
//!
//! Times are never a verdict here: a figure stands beside the CPU time that the broker spent on it and the floor of its run.

mod broker;
mod database;
mod figure;
mod floor;
mod http;
mod latency;
mod load;
mod mesh;
mod number;
mod process;
mod report;
mod rows;
mod sizes;
mod stage;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Parser;

use crate::database::Database;
use crate::figure::Figure;
use crate::floor::Floors;
use crate::report::{Report, Section};
use crate::rows::{ROWS, Row};
use crate::sizes::Sizes;
use crate::stage::Stage;

/// Measures a claudemesh broker.
#[derive(Debug, Parser)]
#[command(name = "claudemesh-bench", version, max_term_width = 100)]
struct Arguments {
    /// The broker's program.
    #[arg(long)]
    broker: PathBuf,

    /// Measure on this PostgreSQL too; every row gets a database of its own there. Needs psql.
    #[arg(long)]
    postgres_url: Option<String>,

    /// Leave SQLite out.
    #[arg(long, requires = "postgres_url")]
    postgres_only: bool,

    /// Rows to measure, separated by commas: all by default.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,

    /// Seconds for which load is kept up in a row that has no fixed amount of work.
    #[arg(long, default_value_t = 3)]
    seconds: u32,

    /// How often the headline rows are measured; the best counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,

    /// Also start on a million queued messages.
    #[arg(long)]
    million: bool,

    /// Tiny amounts of everything: shows that every row works, and measures nothing.
    #[arg(long)]
    smoke: bool,

    /// Write the report to this file too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,

    /// Where the brokers keep their data; it must be on a real disk. `bench` beside this program's directory by default.
    #[arg(long)]
    dir: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    // One thread: the load generator leaves the other cores to the broker.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(Arguments::parse()))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let rows = chosen(&arguments.only)?;
    let sizes = if arguments.smoke { Sizes::smoke() } else { Sizes::full(arguments.seconds, arguments.million) };
    let parent = match arguments.dir {
        Some(dir) => dir,
        None => default_dir()?,
    };
    std::fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let dir = tempfile::tempdir_in(&parent).with_context(|| format!("cannot write to {}", parent.display()))?;
    let program = arguments.broker.canonicalize().with_context(|| format!("no {}", arguments.broker.display()))?;

    let mut databases = Vec::new();
    if !arguments.postgres_only {
        databases.push(Database::Sqlite);
    }
    databases.extend(arguments.postgres_url.map(Database::Postgres));

    let before = Floors::measure(dir.path(), sizes.floor_rounds)?;
    progress(&format!("floors before: {before}"));
    let mut sections = Vec::new();
    for database in databases {
        let name = database.name();
        let stage = Stage { program: program.clone(), dir: dir.path().to_owned(), database, sizes, floors: before };
        let mut figures = Vec::new();
        for row in &rows {
            let repeats = if row.is_headline { arguments.repeat } else { 1 };
            figures.extend(best_of(row, &stage, repeats).await?);
        }
        sections.push(Section { database: name, figures });
    }
    let after = Floors::measure(dir.path(), sizes.floor_rounds)?;
    progress(&format!("floors after: {after}"));

    let report = Report::new((before, after), sections);
    report.print()?;
    arguments.json.map_or(Ok(()), |path| report.write(&path))
}

/// Measures a row several times; each of its figures is the best that it ever was.
async fn best_of(row: &Row, stage: &Stage, repeats: u32) -> anyhow::Result<Vec<Figure>> {
    let mut best: Vec<Figure> = Vec::new();
    for round in 1..=repeats {
        progress(&format!("{} {} ({round} of {repeats}): {}", stage.database.name(), row.name, row.about));
        let figures = (row.run)(stage).await.with_context(|| format!("row {}", row.name))?;
        for figure in figures {
            progress(&format!("    {figure}"));
            match best.iter_mut().find(|other| other.name == figure.name) {
                Some(other) if figure.is_better_than(other) => *other = figure,
                Some(_) => {}
                None => best.push(figure),
            }
        }
    }
    Ok(best)
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Row>> {
    if let Some(unknown) = names.iter().find(|name| ROWS.iter().all(|row| row.name != name.as_str())) {
        let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        bail!("--only: there is no row {unknown}; there are {}", known.join(", "));
    }
    Ok(ROWS.iter().filter(|row| names.is_empty() || names.iter().any(|name| name == row.name)).collect())
}

/// In cargo's target directory, which is on a disk where the temporary one may be memory.
fn default_dir() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.ancestors().nth(2).context("this program is in no directory")?.join("bench"))
}

/// Says how it goes.
fn progress(text: &str) {
    // Nobody may be reading.
    let _ = writeln!(std::io::stderr(), "{text}");
}
