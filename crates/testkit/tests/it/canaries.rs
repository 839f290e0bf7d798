//! T22, D8: twenty meshes on one broker, each with a word of its own in all that its people say. Everybody asks for everything, also
//! for what belongs to others, and no byte of another mesh comes back, in no frame, no metric and no line of the log.

use std::collections::HashSet;
use std::time::Duration;

use claudemesh_keys::random_bytes;
use claudemesh_testkit::process::{Broker, Database};
use claudemesh_testkit::{Member, Mesh, Request, Site, Wire, merged, proof, send_frame};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

const MESHES: usize = 20;
/// As many ids of a mesh are looked for.
const MARKS: usize = 40;

on_both!(nothing_of_a_mesh_reaches_another);

/// A mesh whose people say its word.
struct Realm {
    site: Site,
    mesh: Mesh,
    ann: Member,
    bob: Member,
    /// 16 characters that are a name, a group, an id and base64.
    word: String,
    wires: Vec<Wire>,
    /// Ids and keys that only this mesh has.
    marks: HashSet<String>,
    /// The id of an invite. Whoever asks for one is told which was asked for, so it is no mark.
    invite: String,
    /// The number of the next message.
    number: usize,
}

/// D8: for `CLAUDEMESH_PROVE_T22` seconds.
async fn nothing_of_a_mesh_reaches_another(database: Database) {
    let seconds = u64::try_from(proof::size("T22", 4)).unwrap();
    let settings = [("RUST_LOG", "info,sqlx=warn"), ("SEND_RATE_PER_MIN", "0"), ("REQUEST_RATE_PER_MIN", "0")];
    let mut broker = Broker::new(database, &settings);
    broker.start().await;
    let site = Site::at(broker.address());
    let mut realms = Vec::new();
    for _ in 0..MESHES {
        realms.push(Realm::found(&site).await);
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut frames, mut rounds) = (0, 0);
    // In the second everybody knows of messages of others.
    while Instant::now() < until || rounds < 2 {
        frames += round(&mut realms).await;
        rounds += 1;
        let page = site.http(&Request::get("/metrics")).await.body;
        assert!(!realms.iter().any(|realm| realm.is_told_by(&page)), "a metric names a mesh");
    }
    let log = String::from_utf8(broker.log()).unwrap();
    for line in log.lines() {
        assert!(!realms.iter().any(|realm| line.contains(&realm.word)), "a name or a body: {line}");
        let told = realms.iter().filter(|realm| realm.is_told_by(line)).count();
        assert!(told < 2, "of two meshes: {line}");
    }
    drop(realms);
    broker.remove().await;
    proof::held("T22", frames, &format!("frames between {MESHES} meshes"));
}

/// Everybody asks for everything, with what the mesh after it has; how many frames came.
async fn round(realms: &mut Vec<Realm>) -> usize {
    let strangers: Vec<Stranger> = realms.iter().map(Realm::as_seen_from_outside).collect();
    let mut asking = JoinSet::new();
    for (place, mut realm) in realms.drain(..).enumerate() {
        let stranger = strangers[(place + 1) % MESHES].clone();
        asking.spawn(async move {
            realm.live(&stranger).await;
            let heard = realm.heard().await;
            (place, realm, heard)
        });
    }
    let mut heard = Vec::new();
    while let Some(asked) = asking.join_next().await {
        let (place, realm, text) = asked.unwrap();
        heard.push((place, text));
        realms.push(realm);
    }
    // In the order in which they were founded, which the strangers have.
    heard.sort_by_key(|(place, _)| *place);
    realms.sort_by_key(|realm| strangers.iter().position(|stranger| stranger.mesh == realm.mesh.id));
    for (place, text) in &heard {
        for (other, realm) in realms.iter().enumerate() {
            if other == *place {
                assert!(text.contains(&realm.word), "it hears its own");
            } else {
                let lines = realm.lines_of(text);
                assert_eq!(lines, "", "mesh {place} has heard of {}", realm.mesh.id);
            }
        }
    }
    heard.iter().map(|(_, text)| text.lines().count()).sum()
}

/// What a mesh knows of another that it should not know.
#[derive(Clone)]
struct Stranger {
    mesh: String,
    member: String,
    key: String,
    message: String,
    invite: String,
}

impl Realm {
    async fn found(site: &Site) -> Self {
        // A letter first, as a slug and a group want it.
        let random: String = random_bytes::<15>().unwrap().iter().map(|byte| char::from(b'a' + byte % 26)).collect();
        let word = format!("k{random}");
        let (mesh, ann) = site.mesh(&word).await;
        let bob = site.join(&mesh, &ann, &word).await;
        let session = bob.session();
        let place = json!({
            "displayName": word, "cwd": format!("/{word}"), "hostname": word, "model": word,
            "groups": [{"name": word, "role": word}],
        });
        let mut realm = Self {
            site: site.clone(),
            marks: [&mesh.id, &ann.id, &bob.id, &ann.key(), &bob.key(), &session.key()].map(Clone::clone).into(),
            mesh,
            ann: ann.clone(),
            bob: bob.clone(),
            word,
            invite: String::new(),
            wires: Vec::new(),
            number: 0,
        };
        for hello in [ann.hello(), bob.hello(), session.hello()] {
            let mut wire = Wire::open(site.address).await;
            wire.listen();
            wire.greet(&merged(hello, place.clone())).await;
            realm.mark(&wire.greeting["presenceId"].clone());
            realm.wires.push(wire);
        }
        let request = json!({"type": "invite_create", "token": realm.mesh.token("member").1});
        let created = realm.wires[0].ask(request).await;
        realm.invite.push_str(created["id"].as_str().unwrap());
        realm
    }

