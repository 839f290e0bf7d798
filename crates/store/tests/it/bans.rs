//! Removing members and taking them back: what is refused, and that their mail ends for good (R10).

use std::time::Duration;

use claudemesh_proto::ban::Sought;
use claudemesh_proto::{DeliveryState, MessageId};
use claudemesh_store::{Admitted, Appended, Banned, Reclaim, Redeemed, Settled, Unbanned};

use crate::ground::Ground;
use crate::people::{LEASE, Person, Town, fresh_connection, fresh_key};

on_both! {
    from_the_commit_on_every_query_refuses_the_removed,
    what_waits_ends_in_steps_and_stays_ended,
    a_step_that_comes_late_leaves_the_mail_of_who_was_taken_back,
    the_sweep_ends_what_a_crash_left,
    mail_for_a_session_key_that_was_forgotten_ends_too,
    whoever_was_removed_within_a_time_is_told,
}

fn target(text: &str) -> Sought {
    Sought::new(text).unwrap()
}

impl Town {
    async fn ban_bob(&self) {
        let banned = self.store.ban(&self.mesh, &self.ada.id, &target(&self.bob.key.to_string())).await.unwrap();
        assert!(matches!(banned, Banned::Done(member) if member.id == self.bob.id));
    }

    async fn unban_bob(&self) {
        let unbanned = self.store.unban(&self.mesh, &self.ada.id, &target(&self.bob.key.to_string())).await.unwrap();
        assert!(matches!(unbanned, Unbanned::Done(_)));
    }

    /// So many messages for Bob.
    async fn fill(&self, messages: usize) {
        let mut kept = Vec::with_capacity(messages);
        for _ in 0..messages {
            kept.push(self.store.append(self.letter(&self.ada, self.bob.key, "x")).await);
        }
        for answer in kept {
            assert!(matches!(answer.await.unwrap(), Appended::Kept(_)));
        }
    }

    async fn state(&self, id: &MessageId) -> DeliveryState {
        self.store.message_path(&self.mesh, id.as_str()).await.unwrap().unwrap().steps[0].state
    }

    async fn is_admitted(&self, person: &Person) -> bool {
        matches!(self.admit(self.hello(person.key, None)).await, Admitted::Welcome(_))
    }
}

/// What the mesh is said to have queued, and all its recipients together.
const HEADS_AGREE: &str = "select cast((select coalesce(sum(queued_rows), 0) + coalesce(sum(queued_bytes), 0) from mesh_head) \
     - (select coalesce(sum(queued_rows), 0) + coalesce(sum(queued_bytes), 0) from backlog) as bigint)";
const QUEUED: &str = "select count(*) from delivery where state = 'queued'";
const BACKLOG: &str =
    "select cast(coalesce(sum(queued_rows), 0) + coalesce(sum(queued_bytes), 0) as bigint) from backlog";

/// R10 and D9: also the row that a connection held before is not handed to it again.
async fn from_the_commit_on_every_query_refuses_the_removed(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let connection = fresh_connection();
    let id = town.tell_bob("held").await;
    let held = town.claim(town.bob.recipient(), &connection).await;
    town.tell_bob("free").await;
    let invite = town.invite(5);
    store.create_invite(&invite).await.unwrap().unwrap();
    town.ban_bob().await;
    assert!(town.bob_gets(&connection).await.is_empty());
    let rows = vec![(held[0].delivery, LEASE)];
    let again = Reclaim { mesh_id: town.mesh.clone(), connection, rows };
    assert!(store.reclaim(again).await.await.unwrap().is_empty());
    town.settle(Settled::Held(held[0].delivery)).await;
    assert_ne!(town.state(&id).await, DeliveryState::Delivered);
    assert!(!town.is_admitted(&town.bob).await);
    assert_eq!(store.authority(&town.mesh, &town.bob.id).await.unwrap().unwrap().display_name, None);
    assert_eq!(store.members(&town.mesh).await.unwrap().len(), 1);
    assert_eq!(store.redeem_invite(&town.redemption(&invite, town.bob.key)).await.unwrap(), Redeemed::MemberRevoked);
    assert_eq!(store.invites(&town.mesh).await.unwrap().iter().map(|invite| invite.used_count).sum::<u32>(), 1);
    let bans = store.bans(&town.mesh).await.unwrap();
    assert_eq!(bans.iter().map(|ban| ban.pubkey).collect::<Vec<_>>(), [town.bob.key]);
    town.unban_bob().await;
    assert!(town.is_admitted(&town.bob).await);
    store.close().await;
}

