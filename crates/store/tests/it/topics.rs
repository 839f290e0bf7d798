//! Topics: who is in them, and what each may know (R6, R7, R10).

use claudemesh_proto::{MemberId, MeshId, PublicKey, TopicRole, TopicSought, Visibility};
use claudemesh_store::{
    Closed, KeyChange, KeyChanged, NewTopic, OwnCopy, SessionClaim, Store, Topic, TopicJoined, TopicMade,
    TopicMemberPut,
};

use crate::ground::Ground;
use crate::people::{Person, Town, fresh_key};

on_both! {
    two_who_make_one_topic_at_once_are_in_one,
    a_private_topic_is_nothing_to_others,
    a_creator_who_comes_back_is_a_member,
    every_query_refuses_the_removed,
    a_member_s_key_is_changed_with_what_hangs_on_it,
    a_key_that_somebody_has_or_had_is_not_taken,
    a_key_is_changed_without_proof_only_before_its_member_was_here,
}

/// Two brokers of one database; SQLite has one, which is asked twice.
pub(crate) async fn two_stores(ground: &Ground) -> (Store, Store) {
    let one = ground.open().await;
    let two = if ground.is_postgres() { ground.open_as("beta").await } else { one.clone() };
    (one, two)
}

/// A copy that nobody can open; each with a number of its own.
pub(crate) fn copy(number: u8) -> OwnCopy {
    let text = |of: &str| format!("{of}-{number}");
    OwnCopy { encrypted_key_pubkey: text("pubkey"), encrypted_key: text("key"), nonce: text("nonce") }
}

impl Town {
    pub(crate) fn whose<'a>(&'a self, person: &'a Person) -> (&'a MeshId, &'a MemberId) {
        (&self.mesh, &person.id)
    }

    pub(crate) async fn make(&self, by: &Person, name: &str, visibility: Visibility) -> TopicMade {
        let new = NewTopic { name: name.parse().unwrap(), description: None, visibility, key: copy(1) };
        self.store.create_topic(self.whose(by), &new).await.unwrap()
    }

    /// A topic that Ada makes.
    pub(crate) async fn topic(&self, visibility: Visibility) -> (Topic, TopicSought) {
        let TopicMade::Made(topic) = self.make(&self.ada, "talk", visibility).await else { panic!("not made") };
        let sought = TopicSought::by_id(topic.id.clone());
        (topic, sought)
    }

    pub(crate) async fn enter(&self, person: &Person, sought: &TopicSought) {
        let joined = self.store.join_topic(self.whose(person), sought, TopicRole::Member).await.unwrap();
        assert_eq!(joined, TopicJoined::Done);
    }
}

async fn two_who_make_one_topic_at_once_are_in_one(ground: &Ground) {
    let (one, two) = two_stores(ground).await;
    let town = Town::found(&one).await;
    let beside = town.through(&two);
    let (first, second) = tokio::join!(
        town.make(&town.ada, "talk", Visibility::Public),
        beside.make(&town.bob, "talk", Visibility::Public)
    );
    let made = [&first, &second].iter().filter(|made| matches!(made, TopicMade::Made(_))).count();
    assert_eq!(made, 1, "{first:?} {second:?}");
    let sought = TopicSought::by_name("talk");
    let members = one.topic_members(town.whose(&town.ada), &sought).await.unwrap().unwrap();
    assert_eq!(members.len(), 2);
    assert_eq!(
        ground.number("select count(*) from topic_member where role = 'lead'").await,
        2,
        "of general and of this"
    );
    assert_eq!(ground.number("select count(*) from topic_member_key").await, 1);
    one.close().await;
}

