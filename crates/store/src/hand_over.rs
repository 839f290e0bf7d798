//! Handing messages over in the batch that accepts them.
//!
//! Almost every message is for somebody who waits for it. Its row is then written as claimed, and the connection gets it from memory:
//! nothing is read back. That is right only where nothing older may be free for the connection, so it is done
//!
//! - on SQLite, whose one writer sees every change: on PostgreSQL another node's rows may lie there that nobody was rung for;
//! - for a claim that waits, because it found nothing and is woken by whatever comes free, and for a new one after a look;
//! - for one claim per recipient, and not when this batch frees older rows for it.
//!
//! Everything else goes through [`claim`](crate::claim::claim), after the write.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use claudemesh_proto::{ConnectionId, MeshId, Priority, Timestamp};

use crate::claim::Claim;
use crate::delivery::{Claimed, DeliveryId, Span, StoredMessage};
use crate::recipient::Recipient;
use crate::standing::{Rings, Standing};

type Key = (MeshId, Recipient);

/// The claims that can be served from memory.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    by_recipient: HashMap<Key, usize>,
    offers: Vec<Offer>,
}

/// A new delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offered {
    pub(crate) delivery: DeliveryId,
    /// The message's number in the mesh.
    pub(crate) seq: i64,
    pub(crate) size_bytes: i64,
    pub(crate) priority: Priority,
    /// Only who knows topics can open it.
    pub(crate) is_sealed: bool,
    /// Of a topic's message, with the number before its own as `after`.
    pub(crate) span: Option<Span>,
}

/// One connection with room.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub(crate) struct Offer {
    /// The claim's place in the batch; a claim that waits has none yet.
    pub(crate) place: Option<usize>,
    pub(crate) connection: ConnectionId,
    pub(crate) waits: bool,
    pub(crate) rows: Vec<Claimed>,
    keys: Vec<Key>,
    urgent_only: bool,
    knows_topics: bool,
    rows_left: usize,
    bytes_left: i64,
    until: Timestamp,
    /// A row did not fit: what comes later must not overtake it.
    is_cut_short: bool,
}

impl Offers {
    /// The claims of a batch after which nothing is free, and the claims that wait for what it brings.
    pub(crate) fn of(claims: &[(usize, &Claim)], standing: &Standing, rings: &Rings, now: Timestamp) -> Self {
        let mut offers = Self::default();
        let mut contested: HashSet<Key> = HashSet::new();
        for (place, claim) in claims {
            offers.add(Some(*place), claim, now, &mut contested);
        }
        let mut seen = HashSet::new();
        for (mesh, recipient) in rings.keys() {
            if let Some(claim) = standing.waiting_for(mesh, recipient)
                && seen.insert(&claim.connection)
            {
                offers.add(None, claim, now, &mut contested);
            }
        }
        let is_unfit = |offer: &Offer| {
            offer.keys.iter().any(|key| contested.contains(key) || rings.get(key).copied().unwrap_or_default())
        };
        let unfit: HashSet<usize> =
            offers.offers.iter().enumerate().filter(|(_, offer)| is_unfit(offer)).map(|(index, _)| index).collect();
        offers.by_recipient.retain(|_, index| !unfit.contains(index));
        offers
    }

    fn add(&mut self, place: Option<usize>, claim: &Claim, now: Timestamp, contested: &mut HashSet<Key>) {
        let keys: Vec<Key> = claim.recipients.iter().map(|to| (claim.mesh_id.clone(), to.clone())).collect();
        for key in &keys {
            if self.by_recipient.insert(key.clone(), self.offers.len()).is_some() {
                contested.insert(key.clone());
            }
        }
        self.offers.push(Offer {
            place,
            connection: claim.connection.clone(),
            waits: claim.waits,
            rows: Vec::new(),
            keys,
            urgent_only: claim.urgent_only,
            knows_topics: claim.knows_topics,
            rows_left: claim.max_rows,
            bytes_left: claim.max_bytes,
            until: now.plus(claim.lease),
            is_cut_short: false,
        });
    }

    /// Hands a new delivery to whoever waits for it; by which connection it is claimed, and until when.
    pub(crate) fn take(
        &mut self,
        key: &Key,
        Offered { delivery, seq, size_bytes, priority, is_sealed, span }: Offered,
        message: impl FnOnce() -> Arc<StoredMessage>,
    ) -> Option<(ConnectionId, Timestamp)> {
        let offer = self.offers.get_mut(*self.by_recipient.get(key)?)?;
        if offer.is_cut_short || offer.urgent_only && priority != Priority::Now || is_sealed && !offer.knows_topics {
            return None;
        }
        if offer.rows_left == 0 || !offer.rows.is_empty() && size_bytes > offer.bytes_left {
            offer.is_cut_short = true;
            return None;
        }
        // Whoever waits has been handed all that came before, but for what is not urgent enough.
        offer.rows_left -= 1;
        offer.bytes_left -= size_bytes;
        offer.rows.push(Claimed {
            delivery,
            seq,
            recipient: key.1.clone(),
            size_bytes,
            until: offer.until,
            span: span.map(|span| if offer.urgent_only { span } else { Span { after: 0, ..span } }),
            committed_at: None,
            message: message(),
        });
        Some((offer.connection.clone(), offer.until))
    }

