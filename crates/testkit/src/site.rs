//! A broker as it is seen from outside, wherever it runs: in this process or in one of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use claudemesh_keys::Identity;
use serde_json::{Value, json};

use crate::clock::TestClock;
use crate::http::{Answer, Request};
use crate::people::{Member, Mesh, merged, mesh_request};
use crate::wire::Wire;

/// Where a broker is, and what time it is there.
#[derive(Debug, Clone)]
pub struct Site {
    /// Where it listens.
    pub address: SocketAddr,
    /// The time that it sees.
    pub clock: TestClock,
}

impl Site {
    /// A broker that sees the time of the system.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, clock: TestClock::default() }
    }

    /// Makes a mesh; its creator is an admin called Ann.
    pub async fn mesh(&self, slug: &str) -> (Mesh, Member) {
        let (owner, ann) = (Arc::new(Identity::generate().unwrap()), Arc::new(Identity::generate().unwrap()));
        let request = mesh_request(slug, &owner, &ann, ("Ann", self.clock.tick()));
        let answer = self.http(&Request::post("/v1/meshes", &request)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let made = answer.json();
        let id = made["mesh_id"].as_str().unwrap().to_owned();
        let mesh = Mesh { id, slug: slug.to_owned(), owner, clock: self.clock.clone() };
        let ann = mesh.member(&made["member_id"], ann);
        (mesh, ann)
    }

    /// Invites somebody and lets them join.
    pub async fn join(&self, mesh: &Mesh, by: &Member, name: &str) -> Member {
        let (payload, token) = mesh.token("member");
        let mut wire = self.connect(&merged(by.hello(), json!({"capabilities": ["quiet"]}))).await;
        let created = wire.ask(json!({"type": "invite_create", "token": token})).await;
        assert_eq!(created["type"], "invite_created", "{created}");
        wire.close(1000).await;
        let identity = Arc::new(Identity::generate().unwrap());
        let answer = self.redeem(&payload, &token, (&identity.public().to_string(), name)).await;
        mesh.member(&answer.json()["memberId"], identity)
    }

    /// A mesh with two members.
    pub async fn pair(&self) -> (Mesh, Member, Member) {
        let (mesh, ann) = self.mesh("pair").await;
        let bob = self.join(&mesh, &ann, "Bob").await;
        (mesh, ann, bob)
    }

    /// `POST /join`.
    pub async fn redeem(&self, payload: &Value, token: &str, (key, name): (&str, &str)) -> Answer {
        let body = json!({"invite_token": token, "invite_payload": payload, "peer_pubkey": key, "display_name": name});
        self.http(&Request::post("/join", &body)).await
    }

    /// Sends an HTTP request.
    pub async fn http(&self, request: &Request) -> Answer {
        request.send(self.address).await
    }

    /// Opens a connection by a handshake that must be accepted.
    pub async fn connect(&self, hello: &Value) -> Wire {
        let mut wire = Wire::open(self.address).await;
        wire.greet(hello).await;
        wire
    }

    /// How a handshake is refused: code, message, close code, close reason.
    pub async fn refusal(&self, hello: &Value) -> (String, String, u16, String) {
        let mut wire = Wire::open(self.address).await;
        wire.say(hello).await;
        wire.refusal().await
    }

    /// One value of `/metrics`, by its name with labels.
    pub async fn metric(&self, name: &str) -> Option<u64> {
        let page = self.http(&Request::get("/metrics")).await.body;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }
}
