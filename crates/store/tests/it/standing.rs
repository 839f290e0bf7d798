//! A claim that waits: the batch that brings something hands it over (D2), in order (D5), to one connection (D10).

use std::sync::atomic::Ordering;
use std::time::Duration;

use claudemesh_proto::{ConnectionId, Priority, PublicKey};
use claudemesh_store::{Claim, Claimed, NewMessage, Pending, Recipient, Settled, Store, StoreError, Withdraw};

use crate::ground::Ground;
use crate::people::{Town, fresh_connection, fresh_key, is_for, kept, texts};

on_both! {
    the_batch_that_brings_a_message_hands_it_over,
    what_is_there_already_is_not_waited_for,
    what_can_wait_does_not_end_the_wait_of_who_is_busy,
    two_addresses_of_one_connection_share_one_order,
    what_comes_free_is_handed_over_from_the_start,
    a_withdrawn_claim_ends_with_nothing,
    a_claim_and_its_withdrawal_in_one_batch,
    whoever_asks_last_gets_it,
    a_full_window_is_handed_over_and_the_rest_waits,
    what_comes_with_a_poison_row_is_handed_over,
    what_an_abandoned_claim_would_have_got_rings,
    the_retry_of_a_message_that_nobody_was_told_of_wakes,
    a_closed_store_answers_who_waits,
}

fn waiting(town: &Town, recipients: &[Recipient], connection: &ConnectionId) -> Claim {
    let first = recipients.first().unwrap().clone();
    Claim { recipients: recipients.to_vec(), waits: true, ..town.wish(first, connection) }
}

async fn wait_for(town: &Town, recipients: &[Recipient], connection: &ConnectionId) -> Pending<Vec<Claimed>> {
    let claim = town.store.claim(waiting(town, recipients, connection)).await;
    // The shard takes what comes in order: when it answers this, the claim waits.
    town.store.withdraw(withdrawal(town, &fresh_connection())).await.await.unwrap();
    claim
}

fn withdrawal(town: &Town, connection: &ConnectionId) -> Withdraw {
    Withdraw { mesh_id: town.mesh.clone(), connection: connection.clone() }
}

/// Whether it still waits after everything before it is done.
async fn still_waits(town: &Town, claim: &mut Pending<Vec<Claimed>>) -> bool {
    town.store.withdraw(withdrawal(town, &fresh_connection())).await.await.unwrap();
    tokio::time::timeout(Duration::ZERO, claim).await.is_err()
}

fn batches(store: &Store) -> u64 {
    store.meters().batches.load(Ordering::Relaxed)
}

async fn session(town: &Town) -> PublicKey {
    let key = fresh_key();
    assert!(town.speak_for(&town.bob, key, true).await);
    key
}

async fn the_batch_that_brings_a_message_hands_it_over(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let connection = fresh_connection();
    let mut claim = wait_for(&town, &[town.bob.recipient()], &connection).await;
    town.send(&town.bob, town.ada.key, "for somebody else").await;
    assert!(still_waits(&town, &mut claim).await);
    ground.rings();
    let before = batches(&store);
    town.tell_bob("x").await;
    let rows = claim.await.unwrap();
    assert_eq!(texts(&rows), ["x"]);
    assert_eq!(batches(&store) - before, 1);
    assert!(ground.rings().is_empty(), "nobody has to be woken for what was handed over");
    // It is claimed like any other: nobody else gets it, and it can be settled.
    assert!(town.bob_gets(&fresh_connection()).await.is_empty());
    town.settle_held(&rows).await;
    assert_eq!(store.queue_depth().await.unwrap(), 1);
    store.close().await;
}

async fn what_is_there_already_is_not_waited_for(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    town.tell_bob("x").await;
    let claim = store.claim(waiting(&town, &[town.bob.recipient()], &fresh_connection())).await;
    assert_eq!(texts(&claim.await.unwrap()), ["x"]);
    store.close().await;
}

async fn what_can_wait_does_not_end_the_wait_of_who_is_busy(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let connection = fresh_connection();
    let busy = Claim { urgent_only: true, ..waiting(&town, &[town.bob.recipient()], &connection) };
    let mut claim = store.claim(busy).await;
    town.tell_bob("later").await;
    assert!(still_waits(&town, &mut claim).await);
    let urgent = NewMessage { priority: Priority::Now, ..town.letter(&town.ada, town.bob.key, "at once") };
    kept(town.append(urgent).await.unwrap());
    assert_eq!(texts(&claim.await.unwrap()), ["at once"]);
    assert_eq!(town.bob_gets(&connection).await, ["later"]);
    store.close().await;
}

async fn two_addresses_of_one_connection_share_one_order(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let key = session(&town).await;
    let both = [town.bob.recipient(), Recipient::Session(key)];
    let mut texts_sent = Vec::new();
    for number in 0..20 {
        let to = if number % 3 == 0 { key } else { town.bob.key };
        town.send(&town.ada, to, &number.to_string()).await;
        texts_sent.push(number.to_string());
    }
    let connection = fresh_connection();
    let mut wish = waiting(&town, &both, &connection);
    wish.max_rows = 7;
    let mut got = Vec::new();
    while got.len() < 20 {
        let rows = store.claim(wish.clone()).await.await.unwrap();
        wish.after_seq = rows.last().unwrap().seq;
        got.extend(texts(&rows));
    }
    assert_eq!(got, texts_sent);
    // And what comes in one batch, while it waits.
    let claim = wait_for(&town, &both, &connection).await;
    let batch = tokio::task::unconstrained(async {
        let first = store.append(town.letter(&town.ada, key, "first")).await;
        let second = store.append(town.letter(&town.ada, town.bob.key, "second")).await;
        [first, second, store.append(town.letter(&town.ada, key, "third")).await]
    });
    for answer in batch.await {
        kept(answer.await.unwrap());
    }
    assert_eq!(texts(&claim.await.unwrap()), ["first", "second", "third"]);
    store.close().await;
}

