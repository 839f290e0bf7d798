//! What has to be true of a mesh's messages, and how one step of a life changes it: the small model of T1. It knows nothing of tables.

use std::collections::BTreeMap;

use claudemesh_proto::grant::Capability;
use claudemesh_proto::{ConnectionId, DeliveryState, GroupName, MessageId, Priority, Target};
use claudemesh_store::{Appended, Claim, Claimed, GrantsSet, NewMessage, Regrouped, Settled, Store};

use crate::ground::Ground;
use crate::people::{Person, Town, fresh_connection, kept, texts};

pub(crate) const PEOPLE: usize = 3;
pub(crate) const CONNECTIONS: usize = 3;
/// A group and one below it: what is for the first reaches the second.
const GROUPS: [&str; 2] = ["team", "team/night"];
/// What a member may let Ada do; nothing said is what everybody may.
const GRANTS: [Option<&[Capability]>; 4] = [None, Some(&[]), Some(&[Capability::Dm]), Some(&[Capability::Broadcast])];

/// Whom a message is for. Ada sends them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    Person(usize),
    All,
    Group(usize),
}

/// What somebody does.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Append { aim: Aim, client_id: Option<u8>, fingerprint: Option<u8>, urgent: bool, bytes: usize },
    Claim { whose: usize, connection: usize, urgent_only: bool, max_rows: usize, max_bytes: i64 },
    SettleHeld { connection: usize },
    SettleMessage { nth: usize, by: usize },
    Release { connection: usize },
    Join { who: usize, group: usize },
    Leave { who: usize, group: usize },
    Grant { who: usize, said: usize },
}

/// What has to be true of one message.
struct Expected {
    id: MessageId,
    aim: Aim,
    text: String,
    urgent: bool,
    client: Option<(u8, Option<u8>)>,
    rows: Vec<Row>,
    /// It has been through one expiry.
    is_old: bool,
}

/// What has to be true of it with one recipient.
struct Row {
    to: usize,
    state: DeliveryState,
    holder: Option<usize>,
}

/// One mesh, in the store and in the model.
pub(crate) struct Life {
    town: Town,
    people: [Person; PEOPLE],
    connections: [ConnectionId; CONNECTIONS],
    held: [Vec<Claimed>; CONNECTIONS],
    expected: Vec<Expected>,
    /// Of each of [`GROUPS`], who is in it.
    members: [[bool; PEOPLE]; 2],
    grants: [usize; PEOPLE],
}

impl Life {
    pub(crate) async fn begin(store: &Store) -> Self {
        let town = Town::found(store).await;
        let people = [town.ada.clone(), town.bob.clone(), town.join().await];
        Self {
            town,
            people,
            connections: std::array::from_fn(|_| fresh_connection()),
            held: Default::default(),
            expected: Vec::new(),
            members: Default::default(),
            grants: [0; PEOPLE],
        }
    }

    pub(crate) async fn take(&mut self, step: Step) {
        match step {
            Step::Append { aim, client_id, fingerprint, urgent, bytes } => {
                self.append(aim, client_id.map(|id| (id, fingerprint)), (urgent, bytes)).await;
            }
            Step::Claim { whose, connection, urgent_only, max_rows, max_bytes } => {
                let wish = self.town.wish(self.people[whose].recipient(), &self.connections[connection]);
                self.claim(whose, connection, Claim { urgent_only, max_rows, max_bytes, ..wish }).await;
            }
            Step::SettleHeld { connection } => {
                let Some(row) = self.held[connection].pop() else { return };
                let to = self.people.iter().position(|person| person.recipient() == row.recipient).unwrap();
                self.town.settle_by(&self.people[to], Settled::Held(row.delivery)).await;
                self.end(&row.message_id, to);
            }
            Step::SettleMessage { nth, by } => {
                let Some(Expected { id, .. }) = self.expected.get(nth) else { return };
                let id = id.clone();
                let which = Settled::Message(id.clone(), vec![self.people[by].recipient()]);
                self.town.settle_by(&self.people[by], which).await;
                self.end(&id, by);
            }
            Step::Release { connection } => self.release(connection).await,
            Step::Join { who, group } => self.regroup(who, group, true).await,
            Step::Leave { who, group } => self.regroup(who, group, false).await,
            Step::Grant { who, said } => {
                let said_of = GRANTS[said].map(|said| said.iter().copied().collect());
                let changes = BTreeMap::from([(self.people[0].key, said_of)]);
                let set = self.town.store.set_grants((&self.town.mesh, &self.people[who].id), &changes).await;
                assert!(matches!(set.unwrap(), GrantsSet::Done(_)));
                self.grants[who] = said;
            }
        }
    }

