//! The copies of a topic's key: claiming it, passing it on, and that a copy stays (R8).

use claudemesh_proto::post::{BodyVersion, Post};
use claudemesh_proto::{Target, TopicRole, TopicSought, Visibility};
use claudemesh_store::{
    Closed, MAX_PENDING_SEALS, NewMessage, TopicKeyClaimed, TopicKeyFound, TopicKeyRejected, TopicKeySealed,
};

use crate::ground::Ground;
use crate::people::{Person, Town};
use crate::topics::{copy, two_stores};

on_both! {
    of_two_who_claim_a_key_at_once_one_wins,
    of_two_who_seal_for_one_member_at_once_one_wins,
    a_copy_stays_until_its_member_rejects_it,
    the_last_copy_is_not_rejected,
    a_key_without_a_trace_is_replaced_by_who_is_responsible,
    who_holds_no_copy_seals_for_nobody,
    keys_are_for_members_of_the_topic,
    those_wait_longest_first_who_have_no_copy,
}

fn general() -> TopicSought {
    TopicSought::by_name("general")
}

/// The copy that somebody has.
async fn held(town: &Town, person: &Person, sought: &TopicSought) -> Option<(String, String)> {
    match town.store.topic_key(town.whose(person), sought).await.unwrap() {
        TopicKeyFound::Copy(_, copy) => Some((copy.encrypted_key, copy.nonce)),
        TopicKeyFound::NotSealed(_) => None,
        other => panic!("{other:?}"),
    }
}

fn kept(number: u8) -> (String, String) {
    let copy = copy(number);
    (copy.encrypted_key, copy.nonce)
}

async fn seal(town: &Town, by: &Person, sought: &TopicSought, (whom, number): (&Person, u8)) -> TopicKeySealed {
    let copy = copy(number);
    let sealed = (&whom.id, copy.encrypted_key.as_str(), copy.nonce.as_str());
    town.store.seal_topic_key(town.whose(by), sought, sealed).await.unwrap()
}

/// What an outcome is called.
fn word(outcome: &impl std::fmt::Debug) -> String {
    format!("{outcome:?}").split(['(', ' ']).next().unwrap().to_owned()
}

async fn of_two_who_claim_a_key_at_once_one_wins(ground: &Ground) {
    let (one, two) = two_stores(ground).await;
    let town = Town::found(&one).await;
    let general = general();
    let found = one.topic_key(town.whose(&town.ada), &general).await.unwrap();
    assert!(matches!(found, TopicKeyFound::Unencrypted(_)));
    let (keys, of_ada, of_bob) = ([copy(1), copy(2)], town.whose(&town.ada), town.whose(&town.bob));
    let (first, second) =
        tokio::join!(one.claim_topic_key(of_ada, &general, &keys[0]), two.claim_topic_key(of_bob, &general, &keys[1]));
    let outcomes = [first.unwrap(), second.unwrap()];
    let winner = outcomes.iter().position(|outcome| matches!(outcome, TopicKeyClaimed::Done(_))).unwrap();
    let TopicKeyClaimed::AlreadyEncrypted(topic) = &outcomes[1 - winner] else { panic!("{outcomes:?}") };
    assert_eq!(topic.encrypted_key_pubkey.as_ref(), Some(&keys[winner].encrypted_key_pubkey));
    let people = [&town.ada, &town.bob];
    let number = u8::try_from(winner).unwrap() + 1;
    assert_eq!(held(&town, people[winner], &general).await, Some(kept(number)));
    assert_eq!(held(&town, people[1 - winner], &general).await, None);
    let events = ground.number("select count(*) from audit_log where event_type = 'topic_key_claimed'").await;
    assert_eq!((events, ground.number("select count(*) from topic_member_key").await), (1, 1));
    // R8: nor does the winner replace it.
    for (person, number) in [(&town.ada, 3), (&town.bob, 4)] {
        let again = one.claim_topic_key(town.whose(person), &general, &copy(number)).await.unwrap();
        assert_eq!(word(&again), "AlreadyEncrypted");
    }
    assert_eq!(held(&town, people[winner], &general).await, Some(kept(number)));
    one.close().await;
}

