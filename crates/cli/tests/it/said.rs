//! What a person says of itself goes on until the person says otherwise, whatever becomes of connections.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::team::Team;
use crate::user::User;

/// `inbox --wait`, ended when dropped, as Ctrl-C ends it: the broker is told.
struct Listener(Child);

/// Two people on a broker that lets one look often.
fn team() -> Team {
    Team::at(Broker::start_with(&[("HELLO_RATE_PER_MIN", "100000")]))
}

impl Listener {
    fn start(user: &User) -> Self {
        Self(user.command(&["inbox", "--wait"]).spawn().unwrap())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let interrupt = format!("kill -INT {}", self.0.id());
        let _ = Command::new("sh").args(["-c", &interrupt]).status();
        let _ = self.0.wait();
    }
}

/// Waits until Anna sees Ben's only session like this.
fn until_seen(anna: &User, status: &str, summary: Option<&str>) {
    let mut seen = Value::Null;
    let is_so = (0..500).any(|_| {
        seen = anna.json_one(&["peers"])["peers"].take();
        seen.as_array().unwrap().len() == 1 && seen[0]["status"] == status && seen[0]["summary"] == json!(summary)
    });
    assert!(is_so, "{status} and {summary:?} are never seen: {seen}");
}

const LATER: &str = "No session of yours listens now; the next `claudemesh inbox --wait` will say it.\n";

#[test]
fn what_was_said_is_so_again_after_a_crash_of_the_broker_and_after_a_disconnect() {
    let Team { anna, ben, broker } = team();
    let _listening = Listener::start(&ben);
    until_seen(&anna, "idle", None);
    let said = ben.run(&["set-status", "dnd"]);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("Said to be dnd.\n", ""));
    assert_eq!(ben.run(&["summary", "the build"]).stderr, "");
    until_seen(&anna, "dnd", Some("the build"));
    let broker = broker.crash_and_restart();
    until_seen(&anna, "dnd", Some("the build"));
    assert_eq!(anna.json_one(&["disconnect", "Ben"])["closed"], json!(["Ben"]));
    until_seen(&anna, "dnd", Some("the build"));
    assert_eq!(anna.json_one(&["send", "Ben", "a question"])["state"], "held");
    ben.run(&["set-status", "idle"]);
    until_seen(&anna, "idle", Some("the build"));
    ben.run(&["summary", ""]);
    let _broker = broker.crash_and_restart();
    until_seen(&anna, "idle", None);
    assert_eq!(anna.json_one(&["send", "Ben", "another"])["state"], "delivered");
}

#[test]
fn what_is_said_while_nobody_listens_is_said_by_who_listens_next() {
    let Team { anna, ben, broker: _broker } = team();
    for line in [["set-status", "dnd"], ["summary", "lunch"]] {
        let said = ben.run(&line);
        assert_eq!((said.code, said.stderr.as_str()), (0, LATER), "{line:?}");
    }
    let mut listening = Listener::start(&ben);
    until_seen(&anna, "dnd", Some("lunch"));
    let mut notices = BufReader::new(listening.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(notices.any(|line| line == "You are dnd, as you said; claudemesh set-status idle ends it."));
    drop(listening);
    ben.run(&["set-status", "idle"]);
    let _listening = Listener::start(&ben);
    until_seen(&anna, "idle", Some("lunch"));
}

#[test]
fn what_is_inferred_or_said_of_one_session_is_not_kept() {
    let Team { anna, ben, broker: _broker } = team();
    let said = ben.run(&["set-status", "dnd", "--source", "jsonl"]);
    assert_eq!(said.stderr, "No session of yours listens now, so nobody is told.\n");
    let of_session = ben.command(&["set-status", "dnd"]).env("CLAUDEMESH_SESSION_ID", "s1").output().unwrap();
    assert_eq!(String::from_utf8(of_session.stderr).unwrap(), said.stderr);
    assert!(!ben.home().join("said").exists());
    let _listening = Listener::start(&ben);
    until_seen(&anna, "idle", None);
}
