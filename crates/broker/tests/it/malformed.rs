//! T15: malformed frames of every message type, while neighbours exchange messages undisturbed (R12, websocket 1.1 ▶ and,
//! for the `_reqId` of every answer, 2 ▶).
//!
//! Each frame starts as a valid one and is changed in one to three places: types, shapes, lengths, numbers, nesting, bytes. The
//! broker must answer every one of them exactly once and in kind (a few are answered by nothing but a refusal), go on, and mix up
//! nothing. `CLAUDEMESH_PROVE_T15` sets how many frames.

use std::collections::HashMap;
use std::sync::Arc;

use claudemesh_proto::ClientFrame;
use claudemesh_proto::text::base64;
use claudemesh_testkit::{Member, Mesh, Setup, Wire, merged, proof, send_frame};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const FRAMES: usize = 100_000;
const STRANGERS_FRAMES: usize = 4_000;
const LINES: usize = 4;
const BATCH: usize = 250;
const SEED: u64 = 0x5eed_c1a0_de5e_ed00;

/// What is answered only when it is refused.
const SILENT: [&str; 9] = [
    "client_ack",
    "set_status",
    "set_summary",
    "set_stats",
    "join_group",
    "leave_group",
    "topic_join",
    "topic_leave",
    "topic_mark_read",
];

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

/// Who says malformed frames, who is written to, and who may be sent away.
#[derive(Clone, Copy)]
struct Cast<'a> {
    pest: &'a Member,
    sink: &'a Member,
    outcast: &'a Member,
}

/// Valid frames of each type; handshakes stand first.
fn valid(mesh: &Mesh, cast: Cast<'_>) -> Vec<Value> {
    let mut frames = handshakes(cast.pest);
    frames.extend(messages(cast));
    frames.extend(about_oneself(cast));
    frames.extend(about_others(mesh, cast));
    frames.extend(about_topics(cast));
    for kind in ClientFrame::TYPES {
        assert!(frames.iter().any(|frame| frame["type"] == *kind), "{kind} is missing here");
    }
    frames
}

fn handshakes(by: &Member) -> Vec<Value> {
    let more = json!({"groups": [{"name": "a", "role": "b"}], "displayName": "x", "model": "y"});
    vec![by.hello(), merged(by.cold(), more), by.session().hello()]
}

fn messages(cast: Cast<'_>) -> Vec<Value> {
    let full = json!({
        "client_message_id": "c-1", "request_fingerprint": "ab".repeat(32), "ext": {"a": [1, {"b": null}]},
    });
    let wide = |target: &str| send_frame(target, "text");
    vec![
        merged(send_frame(&cast.sink.key(), "text"), full),
        wide("@nobodys/group"),
        wide("*"),
        wide("@all"),
        wide("#topic"),
        json!({"type": "client_ack", "clientMessageId": "c-1", "brokerMessageId": "0".repeat(32)}),
        json!({"type": "message_status", "messageId": "0000000100000000"}),
    ]
}

fn about_oneself(cast: Cast<'_>) -> Vec<Value> {
    let capabilities = ["read", "dm", "broadcast", "state-read", "state-write", "file-read"];
    vec![
        json!({"type": "list_peers"}),
        json!({"type": "set_status", "status": "working", "source": "manual"}),
        json!({"type": "set_status", "status": "idle", "source": "jsonl"}),
        json!({"type": "set_summary", "summary": "a line"}),
        json!({"type": "set_visible", "visible": true}),
        json!({"type": "set_profile", "avatar": "🐜", "title": "a", "bio": "b", "capabilities": ["c", "d"]}),
        json!({"type": "set_stats", "stats": {
            "messagesIn": 1, "messagesOut": 2, "toolCalls": 3, "uptime": 4.5, "errors": 5,
        }}),
        json!({"type": "join_group", "name": "a/b", "role": "c"}),
        json!({"type": "leave_group", "name": "a/b"}),
        json!({"type": "grant_set", "grants": {cast.sink.key(): capabilities, cast.outcast.key(): null}}),
        json!({"type": "grant_list"}),
    ]
}

