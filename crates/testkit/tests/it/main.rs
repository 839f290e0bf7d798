//! The crash proof: a real broker is killed again and again under load, and nothing that it acknowledged may be lost.
//!
//! | variable | what |
//! |---|---|
//! | `CLAUDEMESH_TEST_POSTGRES` | a PostgreSQL server; `cargo xtask test` starts one |
//! | `CLAUDEMESH_CRASH_SEED` | repeats the schedule of an earlier run, which printed it |
//! | `CLAUDEMESH_PROVE_T4` | kills at random moments per database instead of 20 |
//! | `CLAUDEMESH_CRASH_KEEP` | a directory for the ledgers of a failed run |
//!
//! The seed decides what is sent, when connections end and when the broker is killed. How far each process has come by then is up
//! to the machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::missing_panics_doc,
    reason = "a test says what it expects by failing"
)]

/// Generates `sqlite::name` and `postgres::name` for each `async fn name(database: Database)` of the module.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            use claudemesh_testkit::process::Database;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)] async fn $name() {
                Box::pin(super::$name(Database::Sqlite)).await;
            })*
        }
        mod postgres {
            use claudemesh_testkit::process::Database;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)] async fn $name() {
                Box::pin(super::$name(Database::postgres().await)).await;
            })*
        }
    };
}

mod canaries;
mod claims;
mod client;
mod cluster;
mod floods;
mod general;
mod kills;
mod load;
mod logs;
mod mesh;
mod nodes;
mod seed;
mod start;
mod stop;
mod sync;
