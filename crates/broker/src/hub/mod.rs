//! The connections of this process. Messages do not pass through it: it only knows whom to tell "look again".
//!
//! - [`Hub::enter`] seats a connection and gives back its [`Seat`]; leaving is dropping it.
//! - A connection that breaks keeps its presence as a lease for the grace time; one that closes leaves at once.
//! - [`Hub::ring`] wakes the one connection that a recipient's mail goes to.

mod away;
mod block;
mod departures;
mod doorbell;
mod lease;
mod news;
mod occupant;
mod presence;
mod room;
mod seat;
mod seating;
mod status;
mod streams;
mod turn;
mod whereabouts;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claudemesh_proto::hello::RestoredStats;
use claudemesh_proto::presence::{Peer, StatusSource};
use claudemesh_proto::{ConnectionId, DisplayName, MemberId, MeshId, PresenceId, PublicKey, Status};
use claudemesh_store::{Clock, Event, Recipient, Ring};

use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::close::Close;

pub(crate) use away::{Away, NotSentAway, Whom};
use block::Blocks;
use departures::Departures;
pub(crate) use doorbell::Doorbell;
pub(crate) use lease::LeaseKey;
pub(crate) use presence::{Arrival, Presence, directory, name};
use room::{Room, Seated};
pub(crate) use seat::{Parting, Seat};
pub(crate) use seating::{Capacity, Vacancy};
use status::Reported;
pub(crate) use streams::{Line, MAX_STREAMS, Stream, Streams};
use whereabouts::{Directory, Whereabouts};
pub(crate) use whereabouts::{Process, Report, TokenHash};

/// How long things last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spans {
    /// From the last sign of life of a broken connection until its presence ends.
    pub(crate) grace: Duration,
    /// For which a hook's word outranks what is inferred.
    pub(crate) hook_fresh: Duration,
    /// For which a session is taken to be working.
    pub(crate) status_ttl: Duration,
}

/// The presences of this node.
#[derive(Debug)]
pub(crate) struct Hub {
    /// Locked before `rooms` where both are.
    directory: Mutex<Directory>,
    rooms: Mutex<HashMap<MeshId, Room>>,
    /// Taken while `rooms` is held, or alone.
    blocks: Mutex<Blocks>,
    capacity: Capacity,
    spans: Spans,
    clock: Clock,
    departures: Departures,
    /// Who reads topics as they are written.
    pub(crate) streams: Streams,
}

/// Whom a hook's report was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    About(PresenceId),
    /// Nobody yet.
    Pending,
}

/// A connection was seated.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) seat: Seat,
    /// Whether a presence begins with it, and none goes on.
    pub(crate) is_new: bool,
    /// Whether it took up a lease: it is the same presence as before.
    pub(crate) reattached: bool,
    /// The open connection that gave way, and may still hold mail.
    pub(crate) predecessor: Option<Arc<Doorbell>>,
    /// Connections whose turn it was to take mail that is now this one's to take.
    pub(crate) relieved: Vec<ConnectionId>,
}

/// Why a connection was not seated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotSeated {
    /// There are as many as there may be.
    Full,
    /// Its session was kicked, and has to stay away for so long.
    Blocked(Duration),
}

/// Which mail a connection takes now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Takes {
    pub(crate) member: bool,
    pub(crate) session: Option<PublicKey>,
}

impl Hub {
    pub(crate) fn new(capacity: Capacity, spans: Spans, clock: Clock) -> Self {
        Self {
            directory: Mutex::default(),
            rooms: Mutex::default(),
            blocks: Mutex::default(),
            capacity,
            spans,
            clock,
            departures: Departures::default(),
            streams: Streams::default(),
        }
    }

    /// Seats a connection, if its member, its mesh and the node have room for it, and nobody sent its session away.
    ///
    /// A connection with the same lease key gives way: a broken one silently, an open one is told `session_replaced`.
    pub(crate) fn enter(
        self: &Arc<Self>,
        presence: Presence,
        is_admin: bool,
        connection: ConnectionId,
    ) -> Result<Entered, NotSeated> {
        let now = self.clock.now();
        let mut directory = self.directory();
        let mut rooms = self.rooms();
        self.end_leases_of(&mut rooms, &presence.mesh_id);
        if let Some(left) = self.blocked_for(&presence.mesh_id, presence.session, now) {
            return Err(NotSeated::Blocked(left));
        }
        let mesh_id = presence.mesh_id.clone();
        match self.capacity.places(&rooms, (&mesh_id, &presence.peer.member_pubkey), Some(&presence.lease)) {
            Vacancy::ForAll => {}
            Vacancy::ForAdmins if is_admin => {}
            Vacancy::ForAdmins | Vacancy::None => return Err(NotSeated::Full),
        }
        let room = rooms.entry(mesh_id.clone()).or_insert_with(|| Room::new(self.departures.clone()));
        if !room.holds(&presence.lease) {
            room.make_room(&presence.member_id, (self.capacity.member, self.capacity.mesh), now);
        }
        let mut of = Whereabouts::new(&presence, connection.clone());
        let Seated { presence_id, doorbell, is_new, reattached, predecessor, relieved } =
            room.seat(presence, connection, now);
        of.presence_id = presence_id;
        let of = directory.enter(of);
        if let Some(status) = directory.take_pending(&of, now) {
            room.change_seated(&of, |presence| self.report(presence, status, StatusSource::Hook));
        }
        let seat = Seat::new(Arc::clone(self), of, doorbell);
        Ok(Entered { seat, is_new, reattached, predecessor, relieved })
    }

