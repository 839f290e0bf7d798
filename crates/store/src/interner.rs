//! What a batch asks about: each thing once, however often it comes up, with the place by which the answer names it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// Each thing once, with its place.
#[derive(Debug)]
pub(crate) struct Interner<T> {
    indexes: HashMap<T, usize>,
    pub(crate) in_order: Vec<T>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { indexes: HashMap::new(), in_order: Vec::new() }
    }
}

impl<T: Hash + Eq + Clone> Interner<T> {
    pub(crate) fn intern(&mut self, thing: T) -> usize {
        let next = self.in_order.len();
        match self.indexes.entry(thing) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.in_order.push(new.key().clone());
                *new.insert(next)
            }
        }
    }

    /// The place of a thing that was asked about.
    pub(crate) fn index_of(&self, thing: &T) -> Option<usize> {
        self.indexes.get(thing).copied()
    }
}