async fn what_waits_ends_in_steps_and_stays_ended(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let session = fresh_key();
    assert!(town.speak_for(&town.bob, session, true).await);
    let first = town.tell_bob("first").await;
    town.send(&town.ada, session, "for the session").await;
    let other = town.send(&town.bob, town.ada.key, "of the removed").await;
    // As many as two steps end, and a few.
    town.fill(2100).await;
    town.ban_bob().await;
    let mut steps = 0;
    while store.end_mail_of(&town.mesh, &town.bob.id).await.unwrap() {
        steps += 1;
    }
    assert_eq!(steps, 2);
    assert_eq!(town.state(&first).await, DeliveryState::Revoked);
    assert_eq!(town.state(&other).await, DeliveryState::Queued, "what the removed wrote is delivered all the same");
    assert_eq!(ground.number(QUEUED).await, 1);
    let size = ground.number("select cast(sum(size_bytes) as bigint) from delivery where state = 'queued'").await;
    assert_eq!(ground.number(BACKLOG).await, 1 + size);
    assert_eq!(ground.number(HEADS_AGREE).await, 0);
    town.unban_bob().await;
    assert!(town.bob_gets(&fresh_connection()).await.is_empty());
    town.tell_bob("new").await;
    assert_eq!(town.bob_gets(&fresh_connection()).await, ["new"]);
    // Without a step in between: the unban ends what there is.
    town.fill(2100).await;
    town.ban_bob().await;
    town.unban_bob().await;
    assert_eq!(ground.number(QUEUED).await, 1);
    assert_eq!(ground.number("select count(*) from member where revoking = 1").await, 0);
    store.close().await;
}

async fn a_step_that_comes_late_leaves_the_mail_of_who_was_taken_back(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    town.ban_bob().await;
    town.unban_bob().await;
    let id = town.tell_bob("new").await;
    assert!(!store.end_mail_of(&town.mesh, &town.bob.id).await.unwrap());
    store.sweep().await.unwrap();
    assert_eq!(town.state(&id).await, DeliveryState::Queued);
    store.close().await;
}

async fn the_sweep_ends_what_a_crash_left(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let id = town.tell_bob("x").await;
    town.fill(1500).await;
    town.ban_bob().await;
    store.close().await;
    let store = ground.open().await;
    let town = town.through(&store);
    assert_eq!(town.state(&id).await, DeliveryState::Queued);
    store.sweep().await.unwrap();
    assert_eq!(town.state(&id).await, DeliveryState::Revoked);
    assert_eq!((ground.number(QUEUED).await, ground.number(BACKLOG).await), (0, 0));
    store.close().await;
}

async fn mail_for_a_session_key_that_was_forgotten_ends_too(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (of_bob, of_ada) = (fresh_key(), fresh_key());
    assert!(town.speak_for(&town.bob, of_bob, true).await && town.speak_for(&town.ada, of_ada, true).await);
    let ended = town.send(&town.ada, of_bob, "x").await;
    let kept = town.send(&town.bob, of_ada, "x").await;
    ground.sql("delete from session").await;
    town.ban_bob().await;
    store.sweep().await.unwrap();
    assert_eq!(town.state(&ended).await, DeliveryState::Revoked);
    assert_eq!(town.state(&kept).await, DeliveryState::Queued);
    store.close().await;
}

async fn whoever_was_removed_within_a_time_is_told(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let minute = Duration::from_mins(1);
    assert!(store.removed_within(minute).await.unwrap().is_empty());
    town.ban_bob().await;
    assert_eq!(store.removed_within(minute).await.unwrap(), [(town.mesh.clone(), town.bob.id.clone())]);
    town.unban_bob().await;
    assert!(store.removed_within(minute).await.unwrap().is_empty());
    store.close().await;
}
