//! Handing messages over in the batch that accepts them.
//!
//! Almost every message is for somebody who waits for it. Its row is then written as claimed, and the connection gets it from memory:
//! nothing is read back. That is right only where nothing older may be free for the connection, so it is done
//!
//! - on SQLite, whose one writer sees every change: on PostgreSQL another node's rows may lie there that nobody was rung for;
//! - for a claim that waits, because it found nothing and is woken by whatever comes free, and for a new one after a look;
//! - for one claim per recipient, and not when this batch frees older rows for it.
//!
//! Everything else goes through [`delivery::claim`](crate::delivery::claim), after the write.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use claudemesh_proto::{ConnectionId, MeshId, Priority, Timestamp};

use crate::delivery::{Claim, Claimed, DeliveryId, Letter};
use crate::recipient::Recipient;
use crate::standing::{Rings, Standing};

type Key = (MeshId, Recipient);

/// The claims that can be served from memory.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    by_recipient: HashMap<Key, usize>,
    offers: Vec<Offer>,
}

/// One connection with room.
#[derive(Debug)]
pub(crate) struct Offer {
    /// The claim's place in the batch; a claim that waits has none yet.
    pub(crate) place: Option<usize>,
    pub(crate) connection: ConnectionId,
    pub(crate) waits: bool,
    pub(crate) rows: Vec<Claimed>,
    keys: Vec<Key>,
    urgent_only: bool,
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
        (delivery, seq, size_bytes): (i64, i64, i64),
        letter: &Arc<Letter>,
    ) -> Option<(ConnectionId, Timestamp)> {
        let offer = self.offers.get_mut(*self.by_recipient.get(key)?)?;
        if offer.is_cut_short || offer.urgent_only && letter.priority != Priority::Now {
            return None;
        }
        if offer.rows_left == 0 || !offer.rows.is_empty() && size_bytes > offer.bytes_left {
            offer.is_cut_short = true;
            return None;
        }
        offer.rows_left -= 1;
        offer.bytes_left -= size_bytes;
        offer.rows.push(Claimed {
            delivery: DeliveryId(delivery),
            seq,
            recipient: key.1.clone(),
            size_bytes,
            until: offer.until,
            committed_at: None,
            letter: Arc::clone(letter),
        });
        Some((offer.connection.clone(), offer.until))
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