    /// Whether whoever waits for a recipient's mail may take what such a claim guards: its own, or none.
    pub(crate) fn may_hold(&self, key: &Key, holder: Option<&str>) -> bool {
        let offer = self.by_recipient.get(key).and_then(|index| self.offers.get(*index));
        offer.is_some_and(|offer| holder.is_none_or(|holder| holder == offer.connection.as_str()))
    }

    /// The claims that need no look at the database, each with what it got. Their rings have done their work.
    pub(crate) fn served(self, rings: &mut Rings) -> Vec<Offer> {
        let Self { by_recipient, offers } = self;
        let fit: HashSet<usize> = by_recipient.into_values().collect();
        let mut served = Vec::new();
        for (index, offer) in offers.into_iter().enumerate() {
            if !fit.contains(&index) {
                continue;
            }
            for key in &offer.keys {
                rings.remove(key);
            }
            // A new claim is answered even with nothing; one that waits, for which nothing urgent enough came, goes on waiting.
            if offer.place.is_some() || !offer.rows.is_empty() {
                served.push(offer);
            }
        }
        served
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::time::Duration;

    use claudemesh_proto::PublicKey;

    use super::*;

    fn key(name: &str) -> Key {
        ("m".parse().unwrap(), Recipient::Member(name.parse().unwrap()))
    }

    fn claim(number: u8, recipients: &[&str]) -> Claim {
        Claim {
            mesh_id: "m".parse().unwrap(),
            recipients: recipients.iter().map(|name| key(name).1).collect(),
            connection: ConnectionId::from_random([number; 32]),
            after_seq: 0,
            urgent_only: false,
            max_rows: 3,
            max_bytes: 100,
            lease: Duration::from_secs(30),
            is_retry: false,
            waits: true,
            knows_topics: false,
        }
    }

    fn message(priority: Priority) -> Arc<StoredMessage> {
        let key = PublicKey::from_bytes([1; 32]);
        Arc::new(StoredMessage {
            message_id: claudemesh_proto::MessageId::new(1, [7; 24]),
            sender_pubkey: key,
            sender_member_pubkey: key,
            sender_member_id: "ada".parse().unwrap(),
            sender_name: "Ada".parse().unwrap(),
            priority,
            nonce: String::new(),
            ciphertext: String::new(),
            ext: None,
            client_message_id: None,
            request_fingerprint: None,
            created_at: Timestamp::from_millis(0),
            post: None,
            written: OnceLock::new(),
        })
    }

    fn offers(claims: &[&Claim], rings: &Rings) -> Offers {
        let placed: Vec<_> = claims.iter().copied().enumerate().collect();
        Offers::of(&placed, &Standing::default(), rings, Timestamp::from_millis(0))
    }

    /// Which of these deliveries for Bob, by size and priority, are handed over.
    fn handed(offers: &mut Offers, deliveries: &[(i64, Priority)]) -> Vec<i64> {
        for (number, (size, priority)) in (1..).zip(deliveries) {
            let delivery = DeliveryId::Row(number);
            let offered =
                Offered { delivery, seq: number, size_bytes: *size, priority: *priority, is_sealed: false, span: None };
            offers.take(&key("bob"), offered, || message(*priority));
        }
        let served = std::mem::take(offers).served(&mut Rings::new());
        served.iter().flat_map(|offer| offer.rows.iter().map(|row| row.seq)).collect()
    }

    #[test]
    fn what_does_not_fit_is_not_overtaken() {
        let next = Priority::Next;
        let claim = claim(1, &["bob"]);
        let sizes = [(60, next), (50, next), (1, next)];
        assert_eq!(handed(&mut offers(&[&claim], &Rings::new()), &sizes), [1]);
        assert_eq!(
            handed(&mut offers(&[&claim], &Rings::new()), &[(1, next); 5]),
            [1, 2, 3],
            "as many as it has room for"
        );
        assert_eq!(handed(&mut offers(&[&claim], &Rings::new()), &[(500, next)]), [1], "one fits whatever its size");
    }

    #[test]
    fn who_is_busy_is_handed_what_is_urgent_alone() {
        let busy = Claim { urgent_only: true, ..claim(1, &["bob"]) };
        let deliveries = [(1, Priority::Low), (1, Priority::Now), (1, Priority::Next)];
        assert_eq!(handed(&mut offers(&[&busy], &Rings::new()), &deliveries), [2]);
    }

    #[test]
    fn who_shares_a_recipient_or_may_have_older_mail_is_not_served_from_memory() {
        let (one, other) = (claim(1, &["bob", "eve"]), claim(2, &["bob"]));
        let now = [(1, Priority::Now)];
        assert_eq!(handed(&mut offers(&[&one, &other], &Rings::new()), &now), [0; 0]);
        let freed = Rings::from([(key("eve"), true)]);
        assert_eq!(handed(&mut offers(&[&one], &freed), &now), [0; 0], "older rows came free for the same connection");
        let rung = Rings::from([(key("eve"), false)]);
        assert_eq!(handed(&mut offers(&[&one], &rung), &now), [1]);
    }

    #[test]
    fn a_new_claim_is_answered_with_nothing_and_its_ring_has_done_its_work() {
        let mut rings = Rings::from([(key("bob"), false), (key("eve"), false)]);
        let served = offers(&[&claim(1, &["bob"])], &rings).served(&mut rings);
        assert_eq!(served.iter().map(|offer| (offer.place, offer.rows.len())).collect::<Vec<_>>(), [(Some(0), 0)]);
        assert_eq!(rings, Rings::from([(key("eve"), false)]));
    }
}
