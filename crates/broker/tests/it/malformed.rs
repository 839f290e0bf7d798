//! 100,000 malformed frames of every message type, while a neighbour exchanges messages undisturbed.
//!
//! Each frame starts as a valid one and is changed in one to three places: types, shapes, lengths, numbers, nesting, bytes. The
//! broker must answer every one of them exactly once (a `client_ack` may go without), go on, and mix up nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use claudemesh_proto::ClientFrame;
use claudemesh_testkit::{Member, Mesh, TestMesh, Wire, letter, merged};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const FRAMES: usize = 100_000;
const STRANGERS_FRAMES: usize = 4_000;
const LINES: usize = 4;
const BATCH: usize = 250;
const SEED: u64 = 0x5eed_c1a0_de5e_ed00;

/// Xorshift: the same frames every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % bound.max(1)
    }
}

/// A valid frame of each type.
fn valid(mesh: &Mesh, (by, to): (&Member, &Member)) -> Vec<Value> {
    let full = json!({
        "client_message_id": "c-1", "request_fingerprint": "ab".repeat(32), "ext": {"a": [1, {"b": null}]}, "_reqId": "q",
    });
    let frames = vec![
        by.hello(),
        merged(by.cold(), json!({"groups": [{"name": "a", "role": "b"}], "displayName": "x", "model": "y"})),
        by.session().hello(),
        merged(letter(&to.key(), "text"), full),
        json!({"type": "client_ack", "clientMessageId": "c-1", "brokerMessageId": "0".repeat(32)}),
        json!({"type": "message_status", "messageId": "0000000100000000", "_reqId": "q"}),
        json!({"type": "list_peers", "_reqId": "q"}),
        json!({"type": "member_list", "_reqId": "q"}),
        json!({"type": "invite_create", "token": mesh.token("member").1, "maxUses": 3, "_reqId": "q"}),
        json!({"type": "invite_list", "_reqId": "q"}),
        json!({"type": "invite_revoke", "id": "0".repeat(32), "_reqId": "q"}),
    ];
    for kind in ClientFrame::TYPES {
        assert!(frames.iter().any(|frame| frame["type"] == *kind), "{kind} is missing here");
    }
    frames
}

/// Something that belongs nowhere.
fn junk(random: &mut Random) -> Value {
    let nested = |levels: usize| {
        (0..levels).fold(json!(1), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({"a": inner}) })
    };
    match random.below(22) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(1.5),
        5 => json!(u64::MAX),
        6 => json!(i64::MIN),
        7 => json!(1e308),
        8 => json!(""),
        9 => json!("\u{0}"),
        10 => json!("\u{202E}\u{200B}\u{1F4A9}\u{E0041}"),
        11 => json!("'; drop table message; --"),
        12 => json!("a".repeat(random.below(20_000))),
        13 => json!("=".repeat(random.below(200))),
        14 => json!("g".repeat(64)),
        15 => json!([]),
        16 => json!({}),
        17 => json!([1, "a", null, {"b": []}]),
        18 => nested(random.below(40)),
        19 => nested(100),
        20 => json!({"type": "send", "name": 5, "sessionPubkey": []}),
        _ => json!("../../../../etc/passwd"),
    }
}

/// Changes one place somewhere inside.
fn change(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let name = names[random.below(names.len())].clone();
            match random.below(8) {
                0 => drop(fields.remove(&name)),
                1 => drop(fields.insert(format!("{name}x"), json!(1))),
                2 => drop(fields.insert(name, junk(random))),
                _ => change(fields.get_mut(&name).unwrap(), random),
            }
        }
        Value::Array(items) if !items.is_empty() && random.below(2) == 0 => {
            let index = random.below(items.len());
            change(&mut items[index], random);
        }
        Value::String(text) if random.below(3) > 0 => match random.below(5) {
            0 => drop(text.pop()),
            1 => text.push(['=', 'g', ' ', '\u{0}', 'é'][random.below(5)]),
            2 => *text = text.to_uppercase(),
            3 => *text = text.repeat(random.below(4)),
            _ => *text = text.chars().rev().collect(),
        },
        other => *other = junk(random),
    }
}

