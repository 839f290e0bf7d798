//! Meshes, and the members they begin with.

use claudemesh_proto::{DisplayName, MemberId, MeshId, PublicKey, Slug};

use crate::audit::{self, AuditEntry};
use crate::error::StoreError;
use crate::sql::{Sql, sql};
use crate::{Store, id, topic};

/// A mesh to make, with its creator as first member and admin.
#[derive(Debug, Clone)]
pub struct NewMesh {
    /// Its short name.
    pub slug: Slug,
    /// The key that signs its invites.
    pub owner_pubkey: PublicKey,
    /// The creator's key.
    pub member_pubkey: PublicKey,
    /// The creator's name.
    pub display_name: DisplayName,
}

/// A mesh was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeMesh {
    /// The mesh.
    pub mesh_id: MeshId,
    /// The creator.
    pub member_id: MemberId,
}

/// What the broker has to know of a mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// The mesh.
    pub id: MeshId,
    /// Its short name.
    pub slug: Slug,
    /// The key that signs its invites.
    pub owner_pubkey: PublicKey,
}

impl Store {
    /// Makes a mesh; `None` when somebody else's mesh of that slug exists. Asked again with the same keys, it answers as the first
    /// time: an answer may have been lost on the way.
    pub async fn create_mesh(&self, mesh: &NewMesh) -> Result<Option<MadeMesh>, StoreError> {
        const MESH: Sql = sql!(
            "insert into mesh (id, slug, name, owner_pubkey, owner_member_id, created_at) values ($1, $2, $2, $3, $4, $5) \
             on conflict (slug) where archived_at is null do nothing"
        );
        const FIRST: Sql = sql!(
            "select h.id, m.id from mesh h join member m on m.mesh_id = h.id and m.id = h.owner_member_id \
             where h.slug = $1 and h.owner_pubkey = $2 and m.peer_pubkey = $3 and h.archived_at is null \
             and m.revoked_at is null"
        );
        const HEAD: Sql = sql!("insert into mesh_head (mesh_id) values ($1)");
        const ADMIN: Sql = sql!(
            "insert into member (mesh_id, id, peer_pubkey, display_name, role, joined_at) values ($1, $2, $3, $4, 'admin', $5)"
        );
        let made =
            MadeMesh { mesh_id: MeshId::from_random(id::random()?), member_id: MemberId::from_random(id::random()?) };
        let (mesh_id, member_id) = (made.mesh_id.as_str(), made.member_id.as_str());
        let (owner, member) = (mesh.owner_pubkey.to_string(), mesh.member_pubkey.to_string());
        let now = self.now().as_millis();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        let values = [mesh_id.into(), mesh.slug.as_str().into(), (&owner).into(), member_id.into(), now.into()];
        if connection.execute(MESH, &values).await? == 0 {
            let same = [mesh.slug.as_str().into(), (&owner).into(), (&member).into()];
            let first = connection.row(FIRST, &same).await?;
            let first = first.map(|row| Ok(MadeMesh { mesh_id: row.parsed(0)?, member_id: row.parsed(1)? }));
            return first.transpose().map_err(|error: sqlx::Error| error.into());
        }
        connection.execute(HEAD, &[mesh_id.into()]).await?;
        let name = mesh.display_name.as_str();
        connection
            .execute(ADMIN, &[mesh_id.into(), member_id.into(), (&member).into(), name.into(), now.into()])
            .await?;
        topic::make_general(&mut connection, (&made.mesh_id, &made.member_id), self.now()).await?;
        let entry = AuditEntry {
            mesh_id: &made.mesh_id,
            event: "mesh_created",
            actor: Some((&made.member_id, Some(&mesh.display_name))),
            payload: serde_json::json!({"slug": mesh.slug, "ownerPubkey": mesh.owner_pubkey}),
        };
        audit::record(&mut connection, &entry, self.now()).await?;
        tx.commit().await?;
        Ok(Some(made))
    }

    /// The mesh with this id, if there is one.
    pub async fn mesh(&self, mesh_id: &MeshId) -> Result<Option<Mesh>, StoreError> {
        const MESH: Sql = sql!("select id, slug, owner_pubkey from mesh where id = $1 and archived_at is null");
        let mut reader = self.db().read().await?;
        let row = reader.connection().row(MESH, &[mesh_id.as_str().into()]).await?;
        let mesh = row.map(|row| -> sqlx::Result<Mesh> {
            Ok(Mesh { id: row.parsed(0)?, slug: row.parsed(1)?, owner_pubkey: row.parsed(2)? })
        });
        Ok(mesh.transpose()?)
    }
}
