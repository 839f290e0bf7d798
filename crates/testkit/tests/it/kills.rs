//! T4: killed under load, at random moments and at every named point: D1 to D7, D12 and D13.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use claudemesh_testkit::checker::Trouble;
use claudemesh_testkit::process::{Broker, Database};
use claudemesh_testkit::proof;
use tokio::time::sleep;

use crate::load::{Load, broker};
use crate::seed::Seed;

on_both!(kills_at_random_moments_lose_nothing, crashes_at_named_points_lose_nothing);

async fn kills_at_random_moments_lose_nothing(database: Database) {
    let mut seed = Seed::of_run();
    let kills = proof::size("T4", KILLS);
    let mut broker = broker(database);
    let mut slowest = broker.start().await;
    let mut load = Load::start(&broker, &seed.branch(1000)).await;
    for _ in 0..kills {
        sleep(seed.millis(20, 700)).await;
        load.fail_with_clients();
        broker.kill();
        if seed.percent(25) {
            // Killed again while it starts.
            broker.spawn(&[]);
            sleep(seed.millis(0, 150)).await;
            broker.kill();
        }
        if seed.percent(30) {
            sleep(seed.millis(0, 300)).await;
        }
        // Every other process dawdles before its commits, so that most kills come between a request and its commit.
        let millis = if seed.percent(50) { 0 } else { 1 + seed.below(20) };
        slowest = slowest.max(broker.start_with(&[("CLAUDEMESH_PAUSE_AT", &format!("batch.written:{millis}"))]).await);
    }
    println!("{kills} kills; the slowest start took {slowest:.1?}");
    let tally = load.judge(&broker, Trouble::Broker).await;
    assert!(
        tally.acked > 100 && tally.posts > 20 && tally.repeated > 0 && tally.retried > 0,
        "too little happened: {tally:?}"
    );
    broker.remove().await;
    proof::held("T4", kills, "kills at random moments");
}

async fn crashes_at_named_points_lose_nothing(database: Database) {
    let mut seed = Seed::of_run();
    let is_sqlite = matches!(database, Database::Sqlite);
    let mut broker = broker(database);
    broker.start().await;
    let mut load = Load::start(&broker, &seed.branch(1000)).await;
    for (name, highest, sqlite_only) in POINTS {
        if sqlite_only && !is_sqlite {
            continue;
        }
        for _ in 0..TIMES_EACH {
            sleep(seed.millis(0, 200)).await;
            load.fail_with_clients();
            let count = 1 + seed.below(highest);
            broker.kill();
            crash_at(&mut broker, name, count).await;
            broker.start().await;
        }
    }
    load.judge(&broker, Trouble::Broker).await;
    broker.remove().await;
}

/// Starts a process that dies at the point, and waits until it has.
async fn crash_at(broker: &mut Broker, name: &str, count: usize) {
    broker.spawn(&[("CLAUDEMESH_CRASH_AT", &format!("{name}:{count}"))]);
    let status = broker.end_within(Duration::from_secs(20)).await;
    let status = status.unwrap_or_else(|| panic!("never came to {name} a {count}th time"));
    assert_eq!(status.signal(), Some(SIGABRT), "{name}:{count} ended with {status}:\n{}", broker.log_end());
}

const KILLS: usize = 20;
const TIMES_EACH: usize = 2;
const SIGABRT: i32 = 6;

/// Every point of the store, how often it may be passed before the crash, and whether only SQLite comes there.
const POINTS: [(&str, usize, bool); 8] = [
    ("open.begun", 1, false),
    ("journal.taken", 40, false),
    ("batch.written", 40, false),
    ("batch.committed", 40, false),
    ("journal.answered", 40, false),
    ("release.done", 3, false),
    ("checkpoint.before", 4, true),
    ("checkpoint.after", 4, true),
];
