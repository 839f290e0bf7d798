//! The broker from outside: real sockets, a real database, no knowledge of what is inside.
//!
//! One module per capability. Cases about what a database must keep run on both; PostgreSQL is found by
//! `CLAUDEMESH_TEST_POSTGRES`, which `cargo xtask test` sets. Names in brackets are rules (R) and promises (D).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::too_many_lines,
    clippy::large_futures,
    reason = "a test says what it expects by failing, in one go"
)]

/// Generates `sqlite::name` and `postgres::name` for each `async fn name(setup: Setup)` of the module.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
                Box::pin(super::$name(claudemesh_testkit::Setup::sqlite())).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() {
                Box::pin(super::$name(claudemesh_testkit::Setup::postgres())).await;
            })*
        }
    };
}

mod api_key;
mod audience;
mod audit;
mod audit_chain;
mod audit_verify;
mod backpressure;
mod ban;
mod busy;
mod delivery;
mod edge;
mod events;
mod ghosts;
mod grant;
mod greeting;
mod group;
mod hello;
mod hook;
mod invite;
mod isolation;
mod join;
mod kick;
mod lease;
mod limits;
mod malformed;
mod member;
mod mesh;
mod outage;
mod post;
mod presence;
mod rest;
mod rest_matrix;
mod rest_me;
mod rest_peer_pubkey;
mod rest_topic;
mod restore;
mod secrets;
mod send;
mod session_hello;
mod session_key;
mod status;
mod stop;
mod stream;
mod topic;
mod topic_key;
mod turn;
mod weight;
mod wire_matrix;
