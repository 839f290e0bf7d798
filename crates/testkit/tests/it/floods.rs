//! T14: floods of every kind, while two that behave go on writing to each other, newcomers come in, and memory stays what it was.

use std::collections::VecDeque;
use std::time::Duration;

use claudemesh_testkit::process::{Broker, Database};
use claudemesh_testkit::{Member, Request, Site, Wire, merged, proof, send_frame};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Connections that flood at the same time.
const TASKS: usize = 8;
/// Sockets that one address may have open before they say hello, as the program has it.
const MOST_IDLE: usize = 50;
/// Between two messages of the pair, well below their rate.
const PACE: Duration = Duration::from_millis(150);
/// What the broker may hold more after the floods than before, in KiB: allocators keep some of what was freed.
const MORE_KIB: u64 = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    Connects,
    IdleSockets,
    BadSignatures,
    Sends,
    Hooks,
}

const FLOODS: [Flood; 5] = [Flood::Connects, Flood::IdleSockets, Flood::BadSignatures, Flood::Sends, Flood::Hooks];

/// T14, R12: for `CLAUDEMESH_PROVE_T14` seconds each.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn floods_keep_nobody_from_writing_and_leave_nothing_behind() {
    let seconds = Duration::from_secs(u64::try_from(proof::size("T14", 4)).unwrap());
    let mut broker = Broker::new(Database::Sqlite, &[("RUST_LOG", "info,sqlx=warn")]);
    broker.start().await;
    let site = Site::at(broker.address());
    let (mesh, ann, bob) = site.pair().await;
    let pest = site.join(&mesh, &ann, "Pest").await;
    // From now on addresses are what a proxy says: limits do not count loopback.
    broker.terminate().await;
    broker.start_with(&[("BROKER_TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let (stop, stopped) = watch::channel(false);
    let mut pair = JoinSet::new();
    let (from, to) = (enter(&site, &ann, PAIR).await, enter(&site, &bob, PAIR).await);
    pair.spawn(exchange(from, to, (bob.key(), stopped)));
    let before = broker.memory_kib();
    let mut floods = 0;
    for flood in FLOODS {
        let until = Instant::now() + seconds;
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            tasks.spawn(pour(flood, site.clone(), (pest.clone(), ann.key(), until)));
        }
        while Instant::now() < until {
            // Somebody else comes in meanwhile.
            enter(&site, &bob, NEWCOMER).await.close(1000).await;
            sleep(PACE).await;
        }
        let mut count = 0;
        while let Some(poured) = tasks.join_next().await {
            count += poured.unwrap();
        }
        println!("{flood:?}: {count}, then {:?} KiB", broker.memory_kib());
        assert!(count > TASKS, "{flood:?} was no flood");
        floods += count;
    }
    stop.send_replace(true);
    let (count, slowest) = pair.join_next().await.unwrap().unwrap();
    println!("{count} messages beside them; the slowest took {slowest:.1?}");
    assert!(count > 10 && slowest < Duration::from_secs(10), "{count} messages, the slowest in {slowest:?}");
    if let (Some(before), Some(after)) = (before, broker.memory_kib()) {
        assert!(after < before + MORE_KIB, "it held {before} KiB, and {after} KiB after the floods");
    }
    let log = String::from_utf8_lossy(&broker.log()).into_owned();
    assert!(!log.contains("panicked"), "{}", broker.log_end());
    broker.remove().await;
    proof::held(
        "T14",
        floods,
        &format!("connects, sockets, hellos, sends and hooks, with {count} messages beside them"),
    );
}

const PAIR: &str = "198.51.100.1";
const NEWCOMER: &str = "198.51.100.2";
const FLOODER: &str = "203.0.113.9";
/// Whose handshake is good: from the address of those that fail it would not be let in.
const SENDER: &str = "203.0.113.10";

async fn enter(site: &Site, member: &Member, whence: &str) -> Wire {
    let opened = Wire::try_open(site.address, &[("x-forwarded-for", whence)]).await;
    let mut wire = opened.unwrap_or_else(|status| panic!("who behaves was refused: {status:?}"));
    wire.greet(&member.hello()).await;
    wire
}

/// One message after the other, at the pair's pace: how many, and how long the slowest took.
async fn exchange(mut from: Wire, mut to: Wire, (key, stopped): (String, watch::Receiver<bool>)) -> (usize, Duration) {
    let (mut count, mut slowest) = (0, Duration::ZERO);
    while !*stopped.borrow() {
        let sent = Instant::now();
        from.deliver(&key, &count.to_string()).await;
        // Newcomers with the same key are handed some of it, and give it back: it may come later or again.
        let _ = to.receive().await;
        slowest = slowest.max(sent.elapsed());
        count += 1;
        sleep(PACE).await;
    }
    (count, slowest)
}

/// How much was poured until the time was over.
async fn pour(flood: Flood, site: Site, (pest, to, until): (Member, String, Instant)) -> usize {
    let headers = [("x-forwarded-for", FLOODER)];
    let (mut count, started) = (0, Instant::now());
    let (mut idle, mut opened) = (VecDeque::new(), 0);
    let mut line = None;
    while Instant::now() < until {
        count += 1;
        match flood {
            Flood::Connects => drop(Wire::try_open(site.address, &headers).await),
            Flood::IdleSockets => {
                let Ok(wire) = Wire::try_open(site.address, &headers).await else { continue };
                opened += 1;
                idle.push_back(wire);
                // Those are closed by now.
                idle.drain(..idle.len().saturating_sub(2 * MOST_IDLE));
            }
            Flood::BadSignatures => {
                let Ok(mut wire) = Wire::try_open(site.address, &headers).await else { continue };
                if wire.try_say(&forged(&pest).to_string()).await {
                    assert!(!wire.next_or_end().await.is_ok_and(|frame| frame["type"] == "hello_ack"));
                }
            }
            Flood::Sends => {
                let wire = match &mut line {
                    Some(wire) => wire,
                    none => none.insert(enter(&site, &pest, SENDER).await),
                };
                count += send_many(wire, &to).await;
            }
            Flood::Hooks => {
                let body = json!({"cwd": format!("/{count}"), "pid": count, "status": "working"});
                let request = Request::post("/hook/set-status", &body).header("X-Forwarded-For", FLOODER);
                assert!(request.send(site.address).await.status < 500);
            }
        }
    }
    // As many at a time as one address may have, and as many again when the time for a hello is over.
    let times = 2 + usize::try_from(started.elapsed().as_secs() / 10).unwrap();
    assert!(opened <= MOST_IDLE * times, "{opened} sockets of one address were let in and said nothing");
    count
}

fn forged(member: &Member) -> Value {
    let hello = member.hello();
    let reversed: String = hello["signature"].as_str().unwrap().chars().rev().collect();
    merged(hello, json!({"signature": reversed}))
}

async fn send_many(wire: &mut Wire, to: &str) -> usize {
    const AT_ONCE: usize = 100;
    for number in 0..AT_ONCE {
        wire.feed(&send_frame(to, &number.to_string())).await;
    }
    wire.flush().await;
    for _ in 0..AT_ONCE {
        let ack = wire.ack_or_close().await.unwrap();
        assert!(ack["error"].as_str().is_none_or(|words| words.starts_with("rate_limit: ")), "{ack}");
    }
    AT_ONCE
}
