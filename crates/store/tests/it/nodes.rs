//! Claims of a broker that is gone.

use std::time::Duration;

use claudemesh_proto::DeliveryState;
use claudemesh_store::OpenError;

use crate::ground::Ground;
use crate::people::{Town, fresh_connection};

on_both! {
    a_restart_frees_what_was_claimed_before_it,
    starts_that_are_over_are_forgotten_and_what_they_claimed_is_free,
    a_dropped_store_leaves_nothing_behind,
}

async fn a_restart_frees_what_was_claimed_before_it(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let id = town.tell_bob("one").await;
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["one"]);
    store.close().await;
    let store = ground.open().await;
    let town = town.through(&store);
    let path = store.message_path(&town.mesh, id.as_str()).await.unwrap().unwrap();
    assert_eq!(path.steps[0].state, DeliveryState::Queued);
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["one"]);
    store.close().await;
}

async fn starts_that_are_over_are_forgotten_and_what_they_claimed_is_free(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    town.tell_bob("one").await;
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["one"]);
    store.close().await;
    for _ in 0..4 {
        ground.open().await.close().await;
    }
    assert_eq!(ground.number("select count(*) from node").await, 2, "the last one, and the one before");
    let store = ground.open().await;
    assert_eq!(town.through(&store).bob_gets(&fresh_connection()).await, ["one"]);
    store.close().await;
}

/// As when the process is killed: nothing is closed, and what was acked is there.
async fn a_dropped_store_leaves_nothing_behind(ground: &Ground) {
    let options = ground.options("alpha");
    let left = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = claudemesh_store::Store::open(options).await.unwrap();
            let town = Town::found(&store).await;
            let id = town.tell_bob("one").await;
            assert_eq!(town.bob_gets(&fresh_connection()).await, ["one"]);
            (town.mesh.clone(), town.bob.clone(), id)
        })
    });
    let (mesh, bob, id) = left.join().unwrap();
    let store = ground.open().await;
    let town = Town { store: store.clone(), mesh, ada: bob.clone(), bob };
    let rows = town.claim(town.bob.recipient(), &fresh_connection()).await;
    assert_eq!(rows.iter().map(|row| &row.message_id).collect::<Vec<_>>(), [&id]);
    store.close().await;
}

#[tokio::test]
async fn a_silent_node_loses_its_claims_to_the_others() {
    let ground = Ground::postgres().await;
    let alpha = ground.open_as("alpha").await;
    let town = Town::found(&alpha).await;
    let id = town.tell_bob("one").await;
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["one"]);
    let beta = ground.open_as("beta").await;
    let there = town.through(&beta);
    alpha.close().await;
    assert!(there.bob_gets(&fresh_connection()).await.is_empty(), "alpha may only be slow");
    ground.sql("update node set heartbeat_at = heartbeat_at - 9000 where name = 'alpha'").await;
    assert!(there.bob_gets(&fresh_connection()).await.is_empty());
    ground.sql("update node set heartbeat_at = heartbeat_at - 1000 where name = 'alpha'").await;
    let path = beta.message_path(&town.mesh, id.as_str()).await.unwrap().unwrap();
    assert_eq!(path.steps[0].state, DeliveryState::Queued);
    assert_eq!(there.bob_gets(&fresh_connection()).await, ["one"]);
    beta.close().await;
}

#[tokio::test]
async fn a_node_s_heart_beats() {
    let ground = Ground::postgres().await;
    let store = ground.open().await;
    ground.sql("update node set heartbeat_at = 0").await;
    // The only thing waited for that has no other sign: two seconds pass between beats.
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if ground.number("select heartbeat_at from node").await > 0 {
            store.close().await;
            return;
        }
    }
    panic!("no beat in five seconds");
}

#[tokio::test]
async fn a_second_broker_is_kept_away_from_the_file() {
    let ground = Ground::sqlite();
    let store = ground.open().await;
    assert!(matches!(ground.try_open("beta").await, Err(OpenError::InUse { path }) if path == ground.file()));
    let clone = store.clone();
    store.close().await;
    // The clone of a closed store holds nothing and answers.
    let again = ground.open_as("beta").await;
    assert!(!clone.is_up().await);
    assert!(again.is_up().await);
    again.close().await;
}
