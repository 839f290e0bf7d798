//! One bad request in a batch: the database's refusal reaches its sender and nobody else, and is found quickly.

use std::sync::atomic::Ordering;

use claudemesh_store::{Appended, Claim, NewMessage, Pending, Settle, Settled, Store, StoreError};

use crate::ground::Ground;
use crate::people::{Town, fresh_connection, is_for, kept, texts};

on_both! {
    a_ciphertext_that_is_too_long_is_refused_alone,
    a_text_the_database_cannot_hold_is_refused_alone,
    everything_of_many_kinds_and_meshes_goes_in_one_batch,
    thousands_of_requests_are_one_batch,
    large_messages_are_cut_into_batches,
    many_full_windows_are_handed_out_in_turn,
}

const GOOD: usize = 999;

/// Hands everything to the journal before its task runs: the test has one thread, and does not give way.
async fn submit_all(store: &Store, messages: Vec<NewMessage>) -> Vec<Pending<Appended>> {
    tokio::task::unconstrained(async {
        let mut pending = Vec::new();
        for message in messages {
            pending.push(store.append(message).await);
        }
        pending
    })
    .await
}

fn batches(store: &Store) -> u64 {
    store.meters().batches.load(Ordering::Relaxed)
}

async fn refused_alone(ground: &Ground, poison: impl Fn(NewMessage) -> NewMessage) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let mut letters: Vec<_> = (0..GOOD)
        .map(|number| NewMessage {
            client_message_id: Some(format!("good {number}")),
            ..town.letter(&town.ada, town.bob.key, &number.to_string())
        })
        .collect();
    letters.insert(700, poison(town.letter(&town.ada, town.bob.key, "poison")));
    let before = batches(&store);
    let mut outcomes = Vec::new();
    for answer in submit_all(&store, letters).await {
        outcomes.push(answer.await);
    }
    assert!(matches!(outcomes.remove(700), Err(StoreError::Refused(_))));
    for outcome in outcomes {
        kept(outcome.unwrap());
    }
    assert_eq!(store.meters().refused.load(Ordering::Relaxed), 1);
    assert_eq!(store.meters().unavailable.load(Ordering::Relaxed), 0);
    // Halving 1,000 takes ten steps, and each keeps one half at once.
    let written = batches(&store) - before;
    assert!((9..=11).contains(&written), "{written} transactions: it was one batch, and was halved");
    assert_eq!(ground.number("select count(*) from message").await, 999);
    assert_eq!(store.queue_depth().await.unwrap(), 999);
    let first = texts(&town.claim(town.bob.recipient(), &fresh_connection()).await);
    assert_eq!(first, (0..256).map(|number| number.to_string()).collect::<Vec<_>>());
    store.close().await;
}

async fn a_ciphertext_that_is_too_long_is_refused_alone(ground: &Ground) {
    refused_alone(ground, |letter| NewMessage { ciphertext: "x".repeat((1 << 20) + 1), ..letter }).await;
}

/// U+0000, which PostgreSQL has no text for. SQLite has, so there it has to come as another row that is too long.
async fn a_text_the_database_cannot_hold_is_refused_alone(ground: &Ground) {
    let nonce = if ground.is_postgres() { "a\0b".to_owned() } else { "n".repeat(9) };
    let ciphertext = if ground.is_postgres() { "c".to_owned() } else { "ü".repeat((1 << 20) + 1) };
    refused_alone(ground, |letter| NewMessage {
        nonce: nonce.clone(),
        ciphertext: ciphertext.clone(),
        client_message_id: Some("\u{1F600}\\u0000 \"'; drop table message; --".into()),
        ..letter
    })
    .await;
}