fn about_others(mesh: &Mesh, cast: Cast<'_>) -> Vec<Value> {
    let outcast = cast.outcast;
    vec![
        json!({"type": "member_list"}),
        json!({"type": "member_update", "displayName": "x", "roleTag": "y", "messageMode": "push", "groups": [{"name": "a"}]}),
        json!({"type": "member_update", "memberId": outcast.id, "role": "admin", "displayName": "z"}),
        json!({"type": "kick", "target": outcast.key(), "stale": null, "all": null}),
        json!({"type": "disconnect", "target": outcast.key(), "stale": null, "all": null}),
        json!({"type": "ban", "target": outcast.key(), "reason": "because"}),
        json!({"type": "unban", "target": outcast.key()}),
        json!({"type": "list_bans"}),
        json!({"type": "audit_query", "limit": 5, "offset": 1, "eventType": "message_sent"}),
        json!({"type": "audit_verify"}),
        json!({"type": "invite_create", "token": mesh.token("member").1, "maxUses": 3}),
        json!({"type": "invite_list"}),
        json!({"type": "invite_revoke", "id": "0".repeat(32)}),
        json!({
            "type": "apikey_create", "label": "a", "capabilities": ["read", "send"], "topicScopes": ["general"],
            "expiresAt": "2099-01-01T00:00:00.000Z",
        }),
        json!({"type": "apikey_list"}),
        json!({"type": "apikey_revoke", "id": "0".repeat(32)}),
    ]
}

fn about_topics(cast: Cast<'_>) -> Vec<Value> {
    let sender = [1; 32];
    let key = [sender.as_slice(), &[2; 48]].concat();
    vec![
        json!({"type": "topic_create", "name": "topic", "description": "a", "visibility": "public"}),
        json!({"type": "topic_create", "name": "sealed", "visibility": "private", "encryptedKey": base64(&key),
               "encryptedKeyPubkey": "01".repeat(32), "nonce": base64(&[3; 24])}),
        json!({"type": "topic_list"}),
        json!({"type": "topic_join", "topic": "general", "role": "observer"}),
        json!({"type": "topic_leave", "topic": "general"}),
        json!({"type": "topic_add_member", "topic": "general", "memberId": cast.sink.id, "role": "member"}),
        json!({"type": "topic_members", "topic": "general"}),
        json!({"type": "topic_history", "topic": "general", "limit": 5, "beforeId": "0".repeat(32)}),
        json!({"type": "topic_mark_read", "topic": "general"}),
    ]
}

