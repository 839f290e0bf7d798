//! How far one connection is in the topics of its member.
//!
//! A topic's messages have no rows that could be ended one by one: the store keeps one place per member, up to which everything is
//! acknowledged. Here it is known what was handed over and acknowledged behind that place: urgent messages overtake others, and
//! acknowledgements come in any order.

use std::collections::{BTreeSet, HashMap};

use claudemesh_store::{DeliveryId, Recipient, Span};

/// The topics of which it was handed something, by their cursors. One that is done is remembered: an answer of the store may be on its way
/// that is older than what was acknowledged since.
#[derive(Debug, Default)]
pub(crate) struct Readings(HashMap<i64, Reading>);

#[derive(Debug)]
struct Reading {
    recipient: Recipient,
    held: BTreeSet<i64>,
    acknowledged: BTreeSet<i64>,
    /// Everything up to here was handed over, or is not for this connection.
    complete_to: i64,
    /// Up to here the store knows, or is being told.
    told: i64,
    /// It holds something, or something is acknowledged behind a gap.
    is_open: bool,
    /// Where the gap began that was looked into last.
    looked_at: Option<i64>,
}

/// Everything in a topic up to a message is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) cursor: i64,
    pub(crate) seq: i64,
    /// Nothing more of that topic is held here.
    pub(crate) is_done: bool,
}

impl Readings {
    /// A message was handed over; false when it was before, and is acknowledged or still held.
    pub(crate) fn begin(&mut self, (cursor, seq): (i64, i64), span: Span, recipient: &Recipient) -> bool {
        let reading = self.0.entry(cursor).or_insert_with(|| Reading {
            recipient: recipient.clone(),
            held: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            complete_to: span.delivered,
            told: span.delivered,
            is_open: false,
            looked_at: None,
        });
        // Another connection of the member may have gone on meanwhile.
        reading.complete_to = reading.complete_to.max(span.delivered);
        reading.told = reading.told.max(span.delivered);
        if reading.complete_to >= span.after {
            reading.complete_to = reading.complete_to.max(seq);
        }
        let is_new = seq > reading.told && !reading.acknowledged.contains(&seq) && reading.held.insert(seq);
        reading.is_open |= is_new;
        is_new
    }

    /// Whether between what it has of a topic lie messages of which it was not told whether they are for it, its member's own for
    /// example. A look from the start tells; of each gap this is true once.
    pub(crate) fn has_new_gap(&mut self) -> bool {
        let mut is_new = false;
        for reading in self.0.values_mut() {
            let last = reading.held.last().max(reading.acknowledged.last()).copied().unwrap_or(0);
            if last > reading.complete_to && reading.looked_at != Some(reading.complete_to) {
                reading.looked_at = Some(reading.complete_to);
                is_new = true;
            }
        }
        is_new
    }

    /// A message was acknowledged.
    pub(crate) fn finish(&mut self, cursor: i64, seq: i64) {
        if let Some(reading) = self.0.get_mut(&cursor)
            && reading.held.remove(&seq)
        {
            reading.acknowledged.insert(seq);
        }
    }

    /// A message is no longer held, and not acknowledged either: it comes again, to whoever.
    pub(crate) fn give_back(&mut self, cursor: i64, seq: i64) {
        if let Some(reading) = self.0.get_mut(&cursor) {
            reading.held.remove(&seq);
            reading.complete_to = reading.complete_to.min(seq - 1);
        }
    }

    /// Where the store is to be told something new.
    pub(crate) fn progress(&mut self) -> Vec<Progress> {
        let mut news = Vec::new();
        for (cursor, reading) in self.0.iter_mut().filter(|(_, reading)| reading.is_open) {
            let first_held = reading.held.first().copied().unwrap_or(i64::MAX);
            let limit = reading.complete_to.min(first_held - 1);
            let seq = reading.acknowledged.range(..=limit).next_back().copied().unwrap_or(reading.told);
            reading.acknowledged = reading.acknowledged.split_off(&(seq + 1));
            let is_done = reading.held.is_empty() && reading.acknowledged.is_empty();
            if seq > reading.told || is_done {
                reading.told = seq;
                news.push(Progress { cursor: *cursor, seq, is_done });
            }
            reading.is_open = !is_done;
        }
        news
    }

