//! Invites, and joining by one. A token is kept as its SHA-256: whoever reads the table cannot join with what it finds.

use claudemesh_proto::invite::Invite;
use claudemesh_proto::{DisplayName, InviteId, MemberId, MemberRole, MeshId, PublicKey, Signature, Timestamp};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::audit::{self, AuditEntry};
use crate::error::StoreError;
use crate::sql::{Connection, Sql, Value, sql};
use crate::{Store, id, member, topic_member};

/// A signed token to register.
#[derive(Debug, Clone)]
pub struct NewInvite {
    /// The mesh that the token names.
    pub mesh_id: MeshId,
    /// The token as it stands in the link.
    pub token: String,
    /// The owner's signature in it. One signature is one invite, however the token around it is spelled: else an invite that was
    /// taken back could be registered again.
    pub signature: Signature,
    /// What the newcomer may do.
    pub role: MemberRole,
    /// How often it can be redeemed.
    pub max_uses: u32,
    /// Until when.
    pub expires_at: Timestamp,
    /// Who registers it.
    pub created_by: MemberId,
}

/// Somebody wants to join with a token whose signature was found to be the owner's.
#[derive(Debug, Clone)]
pub struct Redemption {
    /// The mesh that the token names.
    pub mesh_id: MeshId,
    /// The token as it was given.
    pub token: String,
    /// What the token says the newcomer may do.
    pub role: MemberRole,
    /// Whether the payload that came beside the token is the token's own.
    pub is_what_the_token_says: bool,
    /// The newcomer's key.
    pub pubkey: PublicKey,
    /// The newcomer's name.
    pub display_name: DisplayName,
}

/// What became of a [`Redemption`], in the order in which the checks are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redeemed {
    /// The key is a member now; one use is used up.
    Joined(MemberId),
    /// It was one before; nothing is used up.
    AlreadyMember(MemberId),
    /// Nobody registered this token.
    NotFound,
    /// The token was registered for another mesh.
    OtherMesh,
    /// The token says something else than the payload that came with it.
    OtherPayload,
    /// It was taken back.
    Revoked,
    /// It is past its end.
    Expired,
    /// It was redeemed as often as it may.
    Exhausted,
    /// The key was removed from the mesh.
    MemberRevoked,
    /// The key is a session's, which proved it. Whoever could join with it would get that session's mail.
    KeyInUse,
}

impl Store {
    /// Registers a token; `None` when it is registered already.
    pub async fn create_invite(&self, invite: &NewInvite) -> Result<Option<Invite>, StoreError> {
        const INVITE: Sql = sql!(
            "insert into invite (mesh_id, id, token_hash, role, max_uses, expires_at, created_by_member_id, created_at, \
             signature) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict do nothing"
        );
        let now = self.now();
        let invite_id = InviteId::from_random(id::random()?);
        let (token_hash, signature) = (hash(&invite.token), invite.signature.to_string());
        let values = [
            invite.mesh_id.as_str().into(),
            invite_id.as_str().into(),
            (&token_hash).into(),
            invite.role.as_str().into(),
            i64::from(invite.max_uses).into(),
            invite.expires_at.as_millis().into(),
            invite.created_by.as_str().into(),
            now.as_millis().into(),
            (&signature).into(),
        ];
        let mut tx = self.db().write().await?;
        audit::lock(&mut tx.connection(), &invite.mesh_id).await?;
        if tx.connection().execute(INVITE, &values).await? == 0 {
            return Ok(None);
        }
        let name = member::name(&mut tx.connection(), &invite.mesh_id, &invite.created_by).await?;
        let NewInvite { role, max_uses, expires_at, .. } = *invite;
        let entry = AuditEntry {
            mesh_id: &invite.mesh_id,
            event: "invite_created",
            actor: Some((&invite.created_by, name.as_ref())),
            payload: json!({"inviteId": invite_id, "role": role, "maxUses": max_uses, "expiresAt": expires_at}),
        };
        audit::record(&mut tx.connection(), &entry, now).await?;
        tx.commit().await?;
        Ok(Some(Invite { id: invite_id, role, max_uses, used_count: 0, expires_at, created_at: now, revoked_at: None }))
    }

