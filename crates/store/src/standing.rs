//! Claims that found nothing and wait until there is something.
//!
//! A connection with room for mail always has one here, so that the batch that brings a message also hands it over: its
//! recipient needs no batch of its own, and nobody has to be woken only to ask. Nothing in the database stands for a claim that
//! waits. When the process ends, so does the connection that asked.

use std::collections::HashMap;

use claudemesh_proto::{ConnectionId, MeshId};

use crate::claim::Claim;
use crate::recipient::Recipient;
use crate::request::{Entry, Outcome, Request};

/// Whom to ring for after a batch, and whether from the start.
pub(crate) type Rings = HashMap<(MeshId, Recipient), bool>;

/// Abandoned claims are looked for from so many on.
const TIDY_FROM: usize = 1024;

/// The claims that wait in one shard: one per connection, and one per recipient.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    waiting: HashMap<ConnectionId, Entry>,
    asked_by: HashMap<(MeshId, Recipient), ConnectionId>,
    tidy_at: usize,
    /// The last number that a delivery got; known once it was read. Only where this shard gives them.
    last_delivery: Option<i64>,
}

impl Standing {
    /// Lets a claim wait. Another one for the same connection or recipient ends with nothing: whoever asks last is meant.
    pub(crate) fn park(&mut self, entry: Entry) {
        if self.waiting.len() >= self.tidy_at {
            self.tidy();
        }
        let Request::Claim(claim) = &entry.0 else { return };
        let connection = claim.connection.clone();
        let keys: Vec<_> = keys(&entry).collect();
        self.withdraw(&connection);
        for key in keys {
            if let Some(other) = self.asked_by.get(&key).cloned() {
                self.withdraw(&other);
            }
            self.asked_by.insert(key, connection.clone());
        }
        self.waiting.insert(connection, entry);
    }

    /// The claim that waits for a recipient's mail, if its connection still wants it.
    pub(crate) fn waiting_for(&self, mesh: &MeshId, recipient: &Recipient) -> Option<&Claim> {
        let connection = self.asked_by.get(&(mesh.clone(), recipient.clone()))?;
        match self.waiting.get(connection) {
            Some((Request::Claim(claim), answer)) if !answer.is_closed() => Some(claim),
            _ => None,
        }
    }

    /// The numbers of deliveries go on from here.
    pub(crate) fn last_delivery(&mut self) -> &mut Option<i64> {
        &mut self.last_delivery
    }

    /// Takes out the claims that these rings concern, and the rings with them. Where older rows came free, a claim looks from the
    /// start again.
    pub(crate) fn wake(&mut self, rings: &mut Rings) -> Vec<Entry> {
        let mut woken: HashMap<ConnectionId, bool> = HashMap::new();
        rings.retain(|key, from_start| {
            let Some(connection) = self.asked_by.get(key) else { return true };
            if self.waiting.get(connection).is_none_or(|(_, answer)| answer.is_closed()) {
                return true;
            }
            *woken.entry(connection.clone()).or_default() |= *from_start;
            false
        });
        let mut entries = Vec::with_capacity(woken.len());
        for (connection, from_start) in woken {
            let Some((mut request, answer)) = self.take(&connection) else { continue };
            if let Request::Claim(claim) = &mut request
                && from_start
            {
                claim.after_seq = 0;
            }
            entries.push((request, answer));
        }
        entries
    }

    /// Ends the claim of a connection with nothing, if one waits.
    pub(crate) fn withdraw(&mut self, connection: &ConnectionId) {
        if let Some((_, answer)) = self.take(connection) {
            let _ = answer.send(Ok(Outcome::Claimed(Vec::new())));
        }
    }

    /// Takes out the claim of a connection.
    pub(crate) fn take(&mut self, connection: &ConnectionId) -> Option<Entry> {
        let entry = self.waiting.remove(connection)?;
        for key in keys(&entry) {
            if self.asked_by.get(&key) == Some(connection) {
                self.asked_by.remove(&key);
            }
        }
        Some(entry)
    }

    /// Drops the claims of connections that went away without a word.
    fn tidy(&mut self) {
        let abandoned = self.waiting.iter().filter(|(_, (_, answer))| answer.is_closed());
        let abandoned: Vec<ConnectionId> = abandoned.map(|(connection, _)| connection.clone()).collect();
        for connection in abandoned {
            self.take(&connection);
        }
        self.tidy_at = TIDY_FROM.max(self.waiting.len() * 2);
    }
}

