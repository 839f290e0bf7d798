//! What a dead process had handed over is free at once: its leases, which would run for a while yet, keep nobody waiting.

use std::time::Duration;

use claudemesh_client::{Cipher, Dial, Draft, MAIL, Membership, Pushes, here};
use claudemesh_proto::{MessageId, Priority};
use claudemesh_testkit::process::{Broker, Database};
use tokio::time::{Instant, timeout};

use crate::mesh::{control, mesh, session};

on_both!(claims_of_a_killed_process_are_free_at_once, a_kill_in_the_middle_of_a_hand_over_frees_what_was_claimed);

async fn claims_of_a_killed_process_are_free_at_once(database: Database) {
    let mut broker = Broker::new(database, &[]);
    broker.start().await;
    let members = mesh(&broker.url(), "team", 3).await;
    let mut recipients = [control(&members[1]), session(&members[2])];
    let mut held = Vec::new();
    for recipient in &recipients {
        let (connection, mut pushes) = recipient.open().await.unwrap();
        let sent = send(&members[0], recipient, 5).await;
        assert_eq!(receive(&mut pushes, 5).await, sent);
        held.push((connection, pushes, sent));
    }
    broker.kill();
    broker.start().await;
    let ready = Instant::now();
    for (recipient, (_, _, sent)) in recipients.iter_mut().zip(&held) {
        // Another process of the recipient, for which nothing is held but by its key.
        recipient.place = here(MAIL).unwrap();
        let (connection, mut pushes) = recipient.open().await.unwrap();
        assert_eq!(&receive(&mut pushes, 5).await, sent);
        connection.close().await;
    }
    let took = ready.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?}, nearly the lease of 30 s");
    broker.remove().await;
}

/// Claimed and committed, and the process dies before a byte is written to the recipient.
async fn a_kill_in_the_middle_of_a_hand_over_frees_what_was_claimed(database: Database) {
    let mut broker = Broker::new(database, &[]);
    broker.start().await;
    let members = mesh(&broker.url(), "team", 2).await;
    let recipient = control(&members[1]);
    let sent = send(&members[0], &recipient, 5).await;
    broker.kill();
    // The first batch of the new process admits the recipient, the second claims for it.
    broker.spawn(&[("CLAUDEMESH_CRASH_AT", "batch.committed:2")]);
    broker.ready().await.unwrap();
    let (_connection, mut pushes) = recipient.open().await.unwrap();
    broker.end_within(Duration::from_secs(10)).await.expect("the process dies at its second commit");
    assert!(pushes.next().await.is_none(), "nothing was handed over before the crash");
    broker.start().await;
    let ready = Instant::now();
    let (_connection, mut pushes) = recipient.open().await.unwrap();
    assert_eq!(receive(&mut pushes, 5).await, sent);
    assert!(ready.elapsed() < Duration::from_secs(10), "it took {:?}", ready.elapsed());
    broker.remove().await;
}

async fn send(sender: &Membership, recipient: &Dial, count: usize) -> Vec<MessageId> {
    let (connection, _pushes) = control(sender).open().await.unwrap();
    let cipher = Cipher::new(sender.identity.clone());
    let to = recipient.handshake.sender().public();
    let mut sent = Vec::new();
    for _ in 0..count {
        let draft = Draft { to: &to, reference: "crash", priority: Priority::Next, text: "hello" };
        let ack = connection.send(cipher.compose(&draft).unwrap()).await.unwrap();
        assert!(ack.queued, "{ack:?}");
        sent.push(ack.message_id.parse().unwrap());
    }
    connection.close().await;
    sent
}

async fn receive(pushes: &mut Pushes, count: usize) -> Vec<MessageId> {
    let mut received = Vec::new();
    while received.len() < count {
        let next = timeout(Duration::from_mins(1), pushes.next()).await.expect("mail comes");
        received.push(next.expect("the connection stays open").message_id);
    }
    received
}
