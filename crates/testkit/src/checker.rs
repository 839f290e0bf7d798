//! The judge of a crash test: from the ledgers of all clients, and from what the topics hold in the end, whether the promises were
//! kept.
//!
//! - **D2**, no acked loss: what was acked has reached its recipient by the end, and a post has reached everybody in its topic but its
//!   author.
//! - **D6**, at most once: a client's id never has two message ids, acked or not.
//! - **D7**: a message id always carries the same message.
//! - **D5**, order: on each receiving connection, what one sender sent in one priority class comes in the order of acceptance. A
//!   message counts where it comes first on that connection: a redelivery restarts earlier, and is no disorder. Mail for a
//!   member with several clients is not judged: what comes late to one of them may have come to another one first.
//!   While the database fails, so do acknowledgements, and what was acknowledged in vain may come again at any time.
//!   Posts and what is sent to a key stand in one order.
//! - **D12**, history: it is numbered from 1 without gaps and holds each post once, in the order of acceptance; see `history.rs`.
//! - Nothing comes that nobody sent, changed, or to somebody else.
//!
//! Which of two messages was accepted first is known from the sender's ledger alone, in two cases: the one was acked before the
//! other was sent; or both were first sent on the same connection, whose frames a broker takes in order. The second says nothing of
//! a message that was refused for the moment and sent again, nor, while the database itself may fail, of one whose first answer was
//! lost.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use claudemesh_proto::{MeshId, MessageId, Priority, PublicKey};

use crate::history::{self, History};
use crate::ledger::{Entry, Owner, Target};
use crate::order::{Order, Placed};
pub use crate::verdict::{Breach, Tally};

/// A ledger with the name of its client.
#[derive(Debug, Clone)]
pub struct Account {
    /// For people.
    pub name: String,
    /// What it says.
    pub entries: Vec<Entry>,
}

/// What the run did to the broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trouble {
    /// The broker alone was stopped: while it ran, it took every message.
    #[default]
    Broker,
    /// The database failed too: any message may have been refused, and the refusal lost.
    Database,
}

/// Reads the ledgers of a whole run, and what the topics hold at its end, against each other.
///
/// # Errors
/// Every breach.
pub fn check(accounts: &[Account], histories: &[History], trouble: Trouble) -> Result<Tally, Vec<Breach>> {
    let mut court = Court { trouble, ..Court::default() };
    for account in accounts {
        court.hear_sender(account);
    }
    for account in accounts {
        court.hear_recipient(account);
    }
    for history in histories {
        court.breaches.extend(history::judge(history, &mut court.sendings, trouble));
    }
    court.judge();
    if court.breaches.is_empty() { Ok(court.tally) } else { Err(court.breaches) }
}

/// A message as its sender knows it.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) client: String,
    pub(crate) mesh: MeshId,
    member: PublicKey,
    pub(crate) target: Target,
    priority: Priority,
    pub(crate) digest: String,
    /// Where it was sent first: connection, line.
    first: (u32, usize),
    times: usize,
    /// Where it was acked first.
    acked: Option<(u32, usize)>,
    was_refused: bool,
    /// Every message id that it was ever seen with.
    pub(crate) messages: BTreeSet<MessageId>,
    received_by: HashSet<PublicKey>,
}

impl Sending {
    /// Whether it was for a client of this owner.
    fn is_for(&self, owner: &Owner) -> bool {
        match self.target {
            Target::Key(key) => key == owner.key || key == owner.member,
            Target::General => self.mesh == owner.mesh && self.member != owner.member,
        }
    }

    pub(crate) fn placed(&self, trouble: Trouble) -> Placed {
        let is_fixed = !self.was_refused
            && (trouble == Trouble::Broker || self.acked.map(|(connection, _)| connection) == Some(self.first.0));
        Placed { target: self.target, first: self.first, acked: self.acked.map(|(_, line)| line), is_fixed }
    }
}

/// A sender's key and a client's own id.
pub(crate) type Key = (PublicKey, String);

#[derive(Debug, Default)]
struct Court {
    trouble: Trouble,
    sendings: BTreeMap<Key, Sending>,
    /// Whose ledgers there are.
    owners: Vec<Owner>,
    /// What each message id was first seen with.
    contents: HashMap<MessageId, Key>,
    tally: Tally,
    breaches: Vec<Breach>,
}