/// The bytes of a malformed frame.
fn malformed(frames: &[Value], random: &mut Random) -> Vec<u8> {
    let mut frame = frames[random.below(frames.len())].clone();
    for _ in 0..=random.below(3) {
        if frame.is_object() {
            change(&mut frame, random);
        }
    }
    let mut bytes = frame.to_string().into_bytes();
    match random.below(10) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => {
            let index = random.below(bytes.len());
            bytes[index] ^= 1 << random.below(8);
        }
        2 => bytes.extend(b"}]"),
        3 => {
            // Numbers that no type holds.
            let text = String::from_utf8(bytes).unwrap().replacen(":\"", ":1e999,\"\":\"", 1);
            bytes = text.into_bytes();
        }
        _ => {}
    }
    bytes
}

async fn feed(wire: &mut Wire, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => wire.feed_text(text).await,
        Err(_) => wire.say_binary(bytes).await,
    }
}

/// Says malformed frames on a connection that was let in, and counts the answers.
async fn pester(mut wire: Wire, frames: Vec<Value>, (mut random, count): (Random, usize)) {
    for batch in 0..count / BATCH {
        let (mut must, mut may) = (0, 0);
        for _ in 0..BATCH {
            let bytes = malformed(&frames, &mut random);
            let is_ack = String::from_utf8_lossy(&bytes).contains("client_ack");
            *(if is_ack { &mut may } else { &mut must }) += 1;
            feed(&mut wire, &bytes).await;
        }
        let last = format!("last of {batch}");
        wire.say(&json!({"type": "list_peers", "_reqId": last})).await;
        let mut answers = 0;
        loop {
            let answer = wire.next().await;
            if answer["_reqId"] == last.as_str() {
                break;
            }
            answers += 1;
            assert_ne!(answer["code"], "unavailable", "{answer}");
            assert_ne!(answer["error"], "temporarily unavailable, try again", "{answer}");
            assert_ne!(
                answer["error"], "invalid: message cannot be stored",
                "the database refused what the broker took: {answer}"
            );
        }
        assert!((must..=must + may).contains(&answers), "{answers} answers to {must} frames and {may} acks");
    }
}

/// Says malformed handshakes as a stranger: each is answered, and some end the line.
async fn knock(mesh_address: std::net::SocketAddr, frames: Vec<Value>, (mut random, count): (Random, usize)) {
    let mut wire = Wire::open(mesh_address).await;
    for _ in 0..count {
        feed(&mut wire, &malformed(&frames, &mut random)).await;
        wire.flush().await;
        let answer = wire.next().await;
        let stays = ["malformed", "invalid_argument", "no_hello"].iter().any(|code| answer["code"] == *code)
            && answer["message"].as_str().is_some_and(|message| !message.contains("rejected"));
        if !stays {
            wire = Wire::open(mesh_address).await;
        }
    }
}

/// Sends and receives until the others are done; how often.
async fn exchange(mut from: Wire, mut to: Wire, (key, done): (String, Arc<AtomicBool>)) -> usize {
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        from.deliver(&key, &count.to_string()).await;
        assert_eq!(to.receive().await, count.to_string());
        count += 1;
    }
    to.nothing_else().await;
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_malformed_frames_disturb_nobody() {
    let mesh = TestMesh::start().await;
    let (one, ann, bob) = mesh.pair().await;
    let sink = mesh.join(&one, &ann, "Sink").await;
    let (two, eve) = mesh.mesh("neighbours").await;
    let fay = mesh.join(&two, &eve, "Fay").await;
    let done = Arc::new(AtomicBool::new(false));
    let mut neighbours = JoinSet::new();
    for (from, to) in [(&ann, &bob), (&eve, &fay)] {
        let (from, to, key) = (mesh.connect(&from.hello()).await, mesh.connect(&to.hello()).await, to.key());
        neighbours.spawn(exchange(from, to, (key, Arc::clone(&done))));
    }
    let pest = mesh.join(&one, &ann, "Pest").await;
    mesh.database.sql(&format!("update member set role = 'admin' where id = '{}'", pest.id)).await;
    let mut pests = JoinSet::new();
    for number in 0..LINES {
        let random = Random(SEED + u64::try_from(number).unwrap());
        let frames = valid(&one, (&pest, &sink));
        if number == 0 {
            pests.spawn(knock(mesh.address, frames[..3].to_vec(), (Random(SEED), STRANGERS_FRAMES)));
        }
        let wire = mesh.connect(&merged(pest.hello(), json!({"capabilities": ["quiet"]}))).await;
        pests.spawn(pester(wire, frames, (random, (FRAMES - STRANGERS_FRAMES) / LINES)));
    }
    while let Some(pest) = pests.join_next().await {
        pest.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    while let Some(count) = neighbours.join_next().await {
        assert!(count.unwrap() > 100, "the neighbours had to wait");
    }
}
