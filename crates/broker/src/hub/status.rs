//! How busy a presence is, who said so, and whose word counts when several speak.
//!
//! Three sources report: the agent's own hook, somebody by hand, and a client that infers it from a transcript (`jsonl`). Nothing
//! here knows connections or clocks: time is given.

use std::time::Duration;

use claudemesh_proto::presence::StatusSource;
use claudemesh_proto::{Status, Timestamp};

/// What a presence is known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) status: Status,
    pub(crate) source: StatusSource,
    pub(crate) at: Timestamp,
}

impl Reported {
    /// What a new presence is.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { status: Status::Idle, source: StatusSource::Jsonl, at: now }
    }

    /// What it is known to be after another report; a stored one counts as fresh for `fresh_for`.
    #[must_use]
    pub(crate) fn after(self, said: Self, fresh_for: Duration) -> Self {
        let is_fresh = self.at <= said.at && said.at.distance(self.at) <= fresh_for;
        let is_dropped = match said.source {
            StatusSource::Manual => return said,
            StatusSource::Hook => self.status == Status::Dnd,
            StatusSource::Jsonl => self.status == Status::Dnd || is_fresh && self.source == StatusSource::Hook,
        };
        if is_dropped {
            return self;
        }
        let keeps_source = said.status == self.status && said.source < self.source && is_fresh;
        Self { source: if keeps_source { self.source } else { said.source }, ..said }
    }

    /// What it is once nobody has said for `ttl` that it is still working: a session that crashed reports no more.
    #[must_use]
    pub(crate) fn at_rest(self, now: Timestamp, ttl: Duration) -> Self {
        let is_old = self.at < now && now.distance(self.at) > ttl;
        if self.status == Status::Working && is_old { Self::new(now) } else { self }
    }
}

#[cfg(test)]
mod tests {
    use Status::{Dnd, Idle, Working};
    use StatusSource::{Hook, Jsonl, Manual};
    use proptest::prelude::*;

    use super::*;

    const FRESH: Duration = Duration::from_secs(30);
    const TTL: Duration = Duration::from_mins(1);

    fn said(status: Status, source: StatusSource, seconds: i64) -> Reported {
        Reported { status, source, at: Timestamp::from_millis(seconds * 1000) }
    }

    /// websocket 5.1: a new presence.
    #[test]
    fn a_new_presence_is_idle_by_inference() {
        assert_eq!(Reported::new(Timestamp::from_millis(7000)), said(Idle, Jsonl, 7));
    }

    /// websocket 5.1, the whole table: stored, reported, what is stored then.
    #[test]
    fn every_row_of_the_write_rule() {
        let rows = [
            // Another status is set whatever the rank.
            (said(Idle, Manual, 0), said(Working, Hook, 9), said(Working, Hook, 9)),
            (said(Idle, Manual, 0), said(Working, Jsonl, 9), said(Working, Jsonl, 9)),
            (said(Working, Jsonl, 0), said(Dnd, Hook, 9), said(Dnd, Hook, 9)),
            // The same status by the same rank or a higher one.
            (said(Working, Jsonl, 0), said(Working, Jsonl, 9), said(Working, Jsonl, 9)),
            (said(Working, Jsonl, 0), said(Working, Hook, 9), said(Working, Hook, 9)),
            (said(Idle, Manual, 0), said(Idle, Hook, 9), said(Idle, Hook, 9)),
            (said(Idle, Hook, 0), said(Idle, Hook, 9), said(Idle, Hook, 9)),
            // The same by a lower rank, while what is stored is fresh: the source stays.
            (said(Working, Manual, 0), said(Working, Jsonl, 30), said(Working, Manual, 30)),
            // And when it is not.
            (said(Working, Manual, 0), said(Working, Jsonl, 31), said(Working, Jsonl, 31)),
            (said(Working, Manual, 5), said(Working, Jsonl, 4), said(Working, Jsonl, 4)),
            (said(Working, Hook, 0), said(Working, Jsonl, 31), said(Working, Jsonl, 31)),
        ];
        for (stored, reported, expected) in rows {
            assert_eq!(stored.after(reported, FRESH), expected, "{stored:?} and then {reported:?}");
        }
    }

