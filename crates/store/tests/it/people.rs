//! Who acts in the cases: a mesh with members, their messages, and the connections that ask for them.

use std::time::Duration;

use claudemesh_proto::{ConnectionId, MemberId, MemberRole, MeshId, MessageId, Priority, PublicKey, Signature};
use claudemesh_store::{
    Admission, Admitted, Appended, Claim, Claimed, DeliveryId, NewInvite, NewMesh, NewMessage, Recipient, Redeemed,
    Redemption, Release, Ring, SaidGroups, SessionClaim, Settle, Settled, Store, StoreError,
};

use crate::ground::random;

/// The lease of a claim in these tests.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) id: MemberId,
    pub(crate) key: PublicKey,
}

/// A mesh as its members use it.
#[derive(Debug, Clone)]
pub(crate) struct Town {
    pub(crate) store: Store,
    pub(crate) mesh: MeshId,
    pub(crate) ada: Person,
    pub(crate) bob: Person,
}

impl Person {
    pub(crate) fn recipient(&self) -> Recipient {
        Recipient::Member(self.id.clone())
    }
}

impl Town {
    /// A mesh of Ada, who made it, and Bob.
    pub(crate) async fn found(store: &Store) -> Self {
        let key = fresh_key();
        let slug = format!("town-{:08x}", u32::from_le_bytes(random()));
        let mesh = NewMesh {
            slug: slug.parse().unwrap(),
            owner_pubkey: fresh_key(),
            member_pubkey: key,
            display_name: "Ada".parse().unwrap(),
        };
        let made = store.create_mesh(&mesh).await.unwrap().unwrap();
        let ada = Person { id: made.member_id, key };
        let town = Self { store: store.clone(), mesh: made.mesh_id, ada: ada.clone(), bob: ada };
        let bob = town.join().await;
        Self { bob, ..town }
    }

    /// The same mesh through another store.
    pub(crate) fn through(&self, store: &Store) -> Self {
        Self { store: store.clone(), ..self.clone() }
    }

    pub(crate) async fn join(&self) -> Person {
        self.join_as(fresh_key()).await
    }

    pub(crate) async fn join_as(&self, key: PublicKey) -> Person {
        let invite = self.invite(1);
        self.store.create_invite(&invite).await.unwrap().unwrap();
        match self.store.redeem_invite(&self.redemption(&invite, key)).await.unwrap() {
            Redeemed::Joined(id) => Person { id, key },
            other => panic!("cannot join: {other:?}"),
        }
    }

    pub(crate) fn invite(&self, max_uses: u32) -> NewInvite {
        NewInvite {
            mesh_id: self.mesh.clone(),
            token: data_encoding::HEXLOWER.encode(&random::<32>()),
            signature: claudemesh_proto::Signature::from_bytes(random()),
            role: MemberRole::Member,
            max_uses,
            expires_at: claudemesh_proto::Timestamp::from_millis(4_000_000_000_000),
            created_by: self.ada.id.clone(),
        }
    }

    pub(crate) fn redemption(&self, invite: &NewInvite, pubkey: PublicKey) -> Redemption {
        Redemption {
            mesh_id: self.mesh.clone(),
            token: invite.token.clone(),
            role: invite.role,
            is_what_the_token_says: true,
            pubkey,
            display_name: "Newcomer".parse().unwrap(),
        }
    }

    /// A message from one member to a key.
    pub(crate) fn letter(&self, from: &Person, to: PublicKey, text: &str) -> NewMessage {
        NewMessage {
            mesh_id: self.mesh.clone(),
            sender_member_id: from.id.clone(),
            sender_member_pubkey: from.key,
            sender_pubkey: from.key,
            sender_name: "Ada".parse().unwrap(),
            target: claudemesh_proto::Target::Key(to),
            target_is_open: false,
            priority: Priority::Next,
            nonce: "bm9uY2U=".into(),
            ciphertext: text.into(),
            ext: None,
            client_message_id: None,
            request_fingerprint: None,
            post: None,
            knows_topics: false,
        }
    }

