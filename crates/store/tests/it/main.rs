//! The store against both of its databases: every case runs on SQLite and on PostgreSQL unless it is about one of them.
//!
//! PostgreSQL is found by `CLAUDEMESH_TEST_POSTGRES`, which `cargo xtask test` sets. Every case has a database of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::missing_panics_doc,
    clippy::unchecked_time_subtraction,
    reason = "a test says what it expects by failing"
)]

#[macro_use]
mod ground;
mod acks;
mod admissions;
mod bans;
mod claims;
mod dedupe;
mod durability;
mod failure;
mod grants;
mod groups;
mod life;
mod limits;
mod lives;
mod members;
mod meshes;
mod model;
mod nodes;
mod peer_state;
mod people;
mod poison;
mod posts;
mod sessions;
mod standing;
mod states;
mod sweep;
mod topic_keys;
mod topics;
mod world;
