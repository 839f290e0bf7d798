//! Sessions that were kicked, and until when they are refused. Kept in memory: a minute is not worth more.

use std::collections::HashMap;
use std::time::Duration;

use claudemesh_proto::{MeshId, PublicKey, Timestamp};

/// Most sessions that are refused at a time; whoever has least of it left goes first.
const MAX: usize = 10_000;

/// Until when each session is refused.
#[derive(Debug, Default)]
pub(super) struct Blocks(HashMap<(MeshId, PublicKey), Timestamp>);

impl Blocks {
    pub(super) fn add(&mut self, session: (MeshId, PublicKey), now: Timestamp, until: Timestamp) {
        if self.0.len() >= MAX {
            self.0.retain(|_, until| *until > now);
        }
        if self.0.len() >= MAX {
            let first = self.0.iter().min_by_key(|(_, until)| **until).map(|(session, _)| session.clone());
            first.and_then(|session| self.0.remove(&session));
        }
        self.0.insert(session, until);
    }

    /// For how long the session has to stay away.
    pub(super) fn left(&mut self, session: &(MeshId, PublicKey), now: Timestamp) -> Option<Duration> {
        let until = *self.0.get(session)?;
        if until <= now {
            self.0.remove(session);
            return None;
        }
        Some(until.distance(now))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn session(number: usize) -> (MeshId, PublicKey) {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        ("m".parse().unwrap(), PublicKey::from_bytes(key))
    }

    #[test]
    fn a_block_ends_by_itself() {
        let mut blocks = Blocks::default();
        blocks.add(session(1), at(0), at(60));
        assert_eq!(blocks.left(&session(1), at(59)), Some(Duration::from_secs(1)));
        assert_eq!(blocks.left(&session(2), at(0)), None);
        assert_eq!(blocks.left(&session(1), at(60)), None);
        assert!(blocks.is_empty());
    }

    #[test]
    fn there_are_never_more_than_the_bound() {
        let mut blocks = Blocks::default();
        (0..=MAX).for_each(|number| blocks.add(session(number), at(0), at(60 + i64::try_from(number).unwrap())));
        assert_eq!(blocks.0.len(), MAX);
        assert_eq!(blocks.left(&session(0), at(0)), None, "it had least of it left");
        assert!(blocks.left(&session(MAX), at(0)).is_some());
        blocks.add(session(MAX + 1), at(1_000_000), at(1_000_060));
        assert_eq!(blocks.0.len(), 1, "what is over makes room");
    }
}