    fn mark(&mut self, id: &Value) {
        let id = id.as_str().filter(|id| id.len() >= 12 && self.marks.len() < MARKS);
        self.marks.extend(id.map(str::to_owned));
    }

    fn as_seen_from_outside(&self) -> Stranger {
        let message = self.marks.iter().find(|mark| mark.starts_with("00000")).cloned();
        Stranger {
            mesh: self.mesh.id.clone(),
            member: self.bob.id.clone(),
            key: self.bob.key(),
            message: message.unwrap_or_default(),
            invite: self.invite.clone(),
        }
    }

    fn is_told_by(&self, text: &str) -> bool {
        text.contains(&self.word) || self.marks.iter().any(|mark| text.contains(mark.as_str()))
    }

    fn lines_of(&self, text: &str) -> String {
        text.lines().filter(|line| self.is_told_by(line)).take(3).collect::<Vec<_>>().join("\n")
    }

    /// Says all that can be said, with the own word in every field and with what belongs to a stranger.
    async fn live(&mut self, stranger: &Stranger) {
        for target in [self.bob.key(), self.ann.key(), format!("@{}", self.word), "*".to_owned()] {
            self.number += 1;
            let id = format!("{}-{}", self.word, self.number);
            let sent = merged(send_frame(&target, ""), json!({"ciphertext": self.word, "client_message_id": id}));
            self.wires[0].say(&sent).await;
            let ack = self.wires[0].expect("ack").await;
            self.mark(&ack["messageId"].clone());
        }
        let own: Vec<String> = self.marks.iter().filter(|mark| mark.starts_with("00000")).cloned().collect();
        for request in self.about_itself(own.last().map_or("", String::as_str)) {
            for wire in &mut self.wires {
                wire.say(&request).await;
            }
        }
        for request in about(stranger) {
            for wire in &mut self.wires {
                wire.say(&request).await;
            }
        }
        // Neither a stranger's mesh nor its keys let anybody in.
        for hello in [
            merged(self.ann.hello(), json!({"meshId": stranger.mesh})),
            merged(self.ann.hello(), json!({"memberId": stranger.member})),
        ] {
            let mut wire = Wire::open(self.site.address).await;
            wire.listen();
            wire.say(&hello).await;
            let answer = wire.next().await;
            let opened = answer["type"] == "hello_ack";
            assert!(!opened || hello["meshId"] == self.mesh.id, "{answer}");
            let heard = wire.heard();
            assert!(!heard.contains(&stranger.key), "{heard}");
        }
        for wire in &mut self.wires {
            wire.fence().await;
        }
    }

    fn about_itself(&self, message: &str) -> Vec<Value> {
        let word = &self.word;
        vec![
            json!({"type": "set_summary", "summary": word}),
            json!({"type": "set_profile", "avatar": word, "title": word, "bio": word, "capabilities": [word]}),
            json!({"type": "set_status", "status": "idle"}),
            json!({"type": "set_visible", "visible": false, "_reqId": word}),
            json!({"type": "set_visible", "visible": true, "_reqId": word}),
            json!({"type": "set_stats", "stats": {"messagesIn": 1}}),
            json!({"type": "join_group", "name": format!("{word}/{word}"), "role": word}),
            json!({"type": "list_peers", "_reqId": word}),
            json!({"type": "member_list", "_reqId": word}),
            json!({"type": "member_update", "roleTag": word, "_reqId": word}),
            json!({"type": "invite_create", "token": self.mesh.token("member").1, "_reqId": word}),
            json!({"type": "invite_list", "_reqId": word}),
            json!({"type": "grant_set", "grants": {self.ann.key(): ["read", "dm", "broadcast"]}, "_reqId": word}),
            json!({"type": "grant_list", "_reqId": word}),
            json!({"type": "list_bans", "_reqId": word}),
            json!({"type": "audit_query", "limit": 100, "_reqId": word}),
            json!({"type": "audit_verify", "_reqId": word}),
            json!({"type": "message_status", "messageId": message, "_reqId": word}),
            json!({"type": "leave_group", "name": format!("{word}/{word}")}),
        ]
    }

    /// What came on all connections since the last time; all mail is taken first.
    async fn heard(&mut self) -> String {
        let mut heard = String::new();
        for wire in &mut self.wires {
            while wire.kept("push") > 0 {
                wire.receive().await;
            }
            wire.fence().await;
            wire.forget();
            heard += &wire.heard();
        }
        heard
    }
}

/// Asks for what a stranger has. Where an answer repeats what was asked for, only the beginning of a mark is named, which is none.
fn about(stranger: &Stranger) -> Vec<Value> {
    let Stranger { mesh, member, key, message, invite } = stranger;
    let beginning = &key[..14];
    vec![
        send_frame(key, "x"),
        send_frame(beginning, "x"),
        send_frame(&format!("#{member}"), "x"),
        json!({"type": "message_status", "messageId": message}),
        json!({"type": "message_status", "messageId": member}),
        json!({"type": "client_ack", "brokerMessageId": message, "clientMessageId": message}),
        json!({"type": "member_update", "memberId": member, "roleTag": "taken"}),
        json!({"type": "invite_revoke", "id": invite}),
        json!({"type": "kick", "target": beginning}),
        json!({"type": "disconnect", "target": beginning}),
        json!({"type": "ban", "target": beginning}),
        json!({"type": "unban", "target": beginning}),
        json!({"type": "audit_query", "limit": 100, "meshId": mesh}),
        json!({"type": "list_peers", "meshId": mesh}),
    ]
}
