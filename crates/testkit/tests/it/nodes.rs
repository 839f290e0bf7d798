//! Two brokers on one PostgreSQL: each row is handed out by one of them (D10), and what a dead one held goes to the other.
//!
//! They do not ring each other yet: a recipient is told of what came in over the other broker when it connects.

use std::collections::HashSet;
use std::time::Duration;

use claudemesh_client::{BrokerUrl, Cipher, Connection, Dial, Draft, MAIL, Membership, Pushes, here};
use claudemesh_proto::{MessageId, Priority, PublicKey};
use claudemesh_testkit::process::{Broker, Database};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::mesh::{control, mesh};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_one_broker_has_handed_out_the_other_does_not() {
    let pair = Pair::start().await;
    let members = mesh(&pair.alpha.url(), "team", 2).await;
    let (sender, _pushes) = at(&pair.alpha, &members[0]).open().await.unwrap();
    let bob = members[1].identity.public();
    let first = send(&sender, &members[0], &bob, 5).await;
    let (over_beta, mut pushes_of_beta) = at(&pair.beta, &members[1]).open().await.unwrap();
    assert_eq!(receive(&mut pushes_of_beta, 5).await, first, "accepted by one broker, handed out by the other");
    // They are older than the next ones, and would come first.
    let (over_alpha, mut pushes_of_alpha) = at(&pair.alpha, &members[1]).open().await.unwrap();
    let second = send(&sender, &members[0], &bob, 3).await;
    assert_eq!(receive(&mut pushes_of_alpha, 3).await, second);
    over_beta.close().await;
    over_alpha.close().await;
    // Closing gives back; nothing was acknowledged.
    let (_connection, mut pushes) = at(&pair.beta, &members[1]).open().await.unwrap();
    assert_eq!(receive(&mut pushes, 8).await, [first, second].concat());
    pair.remove().await;
}

/// A member that is connected to both, and is written to over both.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_over_two_brokers_each_message_comes_once() {
    const EACH: usize = 300;
    let pair = Pair::start().await;
    let members = mesh(&pair.alpha.url(), "team", 2).await;
    let bob = members[1].identity.public();
    let (mut senders, mut readers) = (JoinSet::new(), JoinSet::new());
    for broker in [&pair.alpha, &pair.beta] {
        let (connection, mut pushes) = at(broker, &members[1]).open().await.unwrap();
        let (sender, sender_pushes) = at(broker, &members[0]).open().await.unwrap();
        let ada = members[0].clone();
        senders.spawn(async move { (send(&sender, &ada, &bob, EACH).await, sender_pushes).0 });
        readers.spawn(async move {
            let mut received = Vec::new();
            // Silence for as long tells that nothing more comes to this connection.
            while let Ok(Some(push)) = timeout(Duration::from_secs(3), pushes.next()).await {
                connection.ack(&push).await.unwrap();
                received.push(push.message_id);
            }
            connection.close().await;
            received
        });
    }
    let sent: HashSet<MessageId> = senders.join_all().await.into_iter().flatten().collect();
    assert_eq!(sent.len(), 2 * EACH);
    let mut received = Vec::new();
    for part in readers.join_all().await {
        println!("{} came over one of the brokers", part.len());
        received.extend(part);
    }
    assert_eq!(received.len(), 2 * EACH, "once each");
    assert_eq!(received.into_iter().collect::<HashSet<_>>(), sent);
    pair.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_killed_broker_held_is_free_for_the_other_when_its_heart_has_stopped() {
    let mut pair = Pair::start().await;
    let members = mesh(&pair.alpha.url(), "team", 2).await;
    let (sender, _pushes) = at(&pair.alpha, &members[0]).open().await.unwrap();
    let sent = send(&sender, &members[0], &members[1].identity.public(), 5).await;
    let (_held, mut pushes) = at(&pair.alpha, &members[1]).open().await.unwrap();
    assert_eq!(receive(&mut pushes, 5).await, sent);
    pair.alpha.kill();
    let killed = Instant::now();
    let received = loop {
        // It connects anew, as clients do that hear nothing.
        let (connection, mut pushes) = at(&pair.beta, &members[1]).open().await.unwrap();
        if let Ok(first) = timeout(Duration::from_millis(500), pushes.next()).await {
            let mut received = vec![first.unwrap().message_id];
            received.extend(receive(&mut pushes, 4).await);
            break received;
        }
        connection.close().await;
        assert!(killed.elapsed() < Duration::from_secs(15), "the claims of a dead broker hold on");
    };
    let took = killed.elapsed();
    println!("free after {took:.1?}");
    assert_eq!(received, sent);
    assert!(took > Duration::from_secs(5), "taken from a broker that may only be slow, after {took:?}");
    pair.remove().await;
}

/// Two brokers that share a database.
struct Pair {
    alpha: Broker,
    beta: Broker,
}

impl Pair {
    async fn start() -> Self {
        let settings = [("SEND_RATE_PER_MIN", "0")];
        let mut alpha = Broker::new(Database::postgres().await, &settings);
        alpha.start().await;
        let shared = alpha.database_url();
        let mut beta = Broker::new(Database::Sqlite, &[settings[0], ("DATABASE_URL", &shared)]);
        beta.start().await;
        assert!(!beta.data().join("broker.db").exists(), "it uses the other's database");
        Self { alpha, beta }
    }

    async fn remove(self) {
        self.beta.remove().await;
        self.alpha.remove().await;
    }
}

/// A new connection of a member to one of the brokers.
fn at(broker: &Broker, member: &Membership) -> Dial {
    let url: BrokerUrl = broker.url().parse().unwrap();
    Dial { url, place: here(MAIL).unwrap(), ..control(member) }
}

async fn send(connection: &Connection, sender: &Membership, to: &PublicKey, count: usize) -> Vec<MessageId> {
    let cipher = Cipher::new(sender.identity.clone());
    let mut sent = Vec::new();
    for _ in 0..count {
        let draft = Draft { to, reference: "nodes", priority: Priority::Next, text: "hello" };
        let ack = connection.send(cipher.compose(&draft).unwrap()).await.unwrap();
        assert!(ack.queued, "{ack:?}");
        sent.push(ack.message_id.parse().unwrap());
    }
    sent
}

async fn receive(pushes: &mut Pushes, count: usize) -> Vec<MessageId> {
    let mut received = Vec::new();
    while received.len() < count {
        let next = timeout(Duration::from_secs(20), pushes.next()).await.expect("mail comes");
        received.push(next.expect("the connection stays open").message_id);
    }
    received
}