    /// Every invite of the mesh, newest first.
    pub async fn invites(&self, mesh_id: &MeshId) -> Result<Vec<Invite>, StoreError> {
        const INVITES: Sql = sql!(
            "select id, role, max_uses, used_count, expires_at, created_at, revoked_at from invite \
             where mesh_id = $1 order by created_at desc, id limit 1000"
        );
        let mut reader = self.db().read().await?;
        let rows = reader.connection().rows(INVITES, &[mesh_id.as_str().into()]).await?;
        let invites = rows.into_iter().map(|row| -> sqlx::Result<Invite> {
            Ok(Invite {
                id: row.parsed(0)?,
                role: row.parsed(1)?,
                max_uses: u32::try_from(row.int(2)?).unwrap_or(u32::MAX),
                used_count: u32::try_from(row.int(3)?).unwrap_or(u32::MAX),
                expires_at: Timestamp::from_millis(row.int(4)?),
                created_at: Timestamp::from_millis(row.int(5)?),
                revoked_at: row.maybe_int(6)?.map(Timestamp::from_millis),
            })
        });
        Ok(invites.collect::<sqlx::Result<_>>()?)
    }

    /// Takes an invite back in the name of a member; whether the mesh has it. Doing it again changes nothing.
    pub async fn revoke_invite(
        &self,
        mesh_id: &MeshId,
        invite_id: &InviteId,
        by: &MemberId,
    ) -> Result<bool, StoreError> {
        const FIND: Sql = sql!("select id from invite where mesh_id = $1 and id = $2");
        const REVOKE: Sql =
            sql!("update invite set revoked_at = $3 where mesh_id = $1 and id = $2 and revoked_at is null");
        let now = self.now();
        let ids = [mesh_id.as_str().into(), invite_id.as_str().into()];
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, mesh_id).await?;
        if connection.row(FIND, &ids).await?.is_none() {
            return Ok(false);
        }
        let [mesh, invite] = ids;
        if connection.execute(REVOKE, &[mesh, invite, now.as_millis().into()]).await? > 0 {
            let name = member::name(&mut connection, mesh_id, by).await?;
            let payload = json!({"inviteId": invite_id});
            let entry = AuditEntry { mesh_id, event: "invite_revoked", actor: Some((by, name.as_ref())), payload };
            audit::record(&mut connection, &entry, now).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Makes a member of whoever brings a registered token. Using the invite up and making the member are one transaction.
    pub async fn redeem_invite(&self, redemption: &Redemption) -> Result<Redeemed, StoreError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let redeemed = redeem(&mut tx.connection(), redemption, now).await?;
        if matches!(redeemed, Redeemed::Joined(_)) {
            tx.commit().await?;
        }
        Ok(redeemed)
    }
}

/// A member of the mesh with this key, removed or not.
const MEMBER: Sql = sql!("select id, revoked_at from member where mesh_id = $1 and peer_pubkey = $2");

async fn redeem(
    connection: &mut Connection<'_>,
    redemption: &Redemption,
    now: Timestamp,
) -> Result<Redeemed, StoreError> {
    const USE: Sql = sql!(
        "update invite set used_count = used_count + 1 \
         where mesh_id = $1 and id = $2 and used_count < max_uses and revoked_at is null"
    );
    const JOIN: Sql = sql!(
        "insert into member (mesh_id, id, peer_pubkey, display_name, role, joined_at) values ($1, $2, $3, $4, $5, $6) \
         on conflict (mesh_id, peer_pubkey) do nothing"
    );
    let (mesh_id, invite_id) = match find(connection, redemption, now).await? {
        Ok(found) => found,
        Err(refused) => return Ok(refused),
    };
    // Nobody takes a session key while this looks for one.
    audit::lock(connection, &mesh_id).await?;
    let pubkey = redemption.pubkey.to_string();
    let mesh: Value<'_> = mesh_id.as_str().into();
    if let Some(answer) = turned_away(connection, (&mesh_id, &invite_id), &pubkey).await? {
        return Ok(answer);
    }
    if connection.execute(USE, &[mesh.clone(), invite_id.as_str().into()]).await? == 0 {
        return Ok(Redeemed::Exhausted);
    }
    let member_id = MemberId::from_random(id::random()?);
    let values = [
        mesh.clone(),
        member_id.as_str().into(),
        (&pubkey).into(),
        redemption.display_name.as_str().into(),
        redemption.role.as_str().into(),
        now.as_millis().into(),
    ];
    if connection.execute(JOIN, &values).await? == 0 {
        // Somebody joined with the same key between the look and the insert, in another broker: the use is rolled back.
        let member = connection.row(MEMBER, &[mesh, (&pubkey).into()]).await?;
        let member = member.ok_or_else(|| StoreError::Unavailable("the member is being changed".into()))?;
        return Ok(Redeemed::AlreadyMember(member.parsed(0)?));
    }
    topic_member::enter_general(connection, (&mesh_id, &member_id), now).await?;
    let entry = AuditEntry {
        mesh_id: &mesh_id,
        event: "member_joined",
        actor: Some((&member_id, Some(&redemption.display_name))),
        payload: json!({"inviteId": invite_id, "pubkey": redemption.pubkey, "role": redemption.role}),
    };
    audit::record(connection, &entry, now).await?;
    Ok(Redeemed::Joined(member_id))
}

