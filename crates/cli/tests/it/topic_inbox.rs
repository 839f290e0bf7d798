//! What is written in topics, as it comes to the inbox.

use serde_json::{Value, json};

use crate::team::Team;
use crate::topic::{Tail, post};
use crate::topic_key::remember_other_keys;
use crate::user::User;

fn inbox(user: &User) -> Tail {
    Tail::run(user, &["inbox", "--wait", "--json"])
}

#[test]
fn what_is_written_in_topics_comes_to_the_inbox_opened_and_mentions_are_told() {
    let team = Team::new();
    team.anna.json_one(&["topic", "create", "deploys"]);
    team.ben.json_one(&["topic", "join", "deploys"]);
    let waiting = inbox(&team.ben);
    let id = post(&team.anna, "deploys", "the first");
    let first = waiting.message();
    let wanted = json!({"messageId": id, "from": "Anna", "topic": "deploys", "encrypted": true, "text": "the first"});
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(first[field], *value, "{field}");
    }
    post(&team.anna, "deploys", "look, @ben");
    let second = waiting.message();
    assert_eq!([&first["mentionsYou"], &second["mentionsYou"]], [&json!(false), &json!(true)]);
    assert_eq!(second["text"], "look, @ben");
    team.anna.json_one(&["topic", "create", "elsewhere"]);
    post(&team.anna, "elsewhere", "what would @ben say?");
    waiting.says("Anna mentions you in #elsewhere, which you are not in.");
    assert_eq!(waiting.interrupt(), 0);
    assert_eq!(team.ben.json_one(&["apikey", "list"])["keys"], json!([]), "no key outlives its command");

    post(&team.anna, "deploys", "while @ben is away");
    let said = team.ben.run(&["inbox"]);
    assert!(said.stdout.contains("  #deploys  mentions you\n  while @ben is away\n"), "{said:?}");
}

/// Who does not want to be disturbed announces less, and can read along all the same.
#[test]
fn who_is_busy_is_handed_what_is_urgent_in_topics() {
    let team = Team::new();
    team.anna.json_one(&["topic", "create", "deploys"]);
    team.ben.json_one(&["topic", "join", "deploys"]);
    team.ben.run(&["set-status", "dnd"]);
    let waiting = inbox(&team.ben);
    waiting.says("You are dnd, as you said");
    team.anna.json_one(&["topic", "post", "deploys", "--priority", "now", "it burns"]);
    assert_eq!(waiting.text(), "it burns");
    assert_eq!(waiting.interrupt(), 0);
}

#[test]
fn what_our_key_does_not_open_stays_unopened_and_a_key_that_was_replaced_is_said() {
    let team = Team::new();
    team.anna.json_one(&["topic", "create", "deploys"]);
    team.ben.json_one(&["topic", "join", "deploys"]);
    post(&team.anna, "deploys", "hello");
    assert_eq!(team.ben.json_one(&["inbox"])["text"], "hello");
    remember_other_keys(&team.ben);
    post(&team.anna, "deploys", "secret");
    let said = team.ben.run(&["inbox", "--json"]);
    let message: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(
        [&message["topic"], &message["encrypted"], &message["text"]],
        [&json!("deploys"), &Value::Null, &Value::Null]
    );
    assert!(said.stderr.contains("the key of #deploys is not the one that it had"), "{said:?}");
    assert!(said.stderr.contains("claudemesh topic forget-key TOPIC"), "{said:?}");
}
