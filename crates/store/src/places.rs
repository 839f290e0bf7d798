//! What a batch asks about: each thing once, however often it comes up, with the place by which the answer names it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// Each thing once, with its place.
#[derive(Debug)]
pub(crate) struct Places<T> {
    places: HashMap<T, usize>,
    pub(crate) in_order: Vec<T>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { places: HashMap::new(), in_order: Vec::new() }
    }
}

impl<T: Hash + Eq + Clone> Places<T> {
    pub(crate) fn place(&mut self, thing: T) -> usize {
        let next = self.in_order.len();
        match self.places.entry(thing) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.in_order.push(new.key().clone());
                *new.insert(next)
            }
        }
    }

    /// The place of a thing that was asked about.
    pub(crate) fn place_of(&self, thing: &T) -> Option<usize> {
        self.places.get(thing).copied()
    }
}