/// R8.
async fn of_two_who_seal_for_one_member_at_once_one_wins(ground: &Ground) {
    let (one, two) = two_stores(ground).await;
    let town = Town::found(&one).await;
    let cid = town.join().await;
    let (_, sought) = town.topic(Visibility::Public).await;
    for person in [&town.bob, &cid] {
        town.enter(person, &sought).await;
    }
    assert_eq!(word(&seal(&town, &town.ada, &sought, (&town.bob, 2)).await), "Done");
    let beside = town.through(&two);
    let (first, second) =
        tokio::join!(seal(&town, &town.ada, &sought, (&cid, 3)), seal(&beside, &town.bob, &sought, (&cid, 4)));
    let mut words = [word(&first), word(&second)];
    words.sort();
    assert_eq!(words, ["AlreadySealed", "Done"]);
    let winner = if word(&first) == "Done" { 3 } else { 4 };
    assert_eq!(held(&town, &cid, &sought).await, Some(kept(winner)));
    assert_eq!(ground.number("select count(*) from audit_log where event_type = 'topic_key_sealed'").await, 2);
    one.close().await;
}

/// R8: whoever asks, the sealer of the first copy and the recipient itself included; and rejecting concerns oneself.
async fn a_copy_stays_until_its_member_rejects_it(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (_, sought) = town.topic(Visibility::Private).await;
    let of_bob = town.whose(&town.bob);
    store.add_topic_member(town.whose(&town.ada), &sought, (&town.bob.id, None)).await.unwrap();
    assert!(matches!(store.reject_topic_key(of_bob, &sought).await.unwrap(), TopicKeyRejected::NotSealed(_)));
    assert_eq!(word(&seal(&town, &town.ada, &sought, (&town.bob, 2)).await), "Done");
    for by in [&town.ada, &town.bob] {
        for whom in [&town.ada, &town.bob] {
            assert_eq!(word(&seal(&town, by, &sought, (whom, 3)).await), "AlreadySealed");
        }
    }
    assert_eq!(
        (held(&town, &town.ada, &sought).await, held(&town, &town.bob, &sought).await),
        (Some(kept(1)), Some(kept(2)))
    );
    assert_eq!(word(&store.reject_topic_key(of_bob, &sought).await.unwrap()), "Done");
    assert_eq!(word(&store.reject_topic_key(of_bob, &sought).await.unwrap()), "NotSealed");
    assert_eq!(held(&town, &town.bob, &sought).await, None);
    assert_eq!(word(&seal(&town, &town.bob, &sought, (&town.bob, 4)).await), "SealerHasNoKey");
    let pending = store.pending_seals(of_bob, &sought).await.unwrap().unwrap().1;
    assert_eq!(pending.iter().map(|one| &one.member_id).collect::<Vec<_>>(), [&town.bob.id]);
    assert_eq!(word(&seal(&town, &town.ada, &sought, (&town.bob, 5)).await), "Done");
    assert_eq!(word(&seal(&town, &town.ada, &sought, (&town.bob, 6)).await), "AlreadySealed");
    assert_eq!(
        (held(&town, &town.ada, &sought).await, held(&town, &town.bob, &sought).await),
        (Some(kept(1)), Some(kept(5)))
    );
    assert!(store.pending_seals(of_bob, &sought).await.unwrap().unwrap().1.is_empty());
    // Leaving and coming back changes no copy.
    store.leave_topic(of_bob, &sought).await.unwrap();
    store.add_topic_member(town.whose(&town.ada), &sought, (&town.bob.id, None)).await.unwrap();
    assert_eq!(held(&town, &town.bob, &sought).await, Some(kept(5)));
    let rejected = "select payload from audit_log where event_type = 'topic_key_rejected'";
    assert_eq!(ground.rows(rejected).await.len(), 1);
    store.close().await;
}

