//! A seat in the hub: held by exactly one connection, given back when it is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use claudemesh_proto::{MeshId, PresenceId, PublicKey, Timestamp};
use tokio::sync::Notify;

use crate::hub::Hub;

/// What makes two connections the same presence, one after the other. A `hello` never shares a key with a `session_hello`, and
/// no key is shared between members: nobody can displace anybody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum LeaseKey {
    /// A session that proved its key.
    Session(PublicKey),
    /// A member's connection that names a session key.
    MemberSession(PublicKey, PublicKey),
    /// A member's connection without one, by its session id and host.
    Member(PublicKey, String, Option<String>),
    /// A connection that names nothing to be known by.
    Anonymous(PresenceId),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// The client said goodbye, or was sent away: the presence ends.
    Closed,
    /// The line broke: the presence may be taken up again for a while.
    Broken,
}

/// How the hub reaches a connection: one bit for "look again", one for "from the start", and a reason to close.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    rung: Notify,
    from_start: AtomicBool,
    close: Mutex<Option<(u16, &'static str)>>,
    gone: Notify,
}

impl Doorbell {
    pub(crate) fn ring(&self, from_start: bool) {
        if from_start {
            self.from_start.store(true, Ordering::Release);
        }
        self.rung.notify_one();
    }

    pub(crate) fn close(&self, with: (u16, &'static str)) {
        self.close.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(with);
        self.rung.notify_one();
    }

    /// Resolves at the next ring; a ring that nobody waited for is kept.
    pub(crate) async fn rung(&self) {
        self.rung.notified().await;
    }

    /// Resolves once the connection has let go of its mail. Only its successor waits.
    pub(crate) async fn gone(&self) {
        self.gone.notified().await;
    }

    /// Whether somebody rang from the start since this was last asked.
    pub(crate) fn take_from_start(&self) -> bool {
        self.from_start.swap(false, Ordering::AcqRel)
    }

    /// The Close that the hub wants.
    pub(crate) fn wants_close(&self) -> Option<(u16, &'static str)> {
        *self.close.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the hub.
#[derive(Debug)]
pub(crate) struct Seat {
    hub: Arc<Hub>,
    mesh_id: MeshId,
    presence_id: PresenceId,
    connection: PresenceId,
    doorbell: Arc<Doorbell>,
    left: bool,
}

impl Seat {
    pub(crate) fn new(
        hub: Arc<Hub>,
        mesh_id: MeshId,
        (presence_id, connection): (PresenceId, PresenceId),
        doorbell: Arc<Doorbell>,
    ) -> Self {
        Self { hub, mesh_id, presence_id, connection, doorbell, left: false }
    }

    /// What others see; the same after a reattach.
    pub(crate) fn presence_id(&self) -> &PresenceId {
        &self.presence_id
    }

    /// Names this very socket; claims are made in its name.
    pub(crate) fn connection(&self) -> &PresenceId {
        &self.connection
    }

    pub(crate) fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    /// Gives the seat back.
    pub(crate) fn leave(&mut self, parting: Parting, now: Timestamp) {
        self.left = true;
        self.doorbell.gone.notify_one();
        self.hub.leave(&self.mesh_id, (&self.presence_id, &self.connection), parting, Some(now));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.left {
            // The task ended without saying how: nothing of the presence is kept.
            self.doorbell.gone.notify_one();
            self.hub.leave(&self.mesh_id, (&self.presence_id, &self.connection), Parting::Closed, None);
        }
    }
}
