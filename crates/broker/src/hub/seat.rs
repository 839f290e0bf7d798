//! A seat in the hub: held by exactly one connection, given back when it is dropped.

use std::sync::Arc;

use claudemesh_proto::{ConnectionId, PresenceId, Timestamp};

use crate::hub::whereabouts::Whereabouts;
use crate::hub::{Doorbell, Hub};

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// The client said goodbye, or was sent away: the presence ends.
    Closed,
    /// The line broke: the presence may be taken up again, for a while after this last sign of life.
    Broken(Timestamp),
}

/// A connection's place in the hub.
#[derive(Debug)]
pub(crate) struct Seat {
    hub: Arc<Hub>,
    of: Arc<Whereabouts>,
    doorbell: Arc<Doorbell>,
    left: bool,
}

impl Seat {
    pub(super) fn new(hub: Arc<Hub>, of: Arc<Whereabouts>, doorbell: Arc<Doorbell>) -> Self {
        Self { hub, of, doorbell, left: false }
    }

    /// What others see; the same after a reattach.
    pub(crate) fn presence_id(&self) -> &PresenceId {
        &self.of.presence_id
    }

    /// Names this very socket; claims are made in its name.
    pub(crate) fn connection(&self) -> &ConnectionId {
        &self.of.connection
    }

    pub(crate) fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    /// Gives the seat back.
    pub(crate) fn leave(&mut self, parting: Parting) {
        self.left = true;
        self.doorbell.leave();
        self.hub.leave(&self.of, parting);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.left {
            // The task ended without saying how: nothing of the presence is kept.
            self.leave(Parting::Closed);
        }
    }
}
