//! The client library against a real broker: what the program does not show.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_client::{
    Body, Cipher, Connection, Dial, Draft, Ended, Error, Handshake, Home, Inbox, InboxMessage, Line, MAIL, Membership,
    attest, here, now,
};
use claudemesh_keys::Identity;
use claudemesh_proto::hello::{Place, QUIET};
use claudemesh_proto::message::Send;
use claudemesh_proto::text::base64;
use claudemesh_proto::{ErrorCode, MemberId, Priority, PublicKey};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::team::{Team, membership};

fn compose(from: &Membership, to: &PublicKey, text: &str) -> Send {
    let draft = Draft { to, reference: "them", priority: Priority::Next, text };
    Cipher::new(from.identity.clone()).compose(&draft).unwrap()
}

async fn open(mesh: &Membership, capability: &str) -> (Connection, claudemesh_client::Pushes) {
    Dial::member(mesh, capability).unwrap().open().await.unwrap()
}

#[tokio::test]
async fn many_sends_under_way_at_once_are_each_acknowledged_and_arrive_in_order() {
    let team = Team::new();
    let (anna, ben) = (membership(&team.anna), membership(&team.ben));
    let (sender, _) = open(&anna, QUIET).await;
    let (receiver, mut pushes) = open(&ben, MAIL).await;
    let cipher = Cipher::new(ben.identity.clone());
    let mut submitted = Vec::new();
    for number in 0..80 {
        let send = compose(&anna, &ben.identity.public(), &number.to_string());
        submitted.push(sender.submit(send).await.unwrap());
    }
    let mut ids = HashSet::new();
    for one in submitted {
        let ack = one.ack().await.unwrap();
        assert!(ack.queued, "{ack:?}");
        ids.insert(ack.message_id);
    }
    assert_eq!(ids.len(), 80);
    for number in 0..80 {
        let push = pushes.next().await.unwrap();
        assert_eq!(cipher.open(&push), Body::Text(number.to_string()));
        assert!(ids.contains(push.message_id.as_str()));
        receiver.ack(&push).await.unwrap();
    }
    receiver.close().await;
    sender.close().await;
    assert_eq!((receiver.ended(), sender.ended()), (Some(Ended::ByUs), Some(Ended::ByUs)));
    assert!(pushes.next().await.is_none());
    assert!(matches!(sender.peers().await, Err(Error::Ended(Ended::ByUs))));
}

#[tokio::test]
async fn a_session_is_reached_under_its_own_name_and_opens_with_its_own_key() {
    let team = Team::new();
    let ben = membership(&team.ben);
    let session = Arc::new(Identity::generate().unwrap());
    let attestation = attest(&ben.identity, &session.public(), now().plus(Duration::from_hours(12)));
    let handshake = Handshake::Session { mesh: ben.mesh_id.clone(), session: session.clone(), attestation };
    let place = Place { display_name: Some("ben-api".into()), ..here(MAIL).unwrap() };
    let (connection, mut pushes) = Connection::open(&ben.broker_url, &handshake, place).await.unwrap();
    let anna = team.anna;
    let sending = tokio::task::spawn_blocking(move || anna.json_one(&["send", "ben-api", "to", "you", "alone"]));
    let push = pushes.next().await.unwrap();
    connection.ack(&push).await.unwrap();
    assert_eq!(Cipher::new(session).open(&push), Body::Text("to you alone".into()));
    assert_eq!(sending.await.unwrap()["state"], Value::from("delivered"));
}

#[tokio::test]
async fn a_retry_after_a_crash_of_the_broker_gets_the_first_answer() {
    let Team { anna, ben, broker } = Team::new();
    let (from, to) = (membership(&anna), membership(&ben));
    let mut line = Line::open(Dial::member(&from, QUIET).unwrap()).await.unwrap();
    let send = compose(&from, &to.identity.public(), "once");
    let first = line.send(&send).await.unwrap();
    let _broker = broker.crash_and_restart();
    assert_eq!(line.send(&send).await.unwrap(), first);
    let got = tokio::task::spawn_blocking(move || ben.json(&["inbox"])).await.unwrap();
    assert_eq!(got.len(), 1);
}

