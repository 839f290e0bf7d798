//! Whether there is a place for one more connection.
//!
//! A mesh's last places are kept, so that a few keys with many connections each lock nobody out: a twentieth of them for admins and
//! for members who have no connection yet, and half of that for admins alone, who can send the others away.

use std::collections::HashMap;

use claudemesh_proto::{MeshId, PublicKey};
use claudemesh_store::Admission;

use crate::hub::room::Room;
use crate::hub::{Hub, LeaseKey, NotSeated};

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) node: usize,
    pub(crate) mesh: usize,
    pub(crate) member: usize,
}

/// For whom there is a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vacancy {
    ForAll,
    ForAdmins,
    None,
}

impl Hub {
    /// Whether one more connection of anybody at all would fit the mesh and the node.
    pub(crate) fn has_room(&self, mesh: &MeshId) -> bool {
        let mut rooms = self.rooms();
        self.end_leases_of(&mut rooms, mesh);
        self.capacity.left(&rooms, mesh) > 0
    }

    /// Whether a proven handshake would get a seat now: whether only as an admin, or why not.
    pub(crate) fn would_seat(&self, admission: &Admission, lease: Option<&LeaseKey>) -> Result<Vacancy, NotSeated> {
        let mut rooms = self.rooms();
        let mesh = &admission.mesh_id;
        self.end_leases_of(&mut rooms, mesh);
        if let Some(left) = self.blocked_for(mesh, admission.session, self.clock.now()) {
            return Err(NotSeated::Blocked(left));
        }
        match self.capacity.places(&rooms, (mesh, &admission.member_pubkey), lease) {
            Vacancy::None => Err(NotSeated::Full),
            places => Ok(places),
        }
    }
}

impl Capacity {
    /// For whom there is a place. Who takes up a lease or replaces a connection needs none.
    pub(super) fn places(
        &self,
        rooms: &HashMap<MeshId, Room>,
        (mesh, member): (&MeshId, &PublicKey),
        lease: Option<&LeaseKey>,
    ) -> Vacancy {
        let room = rooms.get(mesh);
        if room.is_some_and(|room| lease.is_some_and(|lease| room.holds(lease))) {
            return Vacancy::ForAll;
        }
        let own = room.map_or(0, |room| room.open_of_key(member));
        let left = self.left(rooms, mesh);
        let kept = (self.mesh / 20).max(1);
        let kept_from_it = if own == 0 { kept / 2 } else { kept };
        match left {
            _ if own >= self.member => Vacancy::None,
            0 => Vacancy::None,
            _ if left > kept_from_it => Vacancy::ForAll,
            _ => Vacancy::ForAdmins,
        }
    }

    /// How many places are left in the mesh, none when the node has none.
    fn left(&self, rooms: &HashMap<MeshId, Room>, mesh: &MeshId) -> usize {
        let open: usize = rooms.values().map(Room::open).sum();
        if open >= self.node {
            return 0;
        }
        self.mesh.saturating_sub(rooms.get(mesh).map_or(0, Room::open))
    }
}
