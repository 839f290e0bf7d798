//! Joining and leaving groups.

use claudemesh_proto::group::TooManyGroups;
use claudemesh_proto::{DisplayName, GroupName, GroupSet, MemberId, MeshId};
use serde_json::json;

use crate::Store;
use crate::audit::{self, AuditEntry};
use crate::error::StoreError;
use crate::peer_state::{self, in_force, read_groups};
use crate::sql::{Sql, sql};

/// What became of joining or leaving a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Regrouped {
    /// The member's groups are these now.
    Changed(GroupSet),
    /// They are what they were.
    Unchanged,
    /// It would be one group too many.
    TooMany,
    /// The member was removed.
    NoMember,
}

impl Store {
    /// Lets a member join a group, or changes its role in it.
    pub async fn join_group(
        &self,
        whose: (&MeshId, &MemberId),
        name: &GroupName,
        role: Option<&str>,
    ) -> Result<Regrouped, StoreError> {
        self.regroup(whose, ("group_joined", name), |groups| groups.join(name, role)).await
    }

    /// Lets a member leave a group. Whoever leaves the last one is in its default groups again.
    pub async fn leave_group(&self, whose: (&MeshId, &MemberId), name: &GroupName) -> Result<Regrouped, StoreError> {
        self.regroup(whose, ("group_left", name), |groups| Ok(groups.leave(name))).await
    }

    async fn regroup(
        &self,
        (mesh_id, member_id): (&MeshId, &MemberId),
        (event, name): (&'static str, &GroupName),
        change: impl FnOnce(&mut GroupSet) -> Result<bool, TooManyGroups>,
    ) -> Result<Regrouped, StoreError> {
        const GROUPS: Sql = sql!(
            "select m.display_name, m.default_groups, p.groups from member m \
             left join peer_state p on p.mesh_id = m.mesh_id and p.member_id = m.id \
             where m.mesh_id || '' = $1 and m.id = $2 and m.revoked_at is null"
        );
        let now = self.now();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, mesh_id).await?;
        let row = connection.row(GROUPS, &[mesh_id.as_str().into(), member_id.as_str().into()]).await?;
        let Some(row) = row else { return Ok(Regrouped::NoMember) };
        let name_shown: DisplayName = row.parsed(0)?;
        let default = read_groups(&row.text(1)?);
        let said = row.maybe_text(2)?.map(|said| read_groups(&said)).unwrap_or_default();
        let before = in_force(&said, &default);
        let mut groups = before.clone();
        if change(&mut groups).is_err() {
            return Ok(Regrouped::TooMany);
        }
        let after = in_force(&groups, &default);
        if after == before {
            return Ok(Regrouped::Unchanged);
        }
        peer_state::keep(&mut connection, &[(mesh_id, member_id, Some(&groups))], now).await?;
        peer_state::put_in_force(&mut connection, &[(mesh_id, member_id, after)]).await?;
        let actor = Some((member_id, Some(&name_shown)));
        let entry = AuditEntry { mesh_id, event, actor, payload: json!({"group": name}) };
        audit::record(&mut connection, &entry, now).await?;
        tx.commit().await?;
        Ok(Regrouped::Changed(after.clone()))
    }
}