impl Court {
    fn hear_sender(&mut self, account: &Account) {
        let client = &account.name;
        let Some(owner) = self.owner(account) else { return };
        self.owners.push(owner.clone());
        let mut connections = HashSet::new();
        for (line, entry) in account.entries.iter().enumerate() {
            match entry {
                Entry::Sent { id, target, priority, digest, connection } => {
                    connections.insert(*connection);
                    let sending = self.sendings.entry((owner.key, id.clone())).or_insert_with(|| Sending {
                        client: client.clone(),
                        mesh: owner.mesh.clone(),
                        member: owner.member,
                        target: *target,
                        priority: *priority,
                        digest: digest.clone(),
                        first: (*connection, line),
                        times: 0,
                        acked: None,
                        was_refused: false,
                        messages: BTreeSet::new(),
                        received_by: HashSet::new(),
                    });
                    sending.times += 1;
                    if (sending.target, sending.priority, &sending.digest) != (*target, *priority, digest) {
                        let why = format!("{id} was sent with other content");
                        self.breaches.push(Breach::Nonsense { client: client.clone(), why });
                    }
                }
                Entry::Acked { id, message, connection } => {
                    let Some(sending) = self.sendings.get_mut(&(owner.key, id.clone())) else {
                        let why = format!("{id} was acked and not sent");
                        self.breaches.push(Breach::Nonsense { client: client.clone(), why });
                        continue;
                    };
                    sending.acked.get_or_insert((*connection, line));
                    sending.messages.insert(message.clone());
                    let key = (owner.key, id.clone());
                    if self.contents.entry(message.clone()).or_insert_with(|| key.clone()) != &key {
                        let (client, message) = (client.clone(), message.clone());
                        self.breaches.push(Breach::Altered { client, message, what: "sending" });
                    }
                }
                Entry::Refused { id, .. } => {
                    self.tally.refused += 1;
                    if let Some(sending) = self.sendings.get_mut(&(owner.key, id.clone())) {
                        sending.was_refused = true;
                    }
                }
                Entry::Received { connection, .. } | Entry::ClientAcked { connection, .. } => {
                    connections.insert(*connection);
                }
                Entry::Opened(_) => {}
            }
        }
        self.tally.connections += connections.len();
    }

    fn owner(&mut self, account: &Account) -> Option<Owner> {
        if let Some(Entry::Opened(owner)) = account.entries.first() {
            return Some(owner.clone());
        }
        let why = "its first line does not say whose it is".to_owned();
        self.breaches.push(Breach::Nonsense { client: account.name.clone(), why });
        None
    }

    fn hear_recipient(&mut self, account: &Account) {
        let Some(Entry::Opened(owner)) = account.entries.first() else { return };
        let is_alone = self.owners.iter().filter(|other| other.member == owner.member).count() == 1;
        let mut orders: HashMap<(u32, PublicKey, Priority), Order> = HashMap::new();
        let mut noted: HashSet<&MessageId> = HashSet::new();
        let mut here: HashSet<(u32, &MessageId)> = HashSet::new();
        for entry in &account.entries {
            match entry {
                Entry::Received { message, connection, sender, priority, .. } => {
                    let is_first = noted.insert(message);
                    let Some(placed) = self.receive(&account.name, owner, entry) else { continue };
                    let is_for_session = matches!(placed.target, Target::Key(key) if key != owner.member);
                    let is_judged = (is_alone || is_for_session) && (is_first || self.trouble == Trouble::Broker);
                    if here.insert((*connection, message)) && is_judged {
                        let order = orders.entry((*connection, *sender, *priority)).or_default();
                        if let Some(after) = order.take(message, &placed) {
                            let (client, message) = (account.name.clone(), message.clone());
                            self.breaches.push(Breach::Reordered { client, connection: *connection, message, after });
                        }
                    }
                }
                Entry::ClientAcked { message, .. } if !noted.contains(message) => {
                    let why = format!("{message} was acknowledged before it was noted");
                    self.breaches.push(Breach::Nonsense { client: account.name.clone(), why });
                }
                _ => {}
            }
        }
    }

