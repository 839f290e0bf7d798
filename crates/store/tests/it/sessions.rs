//! R2: who owns a session key, and which keys take mail while nobody holds them.

use std::time::Duration;

use claudemesh_store::{Appended, NewMessage, Recipient};

use crate::ground::{Ground, TTL};
use crate::people::{Town, fresh_connection, fresh_key, texts};

on_both! {
    a_key_nobody_ever_named_takes_no_mail,
    an_unproven_key_takes_mail_only_while_it_is_open,
    a_proven_key_takes_mail_for_as_long_as_a_message_waits,
    an_open_session_can_be_kept_fresh,
    proof_takes_an_unproven_key_over_with_its_mail,
    a_proven_key_cannot_be_taken,
    another_member_s_own_key_is_no_session_key,
    naming_one_s_own_session_key_again_is_fine,
    two_claims_on_one_key_in_one_batch_have_one_owner,
    a_removed_member_and_its_sessions_take_no_mail,
    a_removed_sender_sends_nothing,
}

async fn outcome(town: &Town, target: claudemesh_proto::PublicKey, target_is_open: bool) -> Appended {
    town.append(NewMessage { target_is_open, ..town.letter(&town.ada, target, "mail") }).await.unwrap()
}

async fn a_key_nobody_ever_named_takes_no_mail(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let other = Town::found(&store).await;
    for key in [fresh_key(), other.bob.key] {
        assert_eq!(outcome(&town, key, false).await, Appended::NoRecipient);
        assert_eq!(outcome(&town, key, true).await, Appended::NoRecipient);
    }
    assert_eq!(ground.number("select count(*) from message").await, 0);
    store.close().await;
}

async fn an_unproven_key_takes_mail_only_while_it_is_open(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let key = fresh_key();
    assert!(town.speak_for(&town.bob, key, false).await);
    assert_eq!(outcome(&town, key, false).await, Appended::NoRecipient);
    assert!(matches!(outcome(&town, key, true).await, Appended::Kept(_)));
    let rows = town.claim(Recipient::Session(key), &fresh_connection()).await;
    assert_eq!(texts(&rows), ["mail"]);
    assert!(town.bob_gets(&fresh_connection()).await.is_empty());
    store.close().await;
}

async fn a_proven_key_takes_mail_for_as_long_as_a_message_waits(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let key = fresh_key();
    assert!(town.speak_for(&town.bob, key, true).await);
    ground.pass(TTL - Duration::from_mins(1)).await;
    assert!(matches!(outcome(&town, key, false).await, Appended::Kept(_)));
    ground.pass(Duration::from_mins(2)).await;
    assert_eq!(outcome(&town, key, false).await, Appended::NoRecipient);
    // Naming it without proof, as its owner may, keeps it alive: it was proven once.
    assert!(town.speak_for(&town.bob, key, false).await);
    assert!(matches!(outcome(&town, key, false).await, Appended::Kept(_)));
    store.close().await;
}

async fn an_open_session_can_be_kept_fresh(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (open, gone) = (fresh_key(), fresh_key());
    for key in [open, gone] {
        assert!(town.speak_for(&town.bob, key, true).await);
    }
    for _ in 0..3 {
        ground.pass(TTL - Duration::from_hours(1)).await;
        store.refresh_sessions(&[(town.mesh.clone(), open), (town.mesh.clone(), fresh_key())]).await.unwrap();
        store.sweep().await.unwrap();
    }
    assert!(matches!(outcome(&town, open, false).await, Appended::Kept(_)));
    assert_eq!(outcome(&town, gone, false).await, Appended::NoRecipient);
    assert_eq!(ground.number("select count(*) from session").await, 1);
    store.refresh_sessions(&[]).await.unwrap();
    store.close().await;
}

