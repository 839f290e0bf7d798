//! Presences that have ended and are not in the audit log yet. An end cannot fail for want of a database: it waits here until it can
//! be logged, and a broker that is killed meanwhile has not logged it.

use std::sync::{Arc, Mutex, PoisonError};

use claudemesh_proto::{DisplayName, MemberId, MeshId};
use claudemesh_store::Event;

use crate::hub::Presence;

/// Shared by all rooms. As many as there were presences at most: nobody comes while the database is away.
#[derive(Debug, Default, Clone)]
pub(super) struct Departures(Arc<Mutex<Vec<Event>>>);

impl Departures {
    pub(super) fn add(&self, presence: &Presence) {
        self.note(&presence.mesh_id, &presence.member_id, &presence.member_name);
    }

    pub(super) fn note(&self, mesh: &MeshId, member: &MemberId, name: &DisplayName) {
        let (actor, payload) = (Some((member.clone(), name.clone())), serde_json::json!({}));
        self.give_back(vec![Event { mesh_id: mesh.clone(), event: "peer_left", actor, payload }]);
    }

    pub(super) fn give_back(&self, events: Vec<Event>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(events);
    }

    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