    /// The topics in which something is held or acknowledged behind a gap, each once.
    pub(crate) fn places(self) -> impl Iterator<Item = (DeliveryId, Recipient)> {
        let place = |(cursor, reading): (i64, Reading)| (DeliveryId::Post { cursor, seq: 0 }, reading.recipient);
        self.0.into_iter().filter(|(_, reading)| reading.is_open).map(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(readings: &mut Readings, seq: i64, after: i64) -> bool {
        readings.begin((7, seq), Span { delivered: 10, after }, &Recipient::Member("m".parse().unwrap()))
    }

    fn told(readings: &mut Readings) -> Vec<(i64, bool)> {
        readings.progress().into_iter().map(|progress| (progress.seq, progress.is_done)).collect()
    }

    #[test]
    fn the_place_moves_over_what_is_acknowledged_without_a_gap() {
        let mut readings = Readings::default();
        assert!(begin(&mut readings, 11, 10) && begin(&mut readings, 12, 11) && begin(&mut readings, 14, 12));
        readings.finish(7, 12);
        assert_eq!(told(&mut readings), [], "11 is outstanding");
        readings.finish(7, 11);
        assert_eq!(told(&mut readings), [(12, false)]);
        readings.finish(7, 14);
        assert_eq!(told(&mut readings), [(14, true)], "13 was not for it");
        assert_eq!(told(&mut readings), []);
    }

    #[test]
    fn what_was_urgent_is_not_handed_over_again_and_moves_nothing_until_the_rest_came() {
        let mut readings = Readings::default();
        // 11 and 12 wait until it is less busy.
        assert!(begin(&mut readings, 13, 12));
        readings.finish(7, 13);
        assert_eq!(told(&mut readings), []);
        assert!(begin(&mut readings, 11, 10) && begin(&mut readings, 12, 11));
        assert!(!begin(&mut readings, 13, 12), "it has that one");
        readings.finish(7, 12);
        readings.finish(7, 11);
        assert_eq!(told(&mut readings), [(13, true)]);
    }

    #[test]
    fn what_was_given_back_comes_again() {
        let mut readings = Readings::default();
        assert!(begin(&mut readings, 11, 10) && begin(&mut readings, 12, 11));
        readings.give_back(7, 11);
        readings.finish(7, 12);
        assert_eq!(told(&mut readings), []);
        assert!(begin(&mut readings, 11, 10));
        readings.finish(7, 11);
        assert_eq!(told(&mut readings), [(11, false)]);
        assert!(!begin(&mut readings, 12, 11));
        assert_eq!(told(&mut readings), [(12, true)]);
    }

    /// The store answered before it was told of the acknowledgement.
    #[test]
    fn an_answer_that_is_older_than_an_acknowledgement_brings_nothing_again() {
        let mut readings = Readings::default();
        assert!(begin(&mut readings, 11, 10));
        readings.finish(7, 11);
        assert_eq!(told(&mut readings), [(11, true)]);
        assert!(!begin(&mut readings, 11, 10));
        assert_eq!(told(&mut readings), []);
        assert!(begin(&mut readings, 12, 11));
        readings.finish(7, 12);
        assert_eq!(told(&mut readings), [(12, true)]);
        assert_eq!(readings.places().count(), 0, "nothing of it is held");
    }

    #[test]
    fn it_goes_on_where_another_connection_has_stopped() {
        let mut readings = Readings::default();
        assert!(begin(&mut readings, 11, 10));
        readings.finish(7, 11);
        assert_eq!(told(&mut readings), [(11, true)]);
        let span = Span { delivered: 15, after: 15 };
        assert!(readings.begin((7, 16), span, &Recipient::Member("m".parse().unwrap())));
        readings.finish(7, 16);
        assert_eq!(told(&mut readings), [(16, true)]);
    }

    #[test]
    fn a_hole_before_what_is_handed_over_is_never_jumped() {
        let mut readings = Readings::default();
        assert!(begin(&mut readings, 15, 14));
        readings.finish(7, 15);
        assert_eq!(told(&mut readings), [], "11 to 14 may be with somebody else");
        assert_eq!(readings.places().count(), 1);
    }
}