    /// Wakes whoever takes the mail of each recipient, and whoever reads along in each topic.
    pub(crate) fn ring(&self, rings: &[Ring]) {
        let rooms = self.rooms();
        for ring in rings {
            match ring {
                Ring::Mail { mesh_id, recipient, from_start } => {
                    if let Some(room) = rooms.get(mesh_id) {
                        room.ring(recipient, *from_start);
                    }
                }
                Ring::Topic { mesh_id, topic_id } => self.streams.ring(mesh_id, topic_id),
            }
        }
    }

    /// Lets every connection of a member look from the start for what it may take.
    pub(crate) fn look_again(&self, mesh: &MeshId, member: &MemberId) {
        if let Some(room) = self.rooms().get(mesh) {
            room.wake(member);
        }
    }

    /// Which mail the connection takes now.
    pub(crate) fn takes(&self, mesh: &MeshId, presence: &PresenceId) -> Takes {
        self.rooms().get(mesh).map(|room| room.takes(presence)).unwrap_or_default()
    }

    /// Whether an open connection speaks for the session key.
    pub(crate) fn is_session_open(&self, mesh: &MeshId, key: &PublicKey) -> bool {
        self.rooms().get(mesh).is_some_and(|room| room.is_session_open(key))
    }

    /// Whether the member has an open connection, one that hides included or not.
    pub(crate) fn is_member_online(&self, mesh: &MeshId, member: &MemberId, hidden_too: bool) -> bool {
        self.rooms().get(mesh).is_some_and(|room| room.is_member_online(member, hidden_too))
    }

    /// Whether an open connection of the member takes mail, other than this one.
    pub(crate) fn has_other(&self, mesh: &MeshId, member: &MemberId, than: &PresenceId) -> bool {
        self.rooms().get(mesh).is_some_and(|room| room.has_other(member, than))
    }

    /// Whether the recipient has an open connection that takes its mail.
    pub(crate) fn is_draining(&self, mesh: &MeshId, recipient: &Recipient) -> bool {
        self.rooms().get(mesh).is_some_and(|room| room.is_draining(recipient))
    }

    /// Whether the connection that takes the recipient's mail takes only what is urgent.
    pub(crate) fn is_busy(&self, mesh: &MeshId, recipient: &Recipient) -> bool {
        self.rooms().get(mesh).is_some_and(|room| room.is_busy(recipient))
    }

    /// Every presence of the mesh as a member sees it: sessions first, then by the time they connected.
    pub(crate) fn peers(&self, mesh: &MeshId, viewer: &MemberId) -> Vec<Arc<Peer>> {
        let mut rooms = self.rooms();
        self.end_leases_of(&mut rooms, mesh);
        rooms.get(mesh).map(|room| room.peers(viewer)).unwrap_or_default()
    }

    /// Changes what is known of the caller: its own presence, and when the caller is a command that runs for a moment, also the
    /// sessions that it stands for: those with its session id, else all of its member.
    pub(crate) fn change(&self, mesh: &MeshId, caller: &PresenceId, mut change: impl FnMut(&mut Presence)) {
        if let Some(room) = self.rooms().get_mut(mesh) {
            room.change(&room.meant_by(caller), &mut change);
        }
    }

    /// Changes what is known of every presence of a member.
    pub(crate) fn change_member(&self, mesh: &MeshId, member: &MemberId, mut change: impl FnMut(&mut Presence)) {
        if let Some(room) = self.rooms().get_mut(mesh) {
            room.change(&room.presences_of(member), &mut change);
        }
    }

    /// Changes what is known of the caller alone.
    pub(crate) fn change_own(&self, mesh: &MeshId, caller: &PresenceId, mut change: impl FnMut(&mut Presence)) {
        if let Some(room) = self.rooms().get_mut(mesh) {
            room.change(std::slice::from_ref(caller), &mut change);
        }
    }

    /// Shows or hides whom the caller means, as [`Hub::change`] does, and tells the others.
    pub(crate) fn show(&self, mesh: &MeshId, caller: &PresenceId, is_visible: bool) {
        if let Some(room) = self.rooms().get_mut(mesh) {
            room.show(caller, is_visible, self.clock.now());
        }
    }

    /// Takes in what the caller says about how busy those are whom it means.
    pub(crate) fn set_status(&self, mesh: &MeshId, caller: &PresenceId, (status, source): (Status, StatusSource)) {
        self.change(mesh, caller, |presence| self.report(presence, status, source));
    }