fn keys((request, _): &Entry) -> impl Iterator<Item = (MeshId, Recipient)> {
    let claim = if let Request::Claim(claim) = request { Some(claim) } else { None };
    claim.into_iter().flat_map(|claim| claim.recipients.iter().map(|to| (claim.mesh_id.clone(), to.clone())))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot::{self, Receiver};

    use super::*;
    use crate::error::StoreError;

    type Answer = Receiver<Result<Outcome, StoreError>>;

    fn connection(number: u8) -> ConnectionId {
        ConnectionId::from_random([number; 32])
    }

    fn mesh() -> MeshId {
        "m".parse().unwrap()
    }

    fn member(name: &str) -> Recipient {
        Recipient::Member(name.parse().unwrap())
    }

    fn claim(number: u8, recipients: &[&str]) -> (Entry, Answer) {
        let claim = Claim {
            mesh_id: mesh(),
            recipients: recipients.iter().map(|name| member(name)).collect(),
            connection: connection(number),
            after_seq: 7,
            urgent_only: false,
            max_rows: 1,
            max_bytes: 1,
            lease: Duration::ZERO,
            is_retry: false,
            waits: true,
            knows_topics: false,
        };
        let (sender, receiver) = oneshot::channel();
        ((Request::Claim(claim), sender), receiver)
    }

    fn rings(names: &[(&str, bool)]) -> Rings {
        names.iter().map(|(name, from_start)| ((mesh(), member(name)), *from_start)).collect()
    }

    fn ended_with_nothing(mut answer: Answer) -> bool {
        matches!(answer.try_recv(), Ok(Ok(Outcome::Claimed(rows))) if rows.is_empty())
    }

    #[test]
    fn a_claim_wakes_once_for_all_its_recipients_and_takes_their_rings() {
        let mut standing = Standing::default();
        let (entry, _answer) = claim(1, &["a", "b"]);
        standing.park(entry);
        let mut rings = rings(&[("a", false), ("b", true), ("c", false)]);
        let woken = standing.wake(&mut rings);
        assert_eq!(woken.len(), 1);
        assert!(matches!(&woken[0].0, Request::Claim(claim) if claim.after_seq == 0));
        assert_eq!(rings.into_keys().collect::<Vec<_>>(), [(mesh(), member("c"))]);
        assert!(standing.waiting.is_empty() && standing.asked_by.is_empty());
    }

    #[test]
    fn the_cursor_stays_when_nothing_older_came_free() {
        let mut standing = Standing::default();
        let (entry, _answer) = claim(1, &["a"]);
        standing.park(entry);
        let woken = standing.wake(&mut rings(&[("a", false)]));
        assert!(matches!(&woken[0].0, Request::Claim(claim) if claim.after_seq == 7));
    }

    #[test]
    fn whoever_asks_last_for_a_recipient_or_a_connection_is_meant() {
        let mut standing = Standing::default();
        let (first, first_answer) = claim(1, &["a", "b"]);
        let (second, second_answer) = claim(2, &["b"]);
        standing.park(first);
        standing.park(second);
        assert!(ended_with_nothing(first_answer));
        assert!(standing.wake(&mut rings(&[("a", false)])).is_empty());
        let (third, _answer) = claim(2, &["c"]);
        standing.park(third);
        assert!(ended_with_nothing(second_answer));
        assert_eq!(standing.wake(&mut rings(&[("b", false), ("c", false)])).len(), 1);
    }

    #[test]
    fn an_abandoned_claim_is_not_woken_and_leaves_the_ring() {
        let mut standing = Standing::default();
        let (entry, answer) = claim(1, &["a"]);
        standing.park(entry);
        drop(answer);
        let mut rings = rings(&[("a", false)]);
        assert!(standing.wake(&mut rings).is_empty());
        assert_eq!(rings.len(), 1);
        standing.tidy();
        assert!(standing.waiting.is_empty() && standing.asked_by.is_empty());
    }

    #[test]
    fn withdrawing_ends_a_claim_with_nothing() {
        let mut standing = Standing::default();
        let (entry, answer) = claim(1, &["a"]);
        standing.park(entry);
        standing.withdraw(&connection(2));
        standing.withdraw(&connection(1));
        assert!(ended_with_nothing(answer));
        assert!(standing.asked_by.is_empty());
    }
}