    /// Compares one reception with what was sent; where the message stands in its sender's order.
    fn receive(&mut self, client: &str, owner: &Owner, entry: &Entry) -> Option<Placed> {
        let Entry::Received { message, id, sender, priority, digest, .. } = entry else { return None };
        let client = || client.to_owned();
        let key = id.clone().map(|id| (*sender, id));
        let Some((key, sending)) = key.and_then(|key| Some((key.clone(), self.sendings.get_mut(&key)?))) else {
            self.breaches.push(Breach::Forged { client: client(), message: message.clone(), id: id.clone() });
            return None;
        };
        if !sending.received_by.insert(owner.member) {
            self.tally.repeated += 1;
        }
        sending.messages.insert(message.clone());
        let altered = |what| Breach::Altered { client: client(), message: message.clone(), what };
        if sending.digest != *digest {
            self.breaches.push(altered("body"));
        }
        if sending.priority != *priority {
            self.breaches.push(altered("priority"));
        }
        if self.contents.entry(message.clone()).or_insert_with(|| key.clone()) != &key {
            self.breaches.push(altered("sending"));
        }
        if !sending.is_for(owner) {
            self.breaches.push(Breach::Misdelivered { client: client(), message: message.clone() });
        }
        Some(sending.placed(self.trouble))
    }

