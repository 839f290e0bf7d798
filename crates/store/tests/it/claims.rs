//! What a claim hands out: in order (D5), within its window, to one connection at a time (D10).

use std::collections::HashSet;
use std::time::Duration;

use claudemesh_proto::Priority;
use claudemesh_store::{Claim, Reclaim, Release, Ring, Settled};

use crate::ground::Ground;
use crate::people::{LEASE, Town, fresh_connection, texts};

on_both! {
    rows_come_in_accept_order,
    a_window_of_rows_is_kept,
    a_window_of_bytes_is_kept_and_nothing_overtakes,
    a_first_row_fits_whatever_its_size,
    nothing_before_the_cursor_is_handed_out,
    urgent_only_passes_over_the_rest,
    released_rows_go_before_later_ones,
    what_a_lost_answer_held_is_handed_out_again_in_order,
    what_a_lost_answer_held_is_free_when_its_connection_is_gone,
    one_recipient_asked_for_twice_in_one_batch,
    who_is_left_with_nothing_beside_another_does_not_wait_while_there_is_more,
    a_claim_and_a_reclaim_in_one_batch_do_not_share_a_row,
    rows_for_a_connection_that_does_not_wait_are_free_again,
    nothing_is_handed_to_a_removed_member,
    many_claimers_never_hold_one_row_at_once,
    recipients_and_meshes_do_not_mix,
}

async fn rows_come_in_accept_order(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let mut pending = Vec::new();
    for number in 0..300 {
        pending.push(store.append(town.letter(&town.ada, town.bob.key, &number.to_string())).await);
    }
    for answer in pending {
        answer.await.unwrap();
    }
    let connection = fresh_connection();
    let first = town.claim(town.bob.recipient(), &connection).await;
    let expected: Vec<String> = (0..256).map(|number| number.to_string()).collect();
    assert_eq!(texts(&first), expected);
    assert!(first.is_sorted_by_key(|row| row.seq));
    let rest = texts(&town.claim(town.bob.recipient(), &connection).await);
    assert_eq!(rest, (256..300).map(|number| number.to_string()).collect::<Vec<_>>());
    store.close().await;
}

async fn a_window_of_rows_is_kept(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    for text in ["a", "b", "c", "d"] {
        town.tell_bob(text).await;
    }
    let connection = fresh_connection();
    let claim = |max_rows| Claim { max_rows, ..town.wish(town.bob.recipient(), &connection) };
    assert!(store.claim(claim(0)).await.await.unwrap().is_empty());
    assert_eq!(texts(&store.claim(claim(3)).await.await.unwrap()), ["a", "b", "c"]);
    assert_eq!(texts(&store.claim(claim(3)).await.await.unwrap()), ["d"]);
    store.close().await;
}

async fn a_window_of_bytes_is_kept_and_nothing_overtakes(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (big, huge) = ("b".repeat(400), "h".repeat(900));
    for text in [&big, &huge, "small"] {
        town.tell_bob(text).await;
    }
    let connection = fresh_connection();
    let claim = || Claim { max_bytes: 1000, ..town.wish(town.bob.recipient(), &connection) };
    // The small one would fit, but not before the huge one.
    assert_eq!(texts(&store.claim(claim()).await.await.unwrap()), [big]);
    let rows = store.claim(claim()).await.await.unwrap();
    assert_eq!(texts(&rows), [huge, "small".into()]);
    assert_eq!(rows.iter().map(|row| row.size_bytes).sum::<i64>(), 900 + 5 + 2 * 8);
    store.close().await;
}

async fn a_first_row_fits_whatever_its_size(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    town.tell_bob(&"x".repeat(1000)).await;
    town.tell_bob("next").await;
    let claim = Claim { max_bytes: 1, ..town.wish(town.bob.recipient(), &fresh_connection()) };
    assert_eq!(store.claim(claim).await.await.unwrap().len(), 1);
    store.close().await;
}

async fn nothing_before_the_cursor_is_handed_out(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    for text in ["a", "b", "c"] {
        town.tell_bob(text).await;
    }
    let connection = fresh_connection();
    let rows = town.claim(town.bob.recipient(), &connection).await;
    town.release(&connection, &rows).await;
    let after = Claim { after_seq: rows[0].seq, ..town.wish(town.bob.recipient(), &connection) };
    assert_eq!(texts(&store.claim(after).await.await.unwrap()), ["b", "c"]);
    assert_eq!(town.bob_gets(&connection).await, ["a"]);
    store.close().await;
}

async fn urgent_only_passes_over_the_rest(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    for (text, priority) in [("low", Priority::Low), ("now", Priority::Now), ("next", Priority::Next)] {
        let mut letter = town.letter(&town.ada, town.bob.key, text);
        letter.priority = priority;
        town.append(letter).await.unwrap();
    }
    let connection = fresh_connection();
    let urgent = Claim { urgent_only: true, ..town.wish(town.bob.recipient(), &connection) };
    assert_eq!(texts(&store.claim(urgent).await.await.unwrap()), ["now"]);
    assert_eq!(town.bob_gets(&connection).await, ["low", "next"]);
    store.close().await;
}

