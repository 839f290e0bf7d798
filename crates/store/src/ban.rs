//! Removing members, and taking them back.
//!
//! From the commit that sets `revoked_at` on, every query refuses the member. What was queued for it is ended after that, in steps
//! that hold nobody up, and never comes back: whoever takes the member back first ends what is left of it.

use std::time::Duration;

use claudemesh_proto::ban::{Ban, Sought};
use claudemesh_proto::{DisplayName, MemberId, MeshId, PublicKey, Timestamp};
use serde_json::json;

use crate::audit::{self, AuditEntry};
use crate::authority::{Authority, authority};
use crate::backlog::Backlog;
use crate::error::StoreError;
use crate::recipient::Recipient;
use crate::sql::{Connection, Sql, Value, json as rows, sql};
use crate::upkeep::{FORGET_EMPTY, STEP};
use crate::{Store, topic_member};

/// What became of a removal, in the order in which the checks are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Banned {
    /// The member is removed.
    Done(BannedMember),
    /// Who asks is neither an admin nor the owner.
    Forbidden,
    /// Nobody is meant.
    NotFound,
    /// More than one is meant.
    Ambiguous,
    /// Whoever asks is meant.
    Oneself,
    /// The owner is meant.
    Owner,
}

/// Who was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BannedMember {
    /// The member.
    pub id: MemberId,
    /// Its key.
    pub pubkey: PublicKey,
    /// Its name.
    pub display_name: DisplayName,
}

/// What became of taking a member back, in the order in which the checks are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unbanned {
    /// The member with this name is one again.
    Done(DisplayName),
    /// Who asks is neither an admin nor the owner.
    Forbidden,
    /// None of the removed is meant.
    NotFound,
    /// More than one of them is meant.
    Ambiguous,
}

impl Store {
    /// The members with exactly this name, but for the removed. Two are as good as many.
    pub async fn members_called(&self, mesh_id: &MeshId, name: &Sought) -> Result<Vec<MemberId>, StoreError> {
        let mut reader = self.db().read().await?;
        let called = meant(&mut reader.connection(), MEMBERS, mesh_id, name).await?;
        Ok(called.into_iter().filter(|one| name.means_name(&one.display_name)).map(|one| one.id).collect())
    }

