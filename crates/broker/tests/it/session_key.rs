//! R2: a session key has one owner.

use claudemesh_testkit::{Member, Session, Setup, merged};
use serde_json::{Value, json};

use crate::hello::refused;
use crate::send::NO_RECIPIENT;

on_both!(
    a_proven_key_is_its_owners_alone,
    an_unproven_key_goes_to_whoever_proves_it,
    a_members_own_key_is_nobody_elses_session_key,
    mail_for_a_key_waits_for_who_proves_it_after_that,
    an_unproven_key_takes_mail_only_while_it_is_open,
    a_command_that_names_a_proven_key_gets_none_of_its_mail,
);

const TAKEN: (&str, &str) = ("bad_session_pubkey", "sessionPubkey belongs to another member");

fn naming(member: &Member, session: &Session) -> Value {
    merged(member.hello(), json!({"sessionPubkey": session.key()}))
}

fn of(member: &Member, session: &Session) -> Session {
    Session { member: member.clone(), identity: session.identity.clone() }
}

async fn a_proven_key_is_its_owners_alone(setup: Setup) {
    let mut mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let session = ann.session();
    let open = mesh.connect(&session.hello()).await;
    refused(&mesh, &naming(&bob, &session), TAKEN).await;
    // Not even by somebody who has the secret half of it: it is taken.
    refused(&mesh, &of(&bob, &session).hello(), TAKEN).await;
    open.close(1000).await;
    mesh.restart().await;
    refused(&mesh, &naming(&bob, &session), TAKEN).await;
    mesh.connect(&naming(&ann, &session)).await;
    mesh.connect(&session.hello()).await;
}

async fn an_unproven_key_goes_to_whoever_proves_it(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let session = ann.session();
    let mut named = mesh.connect(&naming(&ann, &session)).await;
    refused(&mesh, &naming(&bob, &session), TAKEN).await;
    mesh.connect(&naming(&ann, &session)).await;
    assert_eq!(named.closed().await, (1000, "session_replaced".to_owned()));
    let mut sender = mesh.connect(&ann.hello()).await;
    let mut taken = mesh.connect(&of(&bob, &session).hello()).await;
    refused(&mesh, &naming(&ann, &session), TAKEN).await;
    sender.deliver(&session.key(), "for the key").await;
    assert_eq!(taken.receive().await, "for the key");
}

async fn a_members_own_key_is_nobody_elses_session_key(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    refused(&mesh, &merged(bob.hello(), json!({"sessionPubkey": ann.key()})), TAKEN).await;
    refused(&mesh, &Session { member: bob, identity: ann.identity.clone() }.hello(), TAKEN).await;
}

async fn mail_for_a_key_waits_for_who_proves_it_after_that(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let session = bob.session();
    mesh.connect(&session.hello()).await.close(1000).await;
    let mut sender = mesh.connect(&ann.hello()).await;
    sender.deliver(&session.key(), "while away").await;
    // The member's own connections are not the session.
    let mut daemon = mesh.connect(&bob.hello()).await;
    sender.deliver(&bob.key(), "for the member").await;
    assert_eq!(daemon.receive().await, "for the member");
    daemon.nothing_else().await;
    let mut back = mesh.connect(&session.hello()).await;
    assert_eq!(back.receive().await, "while away");
}

async fn an_unproven_key_takes_mail_only_while_it_is_open(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let session = bob.session();
    let mut sender = mesh.connect(&ann.hello()).await;
    assert_eq!(sender.send(&session.key(), "too early").await["error"], NO_RECIPIENT);
    let mut named = mesh.connect(&naming(&bob, &session)).await;
    sender.deliver(&session.key(), "in time").await;
    assert_eq!(named.receive().await, "in time");
    named.close(1000).await;
    assert_eq!(sender.send(&session.key(), "too late").await["error"], NO_RECIPIENT);
}

async fn a_command_that_names_a_proven_key_gets_none_of_its_mail(setup: Setup) {
    let mesh = setup.start().await;
    let (_, ann, bob) = mesh.pair().await;
    let session = bob.session();
    mesh.connect(&session.hello()).await.close(1000).await;
    let mut sender = mesh.connect(&ann.hello()).await;
    sender.deliver(&session.key(), "for the session").await;
    let mut command = mesh.connect(&naming(&bob, &session)).await;
    // Its own mail comes, and what is the session's does not.
    sender.deliver(&bob.key(), "for the member").await;
    assert_eq!(command.receive().await, "for the member");
    command.nothing_else().await;
    let mut back = mesh.connect(&session.hello()).await;
    assert_eq!(back.receive().await, "for the session");
    command.nothing_else().await;
}
