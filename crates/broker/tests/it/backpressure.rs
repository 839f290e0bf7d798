//! D11 and T13: who does not read is dropped, loses nothing, and holds up nobody.

use std::time::Duration;

use claudemesh_testkit::{DEADLINE, Member, Setup, TestMesh, Wire, eventually, merged, proof, send_frame};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

fn impatient() -> Setup {
    Setup::sqlite().with(|config| config.write_timeout = Duration::from_millis(500))
}

async fn until_open(mesh: &TestMesh, open: u64) {
    eventually("the reader is dropped", async || mesh.metric("broker_connections_active").await == Some(open)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_stops_is_dropped_and_its_messages_wait_while_others_go_on() {
    // What fits the buffers of the system is written, but a reader who stops answers no ping either.
    let mesh = impatient().with(|config| config.ping_every = Duration::from_millis(300)).start().await;
    let (mesh_of_ann, ann, bob) = mesh.pair().await;
    let cid = mesh.join(&mesh_of_ann, &ann, "Cid").await;
    let mut stuck = Wire::open_narrow(mesh.address).await;
    stuck.greet(&bob.hello()).await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut other = mesh.connect(&cid.hello()).await;
    let big = "x".repeat(48_000);
    for number in 0..40 {
        sender.deliver(&bob.key(), &format!("{number}:{big}")).await;
        sender.deliver(&cid.key(), &number.to_string()).await;
        assert_eq!(other.receive().await, number.to_string(), "nobody else waits");
    }
    eventually("the reader is dropped", async || {
        // Reading answers pings.
        sender.fence().await;
        other.fence().await;
        mesh.metric("broker_connections_active").await == Some(2)
    })
    .await;
    let mut back = mesh.connect(&bob.hello()).await;
    for number in 0..40 {
        let text = back.receive().await;
        assert!(text.starts_with(&format!("{number}:")) && text.len() > 48_000);
    }
    back.nothing_else().await;
    stuck.break_off();
}

/// A reader who asks and does not listen: what is kept for it is bounded, because it is not read from either.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_without_reading_is_stopped_soon() {
    let mesh = impatient().start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut neighbour = mesh.connect(&bob.hello()).await;
    let mut greedy = Wire::open_narrow(mesh.address).await;
    greedy.greet(&merged(ann.hello(), json!({"cwd": "x".repeat(4096)}))).await;
    let question = json!({"type": "list_peers", "pad": "x".repeat(1000)}).to_string();
    let mut asked = 0;
    // 40 MB of questions and 160 MB of answers are more than all buffers on the way together.
    while asked < 40_000 && greedy.say_blindly(&question).await {
        asked += 1;
        if asked % 1000 == 0 {
            neighbour.fence().await;
        }
    }
    assert!(asked < 40_000, "it was read from without end");
    until_open(&mesh, 1).await;
    neighbour.nothing_else().await;
}

/// Nothing that was written is cut in two, and behind it stands why the line ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_wakes_finds_whole_frames_and_a_close_and_loses_nothing() {
    let mesh = impatient().with(|config| config.request_rate_per_min = 0).start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut sleeper = Wire::open(mesh.address).await;
    sleeper.greet(&merged(bob.hello(), json!({"cwd": "x".repeat(4096)}))).await;
    let big = "x".repeat(48_000);
    for number in 0..30 {
        sender.deliver(&bob.key(), &format!("{number}:{big}")).await;
    }
    // All mail that may be under way fits the buffers of the system; 16 MB of answers do not.
    for _ in 0..4_000 {
        sleeper.feed(&json!({"type": "list_peers"})).await;
    }
    sleeper.flush().await;
    until_open(&mesh, 1).await;
    assert_eq!(sleeper.closed().await, (1013, "slow consumer".to_owned()));
    let pushes = sleeper.kept("push");
    assert!(pushes > 5, "{pushes} were pushed");
    let mut back = mesh.connect(&bob.hello()).await;
    for number in 0..30 {
        assert_eq!(back.receive().await, format!("{number}:{big}"));
    }
    back.nothing_else().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_reads_no_acks_has_all_it_sent_stored() {
    let mesh = impatient().start().await;
    let (_, ann, bob) = mesh.pair().await;
    let mut sender = Wire::open_narrow(mesh.address).await;
    sender.greet(&ann.hello()).await;
    for number in 0..300 {
        sender.feed(&send_frame(&bob.key(), &number.to_string())).await;
    }
    sender.flush().await;
    let mut receiver = mesh.connect(&bob.hello()).await;
    for number in 0..300 {
        assert_eq!(receiver.receive().await, number.to_string());
    }
    drop(sender);
}

/// How many members read, and how many of them stop.
const READERS: usize = 12;
const STUCK: usize = READERS / 4;

/// A reader has a message.
struct Heard {
    number: usize,
    at: Instant,
}

/// T13, D11: a quarter of the readers stop reading, come back and stop again, for `CLAUDEMESH_PROVE_T13` seconds. Nobody else waits
/// for them, each is dropped, and each finds all that was sent meanwhile, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarter_of_the_readers_stops_and_nobody_waits_for_them() {
    let seconds = proof::size("T13", 8);
    let mesh = impatient().with(|config| config.ping_every = Duration::from_millis(300)).start().await;
    let (team, ann) = mesh.mesh("crowd").await;
    let mut members = Vec::new();
    for number in 0..READERS {
        members.push(mesh.join(&team, &ann, &format!("Reader {number}")).await);
    }
    let (stuck, live) = members.split_at(STUCK);
    let mut sender = mesh.connect(&ann.hello()).await;
    let (said, mut heard) = mpsc::channel(READERS);
    let mut readers = JoinSet::new();
    for member in live {
        readers.spawn(read_on(mesh.connect(&member.hello()).await, said.clone()));
    }
    let open = u64::try_from(live.len() + 1).unwrap();
    let started = Instant::now();
    let (mut number, mut slowest) = (0, Duration::ZERO);
    while started.elapsed() < Duration::from_secs(u64::try_from(seconds).unwrap()) {
        let mut sleepers = Vec::new();
        for member in stuck {
            let mut wire = Wire::open_narrow(mesh.address).await;
            wire.greet(&member.hello()).await;
            sleepers.push(wire);
        }
        let first = number;
        let asleep = Instant::now();
        while mesh.metric("broker_connections_active").await != Some(open) {
            assert!(asleep.elapsed() < DEADLINE, "those who do not read stay");
            // One time for all, one time each.
            let targets =
                if number % 2 == 0 { vec!["*".to_owned()] } else { members.iter().map(Member::key).collect() };
            let sent = Instant::now();
            for target in targets {
                sender.deliver(&target, &format!("{number}:{}", "x".repeat(16_000))).await;
            }
            for _ in live {
                let next = timeout(DEADLINE, heard.recv()).await.expect("a reader waits").unwrap();
                assert_eq!(next.number, number, "out of order, twice, or not at all");
                slowest = slowest.max(next.at.duration_since(sent));
            }
            number += 1;
        }
        for mut sleeper in sleepers {
            let end = sleeper.ack_or_close().await.expect_err("no ack comes");
            assert!(end.as_ref().is_none_or(|(code, _)| *code == 1013), "{end:?}");
        }
        for member in stuck {
            let mut back = mesh.connect(&member.hello()).await;
            for expected in first..number {
                assert!(back.receive().await.starts_with(&format!("{expected}:")));
            }
            back.nothing_else().await;
            back.close(1000).await;
        }
    }
    assert!(slowest < Duration::from_secs(10), "somebody waited {slowest:?} for a reader that slept");
    readers.abort_all();
    proof::held("T13", number, &format!("rounds beside readers that had stopped; the slowest took {slowest:.1?}"));
}

/// Receives, acknowledges and reports, as fast as it can.
async fn read_on(mut wire: Wire, said: mpsc::Sender<Heard>) {
    loop {
        let text = wire.receive().await;
        let number = text.split(':').next().unwrap().parse().unwrap();
        said.send(Heard { number, at: Instant::now() }).await.unwrap();
    }
}