#[tokio::test]
async fn a_refusal_that_passes_is_waited_out_and_one_that_does_not_is_told() {
    let team = Team::at(Broker::start_with(&[("SEND_BURST", "1"), ("SEND_RATE_PER_MIN", "600")]));
    let (from, to) = (membership(&team.anna), membership(&team.ben));
    let mut line = Line::open(Dial::member(&from, QUIET).unwrap()).await.unwrap();
    for number in 0..3 {
        line.send(&compose(&from, &to.identity.public(), &number.to_string())).await.unwrap();
    }
    let unknown = Identity::generate().unwrap().public();
    let refused = line.send(&compose(&from, &unknown, "x")).await;
    assert!(
        matches!(&refused, Err(Error::NotAccepted(words)) if words.starts_with("no connected peer")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_dropped_connection_tells_those_who_wait() {
    let team = Team::new();
    let (anna, ben) = (membership(&team.anna), membership(&team.ben));
    let (sender, mut pushes) = open(&anna, QUIET).await;
    let submitted = sender.submit(compose(&anna, &ben.identity.public(), "x")).await.unwrap();
    drop(sender);
    assert!(matches!(submitted.ack().await, Err(Error::Ended(Ended::ByUs))));
    assert!(pushes.next().await.is_none());
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_and_is_shown_once() {
    let team = Team::new();
    let (anna, ben) = (membership(&team.anna), membership(&team.ben));
    let (sender, _) = open(&anna, QUIET).await;
    assert!(sender.send(compose(&anna, &ben.identity.public(), "hello")).await.unwrap().queued);
    let (receiver, mut pushes) = open(&ben, MAIL).await;
    let push = pushes.next().await.unwrap();
    let inbox = Inbox::open(&Home::at(team.ben.home()), &ben.mesh_id).await.unwrap();
    let letter = InboxMessage::of(&push, &"Ben".parse().unwrap(), Cipher::new(ben.identity.clone()).open(&push), now());
    assert_eq!(inbox.store(vec![letter]).await.unwrap().len(), 1);
    inbox.close().await;
    // It crashes here: kept, and not acknowledged.
    drop((receiver, pushes));
    let (got, team) = tokio::task::spawn_blocking(move || (team.ben.json(&["inbox"]), team)).await.unwrap();
    assert_eq!(got.len(), 1, "shown once although it came twice");
    let status = sender.message_status(push.message_id.as_str()).await.unwrap();
    assert!(status.delivered, "{status:?}");
    drop(team);
}

/// (R17)
#[tokio::test]
async fn what_was_not_sealed_for_us_is_shown_as_undecryptable_and_never_as_base64() {
    let team = Team::new();
    let (anna, ben) = (membership(&team.anna), membership(&team.ben));
    let (sender, _) = open(&anna, QUIET).await;
    let other = compose(&anna, &Identity::generate().unwrap().public(), "this is sealed for somebody else");
    let ciphertext = other.ciphertext.clone();
    let send = Send { target_spec: ben.identity.public().to_string(), ..other };
    assert!(sender.send(send).await.unwrap().queued);
    let (json, text) = tokio::task::spawn_blocking(move || {
        let json = team.ben.json_one(&["inbox"]);
        (json, team.ben.run(&["inbox", "--all", "--local"]).stdout)
    })
    .await
    .unwrap();
    assert_eq!((&json["text"], &json["encrypted"]), (&Value::Null, &Value::Null));
    assert!(text.contains("[cannot be opened"), "{text}");
    assert!(!text.contains(&ciphertext), "{text}");
}

/// (R17)
#[tokio::test]
async fn what_should_have_been_sealed_and_was_not_is_flagged() {
    let team = Team::new();
    let (anna, ben) = (membership(&team.anna), membership(&team.ben));
    let (sender, _) = open(&anna, QUIET).await;
    let plain = base64(b"this is not sealed at all");
    let send = Send { nonce: base64(&[0; 24]), ciphertext: plain, ..compose(&anna, &ben.identity.public(), "x") };
    assert!(sender.send(send).await.unwrap().queued);
    let json = tokio::task::spawn_blocking(move || team.ben.json_one(&["inbox"])).await.unwrap();
    assert_eq!((json["text"].as_str(), &json["encrypted"]), (Some("this is not sealed at all"), &Value::Bool(false)));
}

#[tokio::test]
async fn one_member_opens_many_connections_in_the_same_moment() {
    let team = Team::new();
    let anna = membership(&team.anna);
    let mut all = JoinSet::new();
    for _ in 0..32 {
        let anna = anna.clone();
        all.spawn(async move { open(&anna, QUIET).await });
    }
    assert_eq!(all.join_all().await.len(), 32);
}

#[tokio::test]
async fn a_key_that_is_no_member_is_refused_for_good() {
    let team = Team::new();
    let stranger = Membership {
        identity: Arc::new(Identity::generate().unwrap()),
        member_id: MemberId::from_random([7; 32]),
        ..membership(&team.anna)
    };
    let refused = Dial::member(&stranger, QUIET).unwrap().open_patiently(|_, _| panic!("tried again")).await;
    assert!(matches!(refused, Err(Error::Refused { code: ErrorCode::Unauthorized, .. })), "{refused:?}");
}