    /// Removes a member, with its audit entry; then ends what is queued for it.
    pub async fn ban(&self, mesh_id: &MeshId, by: &MemberId, target: &Sought) -> Result<Banned, StoreError> {
        const REVOKE: Sql =
            sql!("update member set revoked_at = $3, revoking = 1 where mesh_id || '' = $1 and id = $2");
        let now = self.database_now().await?;
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, mesh_id).await?;
        let Some(Authority { may_administer: true, owner, display_name }) =
            authority(&mut connection, mesh_id, by).await?
        else {
            return Ok(Banned::Forbidden);
        };
        let banned = match one(meant(&mut connection, MEMBERS, mesh_id, target).await?) {
            Ok(banned) => banned,
            Err(Several(false)) => return Ok(Banned::NotFound),
            Err(Several(true)) => return Ok(Banned::Ambiguous),
        };
        if banned.id == *by {
            return Ok(Banned::Oneself);
        }
        if banned.id == owner {
            return Ok(Banned::Owner);
        }
        let values = [mesh_id.as_str().into(), banned.id.as_str().into(), now.as_millis().into()];
        connection.execute(REVOKE, &values).await?;
        let payload = json!({"target": banned.display_name, "targetPubkey": banned.pubkey});
        let entry = AuditEntry { mesh_id, event: "member_banned", actor: Some((by, display_name.as_ref())), payload };
        audit::record(&mut connection, &entry, now).await?;
        tx.commit().await?;
        Ok(Banned::Done(banned))
    }

    /// Takes a removed member back, with its audit entry. What was queued for it ends before that.
    pub async fn unban(&self, mesh_id: &MeshId, by: &MemberId, target: &Sought) -> Result<Unbanned, StoreError> {
        const RESTORE: Sql =
            sql!("update member set revoked_at = null, revoking = 0 where mesh_id || '' = $1 and id = $2");
        let now = self.database_now().await?;
        loop {
            let mut tx = self.db().write().await?;
            let mut connection = tx.connection();
            audit::lock(&mut connection, mesh_id).await?;
            let Some(Authority { may_administer: true, display_name, .. }) =
                authority(&mut connection, mesh_id, by).await?
            else {
                return Ok(Unbanned::Forbidden);
            };
            let restored = match one(meant(&mut connection, REMOVED, mesh_id, target).await?) {
                Ok(restored) => restored,
                Err(Several(false)) => return Ok(Unbanned::NotFound),
                Err(Several(true)) => return Ok(Unbanned::Ambiguous),
            };
            // In the transaction that takes the member back: another one may have removed it again meanwhile.
            if end_mail(&mut connection, mesh_id, &restored.id, now).await? {
                tx.commit().await?;
                continue;
            }
            connection.execute(RESTORE, &[mesh_id.as_str().into(), restored.id.as_str().into()]).await?;
            topic_member::skip_to_the_end(&mut connection, (mesh_id, &restored.id)).await?;
            let payload = json!({"target": restored.display_name, "targetPubkey": restored.pubkey});
            let entry =
                AuditEntry { mesh_id, event: "member_unbanned", actor: Some((by, display_name.as_ref())), payload };
            audit::record(&mut connection, &entry, now).await?;
            tx.commit().await?;
            return Ok(Unbanned::Done(restored.display_name));
        }
    }

    /// The removed, by the time of their removal.
    pub async fn bans(&self, mesh_id: &MeshId) -> Result<Vec<Ban>, StoreError> {
        const BANS: Sql = sql!(
            "select display_name, peer_pubkey, revoked_at from member \
             where mesh_id = $1 and revoked_at is not null order by revoked_at, id limit 10000"
        );
        let mut reader = self.db().read().await?;
        let found = reader.connection().rows(BANS, &[mesh_id.as_str().into()]).await?;
        let bans = found.iter().map(|row| -> sqlx::Result<Ban> {
            Ok(Ban { name: row.parsed(0)?, pubkey: row.parsed(1)?, revoked_at: Timestamp::from_millis(row.int(2)?) })
        });
        Ok(bans.collect::<sqlx::Result<_>>()?)
    }

    /// Ends a step of what is queued for a removed member; whether there is more. A member that was taken back keeps its mail.
    pub async fn end_mail_of(&self, mesh_id: &MeshId, member_id: &MemberId) -> Result<bool, StoreError> {
        const IS_REVOKED: Sql =
            sql!("select id from member where mesh_id || '' = $1 and id = $2 and revoked_at is not null");
        const ENDED: Sql = sql!("update member set revoking = 0 where mesh_id || '' = $1 and id = $2");
        let now = self.database_now().await?;
        let ids = [mesh_id.as_str().into(), member_id.as_str().into()];
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, mesh_id).await?;
        if connection.row(IS_REVOKED, &ids).await?.is_none() {
            return Ok(false);
        }
        let has_more = end_mail(&mut connection, mesh_id, member_id, now).await?;
        if !has_more {
            connection.execute(ENDED, &ids).await?;
        }
        tx.commit().await?;
        Ok(has_more)
    }

    /// Whoever was removed within this time until now, on this node or another.
    pub async fn removed_within(&self, span: Duration) -> Result<Vec<(MeshId, MemberId)>, StoreError> {
        const REVOKED: Sql = sql!("select mesh_id, id from member where revoked_at >= $1 order by revoked_at");
        let since = self.database_now().await?.minus(span);
        self.pairs(REVOKED, &[since.as_millis().into()]).await
    }

    /// Ends what is still queued for the removed: the process may have ended before it was done.
    pub(crate) async fn end_mail_of_removed(&self) -> Result<(), StoreError> {
        const REVOKING: Sql = sql!("select mesh_id, id from member where revoking = 1 order by mesh_id, id limit 1000");
        for (mesh, member) in self.pairs(REVOKING, &[]).await? {
            while self.end_mail_of(&mesh, &member).await? {}
        }
        Ok(())
    }

    async fn pairs(&self, sql: Sql, values: &[Value<'_>]) -> Result<Vec<(MeshId, MemberId)>, StoreError> {
        let mut reader = self.db().read().await?;
        let found = reader.connection().rows(sql, values).await?;
        Ok(found.iter().map(|row| Ok((row.parsed(0)?, row.parsed(1)?))).collect::<sqlx::Result<_>>()?)
    }
}