    /// websocket 5.1 ▶
    #[test]
    fn inference_is_dropped_while_a_hook_is_fresh_and_always_in_dnd() {
        for status in [Idle, Working, Dnd] {
            let hook = said(Working, Hook, 0);
            assert_eq!(hook.after(said(status, Jsonl, 30), FRESH), hook);
            assert_eq!(hook.after(said(status, Jsonl, 31), FRESH), said(status, Jsonl, 31));
            for source in [Hook, Manual, Jsonl] {
                let dnd = said(Dnd, source, 0);
                assert_eq!(dnd.after(said(status, Jsonl, 10_000), FRESH), dnd);
            }
        }
    }

    /// websocket 5.1 ▶: a manual report always applies, and 5.2: a hook never ends dnd.
    #[test]
    fn only_somebodys_word_ends_dnd() {
        let dnd = said(Dnd, Manual, 0);
        for status in [Idle, Working, Dnd] {
            assert_eq!(dnd.after(said(status, Hook, 10_000), FRESH), dnd);
            assert_eq!(dnd.after(said(status, Manual, 1), FRESH), said(status, Manual, 1));
        }
        assert_eq!(said(Idle, Hook, 0).after(said(Idle, Manual, 1), FRESH), said(Idle, Manual, 1));
    }

    /// websocket 5.4
    #[test]
    fn who_works_without_saying_so_for_the_time_is_idle_and_dnd_stays() {
        let at = Timestamp::from_millis;
        for source in [Hook, Manual, Jsonl] {
            assert_eq!(said(Working, source, 0).at_rest(at(60_000), TTL), said(Working, source, 0));
            assert_eq!(said(Working, source, 0).at_rest(at(61_000), TTL), said(Idle, Jsonl, 61));
            assert_eq!(said(Working, source, 100).at_rest(at(0), TTL), said(Working, source, 100));
            for status in [Idle, Dnd] {
                assert_eq!(said(status, source, 0).at_rest(at(1_000_000), TTL), said(status, source, 0));
            }
        }
    }

    fn any_report() -> impl Strategy<Value = Reported> {
        let status = prop::sample::select(vec![Idle, Working, Dnd]);
        let source = prop::sample::select(vec![Hook, Manual, Jsonl]);
        (status, source, 0..100_i64).prop_map(|(status, source, seconds)| said(status, source, seconds))
    }

    proptest! {
        /// The sentences of section 5.1, each as it is written there.
        #[test]
        fn any_two_reports_follow_the_rule(stored in any_report(), new in any_report()) {
            let after = stored.after(new, FRESH);
            let age = new.at.as_millis() - stored.at.as_millis();
            let is_fresh = (0..=30_000).contains(&age);
            let expected = if new.source == Manual {
                new
            } else if stored.status == Dnd || new.source == Jsonl && stored.source == Hook && is_fresh {
                stored
            } else if new.status != stored.status || new.source >= stored.source || !is_fresh {
                new
            } else {
                Reported { source: stored.source, ..new }
            };
            prop_assert_eq!(after, expected);
        }

        /// Nothing but a manual report ends dnd, and nothing leaves it half changed.
        #[test]
        fn no_run_of_reports_invents_a_status(reports in prop::collection::vec(any_report(), 1..20)) {
            let mut known = Reported::new(Timestamp::from_millis(0));
            for report in reports {
                let before = known;
                known = known.after(report, FRESH);
                prop_assert!(known.status == before.status || known.status == report.status);
                prop_assert!(before.status != Dnd || known == before || report.source == Manual);
                prop_assert!(known.at == before.at || known.at == report.at);
            }
        }
    }
}
