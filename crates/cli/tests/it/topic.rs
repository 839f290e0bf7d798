//! Topics, with real programs and a real broker.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::broker::Broker;
use crate::team::Team;
use crate::user::{Said, User};

/// A `topic tail` that runs, and what it says.
struct Tail {
    child: Child,
    shown: Receiver<String>,
    told: Receiver<String>,
}

impl Tail {
    fn start(user: &User, topic: &str) -> Self {
        let mut child = user.command(&["topic", "tail", topic, "--json"]).spawn().unwrap();
        let (shown, told) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, shown, told }
    }

    /// The next message.
    fn message(&self) -> Value {
        let line = self.shown.recv_timeout(PATIENCE).expect("a message");
        serde_json::from_str(&line).unwrap()
    }

    fn text(&self) -> String {
        self.message()["text"].as_str().expect("a text").to_owned()
    }

    /// Waits until it says something that has these words.
    fn says(&self, words: &str) -> String {
        loop {
            let line = self.told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("\"{words}\" is not said"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Ends it as Ctrl-C does; how it ended.
    fn interrupt(mut self) -> i32 {
        let id = self.child.id().to_string();
        std::process::Command::new("kill").args(["-INT", &id]).status().unwrap();
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// How it ended by itself.
    fn wait(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (queue, lines) = mpsc::sync_channel(1000);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = queue.send(line);
        }
    });
    lines
}

fn join_as(team: &Team, name: &str) -> User {
    let user = User::new();
    let invite = team.anna.json_one(&["invite"]);
    user.json_one(&["join", invite["url"].as_str().unwrap(), "--name", name]);
    user
}

fn post(user: &User, topic: &str, text: &str) -> String {
    let posted = user.json_one(&["topic", "post", topic, text]);
    assert_eq!(posted["encrypted"], true, "{posted}");
    posted["messageId"].as_str().unwrap().to_owned()
}

fn texts(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["text"].as_str().unwrap_or("-")).collect()
}

fn refused(said: &Said, code: i32, words: &str) {
    assert_eq!((said.code, said.stdout.as_str()), (code, ""), "{said:?}");
    assert!(said.stderr.contains(words), "{said:?}");
}

/// The whole onboarding (websocket 6.2.3): who joins waits, a holder of the key comes by, and the newcomer reads all there is.
#[test]
fn a_newcomer_gets_the_key_from_a_peer_and_reads_all_and_after_a_ban_nothing_new() {
    let team = Team::new();
    let carl = join_as(&team, "Carl");
    team.anna.json_one(&["topic", "create", "deploys"]);
    carl.json_one(&["topic", "join", "deploys"]);
    post(&team.anna, "deploys", "the first secret, @Carl");
    assert_eq!(texts(&carl.json(&["topic", "history", "deploys"])), ["the first secret, @Carl"]);

    team.ben.json_one(&["topic", "join", "deploys"]);
    refused(&team.ben.run(&["topic", "post", "deploys", "too early"]), 7, "nobody has shared the topic's key with you");
    let locked = team.ben.run(&["topic", "history", "deploys"]);
    assert!(locked.code == 7 && locked.stdout.contains("[cannot be opened"), "{locked:?}");
    let mut ben = Tail::start(&team.ben, "deploys");
    assert!(ben.says("Waiting for a peer to share the topic key, since 20").ends_with("Z."));
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

    let kept = team.broker.bytes_on_disk();
    for secret in ["the first secret", "the second secret", "the third secret"] {
        let encoded = claudemesh_proto::text::base64(secret.as_bytes());
        for needle in [secret.as_bytes(), &encoded.as_bytes()[..16]] {
            assert!(!kept.windows(needle.len()).any(|window| window == needle), "{secret}");
        }
    }
    assert_eq!(ben.text(), "the third secret");

    let key = team.ben.json_one(&["list"])["meshes"][0]["pubkey"].as_str().unwrap().to_owned();
    team.anna.json_one(&["ban", &key]);
    post(&team.anna, "deploys", "not for Ben");
    assert_eq!(carl_reads.text(), "not for Ben");
    assert_eq!(ben.wait(), 2);
    assert!(ben.shown.recv_timeout(PATIENCE).is_err());
    refused(&team.ben.run(&["topic", "history", "deploys"]), 2, "");
    refused(&team.ben.run(&["topic", "tail", "deploys"]), 2, "");
    assert_eq!(carl_reads.interrupt(), 0);
}

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
    let status = request(&team.broker, "/v1/topics/deploys/seal", key["secret"].as_str().unwrap(), &useless);
    assert_eq!(status, "HTTP/1.1 200 OK");
    let tail = Tail::start(&team.ben, "deploys");
    tail.says("A copy of the topic's key could not be opened, and was given back.");
    post(&team.anna, "deploys", "and again");
    tail.says("The topic's key is here.");
    assert_eq!([tail.text(), tail.text()], ["hello", "and again"]);
    assert_eq!(tail.interrupt(), 0);
}

