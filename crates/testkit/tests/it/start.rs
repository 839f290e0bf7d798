//! D13: a start after a kill needs no repair, whatever lies in the data directory.

use std::sync::Arc;
use std::time::Duration;

use claudemesh_client::{BrokerUrl, Dial, Handshake, MAIL, attest, here, now};
use claudemesh_keys::{Identity, random_bytes};
use claudemesh_proto::{MeshId, Priority, PublicKey, Signature};
use claudemesh_store::{
    Admission, Admitted, Appended, Clock, NewMesh, NewMessage, Options, SaidGroups, SessionClaim, Store,
};
use claudemesh_testkit::process::{Broker, Database};
use data_encoding::BASE64;
use tokio::time::timeout;

on_both!(a_killed_broker_starts_with_a_hundred_thousand_messages);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_lock_of_a_killed_broker_keeps_nobody_out() {
    let mut broker = Broker::new(Database::Sqlite, &[]);
    broker.start().await;
    broker.kill();
    assert!(broker.data().join("broker.lock").is_file(), "the lock file stays");
    broker.start().await;
    broker.remove().await;
}

async fn a_killed_broker_starts_with_a_hundred_thousand_messages(database: Database) {
    let mut broker = Broker::new(database, &[]);
    // So that the data directory is as the broker makes it.
    broker.start().await;
    broker.kill();
    let sessions: Vec<Arc<Identity>> = (0..SESSIONS).map(|_| Arc::new(Identity::generate().unwrap())).collect();
    let (mesh, member) = fill(&broker, &sessions).await;
    println!("the start took {:.1?}", broker.start().await);
    broker.kill();
    println!("after another kill {:.1?}", broker.start().await);
    let session = &sessions[SESSIONS - 1];
    let attestation = attest(&member, &session.public(), now().plus(Duration::from_hours(1)));
    let handshake = Handshake::Session { mesh, session: Arc::clone(session), attestation };
    let url: BrokerUrl = broker.url().parse().unwrap();
    let (connection, mut pushes) = Dial { url, handshake, place: here(MAIL).unwrap() }.open().await.unwrap();
    for number in 0..1000 {
        let push = timeout(Duration::from_secs(30), pushes.next()).await.expect("mail comes").unwrap();
        assert_eq!(push.ciphertext, body(number), "in the order in which it was accepted");
        connection.ack(&push).await.unwrap();
    }
    connection.close().await;
    broker.remove().await;
}

/// Makes a mesh of one member with sessions, and queues messages for each session.
async fn fill(broker: &Broker, sessions: &[Arc<Identity>]) -> (MeshId, Identity) {
    let (url, message_ttl) = (broker.database_url().parse().unwrap(), Duration::from_hours(24));
    let (clock, bell) = (Clock::system(), Arc::new(|_: &[_]| ()));
    let store = Store::open(Options { url, node: "filler".into(), message_ttl, clock, bell }).await.unwrap();
    let (owner, member) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let mesh = NewMesh {
        slug: "full".parse().unwrap(),
        owner_pubkey: owner.public(),
        member_pubkey: member.public(),
        display_name: "filler".parse().unwrap(),
    };
    let made = store.create_mesh(&mesh).await.unwrap().unwrap();
    for session in sessions {
        let admission = Admission {
            mesh_id: made.mesh_id.clone(),
            member_pubkey: member.public(),
            expected_member_id: None,
            signature: Signature::from_bytes(random_bytes().unwrap()),
            session: Some(SessionClaim { pubkey: session.public(), proven: true }),
            groups: SaidGroups::Nothing,
            is_arrival: true,
        };
        assert!(matches!(store.admit(admission).await.await.unwrap(), Admitted::Welcome(_)));
    }
    for number in 0..MESSAGES_EACH {
        let message = |target: PublicKey| NewMessage {
            mesh_id: made.mesh_id.clone(),
            sender_member_id: made.member_id.clone(),
            sender_member_pubkey: member.public(),
            sender_pubkey: member.public(),
            sender_name: mesh.display_name.clone(),
            target: claudemesh_proto::Target::Key(target),
            target_is_open: false,
            priority: Priority::Next,
            nonce: BASE64.encode(&[0; 24]),
            ciphertext: body(number),
            ext: None,
            client_message_id: None,
            request_fingerprint: None,
            post: None,
            knows_topics: false,
        };
        let mut pending = Vec::new();
        for session in sessions {
            pending.push(store.append(message(session.public())).await);
        }
        if number % 100 != 99 {
            // They are written all the same; the answers of every hundredth tell that those before are.
            continue;
        }
        for pending in pending {
            assert!(matches!(pending.await.unwrap(), Appended::Kept(_)));
        }
    }
    assert_eq!(store.queue_depth().await.unwrap(), i64::try_from(SESSIONS * MESSAGES_EACH).unwrap());
    store.close().await;
    (made.mesh_id, member)
}

fn body(number: usize) -> String {
    BASE64.encode(format!("message {number}").as_bytes())
}

/// A recipient has room for 10,000 messages.
const SESSIONS: usize = 11;
const MESSAGES_EACH: usize = 9_100;
