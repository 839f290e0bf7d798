//! How somebody comes into an encrypted topic, and out of the mesh again.

use claudemesh_client::{Dial, Error, Held, Home, MAIL, PASSING_KEY_LIFE, Passing, TopicKey, TopicPin, now};
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::hello::QUIET;
use claudemesh_proto::text::base64;
use claudemesh_proto::{ErrorCode, PublicKey, Timestamp};
use serde_json::Value;

use crate::broker::Broker;
use crate::team::{Team, membership};
use crate::topic::{PATIENCE, Tail, join_as, post, refused, texts};
use crate::topic_key::request;
use crate::user::User;

/// The whole onboarding (websocket 6.2.3): who joins waits, a holder of the key comes by, and the newcomer reads all there is.
#[test]
fn a_newcomer_gets_the_key_from_a_peer_and_reads_all_and_after_a_ban_nothing_new() {
    let team = Team::at(Broker::start_with(&[("RUST_LOG", "trace")]));
    let carl = join_as(&team, "Carl");
    team.anna.json_one(&["topic", "create", "deploys"]);
    carl.json_one(&["topic", "join", "deploys"]);
    post(&team.anna, "deploys", "the first secret, @Carl");
    assert_eq!(texts(&carl.json(&["topic", "history", "deploys"])), ["the first secret, @Carl"]);

    team.ben.json_one(&["topic", "join", "deploys"]);
    refused(&team.ben.run(&["topic", "post", "deploys", "too early"]), 7, "nobody has shared the topic's key with you");
    let locked = team.ben.run(&["topic", "history", "deploys"]);
    assert!(locked.code == 7 && locked.stdout.contains("[cannot be opened"), "{locked:?}");
    let began = now();
    let ben = Tail::start(&team.ben, "deploys");
    let waits = ben.says("Waiting for a peer to share the topic key, since ");
    let since: Timestamp = waits.split_once("since ").unwrap().1.trim_end_matches('.').parse().unwrap();
    assert!(began <= since && since <= now(), "{waits}");
    let carl_reads = Tail::start(&carl, "deploys");
    carl_reads.says("The key of #deploys was shared with Ben.");
    ben.says("The topic's key is here.");
    assert_eq!(ben.text(), "the first secret, @Carl");
    let second = post(&team.anna, "deploys", "the second secret");
    assert_eq!((ben.text(), carl_reads.message()["mentions"].clone()), ("the second secret".into(), ["carl"].into()));
    assert_eq!(carl_reads.text(), "the second secret");

    let answer = team.ben.json_one(&["topic", "post", "deploys", "--reply", &second[..8], "the third secret"]);
    assert_eq!(answer["replyToId"], second);
    let seen = carl_reads.message();
    assert_eq!((&seen["replyToId"], &seen["from"]), (&Value::from(second), &Value::from("Ben")));
    let told = carl.run(&["topic", "history", "deploys"]).stdout;
    assert!(
        told.contains("mentions you")
            && told.contains(&format!("answers {}", &seen["replyToId"].as_str().unwrap()[..8]))
    );

    assert_eq!(ben.text(), "the third secret");
    assert_eq!(texts(&team.ben.json(&["topic", "history", "deploys"])), SECRETS[..3]);
    let old_key = team.ben.json_one(&["apikey", "create", "old", "--can", "read,send"])["secret"].clone();
    let old_key = old_key.as_str().unwrap();
    let ask_with_it =
        |what: &str| request(&team.broker, &format!("GET /v1/topics/deploys/{what}"), old_key, &Value::Null);
    assert_eq!(ask_with_it("messages"), "HTTP/1.1 200 OK");
    let mail = Tail::run(&team.ben, &["inbox", "--wait", "--json"]);
    assert_eq!(mail.text(), SECRETS[1], "what others wrote since he joined");

    let key = team.ben.json_one(&["list"])["meshes"][0]["pubkey"].as_str().unwrap().to_owned();
    team.anna.json_one(&["ban", &key]);
    post(&team.anna, "deploys", SECRETS[3]);
    assert_eq!(carl_reads.text(), SECRETS[3]);
    for mut program in [ben, mail] {
        assert_eq!(program.wait(), 2);
        assert!(program.shown.recv_timeout(PATIENCE).is_err(), "nothing more came");
    }
    is_out(&team.ben);
    for what in ["messages", "key", "stream", "pending-seals"] {
        assert_eq!(ask_with_it(what), "HTTP/1.1 401 Unauthorized", "{what}");
    }
    assert_eq!(carl_reads.interrupt(), 0);
    let key = runtime().block_on(key_of(&team.anna, "deploys"));
    has_neither_the_key_nor_a_text(&team.broker, key.expose_bytes());
}

/// No verb and no greeting of theirs is taken.
fn is_out(user: &User) {
    let verbs = ["topic history deploys", "topic tail deploys", "topic post deploys x", "topic join deploys", "inbox"];
    for verb in verbs {
        refused(&user.run(&verb.split(' ').collect::<Vec<_>>()), 2, "You've been removed");
    }
    let hello = runtime().block_on(async { Dial::member(&membership(user), MAIL).unwrap().open().await.map(drop) });
    assert!(matches!(hello, Err(Error::Refused { code: ErrorCode::Revoked, .. })), "{hello:?}");
}

/// What is kept and what was logged, at the most that there is to log.
fn has_neither_the_key_nor_a_text(broker: &Broker, key: &[u8; 32]) {
    let (kept, printed) = (broker.bytes_on_disk(), broker.printed());
    let has = |needle: &[u8]| {
        [&kept, printed.as_bytes()].iter().any(|hay| hay.windows(needle.len()).any(|part| part == needle))
    };
    assert!(has(b"deploys") && printed.contains("DEBUG"), "it is looked where something is");
    let hex = PublicKey::from_bytes(*key).to_string();
    assert!(
        ![key.as_slice(), hex.as_bytes(), hex.to_uppercase().as_bytes()].iter().any(|needle| has(needle)),
        "the key"
    );
    // The last character of base64 without padding depends on what follows.
    assert!(!has(&base64(key).as_bytes()[..42]), "the key in base64");
    for secret in SECRETS {
        assert!(!has(secret.as_bytes()) && !has(&base64(secret.as_bytes()).as_bytes()[..16]), "{secret}");
    }
}

/// The topic's key, opened from the copy that was sealed for this person.
async fn key_of(user: &User, topic: &str) -> TopicKey {
    let (home, mesh) = (Home::at(user.home()), membership(user));
    let (connection, _) = Dial::member(&mesh, QUIET).unwrap().open().await.unwrap();
    let topics = connection.topics().await.unwrap();
    let topic = topics.iter().find(|one| one.name.as_str() == topic).unwrap();
    let passing = Passing { purpose: "test", capabilities: &[Capability::Read], topic: None, life: PASSING_KEY_LIFE };
    let bearer = connection.passing_key(&mesh.broker_url, passing).await.unwrap().bearer;
    let pin = TopicPin { home: &home, mesh: &mesh, id: &topic.id, name: &topic.name };
    let Held::Key { key, is_new: false } = bearer.topic_key(pin).await.unwrap() else { panic!("no copy of the key") };
    key
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

const SECRETS: [&str; 4] = ["the first secret, @Carl", "the second secret", "the third secret", "not for Ben's eyes"];
