//! Messages of topics: gapless numbers, and delivery by a cursor per member.

use claudemesh_proto::post::{BodyVersion, Post};
use claudemesh_proto::{ConnectionId, DeliveryState, Priority, Target, TopicId, TopicRole, TopicSought, Visibility};
use claudemesh_store::{
    Appended, Claim, Claimed, DeliveryId, Front, NewMessage, NewTopic, OwnCopy, Posted, Reclaim, Settled, TopicJoined,
    TopicMade,
};

use crate::ground::Ground;
use crate::people::{LEASE, Person, Town, fresh_connection, texts};

on_both! {
    numbers_have_no_gaps_and_everybody_else_gets_each_once,
    what_is_acknowledged_does_not_come_again,
    what_a_connection_held_that_is_gone_comes_again,
    direct_and_topic_messages_come_in_one_order,
    many_topics_share_a_claim_and_none_is_overtaken,
    what_is_not_for_it_hides_nothing_that_follows,
    a_busy_member_gets_what_is_urgent_and_the_rest_later,
    ciphertexts_are_for_those_who_can_open_them,
    whoever_joins_later_gets_what_is_written_from_then_on,
    who_is_not_in_a_topic_cannot_write_into_it,
    a_retry_is_the_same_message,
    who_is_mentioned_is_notified_with_the_message,
    a_topic_that_is_not_public_notifies_nobody_outside_it,
    a_reply_answers_a_message_of_its_own_topic,
    a_lease_that_ended_is_prolonged_and_told_again,
    a_waiting_claim_is_served_and_its_cursor_is_its_own,
    a_claim_of_another_connection_is_respected_until_it_is_over,
    what_became_of_a_message_is_known_for_each_reader,
}

struct Room {
    town: Town,
    topic: TopicId,
}

impl Room {
    async fn open(ground: &Ground) -> Self {
        let store = ground.open().await;
        let town = Town::found(&store).await;
        let topics = store.topics(&town.mesh, &town.ada.id).await.unwrap();
        Self { topic: topics[0].id.clone(), town }
    }

    fn post(&self, from: &Person, text: &str) -> NewMessage {
        let letter = self.town.letter(from, from.key, text);
        NewMessage { target: Target::Topic(self.topic.clone()), post: Some(Post::default()), ..letter }
    }

    /// Another topic, with Bob in it.
    async fn another(&self, name: &str) -> Self {
        let key = OwnCopy { encrypted_key_pubkey: "k".into(), encrypted_key: "e".into(), nonce: "n".into() };
        let (name, visibility) = (name.parse().unwrap(), Visibility::Public);
        let new = NewTopic { name, description: None, visibility, key };
        let (store, mesh) = (&self.town.store, &self.town.mesh);
        let made = store.create_topic((mesh, &self.town.ada.id), &new).await.unwrap();
        let TopicMade::Made(topic) = made else { panic!("{made:?}") };
        let sought = TopicSought::by_id(topic.id.clone());
        store.join_topic((mesh, &self.town.bob.id), &sought, TopicRole::Member).await.unwrap();
        Self { town: self.town.clone(), topic: topic.id }
    }

    /// Bob's claims with all the room there is, each going on after the one before, until one finds nothing.
    async fn bob_claims_all(&self, connection: &ConnectionId) -> Vec<Vec<Claimed>> {
        let mut answers: Vec<Vec<Claimed>> = Vec::new();
        loop {
            let after_seq = answers.last().and_then(|rows| rows.last()).map_or(0, |row| row.seq);
            let claim = Claim { after_seq, ..self.town.wish(self.town.bob.recipient(), connection) };
            let rows = self.town.store.claim(claim).await.await.unwrap();
            if rows.is_empty() {
                return answers;
            }
            answers.push(rows);
        }
    }

    async fn write(&self, from: &Person, text: &str) -> Posted {
        posted(self.town.append(self.post(from, text)).await.unwrap())
    }

    async fn bob_claims(&self, connection: &ConnectionId) -> Vec<Claimed> {
        self.town.claim(self.town.bob.recipient(), connection).await
    }

    async fn bob_has(&self, connection: &ConnectionId, row: &Claimed, is_done: bool) {
        let DeliveryId::Post { cursor, seq } = row.delivery else { panic!("{row:?}") };
        let front = Front { cursor, seq, connection: connection.clone(), is_done };
        self.town.settle(Settled::Posts(front)).await;
    }
}

fn posted(appended: Appended) -> Posted {
    match appended {
        Appended::Posted(posted) => *posted,
        other => panic!("not posted: {other:?}"),
    }
}