    /// The lease of every claim ended, or the broker was started again.
    pub(crate) fn lose_claims(&mut self) {
        self.expected.iter_mut().flat_map(|one| &mut one.rows).for_each(|row| row.holder = None);
    }

    /// What waited has expired, and what had expired before is gone.
    pub(crate) fn expire(&mut self) {
        self.expected.retain(|one| !one.is_old);
        for one in &mut self.expected {
            one.is_old = true;
            for row in one.rows.iter_mut().filter(|row| row.state == DeliveryState::Queued) {
                (row.state, row.holder) = (DeliveryState::Expired, None);
            }
        }
    }

    pub(crate) fn go_on_with(&mut self, store: &Store) {
        self.town.store = store.clone();
    }

    async fn regroup(&mut self, who: usize, group: usize, joins: bool) {
        let whose = (&self.town.mesh, &self.people[who].id);
        let name: GroupName = GROUPS[group].parse().unwrap();
        let regrouped = if joins {
            self.town.store.join_group(whose, &name, None).await
        } else {
            self.town.store.leave_group(whose, &name).await
        };
        let changes = self.members[group][who] != joins;
        assert_eq!(matches!(regrouped.unwrap(), Regrouped::Changed(_)), changes);
        self.members[group][who] = joins;
    }

    async fn release(&mut self, connection: usize) {
        let rows = std::mem::take(&mut self.held[connection]);
        self.town.release(&self.connections[connection], &rows).await;
        for held in rows {
            let one = self.expected.iter_mut().find(|one| one.id == held.message_id);
            let rows = one.into_iter().flat_map(|one| &mut one.rows);
            let is_it = |row: &&mut Row| self.people[row.to].recipient() == held.recipient;
            rows.filter(is_it).filter(|row| row.holder == Some(connection)).for_each(|row| row.holder = None);
        }
    }

    fn end(&mut self, id: &MessageId, to: usize) {
        let rows = self.expected.iter_mut().filter(|one| one.id == *id).flat_map(|one| &mut one.rows);
        for row in rows.filter(|row| row.to == to && row.state == DeliveryState::Queued) {
            (row.state, row.holder) = (DeliveryState::Delivered, None);
        }
    }

    /// Whether somebody lets Ada reach it so.
    fn wants(&self, who: usize, aim: Aim) -> bool {
        let needed = if matches!(aim, Aim::Person(_)) { Capability::Dm } else { Capability::Broadcast };
        GRANTS[self.grants[who]].is_none_or(|said| said.contains(&needed))
    }

    /// Who gets what is sent now.
    fn audience(&self, aim: Aim) -> Vec<usize> {
        let is_meant = |who: &usize| match aim {
            Aim::Person(to) => *who == to,
            Aim::All => *who != 0,
            // What is for a group reaches those in a group below it.
            Aim::Group(group) => *who != 0 && (group..GROUPS.len()).any(|below| self.members[below][*who]),
        };
        (0..PEOPLE).filter(is_meant).filter(|who| self.wants(*who, aim)).collect()
    }

