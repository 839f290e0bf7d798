//! The presences of one mesh, and who of them takes whose mail.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_proto::hello::RestoredStats;
use claudemesh_proto::presence::{Peer, PeerRole};
use claudemesh_proto::{ConnectionId, DisplayName, MemberId, PresenceId, PublicKey, Status, Timestamp};
use claudemesh_store::Recipient;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::close::Close;
use crate::hub::departures::Departures;
use crate::hub::news::{self, Allowance, News};
use crate::hub::whereabouts::Whereabouts;
use crate::hub::{Doorbell, LeaseKey, Parting, Presence, Takes};

#[derive(Debug, Default)]
pub(super) struct Room {
    departures: Departures,
    /// Beside the presences that it is counted for: telling changes nothing else.
    allowance: Cell<Allowance>,
    presences: HashMap<PresenceId, Occupant>,
    leases: HashMap<LeaseKey, PresenceId>,
    members: HashMap<MemberId, Vec<PresenceId>>,
    sessions: HashMap<PublicKey, Vec<PresenceId>>,
    /// Sockets that are open.
    open: usize,
    /// Counts entrances, to tell who has been connected longest.
    entrances: u64,
    /// The broker stops.
    is_closing: bool,
}

#[derive(Debug)]
struct Occupant {
    presence: Presence,
    entrance: u64,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Open {
        connection: ConnectionId,
        doorbell: Arc<Doorbell>,
    },
    /// The last sign of life.
    Broken(Timestamp),
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

impl Occupant {
    fn doorbell(&self) -> Option<&Doorbell> {
        match &self.socket {
            Socket::Open { doorbell, .. } => Some(doorbell),
            Socket::Broken(_) => None,
        }
    }

    fn connection(&self) -> Option<&ConnectionId> {
        match &self.socket {
            Socket::Open { connection, .. } => Some(connection),
            Socket::Broken(_) => None,
        }
    }

    /// Its last sign of life.
    fn heard_at(&self) -> Timestamp {
        match &self.socket {
            Socket::Open { doorbell, .. } => doorbell.heard_at(),
            Socket::Broken(heard) => *heard,
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.socket, Socket::Open { .. })
    }

    /// Lets it have what its status allows now.
    fn open_gate(&self) {
        if let Some(doorbell) = self.doorbell() {
            doorbell.set_busy(self.presence.is_busy());
        }
    }

    fn takes_mail(&self) -> bool {
        self.is_open() && !self.presence.is_quiet
    }

    /// Whose turn it is to take the member's mail: a daemon first, then sessions, then a command that runs for a moment; among
    /// equals whoever came first.
    fn turn(&self) -> (u8, u64) {
        let class = match (self.presence.peer.peer_role, self.presence.session) {
            (PeerRole::ControlPlane, None) => 0,
            (PeerRole::Session, _) => 1,
            (PeerRole::ControlPlane, Some(_)) => 2,
        };
        (class, self.entrance)
    }
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
        let is_its = |occupant: &&Occupant| occupant.presence.peer.member_pubkey == *member;
        self.presences.values().filter(is_its).filter(|occupant| occupant.is_open()).count()
    }

    pub(super) fn holds(&self, lease: &LeaseKey) -> bool {
        self.leases.contains_key(lease)
    }