fn numbers(rows: &[Claimed]) -> Vec<i64> {
    rows.iter().map(|row| row.post.as_ref().unwrap().seq).collect()
}

/// D12.
async fn numbers_have_no_gaps_and_everybody_else_gets_each_once(ground: &Ground) {
    let room = Room::open(ground).await;
    let (ada, carl) = (room.town.ada.clone(), room.town.join().await);
    let mut pending = Vec::new();
    for number in 0..300 {
        let from = if number % 2 == 0 { &ada } else { &carl };
        pending.push(room.town.store.append(room.post(from, &number.to_string())).await);
    }
    let mut ids = Vec::new();
    for (number, answer) in (1..).zip(pending) {
        let posted = posted(answer.await.unwrap());
        assert_eq!((posted.seq, posted.topic.as_str()), (number, "general"));
        ids.push(posted.message_id);
    }
    let connection = fresh_connection();
    let first = room.bob_claims(&connection).await;
    assert_eq!(numbers(&first), (1..=256).collect::<Vec<_>>());
    let after_seq = first.last().unwrap().seq;
    let claim = Claim { after_seq, ..room.town.wish(room.town.bob.recipient(), &connection) };
    let rest = room.town.store.claim(claim).await.await.unwrap();
    assert_eq!(numbers(&rest), (257..=300).collect::<Vec<_>>());
    let got: Vec<_> = first.iter().chain(&rest).map(|row| row.message_id.clone()).collect();
    assert_eq!(got, ids);
    let own = room.town.claim(carl.recipient(), &fresh_connection()).await;
    assert!(own.iter().all(|row| row.sender_member_id == ada.id), "one's own come back to nobody");
    assert_eq!(own.len(), 150 - 22, "256 are looked at, and half are one's own");
    room.town.store.close().await;
}

async fn what_is_acknowledged_does_not_come_again(ground: &Ground) {
    let room = Room::open(ground).await;
    for text in ["a", "b", "c"] {
        room.write(&room.town.ada, text).await;
    }
    let connection = fresh_connection();
    let rows = room.bob_claims(&connection).await;
    assert_eq!(texts(&rows), ["a", "b", "c"]);
    room.bob_has(&connection, &rows[1], false).await;
    assert_eq!(texts(&room.bob_claims(&connection).await), ["c"]);
    room.bob_has(&connection, &rows[2], true).await;
    assert!(room.bob_claims(&fresh_connection()).await.is_empty());
    // What is older than the place moves nothing back.
    room.bob_has(&connection, &rows[0], true).await;
    assert!(room.bob_claims(&fresh_connection()).await.is_empty());
    room.town.store.close().await;
}

/// D2.
async fn what_a_connection_held_that_is_gone_comes_again(ground: &Ground) {
    let room = Room::open(ground).await;
    for text in ["a", "b", "c"] {
        room.write(&room.town.ada, text).await;
    }
    let (first, second) = (fresh_connection(), fresh_connection());
    let rows = room.bob_claims(&first).await;
    room.bob_has(&first, &rows[0], false).await;
    room.town.release(&first, &rows[1..]).await;
    let again = room.bob_claims(&second).await;
    assert_eq!(numbers(&again), [2, 3]);
    assert_eq!(again[0].message_id, rows[1].message_id, "D7");
    room.town.store.close().await;
}

/// D5.
async fn direct_and_topic_messages_come_in_one_order(ground: &Ground) {
    let room = Room::open(ground).await;
    room.town.tell_bob("1").await;
    room.write(&room.town.ada, "2").await;
    room.town.tell_bob("3").await;
    room.write(&room.town.ada, "4").await;
    let connection = fresh_connection();
    let cut = Claim { max_rows: 3, ..room.town.wish(room.town.bob.recipient(), &connection) };
    let rows = room.town.store.claim(cut).await.await.unwrap();
    assert_eq!(texts(&rows), ["1", "2", "3"]);
    let after_seq = rows[2].seq;
    let next = Claim { after_seq, ..room.town.wish(room.town.bob.recipient(), &connection) };
    assert_eq!(texts(&room.town.store.claim(next).await.await.unwrap()), ["4"]);
    room.town.store.close().await;
}

