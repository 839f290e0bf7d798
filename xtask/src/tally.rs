//! Counting test results in what a test runner prints.
//!
//! Two shapes are known: the line each binary of `cargo test` ends with, and cargo-nextest's summary. Beside them counts what our
//! own proofs say: for how many trials they have held.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed and failed, and how many trials the proofs among them made.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) trials: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.trials += other.trials;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Takes output in any pieces and counts in its complete lines.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    line: Vec<u8>,
    tally: Tally,
}

impl Counter {
    pub(crate) fn read(&mut self, piece: &[u8]) {
        for byte in piece {
            if *byte == b'\n' {
                self.end_line();
            } else {
                self.line.push(*byte);
            }
        }
    }

    pub(crate) fn finish(mut self) -> Tally {
        self.end_line();
        self.tally
    }

    fn end_line(&mut self) {
        self.tally += results(&plain(&String::from_utf8_lossy(&self.line)));
        self.line.clear();
    }
}

/// What one line says about results, which for most lines is nothing.
fn results(line: &str) -> Tally {
    let counts = match line.trim().split_once(' ') {
        Some(("test", rest)) => rest.strip_prefix("result: ").and_then(|rest| rest.split_once(". ")),
        Some(("Summary", rest)) => rest.split_once("tests run: ").or_else(|| rest.split_once("test run: ")),
        _ => None,
    };
    let mut tally = Tally { trials: trials(line).unwrap_or_default(), ..Tally::default() };
    for count in counts.map_or("", |(_, counts)| counts).split([',', ';']) {
        let mut words = count.split_whitespace();
        let Some(number) = words.next().and_then(|word| word.parse::<u64>().ok()) else {
            continue;
        };
        match words.next() {
            Some("passed") => tally.passed += number,
            Some("failed" | "timed" | "exec") => tally.failed += number,
            _ => {}
        }
    }
    tally
}

/// The number in `proof T1 held for 500 lives`, or in the `870 generated, 870 passed` of Schemathesis.
fn trials(line: &str) -> Option<u64> {
    let held = line.strip_prefix("proof ").and_then(|said| Some(said.split_once(" held for ")?.1));
    let made = line.contains(" generated, ").then(|| line.trim_start());
    held.or(made)?.split(' ').next()?.parse().ok()
}

/// A line without its colours.
fn plain(line: &str) -> String {
    let mut kept = String::new();
    let mut escaped = false;
    for character in line.chars() {
        match (escaped, character) {
            (false, '\u{1b}') => escaped = true,
            (false, _) => kept.push(character),
            (true, 'm') => escaped = false,
            (true, _) => {}
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(output: &str) -> Tally {
        let mut counter = Counter::default();
        for piece in output.as_bytes().chunks(7) {
            counter.read(piece);
        }
        counter.finish()
    }

    #[test]
    fn the_binaries_of_cargo_test_are_added_up() {
        let output = "running 3 tests\ntest a ... ok\n\n\
            test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
            test result: \u{1b}[31mFAILED\u{1b}[m. 2 passed; 1 failed; 4 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(counted(output), Tally { passed: 5, failed: 1, trials: 0 });
    }

    #[test]
    fn the_summary_of_nextest_counts_time_outs_as_failures() {
        let output = "     \u{1b}[31;1mSummary\u{1b}[0m [   1.2s] \u{1b}[1m12\u{1b}[0m tests run: \u{1b}[1m8\u{1b}[0m passed (1 slow), 2 failed, 1 timed out, 1 exec failed, 5 skipped";
        assert_eq!(counted(output), Tally { passed: 8, failed: 4, trials: 0 });
        assert_eq!(counted("Summary [ 0.1s] 1 test run: 1 passed, 0 skipped\n").passed, 1);
    }

    #[test]
    fn the_trials_of_proofs_are_added_up() {
        let output = "test a ... \nproof T1 held for 500 lives\nok\nproof T1 held for 20 lives\nproof of nothing\n";
        assert_eq!(counted(output), Tally { passed: 0, failed: 0, trials: 520 });
        assert_eq!(counted("Test cases:\n  870 generated, 869 passed, 1 skipped\n").trials, 870);
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(counted("test result_of_this: 5 passed\n5 passed\nSummary\n"), Tally::default());
    }
}
