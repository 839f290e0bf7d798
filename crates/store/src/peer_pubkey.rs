//! The keys of members, and a member's change of its key.

use std::collections::BTreeMap;

use claudemesh_proto::{DisplayName, MemberId, MeshId, PublicKey};
use serde_json::json;

use crate::error::StoreError;
use crate::sql::{Connection, Sql, json as rows, sql};
use crate::{Store, audit, topic, topic_key};

/// A change of a member's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyChange {
    /// The key that it has.
    pub from: PublicKey,
    /// The key that it is to have.
    pub to: PublicKey,
    /// Whether both keys have signed the change.
    pub is_proven: bool,
}

/// What became of changing a member's key, in the order in which the checks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyChanged {
    /// The member has it; whether it had another one before. If so, its copies of topic keys are gone.
    Done {
        /// Whether something changed.
        changed: bool,
    },
    /// The member was removed or never was.
    NoMember,
    /// Its key is not the one that the change begins with.
    OtherKey,
    /// The member has been here, so that somebody has its key, and the change is not signed by it.
    NeedsProof,
    /// Another member has the key or had it, or a session has proven it.
    KeyInUse,
}

impl Store {
    /// The key of a member that was not removed.
    pub async fn peer_pubkey(&self, mesh_id: &MeshId, member_id: &MemberId) -> Result<Option<PublicKey>, StoreError> {
        const KEY: Sql =
            sql!("select peer_pubkey from member where mesh_id || '' = $1 and id = $2 and revoked_at is null");
        let mut reader = self.db().read().await?;
        let row = reader.connection().row(KEY, &[mesh_id.as_str().into(), member_id.as_str().into()]).await?;
        Ok(row.map(|row| row.parsed(0)).transpose()?)
    }

    /// The keys that members have now, removed or not.
    pub async fn pubkeys_of(
        &self,
        mesh_id: &MeshId,
        members: impl IntoIterator<Item = &MemberId>,
    ) -> Result<BTreeMap<MemberId, PublicKey>, StoreError> {
        const KEYS: Sql = sql!(
            "select m.id, m.peer_pubkey from ",
            rows " left join member m on m.id = r.value ->> 0 and m.mesh_id || '' = $2 where m.id is not null"
        );
        let asked: Vec<(&MemberId,)> = members.into_iter().map(|member| (member,)).collect();
        let mut reader = self.db().read().await?;
        let found = reader.connection().rows(KEYS, &[(&rows(&asked)?).into(), mesh_id.as_str().into()]).await?;
        Ok(found.iter().map(|row| Ok((row.parsed(0)?, row.parsed(1)?))).collect::<sqlx::Result<_>>()?)
    }

    /// Changes a member's key. Copies of topic keys that were sealed for the old one are deleted, so that it waits for new ones; what
    /// others let the old key do, they let the new one.
    pub async fn change_peer_pubkey(
        &self,
        whose: (&MeshId, &MemberId),
        change: &KeyChange,
    ) -> Result<KeyChanged, StoreError> {
        const MEMBER: Sql = sql!(
            "select m.peer_pubkey, m.display_name, coalesce(m.last_seen_at, p.last_seen_at) from member m \
             left join peer_state p on p.mesh_id = m.mesh_id and p.member_id = m.id \
             where m.mesh_id || '' = $1 and m.id = $2 and m.revoked_at is null"
        );
        const CHANGE: Sql = sql!("update member set peer_pubkey = $3 where mesh_id || '' = $1 and id = $2");
        let (mesh_id, member_id) = whose;
        let now = self.now();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, mesh_id).await?;
        let row = connection.row(MEMBER, &[mesh_id.as_str().into(), member_id.as_str().into()]).await?;
        let Some(row) = row else { return Ok(KeyChanged::NoMember) };
        let (key, name): (PublicKey, DisplayName) = (row.parsed(0)?, row.parsed(1)?);
        if key == change.to {
            return Ok(KeyChanged::Done { changed: false });
        }
        if key != change.from {
            return Ok(KeyChanged::OtherKey);
        }
        if !change.is_proven && row.maybe_int(2)?.is_some() {
            return Ok(KeyChanged::NeedsProof);
        }
        let to = change.to.to_string();
        if is_in_use(&mut connection, mesh_id, &to).await? {
            return Ok(KeyChanged::KeyInUse);
        }
        let values = [mesh_id.as_str().into(), member_id.as_str().into(), (&to).into()];
        connection.execute(CHANGE, &values).await?;
        topic_key::forget_copies_of(&mut connection, whose).await?;
        move_grants(&mut connection, mesh_id, (&key.to_string(), &to)).await?;
        let payload = json!({"memberId": member_id, "from": change.from, "to": change.to});
        topic::record(&mut connection, whose, ("member_key_changed", &name, payload), now).await?;
        tx.commit().await?;
        Ok(KeyChanged::Done { changed: true })
    }
}

/// Whether a key is another's. A session that only named it is forgotten: that keeps nobody from having it.
async fn is_in_use(connection: &mut Connection<'_>, mesh_id: &MeshId, key: &str) -> sqlx::Result<bool> {
    const MEMBER: Sql = sql!("select id from member where mesh_id = $1 and peer_pubkey = $2");
    const SESSION: Sql = sql!("select proven_at from session where mesh_id = $1 and session_pubkey = $2");
    const FORGET: Sql = sql!("delete from session where mesh_id = $1 and session_pubkey = $2");
    let values = [mesh_id.as_str().into(), key.into()];
    if connection.row(MEMBER, &values).await?.is_some() {
        return Ok(true);
    }
    let session = connection.row(SESSION, &values).await?;
    if let Some(session) = &session {
        if session.maybe_int(0)?.is_some() {
            return Ok(true);
        }
        connection.execute(FORGET, &values).await?;
    }
    Ok(false)
}

/// Whoever blocked the old key has blocked the new one, unless something else was said of that.
async fn move_grants(connection: &mut Connection<'_>, mesh_id: &MeshId, (from, to): (&str, &str)) -> sqlx::Result<()> {
    const MOVE: Sql = sql!(
        "update member_grant set sender_pubkey = $3 where mesh_id = $1 and sender_pubkey = $2 and not exists \
         (select 1 from member_grant g where g.mesh_id = member_grant.mesh_id and g.member_id = member_grant.member_id \
          and g.sender_pubkey = $3)"
    );
    connection.execute(MOVE, &[mesh_id.as_str().into(), from.into(), to.into()]).await.map(drop)
}