/// D5, D12: what a claim looks at is shared by the topics, whether many or few were written into.
async fn many_topics_share_a_claim_and_none_is_overtaken(ground: &Ground) {
    let general = Room::open(ground).await;
    let mut rooms = vec![general.another("quiet").await, general.another("dull").await];
    let town = &general.town;
    rooms.push(Room { town: town.clone(), topic: general.topic.clone() });
    let mut pending = Vec::new();
    for number in 0..600_usize {
        // Two thirds of it are of one topic.
        let room = &rooms[if number % 3 == 0 { number % 2 } else { 2 }];
        pending.push(town.store.append(room.post(&town.ada, &number.to_string())).await);
        if number % 50 == 0 {
            pending.push(town.store.append(town.letter(&town.ada, town.bob.key, &format!("{number} too"))).await);
        }
    }
    for answer in pending {
        answer.await.unwrap();
    }
    let answers = general.bob_claims_all(&fresh_connection()).await;
    assert!(answers.iter().all(|rows| rows.len() <= 256), "a claim's cost does not grow with topics");
    assert!(answers.len() < 12, "{} claims", answers.len());
    assert!(answers[0].len() < 256, "one topic's share was all that was read of it");
    let expected: Vec<String> = (0..600)
        .flat_map(|number| [Some(number.to_string()), (number % 50 == 0).then(|| format!("{number} too"))])
        .flatten()
        .collect();
    assert_eq!(texts(&answers.concat()), expected);
    general.town.store.close().await;
}

async fn what_is_not_for_it_hides_nothing_that_follows(ground: &Ground) {
    let general = Room::open(ground).await;
    let other = general.another("other").await;
    let (ada, bob) = (&general.town.ada, &general.town.bob);
    general.write(ada, "first").await;
    let mut pending = Vec::new();
    for _ in 0..255 {
        pending.push(general.town.store.append(general.post(bob, "own")).await);
    }
    for answer in pending {
        posted(answer.await.unwrap());
    }
    general.write(ada, "second").await;
    other.write(ada, "third").await;
    let answers = general.bob_claims_all(&fresh_connection()).await;
    assert_eq!(texts(&answers.concat()), ["first", "second", "third"]);
    general.town.store.close().await;
}

async fn a_busy_member_gets_what_is_urgent_and_the_rest_later(ground: &Ground) {
    let room = Room::open(ground).await;
    room.write(&room.town.ada, "later").await;
    let urgent = NewMessage { priority: Priority::Now, ..room.post(&room.town.ada, "now") };
    posted(room.town.append(urgent).await.unwrap());
    let connection = fresh_connection();
    let busy = Claim { urgent_only: true, ..room.town.wish(room.town.bob.recipient(), &connection) };
    let rows = room.town.store.claim(busy).await.await.unwrap();
    assert_eq!(texts(&rows), ["now"]);
    assert_eq!(rows[0].span.map(|span| span.after), Some(1), "something lies before it");
    let rows = room.bob_claims(&connection).await;
    assert_eq!(texts(&rows), ["later", "now"], "the connection knows that it has the second");
    room.town.store.close().await;
}

async fn ciphertexts_are_for_those_who_can_open_them(ground: &Ground) {
    let room = Room::open(ground).await;
    let sealed = |text: &str| {
        let post = Some(Post { body_version: BodyVersion::Sealed, ..Post::default() });
        NewMessage { post, ..room.post(&room.town.ada, text) }
    };
    posted(room.town.append(sealed("sealed")).await.unwrap());
    room.write(&room.town.ada, "clear").await;
    let (old, new) = (fresh_connection(), fresh_connection());
    let rows = room.bob_claims(&old).await;
    assert_eq!(texts(&rows), ["clear"]);
    room.town.release(&old, &rows).await;
    let knowing = Claim { knows_topics: true, ..room.town.wish(room.town.bob.recipient(), &new) };
    let rows = room.town.store.claim(knowing).await.await.unwrap();
    assert_eq!(texts(&rows), ["clear"], "what is passed over is for history to show");
    room.town.release(&new, &rows).await;
    posted(room.town.append(sealed("sealed too")).await.unwrap());
    let knowing = Claim { knows_topics: true, ..room.town.wish(room.town.bob.recipient(), &new) };
    assert_eq!(texts(&room.town.store.claim(knowing).await.await.unwrap()), ["clear", "sealed too"]);
    room.town.store.close().await;
}

async fn whoever_joins_later_gets_what_is_written_from_then_on(ground: &Ground) {
    let room = Room::open(ground).await;
    room.write(&room.town.ada, "before").await;
    let carl = room.town.join().await;
    room.write(&room.town.ada, "after").await;
    let rows = room.town.claim(carl.recipient(), &fresh_connection()).await;
    assert_eq!((texts(&rows), numbers(&rows)), (vec!["after".to_owned()], vec![2]));
    room.town.store.close().await;
}

