//! What a connection has been handed and not yet acknowledged, and where it goes on.
//!
//! It holds 256 rows or 1 MiB and asks for more when half of that is free: a slow reader does not cost a claim per message. When a
//! lease ends without an acknowledgement, that row and all after it are handed over once more, in order, for twice as long each
//! time, 10 minutes at most.

use std::collections::BTreeMap;
use std::time::Duration;

use claudemesh_proto::message::ClientAck;
use claudemesh_proto::{MessageId, Timestamp};
use claudemesh_store::{Claimed, DeliveryId, Recipient};

use crate::session::reading::{Progress, Readings};

const WINDOW_ROWS: usize = 256;
const WINDOW_BYTES: i64 = 1 << 20;
const LONGEST_LEASE: Duration = Duration::from_mins(10);

/// The deliveries that one connection holds.
#[derive(Debug)]
pub(crate) struct Mailbox {
    lease: Duration,
    held: BTreeMap<i64, Held>,
    /// How far it is in each topic.
    readings: Readings,
    bytes: i64,
    /// The highest number claimed so far.
    after: i64,
}

#[derive(Debug)]
struct Held {
    delivery: DeliveryId,
    recipient: Recipient,
    message_id: MessageId,
    client_message_id: Option<String>,
    size_bytes: i64,
    until: Timestamp,
    leases: u32,
}

/// How much a connection can be handed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credit {
    pub(crate) rows: usize,
    pub(crate) bytes: i64,
}

impl Mailbox {
    pub(crate) fn new(lease: Duration) -> Self {
        Self { lease, held: BTreeMap::new(), readings: Readings::default(), bytes: 0, after: 0 }
    }

