//! Keys of topics: who has one, who gets one, and what becomes of what is not sealed with it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::broker::Broker;
use crate::team::Team;
use crate::topic::{Tail, join_as, post, refused, texts};
use crate::user::User;

/// (R8) Whoever seals something useless for a newcomer keeps nobody out.
#[test]
fn a_copy_of_the_key_that_cannot_be_opened_is_given_back_and_another_is_waited_for() {
    let team = Team::new();
    team.anna.json_one(&["topic", "create", "deploys"]);
    post(&team.anna, "deploys", "hello");
    team.ben.json_one(&["topic", "join", "deploys"]);
    let members = team.anna.json_one(&["topic", "members", "deploys"]);
    let ben = members["members"].as_array().unwrap().iter().find(|one| one["displayName"] == "Ben").unwrap();
    let key = team.anna.json_one(&["apikey", "create", "x", "--can", "read,send"]);
    let useless = serde_json::json!({
        "memberId": ben["memberId"],
        "encryptedKey": claudemesh_proto::text::base64(&[9; 80]),
        "nonce": claudemesh_proto::text::base64(&[9; 24]),
    });
    let status = request(&team.broker, "POST /v1/topics/deploys/seal", key["secret"].as_str().unwrap(), &useless);
    assert_eq!(status, "HTTP/1.1 200 OK");
    let tail = Tail::start(&team.ben, "deploys");
    tail.says("A copy of the topic's key could not be opened, and was given back.");
    post(&team.anna, "deploys", "and again");
    tail.says("The topic's key is here.");
    assert_eq!([tail.text(), tail.text()], ["hello", "and again"]);
    assert_eq!(tail.interrupt(), 0);
}

/// Asks the REST interface; the first line of the answer.
pub(crate) fn request(broker: &Broker, what: &str, secret: &str, body: &Value) -> String {
    let address = broker.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let body = body.to_string();
    write!(
        stream,
        "{what} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {secret}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status).unwrap();
    status.trim_end().to_owned()
}

/// (R17)
#[test]
fn plaintext_in_an_encrypted_topic_is_flagged_and_what_cannot_be_opened_is_said_so() {
    use claudemesh_client::{Dial, Line};
    use claudemesh_proto::hello::QUIET;
    use claudemesh_proto::message::Send;
    use claudemesh_proto::text::base64;

    let team = Team::new();
    let topic = team.anna.json_one(&["topic", "create", "deploys"]);
    team.ben.json_one(&["topic", "join", "deploys"]);
    let target = format!("#{}", topic["topicId"].as_str().unwrap());
    let anna = crate::team::membership(&team.anna);
    let write = |version: i64, body: Vec<u8>| Send {
        target_spec: target.clone(),
        nonce: base64(&[7; 24]),
        ciphertext: base64(&body),
        body_version: Some(version),
        ..Send::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut line = Line::open(Dial::member(&anna, QUIET).unwrap()).await.unwrap();
        line.send(&write(1, b"in the open\nBen  (0000)  not a head".to_vec())).await.unwrap();
        line.send(&write(2, b"this only looks like a secretbox".to_vec())).await.unwrap();
        line.close().await;
    });
    let inbox = team.ben.json(&["inbox"]);
    let said: Vec<_> = inbox.iter().map(|one| [&one["topic"], &one["encrypted"]]).collect();
    assert_eq!(said, [[&Value::from("deploys"), &Value::from(false)], [&Value::from("deploys"), &Value::Null]]);
    let messages = team.anna.json(&["topic", "history", "deploys"]);
    let said: Vec<_> = messages.iter().map(|one| [&one["encrypted"], &one["plaintext"], &one["text"]]).collect();
    let null = Value::Null;
    assert_eq!(
        said[0],
        [&Value::from(false), &Value::from(true), &Value::from("in the open\nBen  (0000)  not a head")]
    );
    assert_eq!(said[1], [&null, &Value::from(false), &null]);
    let shown = team.anna.run(&["topic", "history", "deploys"]).stdout;
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[0].starts_with("Anna  (") && lines[0].ends_with("  NOT ENCRYPTED, in an encrypted topic"), "{shown}");
    assert_eq!(lines[1..3], ["  in the open", "  Ben  (0000)  not a head"]);
    assert!(lines[4].starts_with("  [cannot be opened"), "{shown}");
    assert!(!shown.contains(&base64(b"this only looks")[..16]), "{shown}");
}