/// Why the owner of a key does not join by an invite that holds, if so. A session that only named the key is forgotten.
async fn turned_away(
    connection: &mut Connection<'_>,
    (mesh_id, invite_id): (&MeshId, &InviteId),
    pubkey: &str,
) -> sqlx::Result<Option<Redeemed>> {
    const FORGET: Sql = sql!("delete from session where mesh_id = $1 and session_pubkey = $2");
    const HAS_USES: Sql = sql!("select id from invite where mesh_id = $1 and id = $2 and used_count < max_uses");
    const SESSION: Sql = sql!("select proven_at from session where mesh_id = $1 and session_pubkey = $2");
    let mesh: Value<'_> = mesh_id.as_str().into();
    let member = connection.row(MEMBER, &[mesh.clone(), pubkey.into()]).await?;
    let is_revoked = member.as_ref().map(|member| member.maybe_int(1)).transpose()?.flatten().is_some();
    if let Some(member) = member.filter(|_| !is_revoked) {
        // Also when the invite is used up: the answer to the join that used it may have been lost.
        return Ok(Some(Redeemed::AlreadyMember(member.parsed(0)?)));
    }
    // From here on, an invite that lets nobody in tells nothing about a key.
    if connection.row(HAS_USES, &[mesh.clone(), invite_id.as_str().into()]).await?.is_none() {
        return Ok(Some(Redeemed::Exhausted));
    }
    if is_revoked {
        return Ok(Some(Redeemed::MemberRevoked));
    }
    if let Some(session) = connection.row(SESSION, &[mesh.clone(), pubkey.into()]).await? {
        if session.maybe_int(0)?.is_some() {
            return Ok(Some(Redeemed::KeyInUse));
        }
        // Whoever named the key has not proven it: that keeps nobody out.
        connection.execute(FORGET, &[mesh.clone(), pubkey.into()]).await?;
    }
    Ok(None)
}

/// The invite behind a token, or why it cannot be redeemed, whoever brings it.
async fn find(
    connection: &mut Connection<'_>,
    redemption: &Redemption,
    now: Timestamp,
) -> sqlx::Result<Result<(MeshId, InviteId), Redeemed>> {
    const INVITE: Sql = sql!("select mesh_id, id, revoked_at, expires_at from invite where token_hash = $1");
    let Some(invite) = connection.row(INVITE, &[(&hash(&redemption.token)).into()]).await? else {
        return Ok(Err(Redeemed::NotFound));
    };
    let mesh_id: MeshId = invite.parsed(0)?;
    let invite_id: InviteId = invite.parsed(1)?;
    if mesh_id != redemption.mesh_id {
        return Ok(Err(Redeemed::OtherMesh));
    }
    if !redemption.is_what_the_token_says {
        return Ok(Err(Redeemed::OtherPayload));
    }
    if invite.maybe_int(2)?.is_some() {
        return Ok(Err(Redeemed::Revoked));
    }
    if invite.int(3)? <= now.as_millis() {
        return Ok(Err(Redeemed::Expired));
    }
    Ok(Ok((mesh_id, invite_id)))
}

fn hash(token: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(token.as_bytes()))
}
