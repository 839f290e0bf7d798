//! What came out, with what it stands beside.

use std::fmt;

use serde::Serialize;

use crate::database::Database;
use crate::number::float;
use crate::process::{Journal, Spent};

/// One measured number.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// Whether more is better.
    more_is_better: bool,
    /// The "first" column of the targets.
    pub(crate) target: Option<f64>,
    /// The value in multiples of the floor of the run that it rests on.
    pub(crate) per_floor: Option<f64>,
    /// CPU time of the broker for one message, handshake or the like.
    pub(crate) broker_us: Option<f64>,
    /// CPU time of the load generator for the same.
    pub(crate) load_us: Option<f64>,
    /// Cores that everybody else on this machine kept busy meanwhile.
    pub(crate) others: Option<f64>,
    /// What the broker's journal did meanwhile.
    pub(crate) journal: Option<Journal>,
}

impl Figure {
    /// A speed: more is better.
    pub(crate) fn speed(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { more_is_better: true, ..Self::cost(name, value, unit) }
    }

    /// A time or a size: less is better.
    pub(crate) fn cost(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            more_is_better: false,
            target: None,
            per_floor: None,
            broker_us: None,
            load_us: None,
            others: None,
            journal: None,
        }
    }

    /// What it should reach on either database.
    pub(crate) fn target(self, target: f64) -> Self {
        Self { target: Some(target), ..self }
    }

    /// What it should reach on SQLite; half as fast will do on PostgreSQL.
    pub(crate) fn target_on(self, database: &Database, target: f64) -> Self {
        let target = match (database, self.more_is_better) {
            (Database::Sqlite, _) => target,
            (Database::Postgres(_), true) => target / 2.0,
            (Database::Postgres(_), false) => target * 2.0,
        };
        self.target(target)
    }

    /// The floor that it rests on, in its own unit.
    pub(crate) fn floor(self, floor: f64) -> Self {
        Self { per_floor: Some(self.value / floor), ..self }
    }

    /// What was spent on so many messages.
    pub(crate) fn spent(self, spent: &Spent, count: u64) -> Self {
        let each = |time: std::time::Duration| Some(time.as_secs_f64() * 1e6 / float(count.max(1)));
        let others = Some(spent.others.as_secs_f64() / spent.wall.as_secs_f64());
        Self { broker_us: each(spent.broker), load_us: each(spent.load), others, journal: Some(spent.journal), ..self }
    }

    /// Whether the target is reached; `None` without one.
    pub(crate) fn is_reached(&self) -> Option<bool> {
        let target = self.target?;
        Some(if self.more_is_better { self.value >= target } else { self.value <= target })
    }

    pub(crate) fn is_better_than(&self, other: &Self) -> bool {
        if self.more_is_better { self.value > other.value } else { self.value < other.value }
    }

    /// How many times as good as `other`, above 1 when it is better.
    pub(crate) fn times_as_good_as(&self, other: &Self) -> f64 {
        if self.more_is_better { self.value / other.value } else { other.value / self.value }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.name, digits(self.value), self.unit)?;
        if let (Some(broker), Some(load), Some(others)) = (self.broker_us, self.load_us, self.others) {
            write!(f, " (CPU each: broker {broker:.1} µs, load {load:.1} µs; {others:.2} cores busy elsewhere)")?;
        }
        Ok(())
    }
}

/// Three digits that matter, or whole numbers.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