    async fn append(&mut self, aim: Aim, client: Option<(u8, Option<u8>)>, (urgent, bytes): (bool, usize)) {
        let text = "x".repeat(bytes);
        let target = match aim {
            Aim::Person(to) => Target::Key(self.people[to].key),
            Aim::All => Target::Everybody,
            Aim::Group(group) => Target::Group(GROUPS[group].parse().unwrap()),
        };
        let letter = NewMessage {
            target,
            client_message_id: client.map(|(id, _)| id.to_string()),
            request_fingerprint: client.and_then(|(_, fingerprint)| fingerprint).map(|number| number.to_string()),
            priority: if urgent { Priority::Now } else { Priority::Low },
            ..self.town.letter(&self.people[0], self.people[0].key, &text)
        };
        let outcome = self.town.append(letter).await.unwrap();
        let has_its_id = |one: &&Expected| client.is_some() && one.client.map(|it| it.0) == client.map(|it| it.0);
        let Some(first) = self.expected.iter().find(has_its_id) else {
            let audience = self.audience(aim);
            if audience.is_empty() && matches!(aim, Aim::Person(_)) {
                return assert_eq!(outcome, Appended::Blocked);
            }
            let row = |to| Row { to, state: DeliveryState::Queued, holder: None };
            let rows = audience.into_iter().map(row).collect();
            self.expected.push(Expected { id: kept(outcome), aim, text, urgent, client, rows, is_old: false });
            return;
        };
        let fingerprint = client.and_then(|it| it.1);
        let same = first.client.and_then(|it| it.1) == fingerprint
            && (fingerprint.is_some() || (first.aim == aim && first.text == text));
        assert_eq!(outcome, if same { Appended::Kept(first.id.clone()) } else { Appended::Reused });
    }

    async fn claim(&mut self, whose: usize, connection: usize, claim: Claim) {
        let mut expected = Vec::new();
        let mut bytes = 0;
        let wanted: Vec<bool> = self.expected.iter().map(|one| self.wants(whose, one.aim)).collect();
        for (one, is_wanted) in self.expected.iter_mut().zip(wanted) {
            let is_free =
                |row: &&mut Row| row.to == whose && row.state == DeliveryState::Queued && row.holder.is_none();
            let Some(row) = one.rows.iter_mut().find(is_free) else { continue };
            if !is_wanted || claim.urgent_only && !one.urgent {
                continue;
            }
            let size = i64::try_from(one.text.len() + 8).unwrap();
            if expected.len() == claim.max_rows || !expected.is_empty() && bytes + size > claim.max_bytes {
                break;
            }
            bytes += size;
            row.holder = Some(connection);
            expected.push(one.id.clone());
        }
        let rows = self.town.store.claim(claim).await.await.unwrap();
        assert_eq!(rows.iter().map(|row| row.message_id.clone()).collect::<Vec<_>>(), expected);
        self.held[connection].extend(rows);
    }

    /// Everything the model knows is what the store says.
    pub(crate) async fn agree(&self, ground: &Ground) {
        let mut queued = 0;
        for one in &self.expected {
            let path = self.town.store.message_path(&self.town.mesh, one.id.as_str()).await.unwrap().unwrap();
            let mut said: Vec<_> = path.steps.iter().map(|step| (step.member_id.to_string(), step.state)).collect();
            let state = |row: &Row| row.holder.map_or(row.state, |_| DeliveryState::Claimed);
            let known = one.rows.iter().map(|row| (self.people[row.to].id.to_string(), state(row)));
            let mut known: Vec<_> = known.collect();
            said.sort_by(|one, other| one.0.cmp(&other.0));
            known.sort_by(|one, other| one.0.cmp(&other.0));
            assert_eq!(said, known);
            queued += i64::try_from(one.rows.iter().filter(|row| row.state == DeliveryState::Queued).count()).unwrap();
        }
        let count = format!(
            "select cast(coalesce(sum(queued_rows), 0) as bigint) from backlog where mesh_id = '{}'",
            self.town.mesh
        );
        assert_eq!(ground.number(&count).await, queued);
    }

    /// After every lease has ended, what waits for somebody who wants it can be claimed: nothing is lost (D2).
    pub(crate) async fn hand_out_the_rest(&self) {
        for (whose, person) in self.people.iter().enumerate() {
            let rows = self.town.claim(person.recipient(), &fresh_connection()).await;
            let waits = |one: &&Expected| {
                let is_left = |row: &Row| row.to == whose && row.state == DeliveryState::Queued;
                self.wants(whose, one.aim) && one.rows.iter().any(is_left)
            };
            let left = self.expected.iter().filter(waits).map(|one| one.text.clone());
            assert_eq!(texts(&rows), left.collect::<Vec<_>>());
        }
    }
}
