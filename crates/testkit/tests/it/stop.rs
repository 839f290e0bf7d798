//! D16: asked to stop under load, a broker ends in time and loses nothing.

use std::time::Duration;

use claudemesh_testkit::checker::Trouble;
use claudemesh_testkit::process::Database;
use tokio::time::sleep;

use crate::load::{Load, broker};
use crate::seed::Seed;

on_both!(stops_between_kills_lose_nothing);

async fn stops_between_kills_lose_nothing(database: Database) {
    let mut seed = Seed::of_run();
    let mut broker = broker(database);
    broker.start().await;
    let mut load = Load::start(&broker, &seed.branch(1000)).await;
    for _ in 0..STOPS {
        sleep(seed.millis(300, 1000)).await;
        load.fail_with_clients();
        let (status, took) = broker.terminate().await;
        println!("stopped in {took:.1?}");
        assert_eq!(status.code(), Some(0), "{}", broker.log_end());
        assert!(took <= Duration::from_secs(10), "a stop took {took:?}");
        broker.start().await;
        sleep(seed.millis(50, 300)).await;
        broker.kill();
        broker.start().await;
    }
    load.judge(&broker, Trouble::Broker).await;
    broker.remove().await;
}

const STOPS: usize = 5;