async fn everything_of_many_kinds_and_meshes_goes_in_one_batch(ground: &Ground) {
    let store = ground.open().await;
    let towns = [Town::found(&store).await, Town::found(&store).await, Town::found(&store).await];
    let mut held = Vec::new();
    for town in &towns {
        for text in ["settled", "released", "kept"] {
            town.tell_bob(text).await;
        }
        let connection = fresh_connection();
        held.push((town.claim(town.bob.recipient(), &connection).await, connection));
    }
    for (town, (rows, connection)) in towns.iter().zip(&held) {
        // On PostgreSQL a batch is per shard, so that what is asked for one mesh is still in one.
        let mesh_id = town.mesh.clone();
        let pending = tokio::task::unconstrained(async {
            let which = Settled::Held(rows[0].delivery);
            let give_back = vec![(rows[1].delivery, rows[1].recipient.clone())];
            (
                store.claim(town.wish(town.bob.recipient(), &fresh_connection())).await,
                store.append(town.letter(&town.ada, town.bob.key, "new")).await,
                store.admit(town.hello(town.bob.key, None)).await,
                store.settle(Settle { mesh_id: mesh_id.clone(), by: town.bob.id.clone(), which }).await,
                store
                    .release(claudemesh_store::Release {
                        mesh_id,
                        connection: connection.clone(),
                        held: give_back,
                        unanswered: vec![],
                    })
                    .await,
            )
        });
        let before = batches(&store);
        let (claim, append, admit, settle, release) = pending.await;
        assert_eq!(texts(&claim.await.unwrap()), ["released", "new"]);
        kept(append.await.unwrap());
        assert!(matches!(admit.await.unwrap(), claudemesh_store::Admitted::Welcome(_)));
        settle.await.unwrap();
        release.await.unwrap();
        assert_eq!(batches(&store), before + 1);
        assert_eq!(ground.number(&format!("select queued_rows from backlog where mesh_id = '{}'", town.mesh)).await, 3);
    }
    store.close().await;
}

async fn thousands_of_requests_are_one_batch(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let before = batches(&store);
    let letters = (0..4000).map(|number| town.letter(&town.ada, town.bob.key, &format!("{number:0300}"))).collect();
    for answer in submit_all(&store, letters).await {
        kept(answer.await.unwrap());
    }
    assert_eq!(batches(&store), before + 1);
    let rings = ground.rings();
    assert_eq!(rings.iter().filter(|ring| is_for(ring, &town.bob)).count(), 1, "one ring is enough");
    store.close().await;
}

async fn large_messages_are_cut_into_batches(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let before = batches(&store);
    let letters = (0..40).map(|_| town.letter(&town.ada, town.bob.key, &"x".repeat(1 << 20))).collect();
    for answer in submit_all(&store, letters).await {
        kept(answer.await.unwrap());
    }
    assert_eq!(batches(&store), before + 3);
    store.close().await;
}

/// Forty connections with a full window each are more than goes through memory at once: some get nothing, though they would
/// wait, and ask again.
async fn many_full_windows_are_handed_out_in_turn(ground: &Ground) {
    const PEOPLE: usize = 40;
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let mut people = Vec::new();
    for _ in 0..PEOPLE {
        people.push(town.join().await);
    }
    let letters = people.iter().map(|person| town.letter(&town.ada, person.key, &"x".repeat((1 << 20) - 8))).collect();
    for answer in submit_all(&store, letters).await {
        kept(answer.await.unwrap());
    }
    let mut left = people;
    let mut rounds = 0;
    while !left.is_empty() {
        let pending = tokio::task::unconstrained(async {
            let mut pending = Vec::new();
            for person in &left {
                let wish = Claim { waits: true, ..town.wish(person.recipient(), &fresh_connection()) };
                pending.push(store.claim(wish).await);
            }
            pending
        })
        .await;
        let mut waiting = Vec::new();
        for (person, answer) in left.into_iter().zip(pending) {
            if answer.await.unwrap().is_empty() {
                waiting.push(person);
            }
        }
        left = waiting;
        rounds += 1;
    }
    assert_eq!(rounds, 2);
    store.close().await;
}
