//! Who may open a connection, and that a handshake opens one only once (R11).

use std::time::Duration;

use claudemesh_proto::{MemberRole, MeshId};
use claudemesh_store::{Admission, Admitted, NewMessage, Recipient, Redeemed, SessionClaim, Settled};

use crate::ground::Ground;
use crate::people::{Town, fresh_connection, fresh_key, kept};

on_both! {
    a_member_is_welcomed_as_who_it_is,
    a_handshake_is_accepted_once,
    a_replay_is_refused_within_one_batch,
    a_handshake_is_forgotten_only_after_it_is_stale,
    a_refused_handshake_is_not_remembered,
    the_checks_have_an_order,
    an_archived_mesh_is_as_unknown_as_none,
    another_mesh_s_member_is_unknown,
    a_session_s_key_is_no_way_to_join,
    what_was_handed_over_before_the_key_was_proven_is_the_prover_s,
}

async fn a_member_is_welcomed_as_who_it_is(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    ground
        .sql(&format!(
            "update member set role_tag = 'cook', default_groups = '[{{\"name\":\"kitchen\"}}]', message_mode = 'inbox' \
             where id = '{}'",
            town.bob.id
        ))
        .await;
    let hello = || Admission { expected_member_id: Some(town.bob.id.to_string()), ..town.hello(town.bob.key, None) };
    let Admitted::Welcome(first) = town.admit(hello()).await else { panic!("not welcome") };
    assert_eq!(
        (first.member_id, first.role, first.display_name.as_str()),
        (town.bob.id.clone(), MemberRole::Member, "Newcomer")
    );
    assert_eq!((first.role_tag.as_deref(), first.message_mode.as_str()), (Some("cook"), "inbox"));
    assert_eq!(first.default_groups.as_slice().len(), 1);
    assert_eq!(first.last_seen_at, None);
    let Admitted::Welcome(second) = town.admit(hello()).await else { panic!("not welcome") };
    assert!(second.last_seen_at.unwrap().distance(ground.now()) < Duration::from_secs(10));
    let Admitted::Welcome(ada) = town.admit(town.hello(town.ada.key, None)).await else { panic!("not welcome") };
    assert_eq!(ada.role, MemberRole::Admin);
    store.close().await;
}

async fn a_handshake_is_accepted_once(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let hello = town.hello(town.bob.key, None);
    assert!(matches!(town.admit(hello.clone()).await, Admitted::Welcome(_)));
    assert_eq!(town.admit(hello.clone()).await, Admitted::Replayed);
    store.close().await;
    let store = ground.open().await;
    assert_eq!(town.through(&store).admit(hello.clone()).await, Admitted::Replayed);
    if ground.is_postgres() {
        let other = ground.open_as("beta").await;
        assert_eq!(town.through(&other).admit(hello).await, Admitted::Replayed);
        other.close().await;
    }
    store.close().await;
}

async fn a_replay_is_refused_within_one_batch(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let hello = town.hello(town.bob.key, None);
    let mut pending = Vec::new();
    for _ in 0..3 {
        pending.push(store.admit(hello.clone()).await);
    }
    pending.push(store.admit(town.hello(town.bob.key, None)).await);
    let mut welcome = Vec::new();
    for answer in pending {
        welcome.push(matches!(answer.await.unwrap(), Admitted::Welcome(_)));
    }
    assert_eq!(welcome, [true, false, false, true]);
    assert_eq!(ground.number("select count(*) from handshake").await, 2);
    store.close().await;
}

async fn a_handshake_is_forgotten_only_after_it_is_stale(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let hello = town.hello(town.bob.key, None);
    town.admit(hello.clone()).await;
    ground.pass(claudemesh_proto::limits::REPLAY_MEMORY - Duration::from_secs(10)).await;
    store.sweep().await.unwrap();
    assert_eq!(town.admit(hello).await, Admitted::Replayed);
    ground.pass(Duration::from_secs(11)).await;
    store.sweep().await.unwrap();
    assert_eq!(ground.number("select count(*) from handshake").await, 0);
    store.close().await;
}

async fn a_refused_handshake_is_not_remembered(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let later = town.hello(fresh_key(), None);
    assert_eq!(town.admit(later.clone()).await, Admitted::Unknown);
    town.join_as(later.member_pubkey).await;
    assert!(matches!(town.admit(later).await, Admitted::Welcome(_)));
    store.close().await;
}