    /// Room for more, once half the window is free.
    pub(crate) fn room(&self) -> Option<Credit> {
        let rows = WINDOW_ROWS - self.held.len().min(WINDOW_ROWS);
        let bytes = WINDOW_BYTES - self.bytes;
        let roomy = rows >= WINDOW_ROWS / 2 && bytes >= WINDOW_BYTES / 2;
        roomy.then_some(Credit { rows, bytes })
    }

    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }

    pub(crate) fn after(&self) -> i64 {
        self.after
    }

    /// The next claim looks at everything that is free, not only at what is new.
    pub(crate) fn look_from_start(&mut self) {
        self.after = 0;
    }

    /// Takes what was claimed, in order: whatever else is free is newer than the last of it. What is to be pushed: of a topic's
    /// messages those that it had before and has acknowledged are left out.
    pub(crate) fn take(&mut self, claimed: Vec<Claimed>, now: Timestamp) -> Vec<Claimed> {
        self.after = claimed.last().map_or(self.after, |row| row.seq);
        let is_new = |row: &Claimed| match (row.delivery, row.span) {
            (DeliveryId::Post { cursor, seq }, Some(span)) => self.readings.begin((cursor, seq), span, &row.recipient),
            _ => true,
        };
        let new: Vec<Claimed> = claimed.into_iter().filter(is_new).collect();
        for row in &new {
            self.hold(row, now);
        }
        new
    }

    /// How far it has got in topics since this was last asked.
    pub(crate) fn progress(&mut self) -> Vec<Progress> {
        self.readings.progress()
    }

    /// [`Readings::has_new_gap`].
    pub(crate) fn has_new_gap(&mut self) -> bool {
        self.readings.has_new_gap()
    }

    /// Holds a row, for the first time or once more. Leases are counted from here, a little after the store's, so that the store's
    /// has ended when ours has.
    pub(crate) fn hold(&mut self, claimed: &Claimed, now: Timestamp) {
        let leases = self.held.get(&claimed.seq).map_or(0, |held| held.leases) + 1;
        let held = Held {
            delivery: claimed.delivery,
            recipient: claimed.recipient.clone(),
            message_id: claimed.message_id.clone(),
            client_message_id: claimed.client_message_id.clone(),
            size_bytes: claimed.size_bytes,
            until: now.plus(self.next_lease(leases - 1)),
            leases,
        };
        self.bytes += held.size_bytes;
        if let Some(before) = self.held.insert(claimed.seq, held) {
            self.bytes -= before.size_bytes;
        }
    }

    /// The delivery that an ack ends, if this connection holds it. The broker's id decides when it is given; the client's own id
    /// alone means the oldest that carries it.
    pub(crate) fn acknowledge(&mut self, ack: &ClientAck) -> Option<DeliveryId> {
        let seq = match (&ack.broker_message_id, &ack.client_message_id) {
            (Some(id), _) => {
                let seq = i64::try_from(MessageId::seq_of(id)?).ok()?;
                self.held.get(&seq).filter(|held| held.message_id.as_str() == id).map(|_| seq)
            }
            (None, Some(id)) => {
                self.held.iter().find(|(_, held)| held.client_message_id.as_ref() == Some(id)).map(|(seq, _)| *seq)
            }
            (None, None) => None,
        };
        let held = self.held.remove(&seq?)?;
        self.bytes -= held.size_bytes;
        if let DeliveryId::Post { cursor, seq } = held.delivery {
            self.readings.finish(cursor, seq);
        }
        Some(held.delivery)
    }

    /// When the first lease ends.
    pub(crate) fn next_lease_end(&self) -> Option<Timestamp> {
        self.held.values().map(|held| held.until).min()
    }

    /// What to hand over again now: from the oldest row whose lease has ended on, each with its next lease.
    pub(crate) fn overdue(&self, now: Timestamp) -> Vec<(DeliveryId, Duration)> {
        let from = self.held.iter().find(|(_, held)| held.until <= now).map(|(seq, _)| *seq);
        let Some(from) = from else { return Vec::new() };
        self.held.range(from..).map(|(_, held)| (held.delivery, self.next_lease(held.leases))).collect()
    }

    /// Forgets rows that were overdue and did not come back: they ended elsewhere.
    pub(crate) fn forget(&mut self, gone: &[DeliveryId]) {
        self.held.retain(|_, held| !gone.contains(&held.delivery));
        for delivery in gone {
            if let DeliveryId::Post { cursor, seq } = delivery {
                self.readings.give_back(*cursor, *seq);
            }
        }
        self.bytes = self.held.values().map(|held| held.size_bytes).sum();
    }

    /// Everything held, for giving it back; also places in topics where something was acknowledged behind a gap.
    pub(crate) fn give_back(&mut self) -> Vec<(DeliveryId, Recipient)> {
        self.bytes = 0;
        let held = std::mem::take(&mut self.held).into_values().map(|held| (held.delivery, held.recipient));
        held.chain(std::mem::take(&mut self.readings).places()).collect()
    }

    fn next_lease(&self, leases: u32) -> Duration {
        self.lease.saturating_mul(2_u32.saturating_pow(leases)).min(LONGEST_LEASE.max(self.lease))
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_proto::{DisplayName, MemberId, Priority, PublicKey};

    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn claimed(seq: i64, size_bytes: i64) -> Claimed {
        let member: MemberId = "m1".parse().unwrap();
        Claimed {
            delivery: DeliveryId::Row(seq),
            span: None,
            seq,
            recipient: Recipient::Member(member.clone()),
            size_bytes,
            until: at(0),
            committed_at: None,
            message: std::sync::Arc::new(claudemesh_store::StoredMessage {
                message_id: MessageId::new(seq.unsigned_abs(), [7; 24]),
                sender_pubkey: PublicKey::from_bytes([1; 32]),
                sender_member_pubkey: PublicKey::from_bytes([1; 32]),
                sender_member_id: member,
                sender_name: "ann".parse::<DisplayName>().unwrap(),
                priority: Priority::Next,
                nonce: String::new(),
                ciphertext: String::new(),
                ext: None,
                client_message_id: Some(format!("c{}", seq % 2)),
                request_fingerprint: None,
                created_at: at(0),
                post: None,
                written: std::sync::OnceLock::new(),
            }),
        }
    }

    fn holding(seqs: std::ops::Range<i64>) -> Mailbox {
        let mut mailbox = Mailbox::new(LEASE);
        let rows: Vec<Claimed> = seqs.map(|seq| claimed(seq, 100)).collect();
        mailbox.take(rows, at(0));
        mailbox
    }

    fn by_broker_id(seq: i64) -> ClientAck {
        let id = MessageId::new(seq.unsigned_abs(), [7; 24]).to_string();
        ClientAck { broker_message_id: Some(id), client_message_id: Some("c1".into()) }
    }

    #[test]
    fn there_is_room_again_once_half_the_window_is_free() {
        let mut mailbox = holding(0..256);
        assert_eq!(mailbox.room(), None);
        (0..127).for_each(|seq| assert!(mailbox.acknowledge(&by_broker_id(seq)).is_some()));
        assert_eq!(mailbox.room(), None);
        mailbox.acknowledge(&by_broker_id(127));
        assert_eq!(mailbox.room().map(|room| room.rows), Some(128));
        let mut heavy = Mailbox::new(LEASE);
        heavy.hold(&claimed(1, WINDOW_BYTES), at(0));
        assert_eq!(heavy.room(), None);
    }

    #[test]
    fn the_brokers_id_decides_and_the_clients_alone_means_the_oldest() {
        let mut mailbox = holding(1..5);
        let foreign =
            ClientAck { broker_message_id: Some("00000001elsewhere".into()), client_message_id: Some("c1".into()) };
        assert_eq!(mailbox.acknowledge(&foreign), None);
        assert_eq!(mailbox.acknowledge(&by_broker_id(3)), Some(DeliveryId::Row(3)));
        let by_client_id = ClientAck { broker_message_id: None, client_message_id: Some("c1".into()) };
        assert_eq!(mailbox.acknowledge(&by_client_id), Some(DeliveryId::Row(1)));
        assert_eq!(mailbox.acknowledge(&by_client_id), None);
        assert_eq!(mailbox.acknowledge(&ClientAck::default()), None);
    }

    #[test]
    fn what_is_overdue_comes_again_from_the_lowest_on_with_doubled_leases() {
        let mut mailbox = holding(1..4);
        assert_eq!(mailbox.overdue(at(29)), vec![]);
        assert_eq!(mailbox.next_lease_end(), Some(at(30)));
        mailbox.acknowledge(&by_broker_id(1));
        let minute = Duration::from_mins(1);
        assert_eq!(mailbox.overdue(at(30)), vec![(DeliveryId::Row(2), minute), (DeliveryId::Row(3), minute)]);
        mailbox.hold(&claimed(2, 100), at(30));
        assert_eq!(mailbox.overdue(at(90)).first(), Some(&(DeliveryId::Row(2), minute * 2)));
        (0..10).for_each(|_| mailbox.hold(&claimed(2, 100), at(90)));
        assert_eq!(mailbox.overdue(at(5000)).first().map(|(_, lease)| *lease), Some(LONGEST_LEASE));
    }

    #[test]
    fn a_claim_goes_on_after_the_last_row_of_the_one_before() {
        let mut mailbox = holding(1..4);
        assert_eq!(mailbox.after(), 3);
        mailbox.hold(&claimed(9, 100), at(0));
        assert_eq!(mailbox.after(), 3);
        // Older rows came free, more than fit: what lies between them and what is held is still to be claimed.
        mailbox.take(vec![claimed(1, 100), claimed(2, 100)], at(0));
        assert_eq!(mailbox.after(), 2);
        mailbox.take(vec![], at(0));
        assert_eq!(mailbox.after(), 2);
    }

    #[test]
    fn what_ended_elsewhere_is_forgotten_with_its_bytes() {
        let mut mailbox = holding(1..4);
        mailbox.forget(&[DeliveryId::Row(2)]);
        assert_eq!(mailbox.bytes, 200);
        assert_eq!(mailbox.give_back().len(), 2);
    }
}
