//! The presences of one mesh: who comes, goes on and leaves. Who of them takes whose mail is in `turn`, who is told of it in `news`.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_proto::hello::RestoredStats;
use claudemesh_proto::presence::{Peer, PeerRole};
use claudemesh_proto::{ConnectionId, DisplayName, MemberId, PresenceId, PublicKey, Timestamp};
use claudemesh_store::Recipient;

use crate::close::Close;
use crate::hub::departures::Departures;
use crate::hub::news::{Allowance, News};
use crate::hub::occupant::{Occupant, Socket};
use crate::hub::whereabouts::Whereabouts;
use crate::hub::{Doorbell, LeaseKey, Parting, Presence, Takes};

#[derive(Debug, Default)]
pub(super) struct Room {
    departures: Departures,
    /// Beside the presences that it is counted for: telling changes nothing else.
    pub(super) allowance: Cell<Allowance>,
    pub(super) presences: HashMap<PresenceId, Occupant>,
    leases: HashMap<LeaseKey, PresenceId>,
    members: HashMap<MemberId, Vec<PresenceId>>,
    pub(super) sessions: HashMap<PublicKey, Vec<PresenceId>>,
    /// Sockets that are open.
    pub(super) open: usize,
    /// And of those how many each member has.
    open_of: HashMap<PublicKey, usize>,
    /// Counts entrances, to tell who has been connected longest.
    entrances: u64,
    /// The broker stops.
    pub(super) is_closing: bool,
}

/// What became of a connection that was seated.
pub(super) struct Seated {
    pub(super) presence_id: PresenceId,
    pub(super) doorbell: Arc<Doorbell>,
    pub(super) is_new: bool,
    pub(super) reattached: bool,
    /// The open connection that gave way.
    pub(super) predecessor: Option<Arc<Doorbell>>,
    /// Connections whose turn it was to take mail that is now this one's to take.
    pub(super) relieved: Vec<ConnectionId>,
}

impl Room {
    pub(super) fn new(departures: Departures) -> Self {
        Self { departures, ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.presences.is_empty()
    }

    /// Open sockets, without the presences whose line broke.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn is_member_online(&self, member: &MemberId, hidden_too: bool) -> bool {
        self.of_member(member).any(|occupant| occupant.is_open() && (hidden_too || !occupant.presence.is_hidden()))
    }

    /// Open sockets of a member.
    pub(super) fn open_of_key(&self, member: &PublicKey) -> usize {
        self.open_of.get(member).copied().unwrap_or_default()
    }

    pub(super) fn holds(&self, lease: &LeaseKey) -> bool {
        self.leases.contains_key(lease)
    }