    pub(crate) async fn append(&self, message: NewMessage) -> Result<Appended, StoreError> {
        self.store.append(message).await.await
    }

    /// A message that is kept.
    pub(crate) async fn send(&self, from: &Person, to: PublicKey, text: &str) -> MessageId {
        kept(self.append(self.letter(from, to, text)).await.unwrap())
    }

    /// A message from Ada to Bob that is kept.
    pub(crate) async fn tell_bob(&self, text: &str) -> MessageId {
        self.send(&self.ada, self.bob.key, text).await
    }

    pub(crate) fn wish(&self, recipient: Recipient, connection: &ConnectionId) -> Claim {
        Claim {
            mesh_id: self.mesh.clone(),
            recipients: vec![recipient],
            connection: connection.clone(),
            after_seq: 0,
            urgent_only: false,
            max_rows: 256,
            max_bytes: 1 << 20,
            lease: LEASE,
            is_retry: false,
            waits: false,
            knows_topics: false,
        }
    }

    pub(crate) async fn claim(&self, recipient: Recipient, connection: &ConnectionId) -> Vec<Claimed> {
        self.store.claim(self.wish(recipient, connection)).await.await.unwrap()
    }

    /// The texts that Bob's connection gets now.
    pub(crate) async fn bob_gets(&self, connection: &ConnectionId) -> Vec<String> {
        texts(&self.claim(self.bob.recipient(), connection).await)
    }

    /// Bob says that he has it.
    pub(crate) async fn settle(&self, which: Settled) {
        self.settle_by(&self.bob, which).await;
    }

    pub(crate) async fn settle_by(&self, by: &Person, which: Settled) {
        let settle = Settle { mesh_id: self.mesh.clone(), by: by.id.clone(), which };
        self.store.settle(settle).await.await.unwrap();
    }

    pub(crate) async fn settle_held(&self, rows: &[Claimed]) {
        for row in rows {
            self.settle(Settled::Held(row.delivery)).await;
        }
    }

    pub(crate) async fn release(&self, connection: &ConnectionId, rows: &[Claimed]) {
        let held: Vec<(DeliveryId, Recipient)> = rows.iter().map(|row| (row.delivery, row.recipient.clone())).collect();
        let release = Release { mesh_id: self.mesh.clone(), connection: connection.clone(), held, unanswered: vec![] };
        self.store.release(release).await.await.unwrap();
    }

    pub(crate) fn hello(&self, key: PublicKey, session: Option<SessionClaim>) -> Admission {
        Admission {
            mesh_id: self.mesh.clone(),
            member_pubkey: key,
            expected_member_id: None,
            signature: Signature::from_bytes(random()),
            session,
            groups: SaidGroups::Nothing,
            is_arrival: true,
        }
    }

    pub(crate) async fn admit(&self, admission: Admission) -> Admitted {
        self.store.admit(admission).await.await.unwrap()
    }

    /// Lets a member speak for a session key; whether it may.
    pub(crate) async fn speak_for(&self, person: &Person, pubkey: PublicKey, proven: bool) -> bool {
        let admitted = self.admit(self.hello(person.key, Some(SessionClaim { pubkey, proven }))).await;
        match admitted {
            Admitted::Welcome(welcome) => welcome.member_id == person.id,
            Admitted::SessionKeyTaken => false,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn kept(appended: Appended) -> MessageId {
    match appended {
        Appended::Kept(id) => id,
        other => panic!("not kept: {other:?}"),
    }
}

pub(crate) fn texts(rows: &[Claimed]) -> Vec<String> {
    rows.iter().map(|row| row.ciphertext.clone()).collect()
}

pub(crate) fn fresh_key() -> PublicKey {
    PublicKey::from_bytes(random())
}

pub(crate) fn fresh_connection() -> ConnectionId {
    ConnectionId::from_random(random())
}

pub(crate) fn is_for(ring: &Ring, person: &Person) -> bool {
    matches!(ring, Ring::Mail { recipient, .. } if *recipient == person.recipient())
}
