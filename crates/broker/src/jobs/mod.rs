//! What the broker does unasked.

pub(crate) mod checkpoints;
pub(crate) mod removed;
pub(crate) mod sweep;
