//! What the broker does unasked.

pub(crate) mod sweep;