async fn proof_takes_an_unproven_key_over_with_its_mail(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let carol = town.join().await;
    let key = fresh_key();
    assert!(town.speak_for(&town.bob, key, false).await);
    assert!(!town.speak_for(&carol, key, false).await, "an unproven key of somebody else");
    let Appended::Kept(id) = outcome(&town, key, true).await else { panic!("not kept") };
    assert!(town.speak_for(&carol, key, true).await);
    assert!(!town.speak_for(&town.bob, key, false).await);
    assert!(!town.speak_for(&town.bob, key, true).await);
    let path = store.message_path(&town.mesh, id.as_str()).await.unwrap().unwrap();
    assert_eq!(path.steps.iter().map(|step| &step.member_id).collect::<Vec<_>>(), [&carol.id]);
    assert_eq!(texts(&town.claim(Recipient::Session(key), &fresh_connection()).await), ["mail"]);
    store.close().await;
}

async fn a_proven_key_cannot_be_taken(ground: &Ground) {
    let store = ground.open().await;
    let (town, other) = (Town::found(&store).await, Town::found(&store).await);
    let key = fresh_key();
    assert!(town.speak_for(&town.bob, key, true).await);
    assert!(!town.speak_for(&town.ada, key, false).await);
    assert!(!town.speak_for(&town.ada, key, true).await);
    // Another mesh is another world.
    assert!(other.speak_for(&other.ada, key, true).await);
    store.close().await;
}

async fn another_member_s_own_key_is_no_session_key(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    for proven in [false, true] {
        assert!(!town.speak_for(&town.bob, town.ada.key, proven).await);
    }
    assert!(town.speak_for(&town.bob, town.bob.key, true).await);
    // What is sent to a member's key goes to the member, whoever named it as a session's.
    town.tell_bob("to the member").await;
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["to the member"]);
    store.close().await;
}

async fn naming_one_s_own_session_key_again_is_fine(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let key = fresh_key();
    for proven in [false, true, true, false] {
        assert!(town.speak_for(&town.bob, key, proven).await);
    }
    assert_eq!(ground.number("select count(*) from session where proven_at is not null").await, 1);
    store.close().await;
}

async fn two_claims_on_one_key_in_one_batch_have_one_owner(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let key = fresh_key();
    let claim = |proven| Some(claudemesh_store::SessionClaim { pubkey: key, proven });
    let mut pending = Vec::new();
    for (person, proven) in
        [(&town.bob, false), (&town.ada, false), (&town.ada, true), (&town.bob, true), (&town.ada, false)]
    {
        pending.push(store.admit(town.hello(person.key, claim(proven))).await);
    }
    let mut welcome = Vec::new();
    for answer in pending {
        welcome.push(matches!(answer.await.unwrap(), claudemesh_store::Admitted::Welcome(_)));
    }
    assert_eq!(welcome, [true, false, true, false, true]);
    let owner = ground.rows("select member_id from session where proven_at is not null").await;
    assert_eq!(owner, [town.ada.id.to_string()]);
    store.close().await;
}

async fn a_removed_member_and_its_sessions_take_no_mail(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let key = fresh_key();
    assert!(town.speak_for(&town.bob, key, true).await);
    ground.sql(&format!("update member set revoked_at = 1 where id = '{}'", town.bob.id)).await;
    for target in [town.bob.key, key] {
        assert_eq!(outcome(&town, target, true).await, Appended::NoRecipient);
    }
    store.close().await;
}

async fn a_removed_sender_sends_nothing(ground: &Ground) {
    let store = ground.open().await;
    let (town, other) = (Town::found(&store).await, Town::found(&store).await);
    let stranger = town.letter(&other.ada, town.bob.key, "x");
    assert_eq!(town.append(stranger).await.unwrap(), Appended::SenderRevoked);
    ground.sql(&format!("update member set revoked_at = 1 where id = '{}'", town.ada.id)).await;
    assert_eq!(outcome(&town, town.bob.key, false).await, Appended::SenderRevoked);
    assert_eq!(ground.number("select count(*) from message").await, 0);
    store.close().await;
}
