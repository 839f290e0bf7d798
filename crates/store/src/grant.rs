//! Grants: what a member lets the owner of a key do to it. Whom nothing was said about may do what everybody may.

use std::collections::{BTreeMap, BTreeSet};

use claudemesh_proto::grant::{Capability, Grants};
use claudemesh_proto::{DisplayName, MemberId, MeshId, PublicKey};
use serde_json::json;

use crate::Store;
use crate::audit::{self, AuditEntry};
use crate::error::StoreError;
use crate::sql::{Connection, Sql, json as json_of, sql};

/// Most keys that a member may have said something about.
pub const MAX_GRANTS: usize = 1000;
/// Of more keys that change at once the log says how many there are: it is kept for ever.
const LOGGED_KEYS: usize = 16;

/// What became of setting grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantsSet {
    /// The member's grants are these now.
    Done(Grants),
    /// There would be too many.
    TooMany,
    /// The member was removed.
    NoMember,
}

impl Store {
    /// Sets what a member lets others do; `None` goes back to what everybody may.
    pub async fn set_grants(
        &self,
        (mesh_id, member_id): (&MeshId, &MemberId),
        changes: &BTreeMap<PublicKey, Option<BTreeSet<Capability>>>,
    ) -> Result<GrantsSet, StoreError> {
        const MEMBER: Sql =
            sql!("select display_name from member where mesh_id || '' = $1 and id = $2 and revoked_at is null");
        let now = self.now();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, mesh_id).await?;
        let member = connection.row(MEMBER, &[mesh_id.as_str().into(), member_id.as_str().into()]).await?;
        let Some(member) = member else { return Ok(GrantsSet::NoMember) };
        let name: DisplayName = member.parsed(0)?;
        let before = read(&mut connection, (mesh_id, member_id)).await?;
        let mut after = before.clone();
        for (key, capabilities) in changes {
            match capabilities {
                Some(capabilities) => drop(after.insert(key.to_string(), capabilities.clone())),
                None => drop(after.remove(&key.to_string())),
            }
        }
        if after.len() > MAX_GRANTS {
            return Ok(GrantsSet::TooMany);
        }
        let keys = changes.keys().map(PublicKey::to_string);
        let keys: Vec<String> = keys.filter(|key| before.get(key) != after.get(key)).collect();
        if keys.is_empty() {
            return Ok(GrantsSet::Done(Grants { grants: after }));
        }
        write(&mut connection, (mesh_id, member_id), &keys, &after).await?;
        let actor = Some((member_id, Some(&name)));
        let payload = json!({"count": keys.len(), "keys": keys.iter().take(LOGGED_KEYS).collect::<Vec<_>>()});
        let entry = AuditEntry { mesh_id, event: "grants_changed", actor, payload };
        audit::record(&mut connection, &entry, now).await?;
        tx.commit().await?;
        Ok(GrantsSet::Done(Grants { grants: after }))
    }

    /// What a member lets others do, as far as it said so.
    pub async fn grants(&self, mesh_id: &MeshId, member_id: &MemberId) -> Result<Grants, StoreError> {
        let mut reader = self.db().read().await?;
        Ok(Grants { grants: read(&mut reader.connection(), (mesh_id, member_id)).await? })
    }
}

async fn read(
    connection: &mut Connection<'_>,
    (mesh_id, member_id): (&MeshId, &MemberId),
) -> sqlx::Result<BTreeMap<String, BTreeSet<Capability>>> {
    const GRANTS: Sql =
        sql!("select sender_pubkey, capabilities from member_grant where mesh_id = $1 and member_id = $2");
    let rows = connection.rows(GRANTS, &[mesh_id.as_str().into(), member_id.as_str().into()]).await?;
    let grants = rows.into_iter().map(|row| {
        let capabilities = serde_json::from_str(&row.text(1)?);
        let capabilities = capabilities.map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        Ok((row.text(0)?, capabilities))
    });
    grants.collect()
}

async fn write(
    connection: &mut Connection<'_>,
    (mesh_id, member_id): (&MeshId, &MemberId),
    keys: &[String],
    after: &BTreeMap<String, BTreeSet<Capability>>,
) -> sqlx::Result<()> {
    const CLEAR: Sql = sql!(
        "delete from member_grant where mesh_id = $2 and member_id = $3 and sender_pubkey in (select r.value ->> 0 from ",
        rows ")"
    );
    const GRANT: Sql = sql!(
        "insert into member_grant (mesh_id, member_id, sender_pubkey, capabilities) \
         select $2, $3, r.value ->> 0, r.value ->> 1 from ",
        rows ""
    );
    let (mesh, member) = (mesh_id.as_str(), member_id.as_str());
    let cleared: Vec<(&String,)> = keys.iter().map(|key| (key,)).collect();
    connection.later(CLEAR, &[(&json_of(&cleared)?).into(), mesh.into(), member.into()]).await?;
    let said = keys.iter().filter_map(|key| Some((key, after.get(key)?)));
    let said: Vec<(&String, String)> =
        said.map(|(key, capabilities)| Ok((key, json_of(capabilities)?))).collect::<sqlx::Result<_>>()?;
    connection.later(GRANT, &[(&json_of(&said)?).into(), mesh.into(), member.into()]).await
}
