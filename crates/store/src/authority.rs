//! What a member may do to others. The owner of a mesh is always one of its admins.

use claudemesh_proto::{DisplayName, MemberId, MemberRole, MeshId};

use crate::Store;
use crate::error::StoreError;
use crate::sql::{Connection, Sql, sql};

/// What a member may do to others, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Whether it is an admin, as the owner is, and was not removed.
    pub may_administer: bool,
    /// The mesh's owner.
    pub owner: MemberId,
    /// The member's name, unless it was removed.
    pub display_name: Option<DisplayName>,
}

impl Store {
    /// What the member may do; `None` when there is no such mesh.
    pub async fn authority(&self, mesh_id: &MeshId, member_id: &MemberId) -> Result<Option<Authority>, StoreError> {
        let mut reader = self.db().read().await?;
        Ok(authority(&mut reader.connection(), mesh_id, member_id).await?)
    }
}

/// What the member may do; without a name when it was removed.
pub(crate) async fn authority(
    connection: &mut Connection<'_>,
    mesh_id: &MeshId,
    member_id: &MemberId,
) -> sqlx::Result<Option<Authority>> {
    const AUTHORITY: Sql = sql!(
        "select h.owner_member_id, m.role, m.display_name from mesh h \
         left join member m on m.id = $2 and m.mesh_id || '' = h.id and m.revoked_at is null where h.id = $1"
    );
    let row = connection.row(AUTHORITY, &[mesh_id.as_str().into(), member_id.as_str().into()]).await?;
    let authority = row.map(|row| -> sqlx::Result<Authority> {
        let may_administer = row.maybe_text(1)?.is_some_and(|role| role == MemberRole::Admin.as_str());
        let display_name = row.maybe_text(2)?.map(|_| row.parsed(2)).transpose()?;
        Ok(Authority { may_administer, owner: row.parsed(0)?, display_name })
    });
    authority.transpose()
}
