//! Meshes, invites and joining.

use std::time::Duration;

use claudemesh_proto::{MeshId, Timestamp};
use claudemesh_store::{NewInvite, NewMesh, Redeemed, Redemption};

use crate::ground::Ground;
use crate::people::{Town, fresh_key};

on_both! {
    a_slug_is_taken_until_its_mesh_is_archived,
    members_are_listed_as_they_joined,
    a_token_is_registered_once,
    every_way_to_be_turned_away,
    whoever_is_a_member_uses_nothing_up,
    three_of_fifty_get_in_by_three_uses,
    fifty_joins_with_one_key_make_one_member,
    an_invite_is_taken_back_for_good,
    the_token_itself_is_not_kept,
}

async fn a_slug_is_taken_until_its_mesh_is_archived(ground: &Ground) {
    let store = ground.open().await;
    let mesh = |slug: &str| NewMesh {
        slug: slug.parse().unwrap(),
        owner_pubkey: fresh_key(),
        member_pubkey: fresh_key(),
        display_name: "Ada".parse().unwrap(),
    };
    let first = mesh("kitchen");
    let made = store.create_mesh(&first).await.unwrap().unwrap();
    assert_eq!(store.create_mesh(&mesh("kitchen")).await.unwrap(), None);
    let found = store.mesh(&made.mesh_id).await.unwrap().unwrap();
    assert_eq!((found.slug.as_str(), found.owner_pubkey), ("kitchen", first.owner_pubkey));
    assert!(store.create_mesh(&mesh("cellar")).await.unwrap().is_some());
    ground.sql("update mesh set archived_at = 1 where slug = 'kitchen'").await;
    assert!(store.create_mesh(&mesh("kitchen")).await.unwrap().is_some());
    assert_eq!(ground.number("select count(*) from mesh").await, 3);
    assert_eq!(ground.number("select count(*) from member").await, 3);
    store.close().await;
}

async fn members_are_listed_as_they_joined(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let members = store.members(&town.mesh).await.unwrap();
    assert_eq!(members.len(), 2);
    assert!(members.iter().any(|member| member.id == town.bob.id && member.pubkey == town.bob.key));
    assert!(store.authority(&town.mesh, &town.ada.id).await.unwrap().unwrap().may_administer);
    ground.sql(&format!("update member set revoked_at = 1 where id = '{}'", town.bob.id)).await;
    assert_eq!(store.members(&town.mesh).await.unwrap().len(), 1);
    let authority = store.authority(&town.mesh, &town.bob.id).await.unwrap().unwrap();
    assert_eq!((authority.may_administer, authority.display_name), (false, None));
    store.close().await;
}

async fn a_token_is_registered_once(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let invite = town.invite(3);
    let made = store.create_invite(&invite).await.unwrap().unwrap();
    // The same signed words in another spelling are the same invite.
    let respelled = NewInvite { token: "another spelling".into(), ..invite.clone() };
    assert_eq!(store.create_invite(&respelled).await.unwrap(), None);
    assert_eq!(store.create_invite(&invite).await.unwrap(), None);
    let listed = store.invites(&town.mesh).await.unwrap();
    assert!(listed.contains(&made));
    let nobody = NewInvite { created_by: "nobody".parse().unwrap(), ..town.invite(1) };
    assert!(matches!(store.create_invite(&nobody).await, Err(claudemesh_store::StoreError::Refused(_))));
    store.close().await;
}

async fn every_way_to_be_turned_away(ground: &Ground) {
    let store = ground.open().await;
    let (town, other) = (Town::found(&store).await, Town::found(&store).await);
    let invite = town.invite(1);
    let made = store.create_invite(&invite).await.unwrap().unwrap();
    let redeem = async |redemption: Redemption| store.redeem_invite(&redemption).await.unwrap();
    let newcomer = || town.redemption(&invite, fresh_key());
    assert_eq!(redeem(Redemption { token: "no token".into(), ..newcomer() }).await, Redeemed::NotFound);
    for mesh_id in [other.mesh.clone(), MeshId::from_random([7; 32])] {
        assert_eq!(redeem(Redemption { mesh_id, ..newcomer() }).await, Redeemed::OtherMesh);
    }
    let other_payload = Redemption { is_what_the_token_says: false, ..newcomer() };
    assert_eq!(redeem(other_payload).await, Redeemed::OtherPayload);
    ground.sql(&format!("update member set revoked_at = 1 where id = '{}'", town.bob.id)).await;
    assert_eq!(redeem(town.redemption(&invite, town.bob.key)).await, Redeemed::MemberRevoked);
    assert!(matches!(redeem(newcomer()).await, Redeemed::Joined(_)));
    assert_eq!(redeem(newcomer()).await, Redeemed::Exhausted);
    assert_eq!(redeem(town.redemption(&invite, town.bob.key)).await, Redeemed::Exhausted, "it tells nothing of a key");
    ground.sql(&format!("update invite set expires_at = {}", ground.now().as_millis())).await;
    assert_eq!(redeem(newcomer()).await, Redeemed::Expired);
    store.revoke_invite(&town.mesh, &made.id, &town.ada.id).await.unwrap();
    assert_eq!(redeem(newcomer()).await, Redeemed::Revoked);
    let used = store.invites(&town.mesh).await.unwrap().into_iter().find(|listed| listed.id == made.id).unwrap();
    assert_eq!(used.used_count, 1);
    store.close().await;
}

