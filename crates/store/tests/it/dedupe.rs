//! D6: one client id is one message, in a batch, later, and after a restart.

use claudemesh_store::{Appended, NewMessage};

use crate::ground::Ground;
use crate::people::{Person, Town, fresh_connection, kept};

on_both! {
    a_retry_gets_the_first_answer,
    retries_in_one_batch_are_one_message,
    another_fingerprint_is_another_message,
    an_absent_fingerprint_equals_only_an_absent_one,
    without_fingerprints_the_message_itself_is_compared,
    two_senders_may_use_one_client_id,
    a_refused_message_does_not_take_the_client_id,
}

fn letter(town: &Town, from: &Person, fingerprint: Option<&str>) -> NewMessage {
    NewMessage {
        client_message_id: Some("id-1".into()),
        request_fingerprint: fingerprint.map(Into::into),
        ..town.letter(from, town.bob.key, "text")
    }
}

async fn count(ground: &Ground) -> (i64, i64, i64) {
    (
        ground.number("select count(*) from message").await,
        ground.number("select count(*) from delivery").await,
        ground.number("select cast(coalesce(sum(queued_rows), 0) as bigint) from backlog").await,
    )
}

async fn a_retry_gets_the_first_answer(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let first = kept(town.append(letter(&town, &town.ada, Some("f"))).await.unwrap());
    assert_eq!(town.append(letter(&town, &town.ada, Some("f"))).await.unwrap(), Appended::Kept(first.clone()));
    store.close().await;
    let store = ground.open().await;
    let town = town.through(&store);
    // With a fingerprint, the ciphertext of a retry may be another: it was sealed again.
    let again = NewMessage { ciphertext: "sealed again".into(), ..letter(&town, &town.ada, Some("f")) };
    assert_eq!(town.append(again).await.unwrap(), Appended::Kept(first));
    assert_eq!(town.append(letter(&town, &town.ada, Some("other"))).await.unwrap(), Appended::Reused);
    assert_eq!(count(ground).await, (1, 1, 1));
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["text"]);
    store.close().await;
}

async fn retries_in_one_batch_are_one_message(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let mut pending = Vec::new();
    for fingerprint in ["f", "f", "other", "f"] {
        pending.push(store.append(letter(&town, &town.ada, Some(fingerprint))).await);
    }
    let mut outcomes = Vec::new();
    for answer in pending {
        outcomes.push(answer.await.unwrap());
    }
    let id = kept(outcomes[0].clone());
    let same = Appended::Kept(id);
    assert_eq!(outcomes, [same.clone(), same.clone(), Appended::Reused, same]);
    assert_eq!(count(ground).await, (1, 1, 1));
    store.close().await;
}

async fn another_fingerprint_is_another_message(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    kept(town.append(letter(&town, &town.ada, Some("one"))).await.unwrap());
    assert_eq!(town.append(letter(&town, &town.ada, Some("two"))).await.unwrap(), Appended::Reused);
    assert_eq!(town.append(letter(&town, &town.ada, Some(""))).await.unwrap(), Appended::Reused);
    assert_eq!(count(ground).await, (1, 1, 1));
    store.close().await;
}

async fn an_absent_fingerprint_equals_only_an_absent_one(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let id = kept(town.append(letter(&town, &town.ada, None)).await.unwrap());
    assert_eq!(town.append(letter(&town, &town.ada, Some("f"))).await.unwrap(), Appended::Reused);
    assert_eq!(town.append(letter(&town, &town.ada, None)).await.unwrap(), Appended::Kept(id));
    kept(town.append(letter(&town, &town.bob, Some("f"))).await.unwrap());
    assert_eq!(town.append(letter(&town, &town.bob, None)).await.unwrap(), Appended::Reused);
    store.close().await;
}

async fn without_fingerprints_the_message_itself_is_compared(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    kept(town.append(letter(&town, &town.ada, None)).await.unwrap());
    let plain = || letter(&town, &town.ada, None);
    for changed in [
        NewMessage { target: claudemesh_proto::Target::Key(town.ada.key), ..plain() },
        NewMessage { nonce: "b3RoZXI=".into(), ..plain() },
        NewMessage { ciphertext: "other".into(), ..plain() },
    ] {
        assert_eq!(town.append(changed).await.unwrap(), Appended::Reused);
    }
    assert_eq!(count(ground).await, (1, 1, 1));
    store.close().await;
}

async fn two_senders_may_use_one_client_id(ground: &Ground) {
    let store = ground.open().await;
    let (town, other) = (Town::found(&store).await, Town::found(&store).await);
    let mut ids = Vec::new();
    for (town, from) in [(&town, &town.ada), (&town, &town.bob), (&other, &other.ada)] {
        ids.push(kept(town.append(letter(town, from, None)).await.unwrap()));
    }
    assert_eq!(count(ground).await.0, 3);
    assert_ne!(ids[0], ids[1]);
    store.close().await;
}

async fn a_refused_message_does_not_take_the_client_id(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let nobody = NewMessage {
        target: claudemesh_proto::Target::Key(crate::people::fresh_key()),
        ..letter(&town, &town.ada, Some("f"))
    };
    assert_eq!(town.append(nobody).await.unwrap(), Appended::NoRecipient);
    kept(town.append(letter(&town, &town.ada, Some("g"))).await.unwrap());
    store.close().await;
}