/// R7, R6.
async fn who_is_not_in_a_topic_cannot_write_into_it(ground: &Ground) {
    let room = Room::open(ground).await;
    let sought = TopicSought::new(room.topic.as_str());
    let (mesh, bob) = (room.town.mesh.clone(), room.town.bob.clone());
    assert_eq!(room.town.store.leave_topic((&mesh, &bob.id), &sought).await.unwrap(), Some(room.topic.clone()));
    assert_eq!(room.town.append(room.post(&bob, "x")).await.unwrap(), Appended::NoTopic);
    room.write(&room.town.ada, "unheard").await;
    assert!(room.bob_claims(&fresh_connection()).await.is_empty());
    let joined = room.town.store.join_topic((&mesh, &bob.id), &sought, TopicRole::Member).await.unwrap();
    assert_eq!(joined, TopicJoined::Done);
    assert!(room.bob_claims(&fresh_connection()).await.is_empty());
    let elsewhere = Town::found(&room.town.store).await;
    let foreign = NewMessage { mesh_id: elsewhere.mesh.clone(), ..room.post(&elsewhere.ada, "x") };
    assert_eq!(elsewhere.append(foreign).await.unwrap(), Appended::NoTopic);
    let unknown = NewMessage { target: Target::Topic("nowhere".parse().unwrap()), ..room.post(&bob, "x") };
    assert_eq!(room.town.append(unknown).await.unwrap(), Appended::NoTopic);
    room.town.store.close().await;
}

/// D6.
async fn a_retry_is_the_same_message(ground: &Ground) {
    let room = Room::open(ground).await;
    let post = |text: &str| NewMessage { client_message_id: Some("c1".into()), ..room.post(&room.town.ada, text) };
    let first = posted(room.town.append(post("a")).await.unwrap());
    assert_eq!(room.town.append(post("a")).await.unwrap(), Appended::Kept(first.message_id));
    assert_eq!(room.town.append(post("b")).await.unwrap(), Appended::Reused);
    let direct =
        NewMessage { client_message_id: Some("c1".into()), ..room.town.letter(&room.town.ada, room.town.bob.key, "a") };
    assert_eq!(room.town.append(direct).await.unwrap(), Appended::Reused);
    assert_eq!(texts(&room.bob_claims(&fresh_connection()).await), ["a"]);
    room.town.store.close().await;
}

async fn who_is_mentioned_is_notified_with_the_message(ground: &Ground) {
    let room = Room::open(ground).await;
    let mentions = |names: &[&str]| {
        let mentions = names.iter().map(|&name| name.to_owned()).collect();
        NewMessage { post: Some(Post { mentions, ..Post::default() }), ..room.post(&room.town.ada, "x") }
    };
    let carl = room.town.join().await;
    let by_name = posted(room.town.append(mentions(&["newcomer", "ada", "nobody"])).await.unwrap());
    let mut told: Vec<_> = by_name.notified.into_iter().map(|(_, member)| member).collect();
    told.sort();
    let mut expected = vec![room.town.bob.id.clone(), carl.id.clone()];
    expected.sort();
    assert_eq!(told, expected, "both are called Newcomer, and nobody mentions oneself");
    let count = ground.number("select count(*) from notification where kind = 'mention' and read_at is null").await;
    assert_eq!(count, 2);
    assert!(posted(room.town.append(mentions(&[])).await.unwrap()).notified.is_empty());
    room.town.store.close().await;
}

/// R7.
async fn a_topic_that_is_not_public_notifies_nobody_outside_it(ground: &Ground) {
    let room = Room::open(ground).await;
    let (store, town) = (&room.town.store, &room.town);
    let (of_ada, carl) = ((&town.mesh, &town.ada.id), town.join().await);
    for (visibility, told) in [(Visibility::Public, 2), (Visibility::Private, 1), (Visibility::Dm, 1)] {
        let key = OwnCopy { encrypted_key_pubkey: "k".into(), encrypted_key: "e".into(), nonce: "n".into() };
        let name = format!("{visibility:?}").to_lowercase().parse().unwrap();
        let made = store.create_topic(of_ada, &NewTopic { name, description: None, visibility, key }).await.unwrap();
        let TopicMade::Made(topic) = made else { panic!("{made:?}") };
        let sought = TopicSought::by_id(topic.id.clone());
        store.add_topic_member(of_ada, &sought, (&carl.id, None)).await.unwrap();
        let post =
            Some(Post { mentions: vec!["newcomer".into()], body_version: BodyVersion::Sealed, ..Post::default() });
        let message = NewMessage { target: Target::Topic(topic.id), post, ..room.post(&town.ada, "x") };
        let notified = posted(town.append(message).await.unwrap()).notified;
        assert_eq!(notified.len(), told, "{visibility:?}: Bob is outside it");
        assert!(notified.iter().any(|(_, member)| *member == carl.id));
    }
    room.town.store.close().await;
}

