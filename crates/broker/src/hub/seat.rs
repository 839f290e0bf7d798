//! A seat in the hub: held by exactly one connection, given back when it is dropped.

use std::sync::Arc;

use claudemesh_proto::{ConnectionId, MeshId, PresenceId, Timestamp};

use crate::hub::{Doorbell, Hub};

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// The client said goodbye, or was sent away: the presence ends.
    Closed,
    /// The line broke: the presence may be taken up again for a while.
    Broken,
}

/// A connection's place in the hub.
#[derive(Debug)]
pub(crate) struct Seat {
    hub: Arc<Hub>,
    mesh_id: MeshId,
    presence_id: PresenceId,
    connection: ConnectionId,
    doorbell: Arc<Doorbell>,
    left: bool,
}

impl Seat {
    pub(crate) fn new(
        hub: Arc<Hub>,
        mesh_id: MeshId,
        (presence_id, connection): (PresenceId, ConnectionId),
        doorbell: Arc<Doorbell>,
    ) -> Self {
        Self { hub, mesh_id, presence_id, connection, doorbell, left: false }
    }

    /// What others see; the same after a reattach.
    pub(crate) fn presence_id(&self) -> &PresenceId {
        &self.presence_id
    }

    /// Names this very socket; claims are made in its name.
    pub(crate) fn connection(&self) -> &ConnectionId {
        &self.connection
    }

    pub(crate) fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    /// Gives the seat back.
    pub(crate) fn leave(&mut self, parting: Parting, now: Timestamp) {
        self.left = true;
        self.doorbell.leave();
        self.hub.leave(&self.mesh_id, (&self.presence_id, &self.connection), parting, Some(now));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.left {
            // The task ended without saying how: nothing of the presence is kept.
            self.doorbell.leave();
            self.hub.leave(&self.mesh_id, (&self.presence_id, &self.connection), Parting::Closed, None);
        }
    }
}