/// Posts to the REST interface; the first line of the answer.
fn request(broker: &Broker, route: &str, secret: &str, body: &Value) -> String {
    let address = broker.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let body = body.to_string();
    write!(
        stream,
        "POST {route} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {secret}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status).unwrap();
    status.trim_end().to_owned()
}

/// (D12) Each message once, in order, also when the broker was away.
#[test]
fn a_tail_takes_up_where_it_was_when_the_broker_comes_back() {
    let Team { anna, ben, broker } = Team::new();
    post(&anna, "general", "one");
    let tail = Tail::start(&ben, "general");
    assert_eq!(tail.text(), "one");
    post(&anna, "general", "two");
    assert_eq!(tail.text(), "two");
    let _broker = broker.crash_and_restart();
    tail.says("trying again");
    for text in ["three", "four"] {
        post(&anna, "general", text);
    }
    assert_eq!([tail.text(), tail.text()], ["three", "four"]);
    post(&anna, "general", "five");
    let last = tail.message();
    assert_eq!((&last["text"], &last["seq"]), (&Value::from("five"), &Value::from(5)));
    assert_eq!(tail.interrupt(), 0);
    let keys = ben.json_one(&["apikey", "list"]);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 0, "no key outlives its command: {keys}");
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
    assert_eq!(inbox.len(), 1, "what is sealed is not handed to who does not know topics");
    assert_eq!([&inbox[0]["topic"], &inbox[0]["encrypted"]], [&Value::from("deploys"), &Value::from(false)]);
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
fn remember_other_keys(user: &User) {
    let mesh = crate::team::membership(user).mesh_id;
    let path = user.home().join(format!("topic-keys/{mesh}.json"));
    let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for topic in file["topics"].as_array_mut().unwrap() {
        topic["fingerprint"] = "00".repeat(32).into();
    }
    std::fs::write(&path, file.to_string()).unwrap();
}

#[test]
fn a_private_topic_is_joined_by_being_added_and_unknown_to_others() {
    let team = Team::new();
    let carl = join_as(&team, "Carl");
    let made = team.ben.json_one(&["topic", "create", "plans", "--visibility", "private", "--about", "what comes"]);
    assert_eq!((&made["created"], &made["visibility"]), (&Value::from(true), &Value::from("private")));
    post(&team.ben, "plans", "the plan");
    for verb in ["join", "history", "members", "read", "leave", "tail"] {
        refused(&carl.run(&["topic", verb, "plans"]), 5, "no topic \"plans\" that you may know of");
    }
    refused(&carl.run(&["topic", "add", "plans", "Carl"]), 5, "no topic");
    let added = team.ben.json_one(&["topic", "add", "plans", "Carl", "--role", "observer"]);
    assert_eq!((&added["role"], &added["keyShared"]), (&Value::from("observer"), &Value::from(true)));
    assert_eq!(texts(&carl.json(&["topic", "history", "plans"])), ["the plan"]);
    let members = carl.json_one(&["topic", "members", "plans"]);
    let members: Vec<_> =
        members["members"].as_array().unwrap().iter().map(|one| (&one["displayName"], &one["role"])).collect();
    assert_eq!(members, [(&"Ben".into(), &"lead".into()), (&"Carl".into(), &"observer".into())]);
    carl.json_one(&["topic", "read", "plans"]);
    carl.json_one(&["topic", "leave", "plans"]);
    refused(&carl.run(&["topic", "history", "plans"]), 5, "no topic");
}

#[test]
fn who_is_not_in_a_topic_is_told_how_to_join() {
    let team = Team::new();
    team.anna.json_one(&["topic", "create", "deploys"]);
    for line in [["history", "deploys"], ["members", "deploys"], ["tail", "deploys"]] {
        let said = team.ben.run(&[&["topic"], &line[..]].concat());
        refused(&said, 7, "you are not in this topic");
        assert!(said.stderr.contains("try: claudemesh topic join NAME"), "{said:?}");
    }
    refused(&team.ben.run(&["topic", "post", "deploys", "x"]), 7, "you are not in this topic");
    refused(&team.ben.run(&["send", "#deploys", "x"]), 3, "claudemesh topic post");
}

#[test]
fn mentions_become_notifications_until_they_are_read() {
    let team = Team::new();
    let first = post(&team.anna, "general", "look, @ben");
    post(&team.anna, "general", "and again @Ben, nobody@ben");
    let listed = team.ben.json_one(&["notification", "list"]);
    let listed = listed["notifications"].as_array().unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[1]["id"], &listed[1]["senderName"]), (&Value::from(first), &Value::from("Anna")));
    assert_eq!((&listed[1]["topicName"], &listed[1]["readAt"]), (&Value::from("general"), &Value::Null));
    let id = &listed[0]["notificationId"].as_str().unwrap()[..8];
    assert_eq!(team.ben.json_one(&["notification", "read", id])["marked"], 1);
    assert_eq!(team.ben.json_one(&["notification", "list"])["notifications"].as_array().unwrap().len(), 1);
    assert_eq!(team.ben.json_one(&["notification", "read", "--all"])["marked"], "all");
    let none = team.ben.run(&["notification", "list"]);
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", "Nothing is unread.\n"));
    assert_eq!(team.ben.json_one(&["notification", "list", "--all"])["notifications"].as_array().unwrap().len(), 2);
    refused(&team.ben.run(&["notification", "read", "zzzzzzzz"]), 5, "none of the newest 50 notifications begins with");
}

