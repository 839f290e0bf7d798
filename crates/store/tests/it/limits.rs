//! How much may wait for one recipient, and that what is counted is what is there.

use claudemesh_proto::Target;
use claudemesh_proto::post::Post;
use claudemesh_store::{
    Appended, MAX_MESH_TOPIC_BYTES, MAX_QUEUED_BYTES, MAX_QUEUED_ROWS, NewMessage, Settled, TOPIC_ROW_BYTES,
};

use crate::ground::{Ground, TTL};
use crate::people::{Town, fresh_connection, fresh_key};

on_both! {
    the_row_after_the_last_is_refused,
    the_byte_after_the_last_is_refused,
    what_is_settled_in_the_batch_makes_room,
    the_topics_of_a_mesh_hold_so_much_and_no_more,
    the_backlog_is_what_is_queued,
}

/// Sends as many at once as there are; how many were kept.
async fn flood(town: &Town, messages: impl Iterator<Item = NewMessage>) -> (i64, i64) {
    let mut pending = Vec::new();
    for message in messages {
        pending.push(town.store.append(message).await);
    }
    let (mut kept, mut full) = (0, 0);
    for answer in pending {
        match answer.await.unwrap() {
            Appended::Kept(_) => kept += 1,
            Appended::QueueFull => full += 1,
            other => panic!("{other:?}"),
        }
    }
    (kept, full)
}

async fn the_row_after_the_last_is_refused(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let flooding = flood(&town, (0..MAX_QUEUED_ROWS + 7).map(|_| town.letter(&town.ada, town.bob.key, "x")));
    assert_eq!(flooding.await, (MAX_QUEUED_ROWS, 7));
    let again = || town.append(town.letter(&town.ada, town.bob.key, "x"));
    assert_eq!(again().await.unwrap(), Appended::QueueFull);
    // Nobody else is affected, and one settled row makes room for one.
    town.send(&town.bob, town.ada.key, "x").await;
    let rows = town.claim(town.bob.recipient(), &fresh_connection()).await;
    town.settle(Settled::Held(rows[0].delivery)).await;
    assert!(matches!(again().await.unwrap(), Appended::Kept(_)));
    assert_eq!(again().await.unwrap(), Appended::QueueFull);
    assert_exact(ground).await;
    store.close().await;
}

async fn the_byte_after_the_last_is_refused(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let mebibyte = "x".repeat((1 << 20) - 8);
    let fits = MAX_QUEUED_BYTES >> 20;
    let messages = (0..=fits).map(|_| town.letter(&town.ada, town.bob.key, &mebibyte));
    assert_eq!(flood(&town, messages).await, (fits, 1));
    assert_eq!(town.append(town.letter(&town.ada, town.bob.key, "")).await.unwrap(), Appended::QueueFull);
    assert_exact(ground).await;
    store.close().await;
}

async fn what_is_settled_in_the_batch_makes_room(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    town.tell_bob("x").await;
    ground.sql(&format!("update backlog set queued_rows = {MAX_QUEUED_ROWS}")).await;
    let rows = town.claim(town.bob.recipient(), &fresh_connection()).await;
    let which = Settled::Held(rows[0].delivery);
    let settle =
        store.settle(claudemesh_store::Settle { mesh_id: town.mesh.clone(), by: town.bob.id.clone(), which }).await;
    let append = store.append(town.letter(&town.ada, town.bob.key, "y")).await;
    settle.await.unwrap();
    assert!(matches!(append.await.unwrap(), Appended::Kept(_)));
    store.close().await;
}

async fn the_topics_of_a_mesh_hold_so_much_and_no_more(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let topic = store.topics(&town.mesh, &town.ada.id).await.unwrap().remove(0).id;
    let post = |text: &str, mentions: &[&str]| {
        let mentions = mentions.iter().map(|&name| name.to_owned()).collect();
        let post = Some(Post { mentions, ..Post::default() });
        let target = Target::Topic(topic.clone());
        town.append(NewMessage { target, post, ..town.letter(&town.ada, town.bob.key, text) })
    };
    let taken = "select topic_bytes from mesh_head";
    assert!(matches!(post("12345678", &["newcomer"]).await.unwrap(), Appended::Posted(_)));
    // Body and nonce, the name, and a row for Bob's notification.
    assert_eq!(ground.number(taken).await, 8 + 8 + 8 + 2 * TOPIC_ROW_BYTES);
    town.tell_bob("not in a topic").await;
    let room = MAX_MESH_TOPIC_BYTES - TOPIC_ROW_BYTES - 9;
    ground.sql(&format!("update mesh_head set topic_bytes = {room}")).await;
    assert_eq!(post("12", &[]).await.unwrap(), Appended::TopicsFull);
    let Appended::Posted(posted) = post("1", &[]).await.unwrap() else { panic!("it fits") };
    assert_eq!(posted.seq, 2, "what is refused has no number");
    assert_eq!(post("", &[]).await.unwrap(), Appended::TopicsFull);
    town.tell_bob("other mail is let through").await;
    assert_eq!(ground.number(taken).await, MAX_MESH_TOPIC_BYTES);
    store.close().await;
}

async fn the_backlog_is_what_is_queued(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let session = fresh_key();
    town.speak_for(&town.bob, session, true).await;
    for number in 0..12_usize {
        let target = [town.bob.key, town.ada.key, session][number % 3];
        town.send(&town.ada, target, &"x".repeat(number)).await;
    }
    assert_exact(ground).await;
    let connection = fresh_connection();
    let rows = town.claim(town.bob.recipient(), &connection).await;
    town.settle_held(&rows[..2]).await;
    town.settle(Settled::Message(rows[2].message_id.clone(), vec![town.bob.recipient()])).await;
    town.release(&connection, &rows).await;
    assert_exact(ground).await;
    ground.pass(TTL).await;
    assert_eq!(store.sweep().await.unwrap(), 9);
    assert_exact(ground).await;
    assert_eq!(store.queue_depth().await.unwrap(), 0);
    store.close().await;
}

/// The kept counts agree with counting.
async fn assert_exact(ground: &Ground) {
    let kept = "select mesh_id, recipient, queued_rows, queued_bytes from backlog where queued_rows <> 0 or queued_bytes <> 0 \
                order by 1, 2";
    let counted = "select mesh_id, recipient, count(*), cast(sum(size_bytes) as bigint) from delivery \
                   where state = 'queued' group by 1, 2 order by 1, 2";
    assert_eq!(ground.rows(kept).await, ground.rows(counted).await);
}