    /// Seats a connection. A session takes up its lease whatever became of the old socket; a member's connection takes up a
    /// broken one, and replaces an open one.
    pub(super) fn seat(&mut self, mut presence: Presence, connection: ConnectionId, now: Timestamp) -> Seated {
        let mut reattached = false;
        let mut is_new = true;
        let mut predecessor = None;
        let mut bereft = Vec::new();
        if let Some(old) = self.leases.get(&presence.lease).cloned().and_then(|id| self.remove(&id)) {
            if let Socket::Open { doorbell, .. } = &old.socket {
                doorbell.close(Close::REPLACED);
                predecessor = Some(Arc::clone(doorbell));
            }
            bereft.push(Recipient::Member(old.presence.member_id.clone()));
            bereft.extend(old.presence.session.map(|session| Recipient::Session(session.pubkey)));
            let is_same_member = old.presence.member_id == presence.member_id;
            is_new = !is_same_member;
            if is_new {
                self.tell(News::Left, &old.presence, now);
                self.departures.add(&old.presence);
            }
            reattached = is_same_member && (presence.peer.peer_role == PeerRole::Session || !old.is_open());
            if reattached {
                presence.take_up(old.presence);
            }
        }
        let doorbell = Arc::new(Doorbell::default());
        doorbell.hear(now);
        let presence_id = presence.id.clone();
        // Whose turn it was may wait for mail that is no longer its own to take.
        let by_session = presence.session.and_then(|session| self.session_claimant(&session.pubkey));
        let before: Vec<_> = self.claimant(&presence.member_id).into_iter().chain(by_session).collect();
        before.iter().filter_map(|occupant| occupant.doorbell()).for_each(|doorbell| doorbell.ring(false));
        let relieved = before.iter().filter_map(|occupant| occupant.connection()).cloned().collect();
        self.entrances += 1;
        self.count_open(presence.peer.member_pubkey);
        self.leases.insert(presence.lease.clone(), presence_id.clone());
        self.members.entry(presence.member_id.clone()).or_default().push(presence_id.clone());
        if let Some(session) = presence.session {
            if session.proven {
                self.unbelieve(&session.pubkey);
            }
            self.sessions.entry(session.pubkey).or_default().push(presence_id.clone());
        }
        if is_new {
            self.tell(News::of_arrival(&presence), &presence, now);
        }
        let socket = Socket::Open { connection, doorbell: Arc::clone(&doorbell) };
        let occupant = Occupant { presence, entrance: self.entrances, socket };
        occupant.open_gate();
        self.presences.insert(presence_id.clone(), occupant);
        // With the old connection gone, somebody else may be next in turn, who has not been told of what came for it.
        for recipient in &bereft {
            self.ring(recipient, true);
        }
        let takes = self.takes(&presence_id);
        let relieved = if takes == Takes::default() { Vec::new() } else { relieved };
        Seated { presence_id, doorbell, is_new, reattached, predecessor, relieved }
    }

    /// Ends the oldest leases of connections that broke, until one more presence fits: a lease always fits when it is taken up
    /// again, so open and broken ones together may not be more than the open ones alone.
    pub(super) fn make_room(&mut self, member: &MemberId, (of_member, of_mesh): (usize, usize), now: Timestamp) {
        while self.members.get(member).is_some_and(|of| of.len() >= of_member) {
            let oldest = oldest_broken(self.of_member(member));
            if oldest.and_then(|id| self.end(&id, now)).is_none() {
                break;
            }
        }
        while self.presences.len() >= of_mesh {
            let oldest = oldest_broken(self.presences.values());
            if oldest.and_then(|id| self.end(&id, now)).is_none() {
                break;
            }
        }
    }

    /// A connection ended. One that was replaced in the meantime has no seat to give back.
    pub(super) fn leave(&mut self, of: &Whereabouts, parting: Parting, (now, grace): (Timestamp, Duration)) {
        let Some(occupant) = self.seated(of) else { return };
        let (member, session) = (occupant.presence.member_id.clone(), occupant.presence.session);
        match parting {
            Parting::Broken(heard) if heard.plus(grace) > now => {
                occupant.socket = Socket::Broken(heard);
                let key = occupant.presence.peer.member_pubkey;
                self.uncount_open(&key);
            }
            _ => drop(self.end(&of.presence_id, now)),
        }
        // Whoever is next in turn has not been told of what came for this one.
        self.ring(&Recipient::Member(member), true);
        if let Some(session) = session {
            self.ring(&Recipient::Session(session.pubkey), true);
        }
    }

    /// The presence of a connection, unless another has taken its seat.
    fn seated(&mut self, of: &Whereabouts) -> Option<&mut Occupant> {
        let is_its =
            |socket: &Socket| matches!(socket, Socket::Open { connection, .. } if *connection == of.connection);
        self.presences.get_mut(&of.presence_id).filter(|occupant| is_its(&occupant.socket))
    }

    /// What a member sees: everybody but those of others who hide.
    pub(super) fn peers(&self, viewer: &MemberId) -> Vec<Arc<Peer>> {
        let is_seen = |occupant: &&Occupant| !occupant.presence.is_hidden() || occupant.presence.member_id == *viewer;
        let mut occupants: Vec<&Occupant> = self.presences.values().filter(is_seen).collect();
        occupants.sort_by_key(|occupant| {
            let peer = &occupant.presence.peer;
            (peer.peer_role == PeerRole::ControlPlane, peer.connected_at, occupant.entrance)
        });
        occupants.into_iter().map(|occupant| Arc::clone(&occupant.presence.peer)).collect()
    }