async fn a_reply_answers_a_message_of_its_own_topic(ground: &Ground) {
    let room = Room::open(ground).await;
    let first = room.write(&room.town.ada, "question").await;
    let direct = room.town.tell_bob("direct").await;
    let reply = |to: &str| {
        let post = Some(Post { reply_to_id: Some(to.to_owned()), ..Post::default() });
        NewMessage { post, ..room.post(&room.town.bob, "answer") }
    };
    let id = first.message_id.as_str();
    assert_eq!(posted(room.town.append(reply(id)).await.unwrap()).reply_to_id.as_deref(), Some(id));
    assert_eq!(posted(room.town.append(reply(direct.as_str())).await.unwrap()).reply_to_id, None);
    let rows = room.town.claim(room.town.ada.recipient(), &fresh_connection()).await;
    let replies: Vec<_> = rows.iter().map(|row| row.post.as_ref().unwrap().reply_to_id.as_deref()).collect();
    assert_eq!(replies, [Some(id), None]);
    room.town.store.close().await;
}

async fn a_lease_that_ended_is_prolonged_and_told_again(ground: &Ground) {
    let room = Room::open(ground).await;
    room.write(&room.town.ada, "a").await;
    let connection = fresh_connection();
    let rows = room.bob_claims(&connection).await;
    ground.pass(LEASE).await;
    let again = |holder: &ConnectionId| Reclaim {
        mesh_id: room.town.mesh.clone(),
        connection: holder.clone(),
        rows: vec![(rows[0].delivery, 2 * LEASE)],
    };
    let told = room.town.store.reclaim(again(&connection)).await.await.unwrap();
    assert_eq!((texts(&told), told[0].delivery), (vec!["a".to_owned()], rows[0].delivery));
    assert!(room.town.store.reclaim(again(&fresh_connection())).await.await.unwrap().is_empty(), "it is not its own");
    room.town.store.close().await;
}

async fn a_waiting_claim_is_served_and_its_cursor_is_its_own(ground: &Ground) {
    let room = Room::open(ground).await;
    let connection = fresh_connection();
    let wish = Claim { waits: true, ..room.town.wish(room.town.bob.recipient(), &connection) };
    let waiting = room.town.store.claim(wish).await;
    room.write(&room.town.ada, "a").await;
    let rows = waiting.await.unwrap();
    assert_eq!(texts(&rows), ["a"]);
    assert!(room.bob_claims(&fresh_connection()).await.is_empty(), "D10");
    room.bob_has(&connection, &rows[0], true).await;
    room.write(&room.town.ada, "b").await;
    assert_eq!(texts(&room.bob_claims(&fresh_connection()).await), ["b"]);
    room.town.store.close().await;
}

/// D10.
async fn a_claim_of_another_connection_is_respected_until_it_is_over(ground: &Ground) {
    let room = Room::open(ground).await;
    let (first, second) = (fresh_connection(), fresh_connection());
    room.write(&room.town.ada, "a").await;
    let rows = room.bob_claims(&first).await;
    // The turn passes while the first holds it.
    let wish = Claim { waits: true, ..room.town.wish(room.town.bob.recipient(), &second) };
    let waiting = room.town.store.claim(wish).await;
    room.write(&room.town.ada, "b").await;
    room.bob_has(&first, &rows[0], true).await;
    let rows = waiting.await.unwrap();
    assert_eq!((texts(&rows), numbers(&rows)), (vec!["b".to_owned()], vec![2]), "not before, and not lost");
    room.town.store.close().await;
}

async fn what_became_of_a_message_is_known_for_each_reader(ground: &Ground) {
    let room = Room::open(ground).await;
    let posted = room.write(&room.town.ada, "a").await;
    let state = async || {
        let path = room.town.store.message_path(&room.town.mesh, posted.message_id.as_str()).await.unwrap().unwrap();
        assert_eq!(path.target_spec, format!("#{}", room.topic));
        let steps: Vec<_> = path.steps.iter().map(|step| (step.member_id.clone(), step.state)).collect();
        assert_eq!(steps.len(), 1, "the sender is no reader");
        steps[0].1
    };
    assert_eq!(state().await, DeliveryState::Queued);
    let connection = fresh_connection();
    let rows = room.bob_claims(&connection).await;
    assert_eq!(state().await, DeliveryState::Claimed);
    room.bob_has(&connection, &rows[0], true).await;
    assert_eq!(state().await, DeliveryState::Delivered);
    room.town.store.close().await;
}