async fn the_checks_have_an_order(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let name = ground.rows("select name from mesh").await.remove(0);
    let hello = town.hello(town.bob.key, None);
    town.admit(hello.clone()).await;
    ground.sql(&format!("update member set revoked_at = 1 where id = '{}'", town.bob.id)).await;
    // A replay is a replay whatever else is wrong with it.
    assert_eq!(town.admit(hello).await, Admitted::Replayed);
    let taken = Some(SessionClaim { pubkey: town.ada.key, proven: false });
    let wrong = Admission { expected_member_id: Some("other".into()), ..town.hello(town.bob.key, taken) };
    assert_eq!(town.admit(wrong.clone()).await, Admitted::Revoked { mesh_name: name });
    ground.sql("update member set revoked_at = null").await;
    assert_eq!(town.admit(wrong).await, Admitted::OtherMember);
    assert_eq!(town.admit(town.hello(town.bob.key, taken)).await, Admitted::SessionKeyTaken);
    assert_eq!(town.admit(town.hello(fresh_key(), taken)).await, Admitted::Unknown);
    store.close().await;
}

async fn an_archived_mesh_is_as_unknown_as_none(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let hello = town.hello(town.bob.key, None);
    let nowhere: MeshId = "no-such-mesh".parse().unwrap();
    assert_eq!(town.admit(Admission { mesh_id: nowhere.clone(), ..hello.clone() }).await, Admitted::Unknown);
    assert!(store.mesh(&nowhere).await.unwrap().is_none());
    ground.sql("update mesh set archived_at = 1").await;
    assert_eq!(town.admit(hello).await, Admitted::Unknown);
    assert!(store.mesh(&town.mesh).await.unwrap().is_none());
    store.close().await;
}

async fn another_mesh_s_member_is_unknown(ground: &Ground) {
    let store = ground.open().await;
    let (town, other) = (Town::found(&store).await, Town::found(&store).await);
    let hello = town.hello(town.bob.key, None);
    assert!(matches!(town.admit(hello.clone()).await, Admitted::Welcome(_)));
    assert_eq!(other.admit(Admission { mesh_id: other.mesh.clone(), ..hello }).await, Admitted::Unknown);
    store.close().await;
}

/// R2: session keys are seen by every member, and joining asks for no proof. With a member's row under its key, a session would
/// lose its mail and its name.
async fn a_session_s_key_is_no_way_to_join(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let session = SessionClaim { pubkey: fresh_key(), proven: true };
    assert!(matches!(town.admit(town.hello(town.bob.key, Some(session))).await, Admitted::Welcome(_)));
    let invite = town.invite(1);
    store.create_invite(&invite).await.unwrap().unwrap();
    let thief = town.redemption(&invite, session.pubkey);
    assert_eq!(store.redeem_invite(&thief).await.unwrap(), Redeemed::KeyInUse);
    assert!(matches!(store.redeem_invite(&town.redemption(&invite, fresh_key())).await.unwrap(), Redeemed::Joined(_)));
    store.close().await;
}

/// R2, R4: a claim made in the name of a key ends when somebody else proves the key, and so does the right to acknowledge.
async fn what_was_handed_over_before_the_key_was_proven_is_the_prover_s(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let key = fresh_key();
    let named = SessionClaim { pubkey: key, proven: false };
    town.admit(town.hello(town.bob.key, Some(named))).await;
    let letter = NewMessage { target_is_open: true, ..town.letter(&town.ada, key, "for whoever has the key") };
    let id = kept(town.append(letter).await.unwrap());
    let handed = town.claim(Recipient::Session(key), &fresh_connection()).await;
    assert_eq!(handed.len(), 1);
    let proven = SessionClaim { pubkey: key, proven: true };
    assert!(matches!(town.admit(town.hello(town.ada.key, Some(proven))).await, Admitted::Welcome(_)));
    town.settle_by(&town.bob, Settled::Held(handed[0].delivery)).await;
    town.settle_by(&town.bob, Settled::Message(id.clone(), vec![Recipient::Session(key)])).await;
    let again = town.claim(Recipient::Session(key), &fresh_connection()).await;
    assert_eq!(again.iter().map(|row| &row.message_id).collect::<Vec<_>>(), [&id]);
    store.close().await;
}
