//! D16: asked to stop under load, a broker ends in time and loses nothing.

use std::sync::Arc;
use std::time::Duration;

use claudemesh_client::Membership;
use claudemesh_testkit::checker::Trouble;
use claudemesh_testkit::process::Database;
use claudemesh_testkit::{Member, TestClock, Wire, merged};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::load::{Load, broker};
use crate::mesh::mesh;
use crate::seed::Seed;

on_both!(stops_between_kills_lose_nothing, a_stop_waits_for_nobody_who_does_not_listen);

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

/// One that reads nothing, one that asks nothing and goes nowhere, one that never ends its request.
async fn a_stop_waits_for_nobody_who_does_not_listen(database: Database) {
    let mut broker = broker(database);
    broker.start_with(&[("REQUEST_RATE_PER_MIN", "0")]).await;
    let members = mesh(&broker.url(), "team", 3).await;
    let address = broker.url().trim_start_matches("http://").parse().unwrap();
    let wire = |member: &Membership| Member {
        mesh: member.mesh_id.to_string(),
        id: member.member_id.to_string(),
        identity: Arc::clone(&member.identity),
        clock: TestClock::default(),
    };
    let (sender, deaf, away) = (wire(&members[0]), wire(&members[1]), wire(&members[2]));
    let stranger = Wire::open(address).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\nhost: ").await.unwrap();
    let mut stuck = Wire::open_narrow(address).await;
    stuck.greet(&merged(deaf.hello(), json!({"cwd": "x".repeat(4096)}))).await;
    // 16 MB of answers, which no buffers take in: the broker waits for it to read.
    for _ in 0..4_000 {
        stuck.feed(&json!({"type": "list_peers"})).await;
    }
    stuck.flush().await;
    let mut wire = Wire::open(address).await;
    wire.greet(&sender.hello()).await;
    for number in 0..20 {
        for to in [deaf.key(), away.key()] {
            wire.deliver(&to, &number.to_string()).await;
        }
    }
    let (status, took) = broker.terminate().await;
    println!("stopped in {took:.1?}");
    assert_eq!(status.code(), Some(0), "{}", broker.log_end());
    assert!(took <= Duration::from_secs(10), "a stop took {took:?}");
    assert!(
        broker.log_end().contains("did not close in time and were cut off"),
        "nobody was stuck: {}",
        broker.log_end()
    );
    drop((stranger, slow, stuck));
    broker.start().await;
    for member in [deaf, away] {
        let mut wire = Wire::open(address).await;
        wire.greet(&member.hello()).await;
        for number in 0..20 {
            assert_eq!(wire.receive().await, number.to_string());
        }
    }
    broker.remove().await;
}

const STOPS: usize = 5;