async fn the_last_copy_is_not_rejected(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (_, sought) = town.topic(Visibility::Public).await;
    let reject = async |person| word(&store.reject_topic_key(town.whose(person), &sought).await.unwrap());
    assert_eq!(reject(&town.ada).await, "LastCopy");
    town.enter(&town.bob, &sought).await;
    assert_eq!(word(&seal(&town, &town.ada, &sought, (&town.bob, 2)).await), "Done");
    assert_eq!((reject(&town.ada).await, reject(&town.bob).await), ("Done".into(), "LastCopy".into()));
    assert_eq!(word(&seal(&town, &town.bob, &sought, (&town.ada, 3)).await), "Done");
    // Who is not in the topic seals for nobody.
    store.leave_topic(town.whose(&town.bob), &sought).await.unwrap();
    assert_eq!(reject(&town.ada).await, "LastCopy");
    assert_eq!(held(&town, &town.ada, &sought).await, Some(kept(3)));
    store.close().await;
}

async fn a_key_without_a_trace_is_replaced_by_who_is_responsible(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let cid = town.join().await;
    let (general, pubkey) = (general(), "select encrypted_key_pubkey from topic");
    let topic = store.topics(&town.mesh, &town.ada.id).await.unwrap().remove(0).id;
    let write = async |from: &Person| {
        let post = Some(Post { body_version: BodyVersion::Sealed, ..Post::default() });
        let target = Target::Topic(topic.clone());
        town.append(NewMessage { target, post, ..town.letter(from, from.key, "x") }).await.unwrap()
    };
    let replace = async |person, number| {
        word(&store.replace_topic_key(town.whose(person), &general, &copy(number)).await.unwrap())
    };
    assert_eq!(word(&store.claim_topic_key(town.whose(&town.bob), &general, &copy(1)).await.unwrap()), "Done");
    write(&town.bob).await;
    assert_eq!(replace(&cid, 2).await, "AlreadyEncrypted", "not by everybody");
    assert_eq!(replace(&town.bob, 2).await, "AlreadyEncrypted", "nor by who claimed it");
    assert_eq!(replace(&town.ada, 2).await, "Done");
    assert_eq!(ground.rows(pubkey).await, [copy(2).encrypted_key_pubkey]);
    assert_eq!((held(&town, &town.bob, &general).await, held(&town, &town.ada, &general).await), (None, Some(kept(2))));
    let claims = "select count(*) from audit_log where event_type = 'topic_key_claimed'";
    assert_eq!(ground.number(claims).await, 2);
    // It was used: somebody wrote with it, or has it besides.
    ground.sql("delete from topic_message").await;
    assert_eq!(word(&seal(&town, &town.ada, &general, (&cid, 3)).await), "Done");
    assert_eq!(replace(&town.ada, 4).await, "AlreadyEncrypted");
    store.reject_topic_key(town.whose(&cid), &general).await.unwrap();
    write(&cid).await;
    assert_eq!(replace(&town.ada, 4).await, "AlreadyEncrypted");
    assert_eq!(held(&town, &town.ada, &general).await, Some(kept(2)));
    store.close().await;
}

async fn who_holds_no_copy_seals_for_nobody(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (_, sought) = town.topic(Visibility::Public).await;
    let cid = town.join().await;
    for person in [&town.bob, &cid] {
        town.enter(person, &sought).await;
    }
    for whom in [&town.bob, &cid, &town.ada] {
        assert_eq!(word(&seal(&town, &town.bob, &sought, (whom, 2)).await), "SealerHasNoKey");
    }
    assert_eq!(word(&seal(&town, &town.ada, &general(), (&cid, 2)).await), "Unencrypted");
    assert_eq!(word(&store.reject_topic_key(town.whose(&cid), &general()).await.unwrap()), "Unencrypted");
    assert!(store.pending_seals(town.whose(&cid), &general()).await.unwrap().unwrap().1.is_empty());
    assert_eq!(ground.number("select count(*) from topic_member_key").await, 1);
    store.close().await;
}

