//! Cost does not grow with what others have waiting, nor with how much waits.

use std::time::{Duration, Instant};

use claudemesh_store::{Claim, Settled};

use crate::ground::Ground;
use crate::people::{Town, fresh_connection};

on_both! { a_hundred_thousand_waiting_rows_cost_nobody_anything }

const OTHERS: i64 = 100_000;
const EACH: i64 = 1_000;

async fn a_hundred_thousand_waiting_rows_cost_nobody_anything(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let before = fastest_life(&town).await;
    store.close().await;
    crowd(ground, &town).await;
    let store = ground.open().await;
    let town = town.through(&store);
    let after = fastest_life(&town).await;
    // The database's caches are colder, and the machine is shared; reading everybody's rows would take seconds on it.
    assert!(after < before * 10 + Duration::from_millis(200), "{before:?} when empty, {after:?} when full");
    // Urgent mail for somebody with a long queue of other mail.
    let wish = Claim { urgent_only: true, ..town.wish(town.ada.recipient(), &fresh_connection()) };
    ground
        .sql(&format!(
            "update delivery set recipient = '{}' where message_seq % 10 = 0 and state = 'queued'",
            town.ada.id
        ))
        .await;
    let start = now();
    assert!(store.claim(wish).await.await.unwrap().is_empty());
    assert!(start.elapsed() < Duration::from_millis(300), "{:?} for 10,000 rows that are not urgent", start.elapsed());
    store.close().await;
}

/// The fastest of twenty messages from being sent to being settled.
async fn fastest_life(town: &Town) -> Duration {
    let mut fastest = Duration::MAX;
    for _ in 0..20 {
        let start = now();
        town.tell_bob("x").await;
        let rows = town.claim(town.bob.recipient(), &fresh_connection()).await;
        assert_eq!(rows.len(), 1);
        town.settle(Settled::Held(rows[0].delivery)).await;
        fastest = fastest.min(start.elapsed());
    }
    fastest
}

/// Gives many others much that waits, past the store.
async fn crowd(ground: &Ground, town: &Town) {
    let numbers = if ground.is_postgres() {
        format!("(select n from generate_series(1, {OTHERS}) g(n)) t")
    } else {
        format!(
            "(with recursive g(n) as (select 1 union all select n + 1 from g where n < {OTHERS}) select n from g) t"
        )
    };
    let (mesh, ada) = (&town.mesh, &town.ada.id);
    ground
        .sql(&format!(
            "insert into message (mesh_id, seq, id, sender_member_id, sender_pubkey, sender_name, target_spec, priority, \
             nonce, ciphertext, created_at) \
             select '{mesh}', 1000 + n, 'message-' || n, '{ada}', '', 'Ada', '', 'next', '', 'x', {} from {numbers}; \
             insert into delivery (mesh_id, message_seq, recipient, member_id, priority, size_bytes) \
             select '{mesh}', 1000 + n, 'other-' || (n / {EACH}), '{ada}', 'next', 1 from {numbers}; \
             update mesh_head set message_seq = {}",
            ground.now().as_millis(),
            OTHERS + 1000,
        ))
        .await;
}

#[expect(clippy::disallowed_methods, reason = "real durations are what this is about")]
fn now() -> Instant {
    Instant::now()
}
