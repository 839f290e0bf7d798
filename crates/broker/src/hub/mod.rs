//! The connections of this process. Messages do not pass through it: it only knows whom to tell "look again".
//!
//! - [`Hub::enter`] seats a connection and gives back its [`Seat`]; leaving is dropping it.
//! - A connection that breaks keeps its presence as a lease for the grace time; one that closes leaves at once.
//! - [`Hub::ring`] wakes the one connection that a recipient's mail goes to.

mod doorbell;
mod lease;
mod presence;
mod room;
mod seat;
mod status;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claudemesh_proto::presence::Peer;
use claudemesh_proto::{ConnectionId, MemberId, MeshId, PresenceId, PublicKey, Timestamp};
use claudemesh_store::{Recipient, Ring};

use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::close::Close;

pub(crate) use doorbell::Doorbell;
pub(crate) use lease::LeaseKey;
pub(crate) use presence::Presence;
use room::{Room, Seated};
pub(crate) use seat::{Parting, Seat};

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) node: usize,
    pub(crate) mesh: usize,
    pub(crate) member: usize,
}

/// The presences of this node.
#[derive(Debug)]
pub(crate) struct Hub {
    rooms: Mutex<HashMap<MeshId, Room>>,
    capacity: Capacity,
    grace: Duration,
}

/// A connection was seated.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) seat: Seat,
    /// Whether it took up a lease: it is the same presence as before.
    pub(crate) reattached: bool,
    /// The open connection that gave way, and may still hold mail.
    pub(crate) predecessor: Option<Arc<Doorbell>>,
    /// Connections whose turn it was to take mail that is now this one's to take.
    pub(crate) relieved: Vec<ConnectionId>,
}

/// Which mail a connection takes now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Takes {
    pub(crate) member: bool,
    pub(crate) session: Option<PublicKey>,
}

impl Hub {
    pub(crate) fn new(capacity: Capacity, grace: Duration) -> Self {
        Self { rooms: Mutex::default(), capacity, grace }
    }

    /// Whether one more connection fits the mesh and the node. A connection that takes up a lease or replaces another always does.
    pub(crate) fn has_room(&self, mesh: &MeshId, lease: Option<&LeaseKey>) -> bool {
        self.fits(&self.rooms(), mesh, lease)
    }

    /// Seats a connection; `None` when its member, its mesh or the node has as many open as it may.
    ///
    /// A connection with the same lease key gives way: a broken one silently, an open one is told `session_replaced`.
    pub(crate) fn enter(self: &Arc<Self>, presence: Presence, connection: ConnectionId) -> Option<Entered> {
        let mut rooms = self.rooms();
        let of_member =
            |room: &Room| room.holds(&presence.lease) || room.open_of(&presence.member_id) < self.capacity.member;
        let fits_member = rooms.get(&presence.mesh_id).is_none_or(of_member);
        if !fits_member || !self.fits(&rooms, &presence.mesh_id, Some(&presence.lease)) {
            return None;
        }
        let mesh_id = presence.mesh_id.clone();
        let room = rooms.entry(mesh_id.clone()).or_default();
        if !room.holds(&presence.lease) {
            room.make_room(&presence.member_id, (self.capacity.member, self.capacity.mesh));
        }
        let Seated { presence_id, doorbell, reattached, predecessor, relieved } =
            room.seat(presence, connection.clone());
        let seat = Seat::new(Arc::clone(self), mesh_id, (presence_id, connection), doorbell);
        Some(Entered { seat, reattached, predecessor, relieved })
    }

    fn fits(&self, rooms: &HashMap<MeshId, Room>, mesh: &MeshId, lease: Option<&LeaseKey>) -> bool {
        let room = rooms.get(mesh);
        if room.is_some_and(|room| lease.is_some_and(|lease| room.holds(lease))) {
            return true;
        }
        let open: usize = rooms.values().map(Room::open).sum();
        open < self.capacity.node && room.is_none_or(|room| room.open() < self.capacity.mesh)
    }

    /// Wakes whoever takes the mail of each recipient.
    pub(crate) fn ring(&self, rings: &[Ring]) {
        let rooms = self.rooms();
        for ring in rings {
            if let Some(room) = rooms.get(&ring.mesh_id) {
                room.ring(&ring.recipient, ring.from_start);
            }
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

    /// Whether the member has an open connection.
    pub(crate) fn is_member_online(&self, mesh: &MeshId, member: &MemberId) -> bool {
        self.rooms().get(mesh).is_some_and(|room| room.open_of(member) > 0)
    }

    /// Whether an open connection of the member takes mail, other than this one.
    pub(crate) fn has_other(&self, mesh: &MeshId, member: &MemberId, than: &PresenceId) -> bool {
        self.rooms().get(mesh).is_some_and(|room| room.has_other(member, than))
    }

    /// Whether the recipient has an open connection that takes its mail.
    pub(crate) fn is_draining(&self, mesh: &MeshId, recipient: &Recipient) -> bool {
        self.rooms().get(mesh).is_some_and(|room| room.is_draining(recipient))
    }

    /// Every presence of the mesh as its members see it: sessions first, then by the time they connected.
    pub(crate) fn peers(&self, mesh: &MeshId) -> Vec<Peer> {
        // What is long is done without the lock.
        let peers = self.rooms().get(mesh).map(Room::peers).unwrap_or_default();
        peers.into_iter().map(Arc::unwrap_or_clone).collect()
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

    /// Ends leases whose grace is over.
    pub(crate) fn end_leases(&self, now: Timestamp) {
        let before = now.minus(self.grace);
        let mut rooms = self.rooms();
        rooms.retain(|_, room| {
            room.end_leases(before);
            !room.is_empty()
        });
    }

    /// Tells every connection to close, because the broker stops.
    pub(crate) fn close_all(&self, with: Close) {
        self.rooms().values().for_each(|room| room.close_all(with));
    }

    /// Panics when the indexes disagree with the presences; for tests.
    pub(crate) fn check_invariants(&self) {
        self.rooms().values().for_each(Room::check_invariants);
    }

    fn leave(&self, mesh: &MeshId, seat: (&PresenceId, &ConnectionId), parting: Parting, now: Option<Timestamp>) {
        let mut rooms = self.rooms();
        let Some(room) = rooms.get_mut(mesh) else { return };
        room.leave(seat, parting, now);
        if room.is_empty() {
            rooms.remove(mesh);
        }
    }

    /// A panic elsewhere while the lock was held leaves plain data, which every method repairs or replaces whole.
    fn rooms(&self) -> MutexGuard<'_, HashMap<MeshId, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
