//! A mesh with members, made the way everybody makes one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use claudemesh_client::{BrokerUrl, Connection, Handshake, MAIL, Membership, OwnerKey, Pushes, Terms, now};
use claudemesh_keys::Identity;
use claudemesh_proto::hello::Place;
use claudemesh_proto::invite::{InvitePayload, Join, Joined};
use claudemesh_proto::mesh::{FirstMember, MeshCreate, MeshCreated};
use claudemesh_proto::{MemberId, MemberRole, MeshId, TopicId, canonical};

use crate::broker::Broker;
use crate::http;

/// A mesh and the keys of everybody in it.
#[derive(Debug, Clone)]
pub(crate) struct Mesh {
    pub(crate) url: BrokerUrl,
    id: MeshId,
    pub(crate) members: Vec<Member>,
}

/// Somebody in it.
#[derive(Clone)]
pub(crate) struct Member {
    id: MemberId,
    pub(crate) identity: Arc<Identity>,
    /// The key that messages are addressed to.
    pub(crate) key: String,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Mesh {
    /// Makes a mesh of so many members, at least one.
    pub(crate) async fn create(broker: &Broker, count: usize) -> anyhow::Result<Self> {
        let (owner, first) = (Identity::generate()?, Identity::generate()?);
        let created = create(broker.address, &owner, &first).await?;
        let key = first.public().to_string();
        let first = Member { id: created.member_id, identity: Arc::new(first), key };
        let mut mesh = Self { url: broker.url()?, id: created.mesh_id, members: vec![first] };
        let owner = OwnerKey { mesh_id: mesh.id.clone(), identity: owner };
        while mesh.members.len() < count {
            let uses = (count - mesh.members.len()).min(USES);
            let token = mesh.invite(&owner, u32::try_from(uses)?).await?;
            for _ in 0..uses {
                mesh.members.push(join(broker.address, &token).await?);
            }
        }
        Ok(mesh)
    }

    /// Opens a connection of one member, as a session of its own.
    pub(crate) async fn connect(&self, member: usize) -> anyhow::Result<(Connection, Pushes)> {
        self.connect_in(member, String::new()).await
    }

    /// The same, in a directory.
    pub(crate) async fn connect_in(&self, member: usize, cwd: String) -> anyhow::Result<(Connection, Pushes)> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let member = self.members.get(member % self.members.len()).context("the mesh is empty")?;
        let handshake = Handshake::Member {
            mesh: self.id.clone(),
            member: member.id.clone(),
            identity: Arc::clone(&member.identity),
        };
        let place = Place {
            session_id: format!("bench-{}", COUNT.fetch_add(1, Ordering::Relaxed)),
            pid: i64::from(std::process::id()),
            cwd,
            capabilities: Some(vec![MAIL.into()]),
            ..Place::default()
        };
        Ok(Connection::open(&self.url, &handshake, place).await?)
    }

    async fn invite(&self, owner: &OwnerKey, max_uses: u32) -> anyhow::Result<String> {
        let admin = self.members.first().context("the mesh is empty")?;
        let membership = Membership {
            mesh_id: self.id.clone(),
            member_id: admin.id.clone(),
            slug: SLUG.into(),
            name: SLUG.into(),
            broker_url: self.url.clone(),
            joined_at: String::new(),
            identity: Arc::clone(&admin.identity),
        };
        let life = Duration::from_hours(1);
        let terms = Terms { role: MemberRole::Member, max_uses, life, broker: self.url.clone() };
        let token = owner.sign_invite(&membership, &terms, now())?;
        let (connection, _pushes) = self.connect(0).await?;
        connection.create_invite(&token, &terms).await?;
        connection.close().await;
        Ok(token)
    }
}

/// The topic that every member of a mesh is in.
pub(crate) async fn general(connection: &Connection) -> anyhow::Result<TopicId> {
    let general = connection.topics().await?.into_iter().find(|topic| topic.name.as_str() == GENERAL);
    Ok(general.context("the mesh has no topic general")?.id)
}

async fn create(broker: SocketAddr, owner: &Identity, first: &Identity) -> anyhow::Result<MeshCreated> {
    let timestamp = now().as_millis();
    let signed = canonical::mesh_create(SLUG, &owner.public(), &first.public(), NAME, timestamp);
    let request = MeshCreate {
        slug: SLUG.into(),
        owner_pubkey: owner.public().to_string(),
        member: FirstMember { pubkey: first.public().to_string(), display_name: NAME.into() },
        timestamp,
        signature: owner.sign(&signed).to_string(),
        member_signature: first.sign(&signed).to_string(),
    };
    http::post(broker, "/v1/meshes", &request).await
}

async fn join(broker: SocketAddr, token: &str) -> anyhow::Result<Member> {
    let identity = Identity::generate()?;
    let key = identity.public().to_string();
    let request = Join {
        invite_token: Some(token.to_owned()),
        invite_payload: Some(serde_json::to_value(InvitePayload::from_token(token)?)?),
        peer_pubkey: Some(key.clone()),
        display_name: Some(NAME.into()),
    };
    let joined: Joined = http::post(broker, "/join", &request).await?;
    Ok(Member { id: joined.member_id.context("not let in")?, identity: Arc::new(identity), key })
}

const SLUG: &str = "bench";
const NAME: &str = "peer";

/// The name of the topic that every mesh has.
pub(crate) const GENERAL: &str = "general";

/// How many may join with one invite.
const USES: usize = 1000;