/// Something that belongs nowhere.
fn junk(random: &mut Random) -> Value {
    // Made of the parts themselves: `json!` would copy them at each level.
    let nested = |levels: usize| {
        (0..levels).fold(json!(1), |inner, level| match level % 2 {
            0 => Value::Array(vec![inner]),
            _ => Value::Object([("a".to_owned(), inner)].into_iter().collect()),
        })
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
        12 => json!("a".repeat(if random.below(100) == 0 { 70_000 } else { random.below(2_000) })),
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

/// A malformed frame, and what its answer is known by.
struct Malformed {
    bytes: Vec<u8>,
    request_id: String,
    /// The type that its answer must suit, when that answer can be told apart from others.
    answered: Option<String>,
}

impl Malformed {
    fn new(frames: &[Value], random: &mut Random, number: usize) -> Self {
        loop {
            // Far from each other, so that no change makes one out of another.
            let request_id = format!("q{:016x}", (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut frame = frames[random.below(frames.len())].clone();
            // One in ten has its `_reqId` changed as well; of the others every change is one that matters.
            let is_last = random.below(10) > 0;
            if !is_last {
                frame["_reqId"] = json!(request_id);
            }
            for _ in 0..=random.below(3) {
                if frame.is_object() {
                    change(&mut frame, random);
                }
            }
            if is_last && let Value::Object(fields) = &mut frame {
                fields.insert("_reqId".to_owned(), json!(request_id));
            }
            if concerns_the_neighbours(&frame, frames) {
                continue;
            }
            let mut bytes = frame.to_string().into_bytes();
            let read = if spoil(&mut bytes, random) { serde_json::from_slice(&bytes).ok() } else { Some(frame) };
            let Some(frame) = read else { return Self { bytes, request_id, answered: None } };
            if !concerns_the_neighbours(&frame, frames) {
                let is_known = frame["_reqId"] == *request_id && depth(&frame) <= 32;
                let answered = is_known.then(|| frame["type"].as_str().unwrap_or_default().to_owned());
                return Self { bytes, request_id, answered };
            }
        }
    }

    /// Whether it may go without an answer.
    fn is_silent(&self) -> bool {
        let text = String::from_utf8_lossy(&self.bytes);
        SILENT.iter().any(|kind| text.contains(kind))
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// What is valid after all, and is for everybody: it would rightly disturb the neighbours.
fn concerns_the_neighbours(frame: &Value, frames: &[Value]) -> bool {
    let outcast = frames.iter().find(|valid| valid["type"] == "ban").and_then(|ban| ban["target"].as_str());
    // Whoever else a target may name by chance: a key of another, or the one who says it.
    let names_another = frame["target"].as_str().is_some_and(|target| {
        let target = target.trim();
        !outcast.is_some_and(|outcast| outcast.starts_with(target)) && target.len() <= 64
    });
    match frame["type"].as_str() {
        Some("send") => frame["targetSpec"].as_str().is_some_and(|target| {
            let target = target.trim().to_lowercase();
            target == "*" || target == "@all"
        }),
        Some("kick" | "disconnect") => frame["all"] == true || frame["stale"].is_number() || names_another,
        Some("ban") => names_another,
        _ => false,
    }
}

/// Changes the bytes of a frame, two times in five; whether it did.
fn spoil(bytes: &mut Vec<u8>, random: &mut Random) -> bool {
    match random.below(10) {
        0 => bytes.truncate(random.below(bytes.len())),
        1 => {
            let index = random.below(bytes.len());
            bytes[index] ^= 1 << random.below(8);
        }
        2 => bytes.extend(b"}]"),
        3 => {
            // Numbers that no type holds.
            *bytes = String::from_utf8_lossy(bytes).replacen(":\"", ":1e999,\"\":\"", 1).into_bytes();
        }
        _ => return false,
    }
    true
}

async fn feed(wire: &mut Wire, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => wire.feed_text(text).await,
        Err(_) => wire.say_binary(bytes).await,
    }
}

/// Says malformed frames on a connection that was let in, and looks at every answer.
async fn pester(
    (mut wire, turns): (Wire, [Arc<Semaphore>; 2]),
    frames: Vec<Value>,
    (mut random, count): (Random, usize),
) {
    for batch in 0..count / BATCH {
        for turns in &turns {
            turns.add_permits(1);
        }
        let (mut must, mut may) = (0, 0);
        let mut open = Open::new();
        for number in 0..BATCH {
            let said = Malformed::new(&frames, &mut random, batch * BATCH + number);
            *(if said.is_silent() { &mut may } else { &mut must }) += 1;
            feed(&mut wire, &said.bytes).await;
            if let Some(kind) = said.answered {
                open.insert(said.request_id, (kind, said.bytes));
            }
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
            look_at(&answer, &mut open);
        }
        assert!(
            (must..=must + may).contains(&answers),
            "{answers} answers to {must} frames and {may} that may be silent"
        );
        let unanswered = open.values().map(|(kind, _)| kind).find(|kind| !SILENT.contains(&kind.as_str()));
        assert_eq!(unanswered, None, "a frame of this type had no answer, or one without its _reqId");
    }
}

/// Frames that wait for an answer, by their `_reqId`: the type, and the whole.
type Open = HashMap<String, (String, Vec<u8>)>;

/// An answer belongs to a frame that had none yet, and suits it: a `send` is always answered by an ack.
fn look_at(answer: &Value, open: &mut Open) {
    let (kind, bytes) = answer["_reqId"].as_str().and_then(|id| open.remove(id)).unwrap_or_default();
    let said = String::from_utf8_lossy(&bytes);
    let words = answer["message"].as_str().or(answer["error"].as_str()).unwrap_or_default();
    // Whatever is refused is refused for what it says, before the database sees it.
    let is_no_fault_of_the_frame = ["unavailable", "internal"].iter().any(|code| answer["code"] == *code)
        || ["temporarily unavailable, try again", "invalid: message cannot be stored"].contains(&words);
    assert!(!is_no_fault_of_the_frame, "{answer} to {said}");
    if kind.is_empty() {
        return;
    }
    let suits = match (kind.as_str(), answer["type"].as_str().unwrap()) {
        ("send", answer) => answer == "ack",
        ("set_visible" | "set_profile", "ack") | (_, "error") => true,
        ("list_peers", answer) => answer == "peers_list",
        ("topic_add_member", answer) => answer == "topic_member_added",
        ("ban" | "unban" | "kick" | "disconnect", answer) => answer == format!("{kind}_ack"),
        (kind, answer) => {
            answer.starts_with(kind.trim_end_matches("_create").trim_end_matches("_query").trim_end_matches('e'))
        }
    };
    assert!(suits && !(SILENT.contains(&kind.as_str()) && answer["type"] != "error"), "{answer} to {said}");
}

/// Says malformed handshakes as a stranger: each is answered, and some end the line.
async fn knock(mesh_address: std::net::SocketAddr, frames: Vec<Value>, (mut random, count): (Random, usize)) {
    let mut wire = Wire::open(mesh_address).await;
    for number in 0..count {
        feed(&mut wire, &Malformed::new(&frames, &mut random, number).bytes).await;
        wire.flush().await;
        let answer = wire.next().await;
        let stays = ["malformed", "invalid_argument", "no_hello"].iter().any(|code| answer["code"] == *code)
            && answer["message"].as_str().is_some_and(|message| !message.contains("rejected"));
        if !stays {
            wire = Wire::open(mesh_address).await;
        }
    }
}

/// Sends and receives once for every batch that somebody pesters with; how often.
async fn exchange(mut from: Wire, mut to: Wire, (key, turns): (String, Arc<Semaphore>)) -> usize {
    let mut count = 0;
    while let Ok(turn) = turns.acquire().await {
        turn.forget();
        from.deliver(&key, &count.to_string()).await;
        assert_eq!(to.receive().await, count.to_string());
        count += 1;
    }
    to.nothing_else().await;
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_malformed_frames_disturb_nobody() {
    let count = proof::size("T15", FRAMES);
    // What the limit on requests refuses would never be looked at.
    let no_limits = |config: &mut claudemesh_broker::Config| {
        (config.request_rate_per_min, config.topic_rate_per_hour) = (0, 0);
    };
    let mesh = Setup::sqlite().with(no_limits).start().await;
    let (one, ann, bob) = mesh.pair().await;
    let sink = mesh.join(&one, &ann, "Sink").await;
    let outcast = mesh.join(&one, &ann, "Outcast").await;
    let (two, eve) = mesh.mesh("neighbours").await;
    let fay = mesh.join(&two, &eve, "Fay").await;
    let turns = [(); 2].map(|()| Arc::new(Semaphore::new(0)));
    let mut neighbours = JoinSet::new();
    for ((from, to), turns) in [(&ann, &bob), (&eve, &fay)].into_iter().zip(&turns) {
        let (from, to, key) = (mesh.connect(&from.hello()).await, mesh.connect(&to.hello()).await, to.key());
        neighbours.spawn(exchange(from, to, (key, Arc::clone(turns))));
    }
    let pest = mesh.join(&one, &ann, "Pest").await;
    mesh.database.sql(&format!("update member set role = 'admin' where id = '{}'", pest.id)).await;
    let cast = Cast { pest: &pest, sink: &sink, outcast: &outcast };
    let mut pests = JoinSet::new();
    pests.spawn(knock(mesh.address, handshakes(&pest), (Random(SEED), STRANGERS_FRAMES.min(count / 10))));
    let each = (count - STRANGERS_FRAMES.min(count / 10)).div_ceil(LINES).next_multiple_of(BATCH);
    for number in 0..LINES {
        let random = Random(SEED + u64::try_from(number).unwrap());
        let wire = mesh.connect(&merged(pest.hello(), json!({"capabilities": ["quiet"]}))).await;
        pests.spawn(pester((wire, turns.clone()), valid(&one, cast), (random, each)));
    }
    while let Some(pest) = pests.join_next().await {
        pest.unwrap();
    }
    for turns in &turns {
        turns.close();
    }
    while let Some(exchanged) = neighbours.join_next().await {
        assert!(exchanged.unwrap() > LINES * each / BATCH / 2, "the neighbours had to wait");
    }
    proof::held("T15", count, "malformed frames");
}
