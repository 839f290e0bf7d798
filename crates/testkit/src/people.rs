//! Who a test lets act: meshes with their owner's key, members and sessions. They sign by hand what the protocol says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use claudemesh_keys::Identity;
use claudemesh_proto::text::base64url;
use claudemesh_proto::{PublicKey, Signature};
use serde_json::{Value, json};

use crate::clock::TestClock;

/// A mesh and its owner's key.
#[derive(Clone)]
pub struct Mesh {
    /// Its id.
    pub id: String,
    /// Its short name.
    pub slug: String,
    /// The key that signs invites.
    pub owner: Arc<Identity>,
    /// The time its tokens are signed at.
    pub clock: TestClock,
}

/// A member and its key.
#[derive(Clone)]
pub struct Member {
    /// The mesh it belongs to.
    pub mesh: String,
    /// Its id.
    pub id: String,
    /// Its key.
    pub identity: Arc<Identity>,
    /// The time its handshakes are signed at.
    pub clock: TestClock,
}

/// A session of a member, with a key of its own.
#[derive(Clone)]
pub struct Session {
    /// Whose session it is.
    pub member: Member,
    /// Its key.
    pub identity: Arc<Identity>,
}

macro_rules! shown_by {
    ($($name:ident => $field:ident),*) => {
        $(impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($name), self.$field.public())
            }
        })*
    };
}
shown_by!(Mesh => owner, Member => identity, Session => identity);

impl Member {
    /// Its public key.
    pub fn key(&self) -> String {
        self.identity.public().to_string()
    }

    /// A fresh handshake of a daemon: no session key, a session id of its own, and a word that says it can take mail at once.
    pub fn hello(&self) -> Value {
        let hello = signed_hello(self, self.clock.tick());
        merged(hello, place("daemon"))
    }

    /// A fresh handshake of a command that runs for a moment: it names a session key.
    pub fn cold(&self) -> Value {
        let key = Identity::generate().unwrap().public().to_string();
        merged(self.hello(), json!({"sessionPubkey": key}))
    }

    /// A new session.
    pub fn session(&self) -> Session {
        Session { member: self.clone(), identity: Arc::new(Identity::generate().unwrap()) }
    }
}

impl Session {
    /// Its public key.
    pub fn key(&self) -> String {
        self.identity.public().to_string()
    }

    /// A fresh handshake.
    pub fn hello(&self) -> Value {
        let now = self.member.clock.tick();
        self.hello_at(now, now + 3_600_000)
    }

    /// A handshake signed at a time, with an attestation until another.
    pub fn hello_at(&self, now: i64, expires_at: i64) -> Value {
        let (mesh, member, session) = (&self.member.mesh, self.member.key(), self.key());
        let attested = format!("claudemesh-session-attest|{member}|{session}|{expires_at}");
        let signed = format!("claudemesh-session-hello|{mesh}|{member}|{session}|{now}");
        let hello = json!({
            "type": "session_hello", "meshId": mesh, "parentMemberId": self.member.id, "parentMemberPubkey": member,
            "sessionPubkey": session, "timestamp": now, "signature": hex(self.identity.sign(signed.as_bytes())),
            "parentAttestation": {
                "sessionPubkey": session, "parentMemberPubkey": member, "expiresAt": expires_at,
                "signature": hex(self.member.identity.sign(attested.as_bytes())),
            },
        });
        merged(hello, place("session"))
    }
}

/// A member's handshake at a time, with nothing in it but what is needed.
pub fn signed_hello(member: &Member, now: i64) -> Value {
    let key = member.key();
    let signed = format!("{}|{}|{key}|{now}", member.mesh, member.id);
    json!({
        "type": "hello", "meshId": member.mesh, "memberId": member.id, "pubkey": key, "timestamp": now,
        "signature": hex(member.identity.sign(signed.as_bytes())),
    })
}

/// The body of `POST /v1/meshes`.
pub fn mesh_request(slug: &str, owner: &Identity, member: &Identity, (name, now): (&str, i64)) -> Value {
    let now_text = now.to_string();
    let mut signed = b"claudemesh/mesh-create/v1\0".to_vec();
    let (owner_key, member_key) = (owner.public(), member.public());
    let fields: [&[u8]; 5] =
        [slug.as_bytes(), owner_key.as_bytes(), member_key.as_bytes(), name.as_bytes(), now_text.as_bytes()];
    for field in fields {
        signed.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
        signed.extend(field);
    }
    json!({
        "slug": slug, "owner_pubkey": owner_key, "member": {"pubkey": member_key, "display_name": name},
        "timestamp": now, "signature": hex(owner.sign(&signed)), "member_signature": hex(member.sign(&signed)),
    })
}

/// An invite's payload, signed by the mesh's owner (or by whoever poses as one), and its token.
pub fn invite_token(mesh: &Mesh, by: &Identity, (role, expires_at): (&str, i64)) -> (Value, String) {
    let (id, slug, owner) = (&mesh.id, &mesh.slug, by.public().to_string());
    let root = base64url(&claudemesh_keys::random_bytes::<32>().unwrap());
    let broker = "ws://broker.example/ws";
    let signed = format!("1|{id}|{slug}|{broker}|{expires_at}|{root}|{role}|{owner}");
    let payload = json!({
        "v": 1, "mesh_id": id, "mesh_slug": slug, "broker_url": broker, "expires_at": expires_at,
        "mesh_root_key": root, "role": role, "owner_pubkey": owner, "signature": hex(by.sign(signed.as_bytes())),
    });
    let token = base64url(payload.to_string().as_bytes());
    (payload, token)
}

impl Mesh {
    /// A token of the owner's for a day.
    pub fn token(&self, role: &str) -> (Value, String) {
        invite_token(self, &self.owner, (role, self.clock.now().as_millis() / 1000 + 86_400))
    }

    pub(crate) fn member(&self, id: &Value, identity: Arc<Identity>) -> Member {
        let id = id.as_str().expect("a member's id").to_owned();
        Member { mesh: self.id.clone(), id, identity, clock: self.clock.clone() }
    }
}

/// `base` with the fields of `more`; a null takes a field away.
pub fn merged(mut base: Value, more: Value) -> Value {
    let fields = base.as_object_mut().unwrap();
    let Value::Object(more) = more else { panic!("not an object: {more}") };
    for (name, value) in more {
        if value.is_null() {
            fields.remove(&name);
        } else {
            fields.insert(name, value);
        }
    }
    base
}

fn place(kind: &str) -> Value {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    json!({
        "sessionId": format!("{kind}-{number}"), "pid": 4242, "cwd": "/home/test", "hostname": "box",
        "peerType": "ai", "channel": "test", "capabilities": ["test"],
    })
}

fn hex(signature: Signature) -> String {
    signature.to_string()
}

/// A key that nobody has.
pub fn stranger() -> PublicKey {
    Identity::generate().unwrap().public()
}
