//! Topics, with real programs and a real broker.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::broker::Broker;
use crate::team::Team;
use crate::user::{Said, User};

/// A `topic tail` that runs, and what it says.
pub(crate) struct Tail {
    child: Child,
    pub(crate) shown: Receiver<String>,
    told: Receiver<String>,
}

impl Tail {
    pub(crate) fn start(user: &User, topic: &str) -> Self {
        Self::run(user, &["topic", "tail", topic, "--json"])
    }

    /// Another command that goes on.
    pub(crate) fn run(user: &User, line: &[&str]) -> Self {
        let mut child = user.command(line).spawn().unwrap();
        let (shown, told) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, shown, told }
    }

    /// The next message.
    pub(crate) fn message(&self) -> Value {
        let line = self.shown.recv_timeout(PATIENCE).expect("a message");
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        self.message()["text"].as_str().expect("a text").to_owned()
    }

    /// Waits until it says something that has these words.
    pub(crate) fn says(&self, words: &str) -> String {
        loop {
            let line = self.told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("\"{words}\" is not said"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Ends it as Ctrl-C does; how it ended.
    pub(crate) fn interrupt(mut self) -> i32 {
        let id = self.child.id().to_string();
        std::process::Command::new("kill").args(["-INT", &id]).status().unwrap();
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// How it ended by itself.
    pub(crate) fn wait(&mut self) -> i32 {
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

pub(crate) fn join_as(team: &Team, name: &str) -> User {
    let user = User::new();
    let invite = team.anna.json_one(&["invite"]);
    user.json_one(&["join", invite["url"].as_str().unwrap(), "--name", name]);
    user
}

pub(crate) fn post(user: &User, topic: &str, text: &str) -> String {
    let posted = user.json_one(&["topic", "post", topic, text]);
    assert_eq!(posted["encrypted"], true, "{posted}");
    posted["messageId"].as_str().unwrap().to_owned()
}

pub(crate) fn texts(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["text"].as_str().unwrap_or("-")).collect()
}

pub(crate) fn refused(said: &Said, code: i32, words: &str) {
    assert_eq!((said.code, said.stdout.as_str()), (code, ""), "{said:?}");
    assert!(said.stderr.contains(words), "{said:?}");
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
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
