//! Who may end a delivery (D4), and what nobody can (R4, R6, D8).

use claudemesh_proto::{DeliveryState, MessageId};
use claudemesh_store::{Recipient, Settled};

use crate::ground::Ground;
use crate::people::{Town, fresh_connection, fresh_key};

on_both! {
    only_a_named_recipient_settles,
    ids_that_are_unknown_are_ignored,
    another_mesh_s_id_is_ignored,
    settling_twice_changes_nothing,
    a_prefix_finds_the_path_and_a_wrong_rest_does_not,
}

async fn state(town: &Town, id: &MessageId) -> DeliveryState {
    town.store.message_path(&town.mesh, id.as_str()).await.unwrap().unwrap().steps[0].state
}

async fn only_a_named_recipient_settles(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let carol = town.join().await;
    let id = town.tell_bob("for bob").await;
    let others = vec![town.ada.recipient(), carol.recipient(), Recipient::Session(fresh_key())];
    town.settle(Settled::Message(id.clone(), others)).await;
    town.settle(Settled::Message(id.clone(), Vec::new())).await;
    assert_eq!(state(&town, &id).await, DeliveryState::Queued);
    // One of several that a connection speaks for is enough; it need not hold the row.
    town.settle(Settled::Message(id.clone(), vec![Recipient::Session(fresh_key()), town.bob.recipient()])).await;
    assert_eq!(state(&town, &id).await, DeliveryState::Delivered);
    store.close().await;
}

async fn ids_that_are_unknown_are_ignored(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let id = town.tell_bob("for bob").await;
    let seq = MessageId::seq_of(id.as_str()).unwrap();
    let bob = vec![town.bob.recipient()];
    for unknown in [
        MessageId::new(seq, [7; 24]),
        MessageId::new(seq + 1, [7; 24]),
        MessageId::new(u64::MAX, [7; 24]),
        "x".parse().unwrap(),
        "-_-_-_-_-_".parse().unwrap(),
    ] {
        town.settle(Settled::Message(unknown, bob.clone())).await;
    }
    assert_eq!(state(&town, &id).await, DeliveryState::Queued);
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["for bob"]);
    store.close().await;
}

async fn another_mesh_s_id_is_ignored(ground: &Ground) {
    let store = ground.open().await;
    let (town, other) = (Town::found(&store).await, Town::found(&store).await);
    let id = town.tell_bob("for bob").await;
    other.settle(Settled::Message(id.clone(), vec![town.bob.recipient(), other.bob.recipient()])).await;
    assert!(store.message_path(&other.mesh, id.as_str()).await.unwrap().is_none());
    let rows = town.claim(town.bob.recipient(), &fresh_connection()).await;
    other.settle(Settled::Held(rows[0].delivery)).await;
    assert_eq!(state(&town, &id).await, DeliveryState::Claimed);
    other.release(&fresh_connection(), &rows).await;
    assert_eq!(state(&town, &id).await, DeliveryState::Claimed);
    store.close().await;
}

async fn settling_twice_changes_nothing(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let id = town.tell_bob("one").await;
    town.tell_bob("two").await;
    let rows = town.claim(town.bob.recipient(), &fresh_connection()).await;
    let ended = async || store.message_path(&town.mesh, id.as_str()).await.unwrap().unwrap().steps[0].ended_at;
    let by_message = || Settled::Message(id.clone(), vec![town.bob.recipient(), town.bob.recipient()]);
    // Twice in one batch, both ways.
    let settle = |which| claudemesh_store::Settle { mesh_id: town.mesh.clone(), by: town.bob.id.clone(), which };
    let pending =
        (store.settle(settle(Settled::Held(rows[0].delivery))).await, store.settle(settle(by_message())).await);
    pending.0.await.unwrap();
    pending.1.await.unwrap();
    let first = ended().await;
    assert!(first.is_some());
    ground.pass(std::time::Duration::from_mins(1)).await;
    town.settle(by_message()).await;
    town.settle(Settled::Held(rows[0].delivery)).await;
    assert_eq!(ended().await, first);
    assert_eq!(store.queue_depth().await.unwrap(), 1);
    store.close().await;
}

async fn a_prefix_finds_the_path_and_a_wrong_rest_does_not(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let id = town.tell_bob("one").await;
    for length in [8, 12, 32] {
        let path = store.message_path(&town.mesh, &id.as_str()[..length]).await.unwrap().unwrap();
        assert_eq!((&path.message_id, &path.sender_member_id), (&id, &town.ada.id));
    }
    let guess = MessageId::new(MessageId::seq_of(id.as_str()).unwrap(), [9; 24]);
    for prefix in [guess.as_str(), "", "short", "zzzzzzzz", "é%_\0éé"] {
        assert!(store.message_path(&town.mesh, prefix).await.unwrap().is_none(), "{prefix}");
    }
    store.close().await;
}