    /// Whom a change is for that this presence asks for.
    pub(super) fn meant_by(&self, caller: &PresenceId) -> Vec<PresenceId> {
        let Some(own) = self.presences.get(caller) else { return Vec::new() };
        if !own.presence.is_cold() {
            return vec![caller.clone()];
        }
        let session_id = &own.presence.peer.session_id;
        let is_named = |it: &&Occupant| !session_id.is_empty() && it.presence.peer.session_id == *session_id;
        let named = self.of_member(&own.presence.member_id).filter(|it| !it.presence.is_cold()).filter(is_named);
        let named: Vec<PresenceId> = named.map(|it| it.presence.id.clone()).collect();
        if named.is_empty() {
            return self.presences_of(&own.presence.member_id);
        }
        named.into_iter().chain([caller.clone()]).collect()
    }

    pub(super) fn presences_of(&self, member: &MemberId) -> Vec<PresenceId> {
        self.members.get(member).cloned().unwrap_or_default()
    }

    pub(super) fn change(&mut self, whom: &[PresenceId], change: &mut impl FnMut(&mut Presence)) {
        for presence_id in whom {
            if let Some(occupant) = self.presences.get_mut(presence_id) {
                change(&mut occupant.presence);
                occupant.open_gate();
            }
        }
    }

    /// Changes the presence of an open connection; whether it still was that connection's.
    pub(super) fn change_seated(&mut self, of: &Whereabouts, change: impl FnOnce(&mut Presence)) -> bool {
        let Some(occupant) = self.seated(of) else { return false };
        change(&mut occupant.presence);
        occupant.open_gate();
        true
    }

    /// How many have been working for longer than they said, and are idle now.
    pub(super) fn rest(&mut self, now: Timestamp, ttl: Duration) -> usize {
        let mut rested = 0;
        for occupant in self.presences.values_mut() {
            if occupant.presence.rest(now, ttl) {
                rested += 1;
                occupant.open_gate();
            }
        }
        rested
    }

    /// What a connection that ends was called and did, as far as it was not asked for before.
    pub(super) fn sum_up(&mut self, presence: &PresenceId) -> Option<(DisplayName, RestoredStats)> {
        let presence = &mut self.presences.get_mut(presence)?.presence;
        Some((presence.peer.display_name.clone(), presence.sum_up()))
    }

    /// Every presence with its last sign of life.
    pub(super) fn heard(&self) -> impl Iterator<Item = (&Presence, Timestamp)> {
        self.presences.values().map(|occupant| (&occupant.presence, occupant.heard_at()))
    }

    /// Ends presences, says so, and has their connections closed. Mail passes to whoever is next.
    pub(super) fn expel(&mut self, whom: &[PresenceId], with: Close, now: Timestamp) -> Vec<Presence> {
        let mut expelled = Vec::with_capacity(whom.len());
        for occupant in whom.iter().filter_map(|presence_id| self.end(presence_id, now)).collect::<Vec<_>>() {
            if let Some(doorbell) = occupant.doorbell() {
                doorbell.close(with);
            }
            self.ring(&Recipient::Member(occupant.presence.member_id.clone()), true);
            if let Some(session) = occupant.presence.session {
                self.ring(&Recipient::Session(session.pubkey), true);
            }
            expelled.push(occupant.presence);
        }
        expelled
    }

    /// Ends leases whose time is over.
    pub(super) fn end_leases(&mut self, now: Timestamp, grace: Duration) {
        if self.presences.len() == self.open {
            return;
        }
        let before = now.minus(grace);
        let over = |occupant: &Occupant| matches!(occupant.socket, Socket::Broken(since) if since <= before);
        let ended: Vec<PresenceId> =
            self.presences.iter().filter(|(_, occupant)| over(occupant)).map(|(id, _)| id.clone()).collect();
        for presence_id in ended {
            self.end(&presence_id, now);
        }
    }