    /// Takes in what the hook of a session says, or keeps it for a moment when the session is not here yet. It is about one session,
    /// in all the meshes where it is connected from that address.
    pub(crate) fn hear(&self, report: Report) -> Heard {
        let mut directory = self.directory();
        for of in directory.candidates(&report) {
            if self.hear_of(&of, report.status) {
                for same in directory.same_session(&of) {
                    self.hear_of(&same, report.status);
                }
                return Heard::About(of.presence_id.clone());
            }
        }
        directory.keep(report, self.clock.now());
        Heard::Pending
    }

    /// Whether the token is that of a connection.
    pub(crate) fn knows_token(&self, token: &TokenHash) -> bool {
        self.directory().with_token(token).is_some()
    }

    /// Takes in what the hook says that has this token; the presence that the token is of.
    pub(crate) fn hear_from(&self, token: &TokenHash, status: Status) -> Option<PresenceId> {
        let of = self.directory().with_token(token)?;
        self.hear_of(&of, status).then(|| of.presence_id.clone())
    }

    fn hear_of(&self, of: &Whereabouts, status: Status) -> bool {
        self.rooms()
            .get_mut(&of.mesh_id)
            .is_some_and(|room| room.change_seated(of, |presence| self.report(presence, status, StatusSource::Hook)))
    }

    fn report(&self, presence: &mut Presence, status: Status, source: StatusSource) {
        presence.report(Reported { status, source, at: self.clock.now() }, self.spans.hook_fresh);
    }

    /// Whoever has been working for too long without saying so is idle; how many are now.
    pub(crate) fn rest(&self) -> usize {
        let now = self.clock.now();
        self.rooms().values_mut().map(|room| room.rest(now, self.spans.status_ttl)).sum()
    }

    /// What a connection that ends was called and did since this was last asked of its presence.
    pub(crate) fn sum_up(&self, mesh: &MeshId, presence: &PresenceId) -> Option<(DisplayName, RestoredStats)> {
        self.rooms().get_mut(mesh)?.sum_up(presence)
    }

    /// Tells a text to the open connections of those presences. It is kept for nobody.
    pub(crate) fn shout(&self, mesh: &MeshId, text: &Utf8Bytes, is_meant: impl Fn(&Presence) -> bool) {
        if let Some(room) = self.rooms().get(mesh) {
            room.shout(text, is_meant);
        }
    }

    /// Every session key that an open connection speaks for.
    pub(crate) fn open_sessions(&self) -> Vec<(MeshId, PublicKey)> {
        let rooms = self.rooms();
        let of =
            |(mesh, room): (&MeshId, &Room)| room.open_sessions().map(|key| (mesh.clone(), key)).collect::<Vec<_>>();
        rooms.iter().flat_map(of).collect()
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.rooms().values().map(Room::open).sum()
    }

    /// Ends leases whose grace is over, and forgets what hooks said of sessions that did not come.
    pub(crate) fn end_leases(&self) {
        let now = self.clock.now();
        self.directory().sweep(now);
        let mut rooms = self.rooms();
        rooms.retain(|_, room| {
            room.end_leases(now, self.spans.grace);
            !room.is_empty()
        });
    }

    /// To whoever looks, a lease is over at its moment and not at the next tick.
    fn end_leases_of(&self, rooms: &mut HashMap<MeshId, Room>, mesh: &MeshId) {
        if let Some(room) = rooms.get_mut(mesh) {
            room.end_leases(self.clock.now(), self.spans.grace);
        }
    }

    /// Has an event logged behind the ends of presences that wait for it.
    pub(crate) fn log_later(&self, event: Event) {
        self.departures.give_back(vec![event]);
    }

    /// Somebody was let in and found no seat.
    pub(crate) fn note_departure(&self, mesh: &MeshId, member: &MemberId, name: &DisplayName) {
        self.departures.note(mesh, member, name);
    }

    /// The ends of presences that are to be logged.
    pub(crate) fn take_departures(&self) -> Vec<Event> {
        self.departures.take()
    }

    /// Those that could not be logged.
    pub(crate) fn give_back_departures(&self, events: Vec<Event>) {
        self.departures.give_back(events);
    }

    /// Whether somebody would go on with the presence that this lease names.
    pub(crate) fn goes_on(&self, mesh: &MeshId, lease: Option<&LeaseKey>) -> bool {
        self.rooms().get(mesh).is_some_and(|room| lease.is_some_and(|lease| room.holds(lease)))
    }

    /// Tells every connection to close, because the broker stops.
    pub(crate) fn close_all(&self, with: Close) {
        self.rooms().values_mut().for_each(|room| room.close_all(with));
    }

    /// Panics when the indexes disagree with the presences; for tests.
    pub(crate) fn check_invariants(&self) {
        self.rooms().values().for_each(Room::check_invariants);
    }

    fn leave(&self, of: &Whereabouts, parting: Parting) {
        self.directory().leave(of);
        let mut rooms = self.rooms();
        let Some(room) = rooms.get_mut(&of.mesh_id) else { return };
        room.leave(of, parting, (self.clock.now(), self.spans.grace));
        if room.is_empty() {
            rooms.remove(&of.mesh_id);
        }
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic elsewhere while the lock was held leaves plain data, which every method repairs or replaces whole.
    fn rooms(&self) -> MutexGuard<'_, HashMap<MeshId, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
