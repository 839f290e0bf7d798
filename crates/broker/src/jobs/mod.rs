//! What happens on its own.

pub(crate) mod sweep;
