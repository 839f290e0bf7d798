//! Answers that get lost between the broker and us: what the broker did is not done again, nor for nothing.

use std::io::{Read, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use serde_json::Value;

use crate::broker::Broker;
use crate::team::Team;
use crate::user::User;

/// Passes everything on to the broker, except the answer on the first connection. Its URL.
fn losing_the_first_answer(broker: &Broker) -> String {
    let to = broker.url().trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for (number, near) in listener.incoming().enumerate() {
            let (mut near, mut far) = (near.unwrap(), TcpStream::connect(&to).unwrap());
            let (mut up, mut up_to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            thread::spawn(move || copy(&mut up, &mut up_to));
            if number == 0 {
                // Once it answers, it has done what was asked.
                assert_eq!(far.read(&mut [0]).unwrap(), 1);
                near.shutdown(Shutdown::Both).unwrap();
            } else {
                thread::spawn(move || copy(&mut far, &mut near).and_then(|_| near.shutdown(Shutdown::Both)));
            }
        }
    });
    url
}

#[test]
fn a_join_whose_answer_was_lost_is_repeated_for_the_same_member() {
    let Team { anna, broker, .. } = &Team::new();
    let invite = anna.json_one(&["invite", "--broker", &losing_the_first_answer(broker)]);
    let carl = User::new();
    let join = ["join", invite["url"].as_str().unwrap(), "--name", "Carl"];
    let lost = carl.run(&join);
    assert_eq!(lost.code, 4, "{lost:?}");
    assert_eq!(carl.json_one(&["list"])["meshes"], Value::Array(vec![]));
    assert_eq!(anna.json_one(&["members"])["members"].as_array().unwrap().len(), 3, "the invite is used up");
    let joined = carl.json_one(&join);
    assert_eq!(joined["status"], "joined", "with the same key, for which the broker answers again");
    assert_eq!(anna.json_one(&["members"])["members"][2]["pubkey"], joined["pubkey"]);
    assert_eq!(std::fs::read_dir(carl.home().join("joining")).unwrap().count(), 0, "nothing is left over");
}

#[test]
fn a_creation_whose_answer_was_lost_is_repeated_for_the_same_mesh() {
    let broker = Broker::start();
    let anna = User::new();
    let url = losing_the_first_answer(&broker);
    let create = ["create", "team", "--broker", &url, "--name", "Anna"];
    let lost = anna.run(&create);
    assert_eq!(lost.code, 4, "{lost:?}");
    let made = anna.json_one(&create);
    assert_eq!(anna.json_one(&["members"])["members"][0]["pubkey"], made["pubkey"]);
    assert_eq!(std::fs::read_dir(anna.home().join("creating")).unwrap().count(), 0, "nothing is left over");
}