    fn judge(&mut self) {
        for ((_, id), sending) in &self.sendings {
            self.tally.sent += 1;
            self.tally.retried += usize::from(sending.times > 1);
            self.tally.acked += usize::from(sending.acked.is_some());
            self.tally.posts += usize::from(sending.acked.is_some() && sending.target == Target::General);
            let was_received = !sending.received_by.is_empty();
            self.tally.received += usize::from(was_received);
            self.tally.unacked_received += usize::from(was_received && sending.acked.is_none());
            // Of a member's connections one gets what is for the member: a key is reached by any of its member's.
            let is_missing = match sending.target {
                Target::Key(_) => !was_received,
                Target::General => {
                    let mut readers = self.owners.iter().filter(|owner| sending.is_for(owner));
                    readers.any(|owner| !sending.received_by.contains(&owner.member))
                }
            };
            let (client, id) = (sending.client.clone(), id.clone());
            if sending.messages.len() > 1 {
                let messages = sending.messages.iter().cloned().collect();
                self.breaches.push(Breach::Doubled { client: client.clone(), id: id.clone(), messages });
            }
            if let (Some(_), true, Some(message)) = (sending.acked, is_missing, sending.messages.first()) {
                self.breaches.push(Breach::Lost { client, id, message: message.clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_proto::MeshId;

    use super::*;

    const ANNA: PublicKey = PublicKey::from_bytes([1; 32]);
    const BEN: PublicKey = PublicKey::from_bytes([2; 32]);
    const EVE: PublicKey = PublicKey::from_bytes([3; 32]);

    fn message(seq: u64) -> MessageId {
        MessageId::new(seq, [7; 24])
    }

    fn account(key: PublicKey, entries: Vec<Entry>) -> Account {
        let owner = Owner { mesh: MeshId::from_random([1; 32]), member: key, key };
        Account { name: key.to_string(), entries: [vec![Entry::Opened(owner)], entries].concat() }
    }

    fn sent(id: &str, connection: u32) -> Entry {
        let (id, digest) = (id.to_owned(), format!("body of {id}"));
        Entry::Sent { id, target: Target::Key(BEN), priority: Priority::Next, digest, connection }
    }

    fn acked(id: &str, seq: u64, connection: u32) -> Entry {
        Entry::Acked { id: id.to_owned(), message: message(seq), connection }
    }

    fn refused(id: &str, connection: u32) -> Entry {
        Entry::Refused { id: id.to_owned(), why: "temporarily unavailable".to_owned(), connection }
    }

    fn received(id: &str, seq: u64, connection: u32) -> Entry {
        Entry::Received {
            message: message(seq),
            id: Some(id.to_owned()),
            sender: ANNA,
            priority: Priority::Next,
            digest: format!("body of {id}"),
            connection,
        }
    }

    fn judged(trouble: Trouble, anna: Vec<Entry>, ben: Vec<Entry>) -> Result<Tally, Vec<Breach>> {
        check(&[account(ANNA, anna), account(BEN, ben), account(EVE, Vec::new())], &[], trouble)
    }

    #[track_caller]
    fn breach(anna: Vec<Entry>, ben: Vec<Entry>) -> Breach {
        let breaches = judged(Trouble::Broker, anna, ben).unwrap_err();
        assert_eq!(breaches.len(), 1, "{breaches:?}");
        breaches.into_iter().next().unwrap()
    }

    #[test]
    fn a_clean_run_passes_and_is_counted() {
        let anna = vec![sent("a", 1), sent("b", 1), acked("a", 1, 1), sent("b", 2), sent("c", 2), acked("b", 2, 2)];
        let redelivered = received("a", 1, 2);
        let ben = vec![received("a", 1, 1), redelivered, received("b", 2, 2), received("c", 3, 2)];
        let tally = judged(Trouble::Broker, anna, ben).unwrap();
        let counted = Tally {
            sent: 3,
            retried: 1,
            acked: 2,
            posts: 0,
            refused: 0,
            received: 3,
            repeated: 1,
            unacked_received: 1,
            connections: 4,
        };
        assert_eq!(tally, counted);
    }

    #[test]
    fn an_unacked_message_may_be_missing_and_an_acked_one_may_not() {
        assert!(judged(Trouble::Broker, vec![sent("a", 1)], vec![]).is_ok());
        assert!(matches!(breach(vec![sent("a", 1), acked("a", 1, 1)], vec![]), Breach::Lost { .. }));
    }

    #[test]
    fn two_message_ids_for_one_client_id_are_refused() {
        let anna = vec![sent("a", 1), acked("a", 1, 1)];
        let twice = vec![received("a", 1, 1), received("a", 2, 1)];
        assert!(matches!(breach(anna.clone(), twice), Breach::Doubled { .. }));
        let twice_acked = [anna, vec![sent("a", 2), acked("a", 2, 2)]].concat();
        assert!(matches!(breach(twice_acked, vec![received("a", 1, 1)]), Breach::Doubled { .. }));
        let unacked_twice = vec![received("a", 1, 1), received("a", 2, 2)];
        assert!(matches!(breach(vec![sent("a", 1)], unacked_twice), Breach::Doubled { .. }));
    }

    #[test]
    fn what_comes_in_another_order_is_refused() {
        let reordered = |breach| matches!(breach, Breach::Reordered { .. });
        // By the line: both were first sent on one connection.
        let anna = vec![sent("a", 1), sent("b", 1), acked("a", 1, 1), acked("b", 2, 1)];
        assert!(reordered(breach(anna, vec![received("b", 2, 1), received("a", 1, 1)])));
        // Also without acks, which a crash took.
        let anna = vec![sent("a", 1), sent("b", 1)];
        assert!(reordered(breach(anna, vec![received("b", 2, 1), received("a", 1, 1)])));
        // By the ack: the second was sent when the first was known to be accepted.
        let anna = vec![sent("a", 1), acked("a", 1, 1), sent("b", 2), acked("b", 2, 2)];
        assert!(reordered(breach(anna.clone(), vec![received("b", 2, 1), received("a", 1, 1)])));
        // Another connection of the recipient starts anew.
        assert!(judged(Trouble::Broker, anna, vec![received("b", 2, 1), received("a", 1, 2)]).is_ok());
    }

    #[test]
    fn a_redelivery_is_no_disorder() {
        let anna = vec![sent("a", 1), sent("b", 1), acked("a", 1, 1), acked("b", 2, 1)];
        let ben = vec![received("a", 1, 1), received("b", 2, 1), received("a", 1, 1), received("b", 2, 1)];
        assert!(judged(Trouble::Broker, anna, ben).is_ok());
    }

    #[test]
    fn mail_of_a_member_with_two_clients_may_pass_from_one_to_the_other() {
        let anna = vec![sent("a", 1), sent("b", 1), acked("a", 1, 1), acked("b", 2, 1)];
        let owner = Owner { mesh: MeshId::from_random([1; 32]), member: BEN, key: EVE };
        let session =
            |entries| Account { name: "session".into(), entries: [vec![Entry::Opened(owner)], entries].concat() };
        let late = account(BEN, vec![received("b", 2, 1), received("a", 1, 1)]);
        let accounts = [account(ANNA, anna), session(vec![received("a", 1, 1)]), late];
        assert!(check(&accounts, &[], Trouble::Broker).is_ok());
    }

    #[test]
    fn order_is_not_claimed_where_it_is_not_known() {
        let ben = || vec![received("b", 1, 1), received("a", 2, 1)];
        // Refused for the moment, and sent again after the other one.
        let anna = vec![sent("a", 1), sent("b", 1), refused("a", 1), acked("b", 1, 1), sent("a", 1), acked("a", 2, 1)];
        assert!(judged(Trouble::Broker, anna, ben()).is_ok());
        // The answer was lost; a database that failed may have refused it.
        let anna = vec![sent("a", 1), sent("b", 1), acked("b", 1, 1), sent("a", 2), acked("a", 2, 2)];
        assert!(judged(Trouble::Database, anna.clone(), ben()).is_ok());
        assert!(judged(Trouble::Broker, anna, ben()).is_err());
    }

    #[test]
    fn what_nobody_sent_is_refused() {
        assert!(matches!(breach(vec![], vec![received("a", 1, 1)]), Breach::Forged { .. }));
        let nameless = match received("a", 1, 1) {
            Entry::Received { message, sender, priority, digest, connection, .. } => {
                Entry::Received { message, id: None, sender, priority, digest, connection }
            }
            other => other,
        };
        assert!(matches!(breach(vec![sent("a", 1)], vec![nameless]), Breach::Forged { .. }));
        let by_eve = match received("a", 1, 1) {
            Entry::Received { message, id, priority, digest, connection, .. } => {
                Entry::Received { message, id, sender: EVE, priority, digest, connection }
            }
            other => other,
        };
        assert!(matches!(breach(vec![sent("a", 1)], vec![by_eve]), Breach::Forged { .. }));
    }

    #[test]
    fn another_body_or_another_message_under_an_id_is_refused() {
        let changed = match received("a", 1, 1) {
            Entry::Received { message, id, sender, priority, connection, .. } => {
                Entry::Received { message, id, sender, priority, digest: "other".into(), connection }
            }
            other => other,
        };
        assert!(matches!(breach(vec![sent("a", 1)], vec![changed]), Breach::Altered { what: "body", .. }));
        let anna = vec![sent("a", 1), sent("b", 1)];
        let one_id = vec![received("a", 1, 1), received("b", 1, 2)];
        assert!(matches!(breach(anna, one_id), Breach::Altered { what: "sending", .. }));
        let anna = vec![sent("a", 1), sent("b", 1), acked("a", 1, 1), acked("b", 1, 1)];
        let ben = vec![received("a", 1, 1)];
        assert!(judged(Trouble::Broker, anna, ben).is_err());
    }

    #[test]
    fn mail_for_somebody_else_is_refused() {
        let accounts = [account(ANNA, vec![sent("a", 1)]), account(EVE, vec![received("a", 1, 1)])];
        let breaches = check(&accounts, &[], Trouble::Broker).unwrap_err();
        assert!(matches!(breaches[..], [Breach::Misdelivered { .. }]), "{breaches:?}");
    }

    #[test]
    fn a_post_is_for_everybody_but_its_author() {
        let posted = |id: &str| match sent(id, 1) {
            Entry::Sent { id, priority, digest, connection, .. } => {
                Entry::Sent { id, target: Target::General, priority, digest, connection }
            }
            other => other,
        };
        let anna = || account(ANNA, vec![posted("a"), acked("a", 1, 1)]);
        let reader = |key| account(key, vec![received("a", 1, 1), received("a", 1, 1)]);
        let tally = check(&[anna(), reader(BEN), reader(EVE)], &[], Trouble::Broker).unwrap();
        assert_eq!((tally.posts, tally.received, tally.repeated), (1, 1, 2));
        let breaches = check(&[anna(), reader(BEN), account(EVE, Vec::new())], &[], Trouble::Broker).unwrap_err();
        assert!(matches!(breaches[..], [Breach::Lost { .. }]), "{breaches:?}");
        let own = account(ANNA, vec![posted("a"), acked("a", 1, 1), received("a", 1, 1)]);
        let breaches = check(&[own, reader(BEN), reader(EVE)], &[], Trouble::Broker).unwrap_err();
        assert!(matches!(breaches[..], [Breach::Misdelivered { .. }]), "{breaches:?}");
        let mixed = account(ANNA, vec![posted("a"), sent("b", 1), acked("a", 1, 1), acked("b", 2, 1)]);
        let late = account(BEN, vec![received("b", 2, 1), received("a", 1, 1)]);
        let breaches = check(&[mixed, late], &[], Trouble::Broker).unwrap_err();
        assert!(matches!(breaches[..], [Breach::Reordered { .. }]), "{breaches:?}");
    }

    #[test]
    fn a_ledger_that_makes_no_sense_is_refused() {
        assert!(matches!(breach(vec![acked("a", 1, 1)], vec![]), Breach::Nonsense { .. }));
        let early = vec![Entry::ClientAcked { message: message(1), connection: 1 }, received("a", 1, 1)];
        assert!(matches!(breach(vec![sent("a", 1)], early), Breach::Nonsense { .. }));
        let headless = Account { name: "x".into(), entries: Vec::new() };
        assert!(check(&[headless], &[], Trouble::Broker).is_err());
    }
}
