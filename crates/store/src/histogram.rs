//! Counts of values by size, as Prometheus reads them.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often values of which size were seen. Reading while others write gives counts that may be apart by a few.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One more than bounds: the last is for everything beyond.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

/// Bounds for durations in microseconds: 100 µs to 10 s, then minutes to days, for what waits.
pub const MICROS: &[u64] = &[
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    10_000_000,
    60_000_000,
    3_600_000_000,
    86_400_000_000,
];

/// Bounds for numbers of requests.
pub const REQUESTS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096];

/// Of durations in microseconds.
impl Default for Histogram {
    fn default() -> Self {
        Self::new(MICROS)
    }
}

impl Histogram {
    /// Empty, with upper bounds in growing order.
    pub fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// Counts a value.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts.get(bucket).into_iter().for_each(|count| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// For each bound how many values were at most as large, and last how many there were in all.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(self.counts.iter().scan(0, |sum, count| {
            *sum += count.load(Ordering::Relaxed);
            Some(*sum)
        }))
    }

    /// All values together.
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_from_its_bound_on() {
        let sizes = Histogram::new(&[1, 10]);
        for value in [0, 1, 2, 10, 11] {
            sizes.observe(value);
        }
        assert_eq!(sizes.cumulative().collect::<Vec<_>>(), [(Some(1), 2), (Some(10), 4), (None, 5)]);
        assert_eq!(sizes.sum(), 24);
    }
}