/// R6, R7, R10: those outside, those of another mesh, and those who were removed.
async fn keys_are_for_members_of_the_topic(ground: &Ground) {
    let store = ground.open().await;
    let (town, other) = (Town::found(&store).await, Town::found(&store).await);
    let (_, public) = town.topic(Visibility::Public).await;
    let outside = town.join().await;
    for (whose, closed) in [
        (town.whose(&outside), Closed::NotIn),
        (other.whose(&other.ada), Closed::NotFound),
        ((&other.mesh, &town.ada.id), Closed::NotFound),
    ] {
        assert_eq!(store.topic_key(whose, &public).await.unwrap(), TopicKeyFound::Closed(closed));
        let claimed = store.claim_topic_key(whose, &public, &copy(9)).await.unwrap();
        assert_eq!(claimed, TopicKeyClaimed::Closed(closed));
        assert_eq!(store.pending_seals(whose, &public).await.unwrap(), Err(closed));
        let sealed = store.seal_topic_key(whose, &public, (&outside.id, "k", "n")).await.unwrap();
        assert_eq!(sealed, TopicKeySealed::Closed(closed));
        assert_eq!(store.reject_topic_key(whose, &public).await.unwrap(), TopicKeyRejected::Closed(closed));
    }
    // For strangers to the topic nobody seals, whatever they are.
    for whom in [&outside, &other.ada] {
        assert_eq!(word(&seal(&town, &town.ada, &public, (whom, 2)).await), "RecipientNotInTopic");
    }
    town.enter(&outside, &public).await;
    ground.sql(&format!("update member set revoked_at = 1 where id = '{}'", outside.id)).await;
    assert_eq!(word(&seal(&town, &town.ada, &public, (&outside, 2)).await), "RecipientNotInTopic");
    assert!(store.pending_seals(town.whose(&town.ada), &public).await.unwrap().unwrap().1.is_empty());
    // A holder that was removed seals for nobody.
    town.enter(&town.bob, &public).await;
    assert_eq!(word(&seal(&town, &town.ada, &public, (&town.bob, 2)).await), "Done");
    let late = town.join().await;
    town.enter(&late, &public).await;
    ground.sql(&format!("update member set revoked_at = 1 where id = '{}'", town.bob.id)).await;
    assert_eq!(word(&seal(&town, &town.bob, &public, (&late, 3)).await), "Closed");
    let found = store.topic_key(town.whose(&town.bob), &public).await.unwrap();
    assert_eq!(found, TopicKeyFound::Closed(Closed::NotFound));
    store.close().await;
}

async fn those_wait_longest_first_who_have_no_copy(ground: &Ground) {
    let store = ground.open().await;
    let town = Town::found(&store).await;
    let (_, sought) = town.topic(Visibility::Public).await;
    let mut people = vec![town.bob.clone()];
    for _ in 0..MAX_PENDING_SEALS {
        people.push(town.join().await);
    }
    // They came to the mesh in another order than to the topic.
    people.reverse();
    for person in &people {
        let joined = store.join_topic(town.whose(person), &sought, TopicRole::Observer).await.unwrap();
        assert_eq!(joined, claudemesh_store::TopicJoined::Done);
    }
    let waiting = async || {
        let pending = store.pending_seals(town.whose(&town.ada), &sought).await.unwrap().unwrap().1;
        pending.into_iter().map(|one| one.member_id).collect::<Vec<_>>()
    };
    let ids: Vec<_> = people.iter().map(|person| person.id.clone()).collect();
    assert_eq!(waiting().await, ids[..50]);
    assert_eq!(word(&seal(&town, &town.ada, &sought, (&people[0], 2)).await), "Done");
    assert_eq!(waiting().await, ids[1..]);
    store.close().await;
}
