//! T1: a small model of the store, and random lives led on both: D2 to D7 and D10 without a broker around them.
//!
//! Several lives go on at once, each in a mesh of its own, so that they share commits; time passes for all of them together.
//! `CLAUDEMESH_PROVE_T1` sets how many lives are tried.

use std::time::Duration;

use claudemesh_store::Store;
use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::ground::{Ground, TTL};
use crate::lives::{Aim, CONNECTIONS, Life, PEOPLE, Step};
use crate::people::LEASE;

const DEFAULT_CASES: u32 = 500;
/// How many lives go on at once.
const LIVES: usize = 20;

/// What happens next.
#[derive(Debug, Clone)]
enum Turn {
    /// Each life takes a step.
    Steps(Vec<Step>),
    /// Every lease ends.
    Pass,
    /// What waits expires.
    Expire,
    /// The broker is started again.
    Restart,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        16 => proptest::collection::vec(step(), LIVES).prop_map(Turn::Steps),
        1 => Just(Turn::Pass),
        1 => Just(Turn::Expire),
        1 => Just(Turn::Restart),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let small = || proptest::option::of(0..3_u8);
    let aim = prop_oneof![4 => (0..PEOPLE).prop_map(Aim::Person), 2 => Just(Aim::All), 2 => (0..2_usize).prop_map(Aim::Group)];
    prop_oneof![
        6 => (aim, small(), small(), any::<bool>(), 0..400_usize)
            .prop_map(|(aim, client_id, fingerprint, urgent, bytes)| {
                Step::Append { aim, client_id, fingerprint, urgent, bytes }
            }),
        6 => (0..PEOPLE, 0..CONNECTIONS, any::<bool>(), 1..4_usize, 0..800_i64)
            .prop_map(|(whose, connection, urgent_only, max_rows, max_bytes)| {
                Step::Claim { whose, connection, urgent_only, max_rows, max_bytes }
            }),
        2 => (0..CONNECTIONS).prop_map(|connection| Step::SettleHeld { connection }),
        2 => (0..20_usize, 0..PEOPLE).prop_map(|(nth, by)| Step::SettleMessage { nth, by }),
        2 => (0..CONNECTIONS).prop_map(|connection| Step::Release { connection }),
        2 => (1..PEOPLE, 0..2_usize).prop_map(|(who, group)| Step::Join { who, group }),
        1 => (1..PEOPLE, 0..2_usize).prop_map(|(who, group)| Step::Leave { who, group }),
        1 => (1..PEOPLE, 0..4_usize).prop_map(|(who, said)| Step::Grant { who, said }),
    ]
}

/// Leads lives side by side; the store that is open at the end.
async fn lead(ground: &Ground, mut store: Store, turns: Vec<Turn>) -> Store {
    let mut lives = join_all((0..LIVES).map(|_| Life::begin(&store))).await;
    for turn in turns {
        match turn {
            Turn::Steps(steps) => {
                join_all(lives.iter_mut().zip(steps).map(|(life, step)| life.take(step))).await;
            }
            Turn::Pass => {
                ground.pass(LEASE).await;
                lives.iter_mut().for_each(Life::lose_claims);
            }
            Turn::Expire => {
                // Twice this time is more than a message outlives its deliveries.
                ground.pass(TTL + Duration::from_secs(1)).await;
                store.sweep().await.unwrap();
                lives.iter_mut().for_each(Life::expire);
            }
            Turn::Restart => {
                store.close().await;
                store = ground.open().await;
                for life in &mut lives {
                    life.go_on_with(&store);
                    life.lose_claims();
                }
            }
        }
    }
    join_all(lives.iter().map(|life| life.agree(ground))).await;
    ground.pass(LEASE).await;
    join_all(lives.iter().map(Life::hand_out_the_rest)).await;
    store
}

/// Many lives on one database.
#[expect(clippy::print_stdout, reason = "`cargo xtask prove` reads how many lives there were")]
fn lives_agree_with_the_model(runtime: &tokio::runtime::Runtime, ground: &Ground) {
    let wanted = std::env::var("CLAUDEMESH_PROVE_T1").ok().map(|text| text.parse::<u32>().expect("a number of lives"));
    let cases = wanted.unwrap_or(DEFAULT_CASES).div_ceil(u32::try_from(LIVES).unwrap());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let store = std::cell::RefCell::new(Some(runtime.block_on(ground.open())));
    let outcome = TestRunner::new(config).run(&proptest::collection::vec(turn(), 1..40), |turns| {
        let open = store.take();
        let led = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(async {
                // The lives before are over; letting time pass would touch all they left.
                ground.empty().await;
                let open = match open {
                    Some(open) => open,
                    // The lives before failed, and left no store.
                    None => ground.open().await,
                };
                lead(ground, open, turns).await
            })
        }));
        let open = led.map_err(|panic| {
            let text = panic.downcast_ref::<String>().map_or("the model and the store differ", String::as_str);
            TestCaseError::fail(text.to_owned())
        })?;
        store.replace(Some(open));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    if let Some(store) = store.take() {
        runtime.block_on(store.close());
    }
    println!("\nproof T1 held for {} lives", cases * u32::try_from(LIVES).unwrap());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

mod sqlite {
    #[test]
    fn lives_agree_with_the_model() {
        super::lives_agree_with_the_model(&super::runtime(), &crate::ground::Ground::sqlite());
    }
}

mod postgres {
    #[test]
    fn lives_agree_with_the_model() {
        let runtime = super::runtime();
        let ground = runtime.block_on(crate::ground::Ground::postgres());
        super::lives_agree_with_the_model(&runtime, &ground);
    }
}