/// R7, and R6: neither by name nor by id, and no way in.
async fn a_private_topic_is_nothing_to_others(ground: &Ground) {
    let store = ground.open().await;
    let (town, other) = (Town::found(&store).await, Town::found(&store).await);
    let (topic, by_id) = town.topic(Visibility::Private).await;
    let of_bob = town.whose(&town.bob);
    // An admin of another mesh, and somebody who names this one's member in its own mesh.
    let strangers = [other.whose(&other.ada), (&other.mesh, &town.ada.id), (&town.mesh, &other.ada.id)];
    for sought in [by_id.clone(), TopicSought::by_name("talk")] {
        for whose in [of_bob].into_iter().chain(strangers) {
            assert_eq!(store.topic(whose, &sought).await.unwrap(), Err(Closed::NotFound));
            assert_eq!(store.join_topic(whose, &sought, TopicRole::Member).await.unwrap(), TopicJoined::NotFound);
            assert_eq!(store.topic_members(whose, &sought).await.unwrap(), Err(Closed::NotFound));
            assert_eq!(store.mark_topic_read(whose, &sought).await.unwrap(), Err(Closed::NotFound));
            assert_eq!(store.leave_topic(whose, &sought).await.unwrap(), None);
            let put = store.add_topic_member(whose, &sought, (whose.1, None)).await.unwrap();
            assert_eq!(put, TopicMemberPut::NotFound);
        }
    }
    assert_eq!(store.topics(of_bob.0, of_bob.1).await.unwrap().len(), 1);
    assert!(store.topics(&town.mesh, &other.ada.id).await.unwrap().is_empty());
    let put = store.add_topic_member(town.whose(&town.ada), &by_id, (&other.ada.id, None)).await.unwrap();
    assert_eq!(put, TopicMemberPut::NoMember);
    let put = store.add_topic_member(town.whose(&town.ada), &by_id, (&town.bob.id, None)).await.unwrap();
    assert_eq!(put, TopicMemberPut::Done(TopicRole::Member));
    assert_eq!(store.topic(of_bob, &by_id).await.unwrap(), Ok(topic));
    store.close().await;
}

/// Whoever made a topic and leads it no more does not get that back by leaving.
async fn a_creator_who_comes_back_is_a_member(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let TopicMade::Made(topic) = town.make(&town.bob, "talk", Visibility::Public).await else { panic!("not made") };
    let sought = TopicSought::by_id(topic.id);
    assert!(store.leave_topic(town.whose(&town.bob), &sought).await.unwrap().is_some());
    assert!(matches!(town.make(&town.bob, "talk", Visibility::Public).await, TopicMade::Found(_)));
    let members = store.topic_members(town.whose(&town.bob), &sought).await.unwrap().unwrap();
    assert_eq!(members.iter().map(|one| one.role).collect::<Vec<_>>(), [TopicRole::Member]);
    store.close().await;
}

/// R10: also while nothing else of the member has ended yet.
async fn every_query_refuses_the_removed(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (_, sought) = town.topic(Visibility::Public).await;
    town.enter(&town.bob, &sought).await;
    let of_bob = town.whose(&town.bob);
    store.seal_topic_key(town.whose(&town.ada), &sought, (&town.bob.id, "k", "n")).await.unwrap();
    ground.sql(&format!("update member set revoked_at = 1 where id = '{}'", town.bob.id)).await;
    assert_eq!(store.topic(of_bob, &sought).await.unwrap(), Err(Closed::NotFound));
    assert_eq!(store.topic_members(of_bob, &sought).await.unwrap(), Err(Closed::NotFound));
    assert_eq!(store.join_topic(of_bob, &sought, TopicRole::Member).await.unwrap(), TopicJoined::NotFound);
    assert_eq!(store.leave_topic(of_bob, &sought).await.unwrap(), None);
    assert!(store.topics(of_bob.0, of_bob.1).await.unwrap().is_empty());
    assert_eq!(town.make(&town.bob, "talk", Visibility::Public).await, TopicMade::NoMember);
    assert_eq!(town.make(&town.bob, "other", Visibility::Public).await, TopicMade::NoMember);
    assert_eq!(store.peer_pubkey(of_bob.0, of_bob.1).await.unwrap(), None);
    let change = KeyChange { from: town.bob.key, to: fresh_key(), is_proven: true };
    assert_eq!(store.change_peer_pubkey(of_bob, &change).await.unwrap(), KeyChanged::NoMember);
    assert_eq!(store.topic_members(town.whose(&town.ada), &sought).await.unwrap().unwrap().len(), 1);
    store.close().await;
}

