//! One live connection as plain values: nothing here waits or writes.

pub(crate) mod handshake;
pub(crate) mod liveness;
pub(crate) mod mailbox;
pub(crate) mod reading;