    /// Ends a presence, and says so.
    fn end(&mut self, presence_id: &PresenceId, now: Timestamp) -> Option<Occupant> {
        let occupant = self.remove(presence_id)?;
        self.tell(News::Left, &occupant.presence, now);
        self.departures.add(&occupant.presence);
        Some(occupant)
    }

    /// Sends everybody away; of that nothing is told, since all go.
    pub(super) fn close_all(&mut self, with: Close) {
        self.is_closing = true;
        self.presences.values().filter_map(Occupant::doorbell).for_each(|doorbell| doorbell.close(with));
    }

    pub(super) fn check_invariants(&self) {
        let open = self.presences.values().filter(|occupant| occupant.is_open()).count();
        assert_eq!(self.open, open, "open sockets are counted");
        assert_eq!(self.open_of.values().sum::<usize>(), open, "and each is some member's");
        for (key, count) in &self.open_of {
            let is_its = |it: &&Occupant| it.is_open() && it.presence.peer.member_pubkey == *key;
            assert_eq!(self.presences.values().filter(is_its).count(), *count, "a member's open sockets are counted");
        }
        assert_eq!(self.leases.len(), self.presences.len(), "one lease per presence");
        let listed =
            |index: usize| assert_eq!(index, self.presences.len(), "every presence is listed under its member");
        listed(self.members.values().map(Vec::len).sum());
        for (lease, presence_id) in &self.leases {
            let occupant = self.presences.get(presence_id);
            assert!(occupant.is_some_and(|it| it.presence.lease == *lease), "a lease names its presence");
        }
        for (key, presence_ids) in &self.sessions {
            assert!(!presence_ids.is_empty(), "no empty index entry");
            let speaks = |id: &PresenceId| {
                let session = self.presences.get(id).and_then(|occupant| occupant.presence.session);
                session.is_some_and(|session| session.pubkey == *key)
            };
            assert!(presence_ids.iter().all(speaks), "a session key names presences that speak for it");
        }
    }

    fn remove(&mut self, presence_id: &PresenceId) -> Option<Occupant> {
        let occupant = self.presences.remove(presence_id)?;
        if occupant.is_open() {
            self.uncount_open(&occupant.presence.peer.member_pubkey);
        }
        self.leases.remove(&occupant.presence.lease);
        unlist(&mut self.members, &occupant.presence.member_id, presence_id);
        if let Some(session) = occupant.presence.session {
            unlist(&mut self.sessions, &session.pubkey, presence_id);
        }
        Some(occupant)
    }

    fn count_open(&mut self, of: PublicKey) {
        self.open += 1;
        *self.open_of.entry(of).or_default() += 1;
    }

    fn uncount_open(&mut self, of: &PublicKey) {
        self.open -= 1;
        if let Some(count) = self.open_of.get_mut(of) {
            *count -= 1;
            if *count == 0 {
                self.open_of.remove(of);
            }
        }
    }

    pub(super) fn of_member(&self, member: &MemberId) -> impl Iterator<Item = &Occupant> {
        self.members.get(member).into_iter().flatten().filter_map(|id| self.presences.get(id))
    }

    pub(super) fn of_session(&self, key: &PublicKey) -> impl Iterator<Item = &Occupant> {
        self.sessions.get(key).into_iter().flatten().filter_map(|id| self.presences.get(id))
    }
}

fn unlist<K: std::hash::Hash + Eq>(index: &mut HashMap<K, Vec<PresenceId>>, key: &K, presence_id: &PresenceId) {
    if let Some(listed) = index.get_mut(key) {
        listed.retain(|id| id != presence_id);
        if listed.is_empty() {
            index.remove(key);
        }
    }
}

fn oldest_broken<'a>(occupants: impl Iterator<Item = &'a Occupant>) -> Option<PresenceId> {
    let oldest = occupants.filter(|occupant| !occupant.is_open()).min_by_key(|occupant| occupant.entrance);
    oldest.map(|occupant| occupant.presence.id.clone())
}
