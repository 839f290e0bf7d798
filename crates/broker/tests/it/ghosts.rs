//! Nobody is listed who is not there (D17): sockets that were cut, clients that froze, a broker that was restarted, processes that
//! took over the number of another.

use std::time::{Duration, Instant};

use claudemesh_testkit::{Member, Request, Setup, TestMesh, Wire, eventually, merged};
use serde_json::{Value, json};

on_both!(a_restart_leaves_nobody_listed_who_did_not_come_back);

async fn until_open(mesh: &TestMesh, open: u64) {
    eventually("only so many are open", async || mesh.metric("broker_connections_active").await == Some(open)).await;
}

async fn listed(watcher: &mut Wire) -> Vec<Value> {
    watcher.peers().await.iter().map(|peer| peer["sessionId"].clone()).collect()
}

fn every_kind(member: &Member) -> [Value; 4] {
    let quiet = merged(member.hello(), json!({"capabilities": ["quiet"]}));
    [member.session().hello(), member.hello(), member.cold(), quiet]
}

async fn left(watcher: &mut Wire, number: usize) {
    for _ in 0..number {
        watcher.event("peer_left").await;
    }
    assert_eq!(watcher.events().await, Vec::<String>::new(), "each is told once");
}

/// D17: the lease counts from the last sign of life, and ends at its moment for whoever asks.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_cut_off_is_gone_ninety_seconds_after_its_last_sign_of_life() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    let mut cut = Vec::new();
    for hello in every_kind(&bob) {
        cut.push(mesh.connect(&hello).await);
    }
    watcher.events().await;
    drop(cut);
    until_open(&mesh, 1).await;
    mesh.clock.pass(Duration::from_secs(85));
    assert_eq!(watcher.peers().await.len(), 5, "it may come back");
    mesh.clock.pass(Duration::from_secs(5));
    assert_eq!(watcher.peers().await.len(), 1, "at the very moment");
    left(&mut watcher, 3).await;
}

/// D17: a lease that is over is not taken up, whoever looks first.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_too_late_is_somebody_new() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    let session = bob.session();
    let first = mesh.connect(&session.hello()).await;
    watcher.event("peer_joined").await;
    let presence = first.greeting["presenceId"].clone();
    first.break_off();
    until_open(&mesh, 1).await;
    mesh.clock.pass(Duration::from_secs(91));
    let second = mesh.connect(&session.hello()).await;
    assert_ne!(second.greeting["presenceId"], presence);
    watcher.event("peer_left").await;
    watcher.event("peer_joined").await;
    assert_eq!(watcher.events().await, Vec::<String>::new());
}

/// D17: a client that reads and writes nothing keeps its socket open, and is dead all the same, at its moment and not at a ping.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the broker counts silence by a clock that no test moves")]
async fn who_freezes_is_gone_within_the_time() {
    let setup = Setup::sqlite().with(|config| {
        // A tenth of the real times, and pings that do not fall on the deadline.
        config.ping_every = Duration::from_secs(3);
        config.grace = Duration::from_secs(9);
    });
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    let mut frozen = Vec::new();
    for hello in every_kind(&bob) {
        frozen.push(mesh.connect(&hello).await);
    }
    let since = Instant::now();
    watcher.events().await;
    let mut dead_after = None;
    while watcher.peers().await.len() > 1 {
        if dead_after.is_none() && mesh.metric("broker_connections_active").await == Some(1) {
            dead_after = Some(since.elapsed());
        }
        assert!(since.elapsed() < Duration::from_millis(9600), "still listed");
        watcher.ping().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(since.elapsed() > Duration::from_millis(8500), "it had its grace: {:?}", since.elapsed());
    let dead_after = dead_after.expect("dead before it is gone");
    assert!((7.4..8.4).contains(&dead_after.as_secs_f64()), "{dead_after:?} is not 7.5 s");
    left(&mut watcher, 3).await;
    for mut wire in frozen {
        wire.cut_off().await;
    }
}

/// D17: presences are of one start of the broker.
async fn a_restart_leaves_nobody_listed_who_did_not_come_back(setup: Setup) {
    let mut mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let session = bob.session();
    let mut before = vec![mesh.connect(&ann.hello()).await, mesh.connect(&session.hello()).await];
    for hello in every_kind(&bob) {
        before.push(mesh.connect(&hello).await);
    }
    // One was cut off a moment ago, and its lease does not survive either.
    before.pop().unwrap().break_off();
    mesh.restart().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    assert_eq!(watcher.peers().await.len(), 1);
    assert_eq!(watcher.events().await, Vec::<String>::new(), "of those who were here before, nothing is told");
    let _back = mesh.connect(&session.hello()).await;
    watcher.event("peer_joined").await;
    assert_eq!(watcher.peers().await.len(), 2);
    drop(before);
}

/// A process that was killed, and another that got its number: one presence each, and a hook is about the one that lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_used_again_is_another_process() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    let place = |name: &str| json!({"pid": 77, "cwd": "/a", "sessionId": name});
    let (old, new) = (merged(bob.session().hello(), place("old")), merged(bob.session().hello(), place("new")));
    mesh.connect(&old).await.break_off();
    until_open(&mesh, 1).await;
    let alive = mesh.connect(&new).await;
    assert_eq!(listed(&mut watcher).await.len(), 3);
    let hook = Request::post("/hook/set-status", &json!({"pid": 77, "cwd": "/a", "status": "working"}));
    assert_eq!(mesh.http(&hook).await.json()["presence_id"], alive.greeting["presenceId"]);
    let statuses: Vec<_> =
        watcher.peers().await.iter().map(|peer| (peer["sessionId"].clone(), peer["status"].clone())).collect();
    assert!(statuses.contains(&(json!("old"), json!("idle"))) && statuses.contains(&(json!("new"), json!("working"))));
    mesh.clock.pass(Duration::from_secs(90));
    assert_eq!(listed(&mut watcher).await.len(), 2);
    assert!(listed(&mut watcher).await.contains(&json!("new")));
    drop(alive);
}

/// websocket 1.7 ▶: limits count open sockets. A hundred cut-off commands cost nobody a place.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_are_gone_take_no_place() {
    let setup = Setup::sqlite().with(|config| {
        (config.max_connections, config.max_connections_per_mesh, config.max_connections_per_member) = (8, 6, 4);
        config.hello_rate_per_min = 0;
    });
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    for _ in 0..20 {
        let mut wires = Vec::new();
        for hello in every_kind(&bob) {
            wires.push(mesh.connect(&hello).await);
        }
        assert_eq!(mesh.refusal(&bob.cold()).await.0, "capacity");
        drop(wires);
        until_open(&mesh, 1).await;
    }
    // Of broken ones no more are kept than could be open.
    assert!(watcher.peers().await.len() <= 5);
    mesh.clock.pass(Duration::from_secs(90));
    assert_eq!(watcher.peers().await.len(), 1);
    let (joined, gone): (Vec<_>, Vec<_>) =
        watcher.events().await.into_iter().partition(|event| event.as_str() != "peer_left");
    assert_eq!((joined.len(), gone.len()), (60, 60), "everybody but the quiet came once and left once");
}

/// D17: seen by others within a second of `hello_ack`.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_greeted_is_listed() {
    let mesh = TestMesh::start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut watcher = mesh.connect(&ann.hello()).await;
    for _ in 0..20 {
        let hello = bob.session().hello();
        let wire = mesh.connect(&hello).await;
        assert!(listed(&mut watcher).await.contains(&hello["sessionId"]));
        wire.close(1000).await;
        assert!(!listed(&mut watcher).await.contains(&hello["sessionId"]));
    }
}