async fn change(town: &Town, whose: &Person, (from, to): (PublicKey, PublicKey), is_proven: bool) -> KeyChanged {
    let change = KeyChange { from, to, is_proven };
    town.store.change_peer_pubkey(town.whose(whose), &change).await.unwrap()
}

/// A copy that was sealed for the old key is of no use; a block that was for the old key holds for the new one.
async fn a_member_s_key_is_changed_with_what_hangs_on_it(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (_, sought) = town.topic(Visibility::Public).await;
    town.enter(&town.bob, &sought).await;
    store.seal_topic_key(town.whose(&town.ada), &sought, (&town.bob.id, "k", "n")).await.unwrap();
    store.set_grants(town.whose(&town.ada), &[(town.bob.key, Some([].into()))].into()).await.unwrap();
    let (old, new) = (town.bob.key, fresh_key());
    assert_eq!(change(&town, &town.bob, (fresh_key(), new), true).await, KeyChanged::OtherKey);
    assert_eq!(change(&town, &town.bob, (old, new), true).await, KeyChanged::Done { changed: true });
    assert_eq!(change(&town, &town.bob, (old, new), true).await, KeyChanged::Done { changed: false });
    assert_eq!(store.peer_pubkey(&town.mesh, &town.bob.id).await.unwrap(), Some(new));
    let copies = format!("select count(*) from topic_member_key where member_id = '{}'", town.bob.id);
    assert_eq!(ground.number(&copies).await, 0);
    let pending = store.pending_seals(town.whose(&town.ada), &sought).await.unwrap().unwrap().1;
    assert_eq!(pending.iter().map(|one| one.pubkey).collect::<Vec<_>>(), [new]);
    let grants = store.grants(&town.mesh, &town.ada.id).await.unwrap().grants;
    assert_eq!(grants.into_keys().collect::<Vec<_>>(), [new.to_string()]);
    let logged = "select payload from audit_log where event_type = 'member_key_changed'";
    let payload = format!(r#"{{"from":"{old}","memberId":"{}","to":"{new}"}}"#, town.bob.id);
    assert_eq!(ground.rows(logged).await, [payload]);
    store.close().await;
}

async fn a_key_that_somebody_has_or_had_is_not_taken(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (gone, proven, named) = (town.join().await, fresh_key(), fresh_key());
    ground.sql(&format!("update member set revoked_at = 1 where id = '{}'", gone.id)).await;
    assert!(town.speak_for(&town.ada, proven, true).await);
    let claim = SessionClaim { pubkey: named, proven: false };
    town.admit(town.hello(town.ada.key, Some(claim))).await;
    for to in [town.ada.key, gone.key, proven] {
        assert_eq!(change(&town, &town.bob, (town.bob.key, to), true).await, KeyChanged::KeyInUse);
    }
    assert_eq!(change(&town, &town.bob, (town.bob.key, named), true).await, KeyChanged::Done { changed: true });
    store.close().await;
}

async fn a_key_is_changed_without_proof_only_before_its_member_was_here(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let new = fresh_key();
    assert_eq!(change(&town, &town.bob, (town.bob.key, new), false).await, KeyChanged::Done { changed: true });
    town.admit(town.hello(new, None)).await;
    assert_eq!(change(&town, &town.bob, (new, fresh_key()), false).await, KeyChanged::NeedsProof);
    assert_eq!(change(&town, &town.bob, (new, fresh_key()), true).await, KeyChanged::Done { changed: true });
    store.close().await;
}
