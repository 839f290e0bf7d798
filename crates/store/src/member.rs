//! Members of a mesh.

use claudemesh_proto::{DisplayName, MemberId, MemberRole, MeshId, PublicKey, Timestamp};

use crate::Store;
use crate::error::StoreError;
use crate::sql::{Sql, sql};

/// One member who has not been removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The member.
    pub id: MemberId,
    /// Its key.
    pub pubkey: PublicKey,
    /// Its name.
    pub display_name: DisplayName,
    /// What it may do.
    pub role: MemberRole,
    /// Since when.
    pub joined_at: Timestamp,
}

impl Store {
    /// Everybody in the mesh but the removed, by the time they joined.
    pub async fn members(&self, mesh_id: &MeshId) -> Result<Vec<Member>, StoreError> {
        const MEMBERS: Sql = sql!(
            "select id, peer_pubkey, display_name, role, joined_at from member \
             where mesh_id = $1 and revoked_at is null order by joined_at, id"
        );
        let mut reader = self.db().read().await?;
        let rows = reader.connection().rows(MEMBERS, &[mesh_id.as_str().into()]).await?;
        let members = rows.into_iter().map(|row| -> sqlx::Result<Member> {
            Ok(Member {
                id: row.parsed(0)?,
                pubkey: row.parsed(1)?,
                display_name: row.parsed(2)?,
                role: row.parsed(3)?,
                joined_at: Timestamp::from_millis(row.int(4)?),
            })
        });
        Ok(members.collect::<sqlx::Result<_>>()?)
    }

    /// What a member may do now; `None` when it was removed or never was.
    pub async fn role(&self, mesh_id: &MeshId, member_id: &MemberId) -> Result<Option<MemberRole>, StoreError> {
        const ROLE: Sql = sql!("select role from member where mesh_id || '' = $1 and id = $2 and revoked_at is null");
        let mut reader = self.db().read().await?;
        let row = reader.connection().row(ROLE, &[mesh_id.as_str().into(), member_id.as_str().into()]).await?;
        Ok(row.map(|row| row.parsed(0)).transpose()?)
    }
}
