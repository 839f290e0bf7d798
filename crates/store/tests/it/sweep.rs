//! What time does: a message expires visibly (D2), and a day later nothing of it is left.

use std::time::Duration;

use claudemesh_proto::post::Post;
use claudemesh_proto::{DeliveryState, PublicKey, Target};
use claudemesh_store::{Admitted, Appended, NewMessage, Recipient, SessionClaim, Settled};

use crate::ground::{Ground, TTL};
use crate::people::{Town, fresh_connection, fresh_key, kept, texts};

on_both! {
    a_message_expires_visibly,
    what_is_expired_is_gone_a_day_later,
    what_was_settled_stays_delivered_until_it_is_gone,
    a_long_backlog_is_swept_in_one_go,
    session_keys_are_forgotten,
    many_handshakes_and_session_keys_are_forgotten_in_one_go,
    a_queue_that_is_empty_is_not_remembered_for_ever,
    old_notifications_that_were_read_are_forgotten,
}

async fn a_message_expires_visibly(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let old = town.tell_bob("old").await;
    town.claim(town.bob.recipient(), &fresh_connection()).await;
    ground.pass(TTL - Duration::from_mins(1)).await;
    let young = town.tell_bob("young").await;
    assert_eq!(store.sweep().await.unwrap(), 0);
    ground.pass(Duration::from_mins(2)).await;
    assert_eq!(store.sweep().await.unwrap(), 1);
    assert_eq!(store.sweep().await.unwrap(), 0);
    let step = async |id: &claudemesh_proto::MessageId| {
        store.message_path(&town.mesh, id.as_str()).await.unwrap().unwrap().steps.remove(0)
    };
    assert_eq!(step(&old).await.state, DeliveryState::Expired);
    assert!(step(&old).await.ended_at.is_some());
    assert_eq!(step(&young).await.state, DeliveryState::Queued);
    // It is too late to acknowledge it, and it is not handed out.
    town.settle(Settled::Message(old.clone(), vec![town.bob.recipient()])).await;
    assert_eq!(step(&old).await.state, DeliveryState::Expired);
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["young"]);
    store.close().await;
}

async fn what_is_expired_is_gone_a_day_later(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let letter = || NewMessage {
        client_message_id: Some("id".into()),
        request_fingerprint: Some("f".into()),
        ..town.letter(&town.ada, town.bob.key, "canary-text")
    };
    let id = kept(town.append(letter()).await.unwrap());
    ground.pass(TTL + Duration::from_hours(23)).await;
    store.sweep().await.unwrap();
    assert_eq!(town.append(letter()).await.unwrap(), Appended::Kept(id.clone()), "the dedupe key lives for 8 days");
    ground.pass(Duration::from_hours(1)).await;
    store.sweep().await.unwrap();
    assert!(store.message_path(&town.mesh, id.as_str()).await.unwrap().is_none());
    for table in ["message", "delivery"] {
        assert_eq!(ground.number(&format!("select count(*) from {table}")).await, 0);
    }
    let next = kept(town.append(letter()).await.unwrap());
    assert_ne!(next, id);
    assert!(next.as_str()[..8] > id.as_str()[..8], "numbers are not used again");
    store.close().await;
}

async fn what_was_settled_stays_delivered_until_it_is_gone(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let id = town.tell_bob("x").await;
    town.settle(Settled::Message(id.clone(), vec![town.bob.recipient()])).await;
    ground.pass(TTL).await;
    assert_eq!(store.sweep().await.unwrap(), 0);
    let path = store.message_path(&town.mesh, id.as_str()).await.unwrap().unwrap();
    assert_eq!(path.steps[0].state, DeliveryState::Delivered);
    ground.pass(Duration::from_hours(24)).await;
    store.sweep().await.unwrap();
    assert!(store.message_path(&town.mesh, id.as_str()).await.unwrap().is_none());
    store.close().await;
}

async fn a_long_backlog_is_swept_in_one_go(ground: &Ground) {
    let store = ground.open().await;
    let (town, other) = (Town::found(&store).await, Town::found(&store).await);
    let mut pending = Vec::new();
    for town in [&town, &other] {
        for _ in 0..2_100 {
            pending.push(store.append(town.letter(&town.ada, town.bob.key, "x")).await);
        }
    }
    for answer in pending {
        kept(answer.await.unwrap());
    }
    ground.pass(TTL).await;
    let fresh = town.tell_bob("fresh").await;
    assert_eq!(store.sweep().await.unwrap(), 4_200);
    assert_eq!(store.queue_depth().await.unwrap(), 1);
    ground.pass(Duration::from_hours(25)).await;
    store.sweep().await.unwrap();
    assert_eq!(ground.number("select count(*) from message").await, 1);
    assert!(store.message_path(&town.mesh, fresh.as_str()).await.unwrap().is_some());
    store.close().await;
}