async fn released_rows_go_before_later_ones(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    town.tell_bob("a").await;
    town.tell_bob("b").await;
    let closing = fresh_connection();
    let rows = town.claim(town.bob.recipient(), &closing).await;
    town.tell_bob("c").await;
    town.settle(Settled::Held(rows[0].delivery)).await;
    town.release(&closing, &rows).await;
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["b", "c"]);
    store.close().await;
}

async fn what_a_lost_answer_held_is_handed_out_again_in_order(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    town.tell_bob("a").await;
    town.tell_bob("b").await;
    let connection = fresh_connection();
    // As when the database commits and its answer does not come through.
    assert_eq!(town.bob_gets(&connection).await, ["a", "b"]);
    town.tell_bob("c").await;
    let other = fresh_connection();
    let retry = |connection| Claim { is_retry: true, ..town.wish(town.bob.recipient(), connection) };
    assert_eq!(texts(&store.claim(retry(&other)).await.await.unwrap()), ["c"], "what others hold stays theirs");
    assert_eq!(texts(&store.claim(retry(&connection)).await.await.unwrap()), ["a", "b"]);
    store.close().await;
}

async fn what_a_lost_answer_held_is_free_when_its_connection_is_gone(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (gone, other, next) = (fresh_connection(), fresh_connection(), fresh_connection());
    town.tell_bob("another's").await;
    assert_eq!(town.bob_gets(&other).await, ["another's"]);
    town.tell_bob("lost").await;
    assert_eq!(town.bob_gets(&gone).await, ["lost"]);
    let waiting = store.claim(Claim { waits: true, ..town.wish(town.bob.recipient(), &next) }).await;
    let mesh_id = town.mesh.clone();
    let release = Release { mesh_id, connection: gone, held: vec![], unanswered: vec![town.bob.recipient()] };
    store.release(release).await.await.unwrap();
    let rows = tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("it is free").unwrap();
    assert_eq!(texts(&rows), ["lost"]);
    store.close().await;
}

async fn one_recipient_asked_for_twice_in_one_batch(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    for text in ["a", "b", "c"] {
        town.tell_bob(text).await;
    }
    ground.rings();
    let wish = |max_rows| Claim { max_rows, ..town.wish(town.bob.recipient(), &fresh_connection()) };
    // The test's runtime has one thread: the journal sees both when this awaits.
    let (one, two) = (store.claim(wish(2)).await, store.claim(wish(2)).await);
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert_eq!((texts(&one), texts(&two)), (vec!["a".into(), "b".into()], vec!["c".into()]));
    store.close().await;
}

/// As when a daemon and a session come back together, and the mail passes from one to the other.
async fn who_is_left_with_nothing_beside_another_does_not_wait_while_there_is_more(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let mut pending = Vec::new();
    for number in 0..300 {
        pending.push(store.append(town.letter(&town.ada, town.bob.key, &number.to_string())).await);
    }
    for answer in pending {
        answer.await.unwrap();
    }
    let (one, two) = (fresh_connection(), fresh_connection());
    let wish = |connection| Claim { waits: true, ..town.wish(town.bob.recipient(), connection) };
    let (first, second) = (store.claim(wish(&one)).await, store.claim(wish(&two)).await);
    assert_eq!(first.await.unwrap().len(), 256);
    let soon = |answer| tokio::time::timeout(Duration::from_secs(5), answer);
    let mut rows = soon(second).await.expect("an answer, if an empty one").unwrap();
    if rows.is_empty() {
        rows = soon(store.claim(wish(&two)).await).await.expect("what is left").unwrap();
    }
    assert_eq!(texts(&rows), (256..300).map(|number| number.to_string()).collect::<Vec<_>>());
    store.close().await;
}

async fn a_claim_and_a_reclaim_in_one_batch_do_not_share_a_row(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    town.tell_bob("a").await;
    town.tell_bob("b").await;
    let old = fresh_connection();
    let rows = store.claim(Claim { max_rows: 1, ..town.wish(town.bob.recipient(), &old) }).await.await.unwrap();
    ground.pass(LEASE).await;
    let asked = vec![(rows[0].delivery, LEASE), (rows[0].delivery, LEASE)];
    let again = Reclaim { mesh_id: town.mesh.clone(), connection: old, rows: asked };
    let before = store.meters().batches.load(std::sync::atomic::Ordering::Relaxed);
    let claim = store.claim(town.wish(town.bob.recipient(), &fresh_connection())).await;
    let again = store.reclaim(again).await;
    assert_eq!(texts(&claim.await.unwrap()), ["b"]);
    assert_eq!(texts(&again.await.unwrap()), ["a"]);
    assert_eq!(store.meters().batches.load(std::sync::atomic::Ordering::Relaxed), before + 1, "one batch");
    store.close().await;
}

