//! What tests of a whole broker stand on. Nothing here ships.
//!
//! - [`Setup`] describes a broker; [`TestMesh`] is one that runs in this process, on a free port, with a database of its own.
//! - [`Mesh`], [`Member`] and [`Session`] are made over the real API and sign for themselves.
//! - [`Wire`] is a WebSocket that says and hears frames, and shares no code with the client.
//! - [`Wall`] stands between two sides of a TCP connection and can be shut.
//! - [`process`] is a broker that can be killed; [`ledger`] and [`checker`] tell what it lost.
//!
//! Use `#[tokio::test(flavor = "multi_thread")]`: the broker stops while the test waits for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::missing_panics_doc,
    reason = "a test says what it expects by failing"
)]

pub mod checker;
mod clock;
mod database;
mod events;
pub mod history;
mod http;
pub mod ledger;
mod mesh;
mod order;
mod panics;
mod people;
pub mod process;
pub mod proof;
mod site;
mod verdict;
mod wall;
mod wire;

pub use clock::TestClock;
pub use database::{Kind, TestDatabase};
pub use events::{Event, Events};
pub use http::{Answer, Request};
pub use mesh::{Setup, TestMesh, eventually};
pub use people::{Member, Mesh, Session, invite_token, merged, mesh_request, signed_hello, stranger};
pub use site::Site;
pub use wall::Wall;
pub use wire::{DEADLINE, Wire, send_frame};
