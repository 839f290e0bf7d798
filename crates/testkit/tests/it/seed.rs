//! Chance that can be repeated.

use std::time::Duration;

use claudemesh_keys::random_bytes;

/// A stream of numbers from a seed (SplitMix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub(crate) struct Seed(u64);

impl Seed {
    /// The seed of this run: given by `CLAUDEMESH_CRASH_SEED`, else a new one. It is printed, so that a failure can be repeated.
    pub(crate) fn of_run() -> Self {
        let given = std::env::var("CLAUDEMESH_CRASH_SEED").ok();
        let seed = match given {
            Some(text) => text.parse().expect("CLAUDEMESH_CRASH_SEED is a number"),
            None => u64::from_le_bytes(random_bytes().unwrap()),
        };
        println!("CLAUDEMESH_CRASH_SEED={seed}");
        Self(seed)
    }

    /// A stream of its own for something with a number.
    pub(crate) fn branch(&self, number: u64) -> Self {
        let mut branch = Self(self.0 ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        branch.next();
        branch
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap();
        usize::try_from(self.next() % bound).unwrap()
    }

    pub(crate) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// From the first to before the second.
    pub(crate) fn millis(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis(u64::try_from(from + self.below(to - from)).unwrap())
    }

    pub(crate) fn one_of<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[self.below(things.len())]
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