/// Members, as far as their name or key is meant: mesh, name, pattern of keys.
const MEMBERS: Sql = sql!(
    "select id, peer_pubkey, display_name from member \
     where mesh_id = $1 and revoked_at is null and (display_name = $2 or peer_pubkey like $3)"
);
/// The same among the removed.
const REMOVED: Sql = sql!(
    "select id, peer_pubkey, display_name from member \
     where mesh_id = $1 and revoked_at is not null and (display_name = $2 or peer_pubkey like $3)"
);

async fn meant(
    connection: &mut Connection<'_>,
    among: Sql,
    mesh_id: &MeshId,
    target: &Sought,
) -> sqlx::Result<Vec<BannedMember>> {
    // Hex alone: nothing in it that a pattern gives a meaning of its own.
    let keys = target.prefix().map(|prefix| format!("{prefix}%")).unwrap_or_default();
    let found = connection.rows(among, &[mesh_id.as_str().into(), target.as_str().into(), (&keys).into()]).await?;
    let mut people = Vec::with_capacity(found.len());
    for row in &found {
        let one = BannedMember { id: row.parsed(0)?, pubkey: row.parsed(1)?, display_name: row.parsed(2)? };
        if target.means_key(&one.pubkey) || target.means_name(&one.display_name) {
            people.push(one);
        }
    }
    Ok(people)
}

/// Not one: several, or none.
struct Several(bool);

fn one(mut people: Vec<BannedMember>) -> Result<BannedMember, Several> {
    match people.pop() {
        Some(one) if people.is_empty() => Ok(one),
        last => Err(Several(last.is_some())),
    }
}

/// Ends the oldest of what is queued for a removed member and its sessions; whether there is more. The mesh is locked.
async fn end_mail(
    connection: &mut Connection<'_>,
    mesh_id: &MeshId,
    member_id: &MemberId,
    now: Timestamp,
) -> sqlx::Result<bool> {
    // A session key that was forgotten has no owner here, and mail for it may still be waiting.
    const QUEUES: Sql = sql!(
        "select b.recipient from backlog b \
         left join session s on s.mesh_id = b.mesh_id and s.session_pubkey = b.recipient \
         where b.mesh_id = $1 and b.queued_rows > 0 \
         and (b.recipient = $2 or length(b.recipient) = 64 and coalesce(s.member_id, $2) = $2)"
    );
    const QUEUED: Sql = sql!(
        "select id, size_bytes from delivery where mesh_id = $1 and recipient = $2 and state = 'queued' \
         and coalesce(member_id, '') = $3 order by message_seq limit $4"
    );
    const END: Sql = sql!(
        "update delivery set state = 'revoked', ended_at = $2, claim_incarnation = null, claim_connection = null, \
         claim_until = null from ",
        rows " where delivery.id = cast(r.value ->> 0 as bigint)"
    );
    let (mesh, member): (Value<'_>, Value<'_>) = (mesh_id.as_str().into(), member_id.as_str().into());
    let mut left = STEP;
    let (mut backlog, mut ended, mut queues) = (Backlog::default(), Vec::new(), Vec::new());
    for queue in connection.rows(QUEUES, &[mesh.clone(), member.clone()]).await? {
        let recipient: Recipient = queue.parsed(0)?;
        let text = queue.text(0)?;
        let waiting = connection.rows(QUEUED, &[mesh.clone(), (&text).into(), member.clone(), left.into()]).await?;
        for row in &waiting {
            let change = backlog.change(mesh_id, &recipient);
            change.rows -= 1;
            change.bytes -= row.int(1)?;
            ended.push((row.int(0)?,));
            left -= 1;
        }
        queues.push((mesh_id, text));
        if left <= 0 {
            break;
        }
    }
    if ended.is_empty() {
        return Ok(false);
    }
    connection.execute(END, &[(&rows(&ended)?).into(), now.as_millis().into()]).await?;
    backlog.write(connection).await?;
    connection.execute(FORGET_EMPTY, &[(&rows(&queues)?).into()]).await?;
    Ok(left <= 0)
}