async fn whoever_is_a_member_uses_nothing_up(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let invite = NewInvite { expires_at: Timestamp::from_millis(ground.now().as_millis() + 60_000), ..town.invite(1) };
    store.create_invite(&invite).await.unwrap().unwrap();
    for _ in 0..3 {
        let again = store.redeem_invite(&town.redemption(&invite, town.bob.key)).await.unwrap();
        assert_eq!(again, Redeemed::AlreadyMember(town.bob.id.clone()));
    }
    let key = fresh_key();
    let Redeemed::Joined(id) = store.redeem_invite(&town.redemption(&invite, key)).await.unwrap() else { panic!() };
    // A retry of a join whose answer was lost, after the last use.
    let retry = store.redeem_invite(&town.redemption(&invite, key)).await.unwrap();
    assert_eq!(retry, Redeemed::AlreadyMember(id));
    ground.pass(Duration::from_mins(1)).await;
    store.close().await;
}

async fn redeem_at_once(town: &Town, redemptions: Vec<Redemption>) -> Vec<Redeemed> {
    let mut tasks = tokio::task::JoinSet::new();
    for redemption in redemptions {
        let store = town.store.clone();
        tasks.spawn(async move { store.redeem_invite(&redemption).await.unwrap() });
    }
    tasks.join_all().await
}

async fn three_of_fifty_get_in_by_three_uses(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let invite = town.invite(3);
    let made = store.create_invite(&invite).await.unwrap().unwrap();
    let redeemed = redeem_at_once(&town, (0..50).map(|_| town.redemption(&invite, fresh_key())).collect()).await;
    assert_eq!(redeemed.iter().filter(|one| matches!(one, Redeemed::Joined(_))).count(), 3);
    assert_eq!(redeemed.iter().filter(|one| **one == Redeemed::Exhausted).count(), 47);
    let listed = store.invites(&town.mesh).await.unwrap();
    assert_eq!(listed.iter().find(|listed| listed.id == made.id).unwrap().used_count, 3);
    assert_eq!(store.members(&town.mesh).await.unwrap().len(), 5);
    store.close().await;
}

async fn fifty_joins_with_one_key_make_one_member(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let invite = town.invite(20);
    let made = store.create_invite(&invite).await.unwrap().unwrap();
    let key = fresh_key();
    let redeemed = redeem_at_once(&town, (0..50).map(|_| town.redemption(&invite, key)).collect()).await;
    assert_eq!(redeemed.iter().filter(|one| matches!(one, Redeemed::Joined(_))).count(), 1);
    assert_eq!(redeemed.iter().filter(|one| matches!(one, Redeemed::AlreadyMember(_))).count(), 49);
    let listed = store.invites(&town.mesh).await.unwrap();
    assert_eq!(listed.iter().find(|listed| listed.id == made.id).unwrap().used_count, 1);
    store.close().await;
}

async fn an_invite_is_taken_back_for_good(ground: &Ground) {
    let store = ground.open().await;
    let (town, other) = (Town::found(&store).await, Town::found(&store).await);
    let made = store.create_invite(&town.invite(1)).await.unwrap().unwrap();
    let revoked_at = async || {
        let listed = store.invites(&town.mesh).await.unwrap();
        listed.into_iter().find(|listed| listed.id == made.id).unwrap().revoked_at
    };
    assert!(!store.revoke_invite(&other.mesh, &made.id, &other.ada.id).await.unwrap());
    assert_eq!(revoked_at().await, None);
    assert!(store.revoke_invite(&town.mesh, &made.id, &town.ada.id).await.unwrap());
    let first = revoked_at().await;
    assert!(first.is_some());
    ground.pass(Duration::from_mins(1)).await;
    assert!(store.revoke_invite(&town.mesh, &made.id, &town.ada.id).await.unwrap());
    assert_eq!(revoked_at().await, first);
    assert!(!store.revoke_invite(&town.mesh, &"nothing".parse().unwrap(), &town.ada.id).await.unwrap());
    store.close().await;
}

async fn the_token_itself_is_not_kept(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let invite = town.invite(1);
    store.create_invite(&invite).await.unwrap().unwrap();
    store.redeem_invite(&town.redemption(&invite, fresh_key())).await.unwrap();
    if ground.is_postgres() {
        let rows = ground.rows("select invite::text from invite").await.join("\n");
        assert!(rows.contains("member") && !rows.contains(&invite.token));
        store.close().await;
        return;
    }
    let contains = |text: &str| {
        let directory = ground.file();
        std::fs::read_dir(directory.parent().unwrap()).unwrap().any(|file| {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
    };
    for _ in 0..2 {
        // The search finds what is there: the search itself is tested by the newcomer's name.
        assert!(contains("Newcomer"));
        assert!(!contains(&invite.token));
        store.clone().close().await;
    }
}