async fn what_comes_free_is_handed_over_from_the_start(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let closing = fresh_connection();
    town.tell_bob("older").await;
    let held = town.claim(town.bob.recipient(), &closing).await;
    let claim = Claim { after_seq: 1000, ..waiting(&town, &[town.bob.recipient()], &fresh_connection()) };
    let mut claim = store.claim(claim).await;
    assert!(still_waits(&town, &mut claim).await);
    town.release(&closing, &held).await;
    assert_eq!(texts(&claim.await.unwrap()), ["older"]);
    store.close().await;
}

async fn a_withdrawn_claim_ends_with_nothing(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let connection = fresh_connection();
    let claim = wait_for(&town, &[town.bob.recipient()], &connection).await;
    store.withdraw(withdrawal(&town, &connection)).await.await.unwrap();
    assert!(claim.await.unwrap().is_empty());
    town.tell_bob("x").await;
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["x"]);
    store.close().await;
}

async fn a_claim_and_its_withdrawal_in_one_batch(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let connection = fresh_connection();
    let before = batches(&store);
    let (claim, withdrawn) = tokio::task::unconstrained(async {
        let claim = store.claim(waiting(&town, &[town.bob.recipient()], &connection)).await;
        (claim, store.withdraw(withdrawal(&town, &connection)).await)
    })
    .await;
    withdrawn.await.unwrap();
    assert!(claim.await.unwrap().is_empty());
    assert_eq!(batches(&store) - before, 1);
    store.close().await;
}

async fn whoever_asks_last_gets_it(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let first = wait_for(&town, &[town.bob.recipient()], &fresh_connection()).await;
    let second = wait_for(&town, &[town.bob.recipient()], &fresh_connection()).await;
    assert!(first.await.unwrap().is_empty());
    town.tell_bob("x").await;
    assert_eq!(texts(&second.await.unwrap()), ["x"]);
    store.close().await;
}

async fn a_full_window_is_handed_over_and_the_rest_waits(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let connection = fresh_connection();
    let claim = Claim { max_rows: 2, ..waiting(&town, &[town.bob.recipient()], &connection) };
    let claim = store.claim(claim).await;
    let batch = tokio::task::unconstrained(async {
        let mut batch = Vec::new();
        for text in ["a", "b", "c"] {
            batch.push(store.append(town.letter(&town.ada, town.bob.key, text)).await);
        }
        batch
    });
    for answer in batch.await {
        kept(answer.await.unwrap());
    }
    let rows = claim.await.unwrap();
    assert_eq!(texts(&rows), ["a", "b"]);
    let after = Claim { after_seq: rows[1].seq, ..waiting(&town, &[town.bob.recipient()], &connection) };
    assert_eq!(texts(&store.claim(after).await.await.unwrap()), ["c"]);
    store.close().await;
}

async fn what_comes_with_a_poison_row_is_handed_over(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let connection = fresh_connection();
    let claim = wait_for(&town, &[town.bob.recipient()], &connection).await;
    let batch = tokio::task::unconstrained(async {
        let good = store.append(town.letter(&town.ada, town.bob.key, "good")).await;
        let poison = NewMessage { ciphertext: "x".repeat(2 << 20), ..town.letter(&town.ada, town.bob.key, "") };
        let poison = store.append(poison).await;
        (good, poison, store.append(town.letter(&town.ada, town.bob.key, "better")).await)
    });
    let (good, poison, better) = batch.await;
    kept(good.await.unwrap());
    kept(better.await.unwrap());
    assert!(matches!(poison.await, Err(StoreError::Refused(_))));
    // One answer or two, as the halves fell: nothing is left over, and nothing comes twice.
    let mut got = claim.await.unwrap();
    if got.len() < 2 {
        let after = Claim { after_seq: got[0].seq, ..waiting(&town, &[town.bob.recipient()], &connection) };
        got.extend(store.claim(after).await.await.unwrap());
    }
    assert_eq!(texts(&got), ["good", "better"]);
    store.close().await;
}

async fn what_an_abandoned_claim_would_have_got_rings(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    drop(wait_for(&town, &[town.bob.recipient()], &fresh_connection()).await);
    ground.rings();
    town.tell_bob("x").await;
    assert!(ground.rings().iter().any(|ring| is_for(ring, &town.bob)));
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["x"]);
    store.close().await;
}

/// D2, D6: a batch whose commit came to nobody's ears may have kept a message. Its sender tries again, and then it is handed over.
async fn the_retry_of_a_message_that_nobody_was_told_of_wakes(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let letter = || NewMessage {
        client_message_id: Some("once".into()),
        ..town.letter(&town.ada, town.bob.key, "kept in silence")
    };
    let connection = fresh_connection();
    let id = kept(town.append(letter()).await.unwrap());
    let held = town.claim(town.bob.recipient(), &connection).await;
    let mut claim = wait_for(&town, &[town.bob.recipient()], &fresh_connection()).await;
    ground.sql("update delivery set claim_incarnation = null, claim_connection = null, claim_until = null").await;
    assert!(still_waits(&town, &mut claim).await);
    assert_eq!(kept(town.append(letter()).await.unwrap()), id);
    assert_eq!(claim.await.unwrap()[0].message_id, held[0].message_id);
    town.settle(Settled::Held(held[0].delivery)).await;
    store.close().await;
}

async fn a_closed_store_answers_who_waits(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let claim = wait_for(&town, &[town.bob.recipient()], &fresh_connection()).await;
    drop(town);
    store.close().await;
    assert!(matches!(claim.await, Err(StoreError::Unavailable(_))));
}
