//! The life of a message: accepted, claimed, settled; released or left, and claimed again.

use std::time::Duration;

use claudemesh_proto::{DeliveryState, Priority};
use claudemesh_store::{Reclaim, Ring, Settled};

use crate::ground::Ground;
use crate::people::{LEASE, Town, fresh_connection, kept, texts};

on_both! {
    a_message_is_kept_claimed_and_settled,
    everything_that_was_sent_arrives_as_it_was,
    a_released_row_is_free_at_once_and_rings_from_the_start,
    a_lease_ends_by_itself,
    a_row_is_reclaimed_with_a_longer_lease,
    only_the_holder_reclaims,
}

async fn a_message_is_kept_claimed_and_settled(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    ground.rings();
    let id = town.tell_bob("hello").await;
    let ring = Ring::Mail { mesh_id: town.mesh.clone(), recipient: town.bob.recipient(), from_start: false };
    assert_eq!(ground.rings(), [ring]);
    let state = async || store.message_path(&town.mesh, id.as_str()).await.unwrap().unwrap().steps[0].state;
    assert_eq!(state().await, DeliveryState::Queued);
    assert_eq!(store.queue_depth().await.unwrap(), 1);

    let rows = town.claim(town.bob.recipient(), &fresh_connection()).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].message_id, id);
    assert_eq!(state().await, DeliveryState::Claimed);

    town.settle(Settled::Held(rows[0].delivery)).await;
    assert_eq!(state().await, DeliveryState::Delivered);
    assert_eq!(store.queue_depth().await.unwrap(), 0);
    assert!(town.bob_gets(&fresh_connection()).await.is_empty());
    store.close().await;
}

async fn everything_that_was_sent_arrives_as_it_was(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let mut letter = town.letter(&town.ada, town.bob.key, "Y2lwaGVy");
    letter.sender_name = "Ada “\\\"'\u{1F600}".parse().unwrap();
    letter.priority = Priority::Now;
    letter.ext = Some(serde_json::value::RawValue::from_string(r#"{"a": [1, 2.50, "\u00fc", null]}"#.into()).unwrap());
    letter.client_message_id = Some("12345".into());
    letter.request_fingerprint = Some("null".into());
    let id = kept(town.append(letter).await.unwrap());
    let row = town.claim(town.bob.recipient(), &fresh_connection()).await.remove(0);
    assert_eq!(row.message_id, id);
    assert_eq!(row.recipient, town.bob.recipient());
    assert_eq!(row.sender_pubkey, town.ada.key);
    assert_eq!(row.sender_member_pubkey, town.ada.key);
    assert_eq!(row.sender_member_id, town.ada.id);
    assert_eq!(row.sender_name.as_str(), "Ada “\\\"'\u{1F600}");
    assert_eq!(row.priority, Priority::Now);
    assert_eq!(row.nonce, "bm9uY2U=");
    assert_eq!(row.ciphertext, "Y2lwaGVy");
    assert_eq!(row.ext.as_ref().unwrap().get(), r#"{"a": [1, 2.50, "\u00fc", null]}"#);
    assert_eq!(row.client_message_id.as_deref(), Some("12345"));
    assert_eq!(row.request_fingerprint.as_deref(), Some("null"));
    assert!(row.created_at.distance(ground.now()) < Duration::from_secs(10));
    let path = store.message_path(&town.mesh, id.as_str()).await.unwrap().unwrap();
    assert_eq!(path.target_spec, town.bob.key.to_string());
    assert_eq!(path.steps[0].display_name.as_str(), "Newcomer");
    store.close().await;
}

async fn a_released_row_is_free_at_once_and_rings_from_the_start(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (first, second) = (town.tell_bob("one").await, town.tell_bob("two").await);
    let (closing, next) = (fresh_connection(), fresh_connection());
    let rows = town.claim(town.bob.recipient(), &closing).await;
    assert!(town.bob_gets(&next).await.is_empty());
    ground.rings();
    town.release(&closing, &rows).await;
    assert_eq!(
        ground.rings(),
        [Ring::Mail { mesh_id: town.mesh.clone(), recipient: town.bob.recipient(), from_start: true }]
    );
    let again = town.claim(town.bob.recipient(), &next).await;
    // D7
    assert_eq!(again.iter().map(|row| row.message_id.clone()).collect::<Vec<_>>(), [first, second]);
    // A late second release by the closed connection takes nothing from the new holder.
    town.release(&closing, &rows).await;
    assert!(town.bob_gets(&fresh_connection()).await.is_empty());
    store.close().await;
}

async fn a_lease_ends_by_itself(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    town.tell_bob("one").await;
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["one"]);
    ground.pass(LEASE - Duration::from_secs(5)).await;
    assert!(town.bob_gets(&fresh_connection()).await.is_empty());
    ground.pass(Duration::from_secs(5)).await;
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["one"]);
    store.close().await;
}

async fn a_row_is_reclaimed_with_a_longer_lease(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    town.tell_bob("one").await;
    town.tell_bob("two").await;
    let connection = fresh_connection();
    let mut rows = town.claim(town.bob.recipient(), &connection).await;
    for lease in [LEASE * 2, LEASE * 4] {
        ground.pass(LEASE).await;
        let asked = rows.iter().map(|row| (row.delivery, lease)).collect();
        let again = Reclaim { mesh_id: town.mesh.clone(), connection: connection.clone(), rows: asked };
        let before = ground.now();
        rows = store.reclaim(again).await.await.unwrap();
        assert_eq!(texts(&rows), ["one", "two"]);
        assert!(rows[0].until.distance(before.plus(lease)) < Duration::from_secs(5));
        ground.pass(lease - LEASE).await;
        assert!(town.bob_gets(&fresh_connection()).await.is_empty());
    }
    ground.pass(LEASE).await;
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["one", "two"]);
    store.close().await;
}

async fn only_the_holder_reclaims(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    town.tell_bob("one").await;
    town.tell_bob("two").await;
    let (old, new) = (fresh_connection(), fresh_connection());
    let rows = town.claim(town.bob.recipient(), &old).await;
    let reclaim = async |connection: &_| {
        let asked = rows.iter().map(|row| (row.delivery, LEASE)).collect();
        let again = Reclaim { mesh_id: town.mesh.clone(), connection: fresh_connection().clone(), rows: asked };
        texts(&store.reclaim(Reclaim { connection: Clone::clone(connection), ..again }).await.await.unwrap())
    };
    assert!(reclaim(&new).await.is_empty());
    ground.pass(LEASE).await;
    assert_eq!(town.bob_gets(&new).await, ["one", "two"]);
    assert!(reclaim(&old).await.is_empty());
    // What is settled meanwhile is not handed out again.
    town.settle(Settled::Held(rows[0].delivery)).await;
    assert_eq!(reclaim(&new).await, ["two"]);
    store.close().await;
}