async fn rows_for_a_connection_that_does_not_wait_are_free_again(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    town.tell_bob("one").await;
    // Gone before the batch is written.
    drop(store.claim(town.wish(town.bob.recipient(), &fresh_connection())).await);
    let next = store.claim(town.wish(town.bob.recipient(), &fresh_connection())).await;
    assert!(next.await.unwrap().is_empty(), "the first claim was in the same batch");
    // The release is written right after that batch, before anything that is asked now.
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["one"]);
    ground.pass(LEASE).await;
    // Gone between the answer and its reading.
    let unread = store.claim(town.wish(town.bob.recipient(), &fresh_connection())).await;
    assert!(town.bob_gets(&fresh_connection()).await.is_empty());
    ground.rings();
    drop(unread);
    assert_eq!(store.claim(town.wish(town.ada.recipient(), &fresh_connection())).await.await.unwrap().len(), 0);
    assert!(ground.rings().iter().any(
        |ring| matches!(ring, Ring::Mail { from_start: true, recipient, .. } if *recipient == town.bob.recipient())
    ));
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["one"]);
    store.close().await;
}

async fn nothing_is_handed_to_a_removed_member(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let session = crate::people::fresh_key();
    assert!(town.speak_for(&town.bob, session, true).await);
    town.tell_bob("one").await;
    town.send(&town.ada, session, "two").await;
    ground.sql(&format!("update member set revoked_at = 1 where id = '{}'", town.bob.id)).await;
    assert!(town.bob_gets(&fresh_connection()).await.is_empty());
    let by_session = claudemesh_store::Recipient::Session(session);
    assert!(town.claim(by_session.clone(), &fresh_connection()).await.is_empty());
    ground.sql("update member set revoked_at = null").await;
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["one"]);
    assert_eq!(texts(&town.claim(by_session, &fresh_connection()).await), ["two"]);
    store.close().await;
}

/// Two nodes on PostgreSQL, one on SQLite; connections claim, settle half and release half, all at once.
async fn many_claimers_never_hold_one_row_at_once(ground: &Ground) {
    const MESSAGES: usize = 200;
    let store = ground.open().await;
    let other = if ground.is_postgres() { ground.open_as("beta").await } else { store.clone() };
    let town = Town::found(&store).await;
    for number in 0..MESSAGES {
        town.tell_bob(&number.to_string()).await;
    }
    let held = std::sync::Mutex::new(HashSet::new());
    let settled = std::sync::Mutex::new(HashSet::new());
    let claimer = async |town: Town, index: usize| {
        // Which rows are kept changes from round to round: else one claimer could for ever be handed what only others keep.
        let mut round = index;
        while settled.lock().unwrap().len() < MESSAGES {
            round += 1;
            let connection = fresh_connection();
            let claim = Claim { max_rows: 7, ..town.wish(town.bob.recipient(), &connection) };
            let rows = town.store.claim(claim).await.await.unwrap();
            for row in &rows {
                assert!(held.lock().unwrap().insert(row.delivery), "two connections hold one row");
                assert!(!settled.lock().unwrap().contains(&row.delivery), "a settled row is handed out");
            }
            tokio::task::yield_now().await;
            let (keep, give_back): (Vec<_>, Vec<_>) =
                rows.into_iter().partition(|row| row.seq % 3 != i64::try_from(round % 3).unwrap());
            for row in keep.iter().chain(&give_back) {
                held.lock().unwrap().remove(&row.delivery);
            }
            settled.lock().unwrap().extend(keep.iter().map(|row| row.delivery));
            town.settle_held(&keep).await;
            let give_back = give_back.into_iter().map(|row| (row.delivery, row.recipient)).collect();
            let release = Release { mesh_id: town.mesh.clone(), connection, held: give_back, unanswered: vec![] };
            town.store.release(release).await.await.unwrap();
        }
    };
    let claimers = (0..6).map(|index| claimer(town.through(if index % 2 == 0 { &store } else { &other }), index));
    futures_join(claimers).await;
    assert_eq!(settled.lock().unwrap().len(), MESSAGES);
    assert_eq!(store.queue_depth().await.unwrap(), 0);
    other.close().await;
    if ground.is_postgres() {
        store.close().await;
    }
}

async fn recipients_and_meshes_do_not_mix(ground: &Ground) {
    let store = ground.open().await;
    let (town, other) = (Town::found(&store).await, Town::found(&store).await);
    let carol = town.join().await;
    town.tell_bob("to bob").await;
    town.send(&town.ada, carol.key, "to carol").await;
    assert!(texts(&other.claim(town.bob.recipient(), &fresh_connection()).await).is_empty());
    assert_eq!(texts(&town.claim(carol.recipient(), &fresh_connection()).await), ["to carol"]);
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["to bob"]);
    ground.pass(Duration::ZERO).await;
    store.close().await;
}

/// Polls all of them on this task.
async fn futures_join<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut futures: Vec<_> = futures.map(|future| Some(Box::pin(future))).collect();
    std::future::poll_fn(|context| {
        for slot in &mut futures {
            if slot.as_mut().is_some_and(|future| future.as_mut().poll(context).is_ready()) {
                *slot = None;
            }
        }
        if futures.iter().all(Option::is_none) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