#[test]
fn general_gets_its_key_from_the_first_who_writes_and_a_newcomer_is_in_it() {
    let team = Team::new();
    let said = team.anna.run(&["topic", "post", "#general", "hello"]);
    assert!(said.code == 0 && said.stderr.contains("#general had no key; it has one now"), "{said:?}");
    assert!(said.stderr.contains("was shared with Ben"), "{said:?}");
    let carl = join_as(&team, "Carl");
    refused(&carl.run(&["topic", "post", "general", "hi"]), 7, "nobody has shared the topic's key");
    post(&team.ben, "general", "welcome");
    assert_eq!(texts(&carl.json(&["topic", "history", "general"])), ["hello", "welcome"]);
}

/// (R17)
#[test]
fn nothing_is_written_in_clear_unless_one_says_so_and_never_where_there_is_a_key() {
    let team = Team::new();
    let said = team.anna.run(&["topic", "post", "general", "--plaintext", "for old programs"]);
    assert!(said.code == 0 && said.stderr.contains("Not encrypted: #general has no key"), "{said:?}");
    post(&team.anna, "general", "sealed");
    for user in [&team.anna, &team.ben, &join_as(&team, "Carl")] {
        let said = user.run(&["topic", "post", "general", "--plaintext", "again"]);
        refused(&said, 7, "#general is encrypted: nothing is written there in clear");
    }
    let all = team.ben.json(&["topic", "history", "general"]);
    assert_eq!(texts(&all), ["for old programs", "sealed"]);
    assert_eq!([&all[0]["encrypted"], &all[1]["encrypted"]], [&Value::from(false), &Value::from(true)]);
}

/// A key that is not the one that was seen first stops everything, until one says that it is right.
#[test]
fn a_topic_whose_key_was_replaced_is_not_read_or_written_until_that_is_accepted() {
    let team = Team::new();
    team.anna.json_one(&["topic", "create", "deploys"]);
    let carl = join_as(&team, "Carl");
    carl.json_one(&["topic", "join", "deploys"]);
    post(&team.anna, "deploys", "hello");
    for user in [&team.anna, &carl] {
        assert_eq!(texts(&user.json(&["topic", "history", "deploys"])), ["hello"]);
        remember_other_keys(user);
        for line in [&["history", "deploys"][..], &["post", "deploys", "secret"], &["tail", "deploys"]] {
            let said = user.run(&[&["topic"], line].concat());
            refused(&said, 7, "the key of #deploys is not the one that it had");
            assert!(said.stderr.contains("claudemesh topic forget-key TOPIC accepts the next one"), "{said:?}");
        }
    }
    let added = team.anna.run(&["topic", "add", "deploys", "Ben"]);
    assert!(added.code == 7 && added.stdout.ends_with("is in #deploys now, as member.\n"), "{added:?}");
    assert!(added.stderr.contains("the key of #deploys is not the one that it had"), "{added:?}");
    refused(&team.ben.run(&["topic", "post", "deploys", "x"]), 7, "nobody has shared the topic's key with you");

    team.anna.json_one(&["topic", "forget-key", "#deploys"]);
    assert_eq!(texts(&team.anna.json(&["topic", "history", "deploys"])), ["hello"]);
    assert_eq!(texts(&team.ben.json(&["topic", "history", "deploys"])), ["hello"]);
    refused(&carl.run(&["topic", "post", "deploys", "x"]), 7, "is not the one that it had");
    refused(&carl.run(&["topic", "forget-key", "plans"]), 5, "no key of a topic \"plans\" is remembered here");
}

/// As if the broker had shown other keys of all topics before.
pub(crate) fn remember_other_keys(user: &User) {
    let mesh = crate::team::membership(user).mesh_id;
    let path = user.home().join(format!("topic-keys/{mesh}.json"));
    let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for topic in file["topics"].as_array_mut().unwrap() {
        topic["fingerprint"] = "00".repeat(32).into();
    }
    std::fs::write(&path, file.to_string()).unwrap();
}
