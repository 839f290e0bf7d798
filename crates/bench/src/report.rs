//! The report: a table for people, JSON for programs.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::figure::{Figure, digits};
use crate::floor::Floors;

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    floors_before: Floors,
    floors_after: Floors,
    sections: Vec<Section>,
}

/// The figures on one database.
#[derive(Debug, Serialize)]
pub(crate) struct Section {
    pub(crate) database: &'static str,
    pub(crate) figures: Vec<Figure>,
}

#[derive(Debug, Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
}

impl Report {
    pub(crate) fn new((before, after): (Floors, Floors), sections: Vec<Section>) -> Self {
        Self { machine: Machine::this(), floors_before: before, floors_after: after, sections }
    }

    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        let Machine { processor, cores, kernel } = &self.machine;
        writeln!(out, "{processor}, {cores} cores, Linux {kernel}")?;
        writeln!(out, "floors before: {}\nfloors after:  {}", self.floors_before, self.floors_after)?;
        let mut sqlite = None;
        for section in &self.sections {
            writeln!(out, "\n{}", section.database)?;
            for line in aligned(&table(&section.figures, sqlite)) {
                writeln!(out, "{line}")?;
            }
            sqlite = sqlite.or(Some(&section.figures));
        }
        writeln!(
            out,
            "\nCPU is µs for one message, connection or start; elsewhere: cores kept busy by other processes"
        )?;
        Ok(())
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Machine {
    fn this() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: processor.map_or("unknown processor", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            kernel: kernel.trim().to_owned(),
        }
    }
}

/// The cells, a line of heads first. `base` are the figures to compare with.
fn table(figures: &[Figure], base: Option<&Vec<Figure>>) -> Vec<Vec<String>> {
    let mut heads = vec![
        "",
        "value",
        "unit",
        "first",
        "reached",
        "x floor",
        "CPU broker",
        "CPU load",
        "elsewhere",
        "in batch",
        "us/batch",
    ];
    heads.extend(base.map(|_| "x SQLite"));
    let mut lines = vec![heads.into_iter().map(str::to_owned).collect()];
    for figure in figures {
        let number = |value: Option<f64>| value.map(digits).unwrap_or_default();
        let reached = match figure.is_reached() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        let mut line = vec![
            figure.name.clone(),
            digits(figure.value),
            figure.unit.to_owned(),
            number(figure.target),
            reached.to_owned(),
            number(figure.per_floor),
            number(figure.broker_us),
            number(figure.load_us),
            number(figure.others),
            number(figure.journal.map(|journal| journal.requests_per_batch)),
            number(figure.journal.map(|journal| journal.batch_us)),
        ];
        line.extend(base.map(|base| {
            let same = base.iter().find(|other| other.name == figure.name);
            number(same.map(|other| figure.times_as_good_as(other)).filter(|times| times.is_finite()))
        }));
        lines.push(line);
    }
    lines
}

/// Pads the columns: names and units to the left, numbers to the right.
fn aligned(lines: &[Vec<String>]) -> Vec<String> {
    let columns = lines.first().map_or(0, Vec::len);
    let cell = |line: &'_ Vec<String>, column: usize| line.get(column).cloned().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| lines.iter().map(|line| cell(line, column).chars().count()).max().unwrap_or(0))
        .collect();
    let padded = lines.iter().map(|line| {
        let cells = widths.iter().enumerate().map(|(column, &width)| {
            let text = cell(line, column);
            if matches!(column, 0 | 2) { format!("{text:<width$}") } else { format!("{text:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    padded.collect()
}