    pub(super) fn has_other(&self, member: &MemberId, than: &PresenceId) -> bool {
        self.of_member(member).any(|occupant| occupant.takes_mail() && occupant.presence.id != *than)
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
        self.open += 1;
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

    /// Somebody has proven the key: whoever only named it no longer takes its mail.
    fn unbelieve(&mut self, key: &PublicKey) {
        for presence_id in self.sessions.get(key).into_iter().flatten() {
            if let Some(occupant) = self.presences.get_mut(presence_id) {
                occupant.presence.speaks_for_session = occupant.presence.session.is_some_and(|session| session.proven);
            }
        }
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
                self.open -= 1;
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

    pub(super) fn ring(&self, recipient: &Recipient, from_start: bool) {
        match recipient {
            Recipient::Member(member) => {
                if let Some(doorbell) = self.claimant(member).and_then(Occupant::doorbell) {
                    doorbell.ring(from_start);
                }
            }
            Recipient::Session(key) => {
                if let Some(doorbell) = self.session_claimant(key).and_then(Occupant::doorbell) {
                    doorbell.ring(from_start);
                }
            }
        }
    }

    /// Wakes every connection of a member, to look from the start.
    pub(super) fn wake(&self, member: &MemberId) {
        self.of_member(member).filter_map(Occupant::doorbell).for_each(|doorbell| doorbell.ring(true));
    }

    pub(super) fn takes(&self, presence: &PresenceId) -> Takes {
        let Some(occupant) = self.presences.get(presence) else { return Takes::default() };
        let is_me = |claimant: Option<&Occupant>| claimant.is_some_and(|it| it.presence.id == *presence);
        let session = occupant.presence.session.map(|session| session.pubkey);
        Takes {
            member: is_me(self.claimant(&occupant.presence.member_id)),
            session: session.filter(|key| is_me(self.session_claimant(key))),
        }
    }

    pub(super) fn is_session_open(&self, key: &PublicKey) -> bool {
        self.of_session(key).any(|occupant| occupant.is_open() && occupant.presence.speaks_for_session)
    }

    pub(super) fn open_sessions(&self) -> impl Iterator<Item = PublicKey> {
        self.sessions.keys().copied().filter(|key| self.is_session_open(key))
    }

    pub(super) fn is_draining(&self, recipient: &Recipient) -> bool {
        self.drain(recipient).is_some()
    }

    pub(super) fn is_busy(&self, recipient: &Recipient) -> bool {
        self.drain(recipient).is_some_and(|occupant| occupant.presence.peer.status != Status::Idle)
    }

    fn drain(&self, recipient: &Recipient) -> Option<&Occupant> {
        match recipient {
            Recipient::Member(member) => self.claimant(member),
            Recipient::Session(key) => self.session_claimant(key),
        }
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

    /// Shows or hides those that the caller means, and tells everybody else. The caller itself is told of only if it stands for
    /// nobody: a command is gone in a moment.
    pub(super) fn show(&mut self, caller: &PresenceId, is_visible: bool, now: Timestamp) {
        let meant = self.meant_by(caller);
        let news = if is_visible { News::Visible } else { News::Hidden };
        for presence_id in &meant {
            let Some(occupant) = self.presences.get_mut(presence_id) else { continue };
            if occupant.presence.is_hidden() != is_visible {
                continue;
            }
            Arc::make_mut(&mut occupant.presence.peer).visible = Some(is_visible);
            let presence = &occupant.presence;
            if !presence.is_cold() || meant.len() == 1 {
                let Some(text) = news::text(news, presence, now) else { continue };
                self.shout(&text, |other| other.id != *presence_id && other.id != *caller);
            }
        }
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

    pub(super) fn shout(&self, text: &Utf8Bytes, is_meant: impl Fn(&Presence) -> bool) {
        let meant = self.presences.values().filter(|occupant| is_meant(&occupant.presence));
        meant.filter_map(Occupant::doorbell).for_each(|doorbell| doorbell.say(text.clone()));
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

    /// Tells who should hear of it that somebody came or went. Of a session that comes, also the other connections of its member.
    fn tell(&self, news: News, of: &Presence, now: Timestamp) {
        if self.is_closing || !of.is_announced() {
            return;
        }
        let Some(left) = self.allowance.get().take(self.open, now) else { return };
        self.allowance.set(left);
        let is_for_own = news == News::Joined && of.peer.peer_role == PeerRole::Session;
        if let Some(text) = news::text(news, of, now) {
            self.shout(&text, |other| other.id != of.id && (is_for_own || other.member_id != of.member_id));
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
        self.open -= usize::from(occupant.is_open());
        self.leases.remove(&occupant.presence.lease);
        unlist(&mut self.members, &occupant.presence.member_id, presence_id);
        if let Some(session) = occupant.presence.session {
            unlist(&mut self.sessions, &session.pubkey, presence_id);
        }
        Some(occupant)
    }

    /// The one connection that takes the member's mail.
    fn claimant(&self, member: &MemberId) -> Option<&Occupant> {
        self.of_member(member).filter(|occupant| occupant.takes_mail()).min_by_key(|occupant| occupant.turn())
    }

    /// The one connection that takes mail for a session key: who has proven it, else who names it.
    fn session_claimant(&self, key: &PublicKey) -> Option<&Occupant> {
        self.of_session(key)
            .filter(|occupant| occupant.takes_mail() && occupant.presence.speaks_for_session)
            .min_by_key(|occupant| occupant.turn())
    }

    fn of_member(&self, member: &MemberId) -> impl Iterator<Item = &Occupant> {
        self.members.get(member).into_iter().flatten().filter_map(|id| self.presences.get(id))
    }

    fn of_session(&self, key: &PublicKey) -> impl Iterator<Item = &Occupant> {
        self.sessions.get(key).into_iter().flatten().filter_map(|id| self.presences.get(id))
    }
}

fn oldest_broken<'a>(occupants: impl Iterator<Item = &'a Occupant>) -> Option<PresenceId> {
    let oldest = occupants.filter(|occupant| !occupant.is_open()).min_by_key(|occupant| occupant.entrance);
    oldest.map(|occupant| occupant.presence.id.clone())
}

fn unlist<K: std::hash::Hash + Eq>(index: &mut HashMap<K, Vec<PresenceId>>, key: &K, presence_id: &PresenceId) {
    if let Some(listed) = index.get_mut(key) {
        listed.retain(|id| id != presence_id);
        if listed.is_empty() {
            index.remove(key);
        }
    }
}