async fn session_keys_are_forgotten(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (proven, unproven) = (fresh_key(), fresh_key());
    town.speak_for(&town.bob, proven, true).await;
    town.speak_for(&town.bob, unproven, false).await;
    let count = async || ground.number("select count(*) from session").await;
    ground.pass(Duration::from_hours(23)).await;
    store.sweep().await.unwrap();
    assert_eq!(count().await, 2);
    ground.pass(Duration::from_hours(2)).await;
    store.sweep().await.unwrap();
    assert_eq!(count().await, 1);
    ground.pass(TTL).await;
    store.sweep().await.unwrap();
    assert_eq!(count().await, 0);
    store.close().await;
}

/// More than one transaction of the sweep takes.
async fn many_handshakes_and_session_keys_are_forgotten_in_one_go(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let claim = || Some(SessionClaim { pubkey: fresh_key(), proven: true });
    let mut pending = Vec::new();
    for _ in 0..2_100 {
        pending.push(store.admit(town.hello(town.bob.key, claim())).await);
    }
    for answer in pending {
        assert!(matches!(answer.await.unwrap(), Admitted::Welcome(_)));
    }
    let count = async |table: &str| ground.number(&format!("select count(*) from {table}")).await;
    store.sweep().await.unwrap();
    assert_eq!((count("handshake").await, count("session").await), (2_100, 2_100));
    ground.pass(Duration::from_mins(3)).await;
    store.sweep().await.unwrap();
    assert_eq!((count("handshake").await, count("session").await), (0, 2_100));
    ground.pass(TTL + Duration::from_hours(24)).await;
    store.sweep().await.unwrap();
    assert_eq!(count("session").await, 0);
    store.close().await;
}

async fn a_queue_that_is_empty_is_not_remembered_for_ever(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (fetched, late) = (fresh_key(), fresh_key());
    for key in [fetched, late] {
        town.speak_for(&town.bob, key, true).await;
    }
    let queues =
        async |key: PublicKey| ground.number(&format!("select count(*) from backlog where recipient = '{key}'")).await;
    let id = town.send(&town.ada, fetched, "fetched").await;
    ground.pass(TTL - Duration::from_hours(1)).await;
    town.send(&town.ada, late, "late").await;
    town.settle(Settled::Message(id, vec![Recipient::Session(fetched)])).await;
    assert_eq!((queues(fetched).await, queues(late).await), (1, 1));
    // Both keys are forgotten; for one of them something waits.
    ground.pass(Duration::from_hours(26)).await;
    store.sweep().await.unwrap();
    assert_eq!(ground.number("select count(*) from session").await, 0);
    assert_eq!((queues(fetched).await, queues(late).await), (0, 1));
    assert_eq!(store.queue_depth().await.unwrap(), 1);
    ground.pass(TTL).await;
    assert_eq!(store.sweep().await.unwrap(), 1);
    assert_eq!(queues(late).await, 0);
    // Whoever comes back is served.
    town.speak_for(&town.bob, late, true).await;
    town.send(&town.ada, late, "again").await;
    assert_eq!(store.queue_depth().await.unwrap(), 1);
    assert_eq!(texts(&town.claim(Recipient::Session(late), &fresh_connection()).await), ["again"]);
    store.close().await;
}

async fn old_notifications_that_were_read_are_forgotten(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let topic = store.topics(&town.mesh, &town.ada.id).await.unwrap().remove(0).id;
    for text in ["old and read", "old", "young and read"] {
        let post = Some(Post { mentions: vec!["newcomer".into()], ..Post::default() });
        let target = Target::Topic(topic.clone());
        town.append(NewMessage { target, post, ..town.letter(&town.ada, town.bob.key, text) }).await.unwrap();
    }
    let day = 24 * 60 * 60 * 1000_i64;
    let (old, young) = (ground.now().as_millis() - 91 * day, ground.now().as_millis() - 89 * day);
    ground
        .sql(&format!("update notification set created_at = case when message_seq = 3 then {young} else {old} end"))
        .await;
    ground.sql("update notification set read_at = created_at where message_seq <> 2").await;
    store.sweep().await.unwrap();
    assert_eq!(ground.rows("select message_seq from notification order by 1").await, ["2", "3"]);
    store.close().await;
}