#[test]
fn an_old_notification_is_named_by_its_whole_id() {
    use claudemesh_client::{Dial, Line};
    use claudemesh_proto::hello::QUIET;
    use claudemesh_proto::message::Send;
    use claudemesh_proto::text::base64;

    let team = Team::new();
    let topics = team.anna.json_one(&["topic", "list"]);
    let target_spec = format!("#{}", topics["topics"][0]["id"].as_str().unwrap());
    let anna = crate::team::membership(&team.anna);
    let mention = Send { target_spec, ciphertext: base64(b"look, @ben"), ..Send::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mention_ben = |times: usize| {
        runtime.block_on(async {
            let mut line = Line::open(Dial::member(&anna, QUIET).unwrap()).await.unwrap();
            for _ in 0..times {
                line.send(&mention).await.unwrap();
            }
            line.close().await;
        });
    };
    mention_ben(1);
    let oldest = team.ben.json_one(&["notification", "list"])["notifications"][0]["notificationId"].clone();
    mention_ben(50);
    let oldest = oldest.as_str().unwrap();
    refused(
        &team.ben.run(&["notification", "read", &oldest[..31]]),
        5,
        "none of the newest 50 notifications begins with",
    );
    assert_eq!(team.ben.json_one(&["notification", "read", oldest])["marked"], 1);
    team.ben.json_one(&["notification", "read", "--all"]);
}

#[test]
fn a_key_to_the_rest_interface_is_shown_once_listed_and_revoked() {
    let team = Team::new();
    let line = ["apikey", "create", "ci", "--can", "read,send", "--topic", "#general", "--expires", "1h"];
    let made = team.ben.json_one(&line);
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    assert!(secret.starts_with("cm_") && made["expiresAt"].is_string(), "{made}");
    let listed = team.ben.run(&["apikey", "list"]);
    assert!(listed.stdout.contains(&id[..8]) && !listed.stdout.contains(secret), "{listed:?}");
    let row = listed.stdout.lines().nth(1).unwrap();
    assert!(row.contains("read, send") && row.contains("#general") && row.ends_with("valid"), "{row}");
    let plain = team.ben.run(&["apikey", "create", "another"]);
    assert!(plain.stdout.starts_with("cm_") && plain.stdout.lines().count() == 1, "{plain:?}");
    assert!(plain.stderr.contains("It may read."), "{plain:?}");
    assert_eq!(team.ben.json_one(&["apikey", "revoke", &id[..8]])["status"], "revoked");
    assert_eq!(team.ben.json_one(&["apikey", "list"])["keys"].as_array().unwrap().len(), 1);
    assert_eq!(team.ben.json_one(&["apikey", "list", "--all"])["keys"].as_array().unwrap().len(), 2);
    refused(&team.ben.run(&["apikey", "revoke", "zzzzzzzz"]), 5, "no key of yours begins with");
    refused(&team.ben.run(&["apikey", "create", "root", "--can", "admin"]), 7, "admin");
    refused(&team.ben.run(&["apikey", "create", "x", "--can", "fly"]), 3, "must be send, read, state_write or admin");
}

#[test]
fn history_goes_back_over_more_than_one_page() {
    let team = Team::at(Broker::start());
    team.anna.json_one(&["topic", "create", "long"]);
    let big = "x".repeat(40_000);
    let first = post(&team.anna, "long", "the first");
    for _ in 0..22 {
        let said = team.anna.run_with_input(&["topic", "post", "long", "-"], big.as_bytes());
        assert_eq!(said.code, 0, "{said:?}");
    }
    let all = team.anna.json(&["topic", "history", "long", "--limit", "100"]);
    let seqs: Vec<_> = all.iter().map(|one| one["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, (1..=23).collect::<Vec<_>>());
    assert_eq!(all[0]["messageId"], first);
    assert_eq!(team.anna.json(&["topic", "history", "long", "--limit", "3"]).len(), 3);
    let second = all[1]["messageId"].as_str().unwrap();
    let before = team.anna.json(&["topic", "history", "long", "--before", &second[..8]]);
    assert_eq!(texts(&before), ["the first"]);
    refused(
        &team.anna.run_with_input(&["topic", "post", "long", "-"], "x".repeat(70_000).as_bytes()),
        3,
        "bytes of a message",
    );
}

/// Longer than anything takes, except that nobody looks for newcomers more than twice a minute.
const PATIENCE: Duration = Duration::from_secs(20);
