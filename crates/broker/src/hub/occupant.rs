//! A presence in its room, with its line or what is known of the one that broke.

use std::sync::Arc;

use claudemesh_proto::{ConnectionId, Timestamp};

use crate::hub::{Doorbell, Presence};

/// One presence in its room.
#[derive(Debug)]
pub(super) struct Occupant {
    pub(super) presence: Presence,
    /// Later ones have higher numbers.
    pub(super) entrance: u64,
    pub(super) socket: Socket,
}

/// Its line.
#[derive(Debug)]
pub(super) enum Socket {
    Open {
        connection: ConnectionId,
        doorbell: Arc<Doorbell>,
    },
    /// The last sign of life.
    Broken(Timestamp),
}

impl Occupant {
    pub(super) fn doorbell(&self) -> Option<&Doorbell> {
        match &self.socket {
            Socket::Open { doorbell, .. } => Some(doorbell),
            Socket::Broken(_) => None,
        }
    }

    pub(super) fn connection(&self) -> Option<&ConnectionId> {
        match &self.socket {
            Socket::Open { connection, .. } => Some(connection),
            Socket::Broken(_) => None,
        }
    }

    /// Its last sign of life.
    pub(super) fn heard_at(&self) -> Timestamp {
        match &self.socket {
            Socket::Open { doorbell, .. } => doorbell.heard_at(),
            Socket::Broken(heard) => *heard,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.socket, Socket::Open { .. })
    }

    /// Lets it have what its status allows now.
    pub(super) fn open_gate(&self) {
        if let Some(doorbell) = self.doorbell() {
            doorbell.set_busy(self.presence.is_busy());
        }
    }
}
