//! API keys. Of a secret its SHA-256 is kept, and its beginning to find it by: whoever reads the table cannot use what it finds.
//!
//! Whether a key is one is decided anew each time it is used, and never kept: it ends with its member and with its mesh (R9).

use std::collections::BTreeSet;
use std::time::Duration;

use claudemesh_proto::api_key::{ApiKey, Capability, Wanted};
use claudemesh_proto::{ApiKeyId, DisplayName, MemberId, MemberRole, MeshId, PublicKey, Timestamp, TopicName};
use serde_json::json;

use crate::audit::{self, AuditEntry};
use crate::authority::authority;
use crate::error::StoreError;
use crate::sql::{Connection, Row, Sql, Value, json as json_of, sql};
use crate::{Store, id};

/// Most keys that a member may make in an hour. Every one is in the log for ever.
pub const MAX_API_KEYS_PER_HOUR: u32 = 600;
/// Most keys of a member that are valid at one time.
pub const MAX_API_KEYS: u32 = 1000;
/// Most keys in a list.
const LISTED: i64 = 5000;
/// How long a key stays listed after its end. Commands make one for each run.
const SHOWN_AFTER_END: Duration = Duration::from_hours(30 * 24);
/// A use is noted again after so long.
pub const NOTED_EVERY: Duration = Duration::from_mins(1);

/// A key to make.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// The mesh that it is for.
    pub mesh_id: MeshId,
    /// The member that issues it and in whose name it acts.
    pub issued_by: MemberId,
    /// What it may do.
    pub wanted: Wanted,
    /// The beginning of its secret.
    pub prefix: String,
    /// SHA-256 of the secret, in hex.
    pub hash: String,
}

/// What became of making a key, in the order in which the checks are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiKeyMade {
    /// It is one.
    Done(Box<ApiKey>),
    /// The member was removed.
    NoMember,
    /// It would let do more than its member may.
    Forbidden,
    /// The member has made too many in the last hour.
    TooOften,
    /// The member has too many.
    TooMany,
}

/// What became of ending a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiKeyRevoked {
    /// It is none any more.
    Done(ApiKeyId),
    /// None is meant.
    NotFound,
    /// So many are meant.
    Several(u64),
}

/// A valid key whose secret begins as the one that was presented; whether that is the same is for the caller to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// SHA-256 of its secret, in hex.
    pub hash: String,
    /// What whoever has the secret may do.
    pub access: Access,
}

/// What a key lets do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The key.
    pub key_id: ApiKeyId,
    /// Its mesh.
    pub mesh_id: MeshId,
    /// The member in whose name it acts.
    pub member_id: MemberId,
    /// That member's key.
    pub member_pubkey: PublicKey,
    /// That member's name.
    pub display_name: DisplayName,
    /// Without `admin` when the member is none.
    pub capabilities: BTreeSet<Capability>,
    /// Names of topics; none for all.
    pub topic_scopes: Option<BTreeSet<TopicName>>,
    /// When it was last used, to within a minute.
    pub last_used_at: Option<Timestamp>,
}

impl Access {
    /// Whether it lets do one of these; `admin` is all of them.
    pub fn may(&self, needed: &[Capability]) -> bool {
        self.capabilities.iter().any(|has| needed.contains(has) || *has == Capability::Admin)
    }
}

/// The columns of an [`ApiKey`].
macro_rules! key_columns {
    ($tail:literal) => {
        Sql { sqlite: key_columns!(@ $tail), postgres: key_columns!(@ $tail) }
    };
    (@ $tail:literal) => {
        concat!(
            "select id, label, secret_prefix, capabilities, topic_scopes, created_at, last_used_at, revoked_at, expires_at, \
             issued_by_member_id from api_key ",
            $tail
        )
    };
}

/// The keys of members and meshes that are, as [`candidate`] reads them.
macro_rules! candidates {
    ($which:literal) => {
        Sql { sqlite: candidates!(@ $which), postgres: candidates!(@ $which) }
    };
    (@ $which:literal) => {
        concat!(
            "select k.secret_hash, k.mesh_id, k.id, k.capabilities, k.topic_scopes, k.last_used_at, m.id, m.peer_pubkey, \
             m.display_name, m.role from api_key k \
             join member m on m.id = k.issued_by_member_id and m.mesh_id || '' = k.mesh_id and m.revoked_at is null \
             join mesh a on a.id = k.mesh_id and a.archived_at is null where ",
            $which
        )
    };
}

impl Store {
    /// Makes a key, with its audit entry.
    pub async fn create_api_key(&self, new: &NewApiKey) -> Result<ApiKeyMade, StoreError> {
        let NewApiKey { mesh_id, issued_by, wanted, .. } = new;
        let now = self.now();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, mesh_id).await?;
        let issuer = authority(&mut connection, mesh_id, issued_by).await?;
        let Some((issuer, Some(name))) = issuer.map(|issuer| (issuer.may_administer, issuer.display_name)) else {
            return Ok(ApiKeyMade::NoMember);
        };
        if wanted.capabilities.contains(&Capability::Admin) && !issuer {
            return Ok(ApiKeyMade::Forbidden);
        }
        forget_ended(&mut connection, (mesh_id, issued_by), now).await?;
        let (lately, valid) = counts(&mut connection, (mesh_id, issued_by), now).await?;
        if lately >= i64::from(MAX_API_KEYS_PER_HOUR) {
            return Ok(ApiKeyMade::TooOften);
        }
        if valid >= i64::from(MAX_API_KEYS) {
            return Ok(ApiKeyMade::TooMany);
        }
        let key = ApiKey {
            id: ApiKeyId::from_random(id::random()?),
            label: wanted.label.clone(),
            prefix: new.prefix.clone(),
            capabilities: wanted.capabilities.clone(),
            topic_scopes: wanted.topic_scopes.clone(),
            created_at: now,
            last_used_at: None,
            revoked_at: None,
            expires_at: wanted.expires_at,
            issued_by_member_id: issued_by.clone(),
        };
        insert(&mut connection, mesh_id, &key, &new.hash).await?;
        let payload = json!({
            "id": key.id,
            "label": key.label,
            "capabilities": key.capabilities,
            "topicScopes": key.topic_scopes,
            "expiresAt": key.expires_at,
        });
        let entry = AuditEntry { mesh_id, event: "apikey_created", actor: Some((issued_by, Some(&name))), payload };
        audit::record(&mut connection, &entry, now).await?;
        tx.commit().await?;
        Ok(ApiKeyMade::Done(Box::new(key)))
    }

    /// The keys that a member sees, newest first: its own, or all of the mesh when it is an admin.
    pub async fn api_keys(&self, mesh_id: &MeshId, by: &MemberId) -> Result<Vec<ApiKey>, StoreError> {
        const ALL: Sql = key_columns!("where mesh_id = $1 order by created_at desc, id desc limit $2");
        const OWN: Sql =
            key_columns!("where mesh_id = $1 and issued_by_member_id = $3 order by created_at desc, id desc limit $2");
        let mut reader = self.db().read().await?;
        let mut connection = reader.connection();
        let sees_all = authority(&mut connection, mesh_id, by).await?.is_some_and(|by| by.may_administer);
        let (mesh, limit) = (mesh_id.as_str().into(), LISTED.into());
        let rows = if sees_all {
            connection.rows(ALL, &[mesh, limit]).await?
        } else {
            connection.rows(OWN, &[mesh, limit, by.as_str().into()]).await?
        };
        Ok(rows.iter().map(read).collect::<sqlx::Result<_>>()?)
    }

    /// Ends the one key that the member sees and whose id is this or begins so, with its audit entry.
    pub async fn revoke_api_key(
        &self,
        (mesh_id, by): (&MeshId, &MemberId),
        id_or_prefix: &str,
    ) -> Result<ApiKeyRevoked, StoreError> {
        const MEANT: Sql = sql!(
            "select id, revoked_at from api_key where mesh_id = $1 and substr(id, 1, length($2)) = $2 \
             and ($3 = '' or issued_by_member_id = $3)"
        );
        const REVOKE: Sql = sql!("update api_key set revoked_at = $3 where mesh_id = $1 and id = $2");
        let now = self.now();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, mesh_id).await?;
        let Some(authority) = authority(&mut connection, mesh_id, by).await? else {
            return Ok(ApiKeyRevoked::NotFound);
        };
        let whose = if authority.may_administer { "" } else { by.as_str() };
        let found = connection.rows(MEANT, &[mesh_id.as_str().into(), id_or_prefix.into(), whose.into()]).await?;
        let row = match found.as_slice() {
            [] => return Ok(ApiKeyRevoked::NotFound),
            [row] => row,
            // Ids are of one length: no other begins with a whole one.
            several => return Ok(ApiKeyRevoked::Several(several.len().try_into().unwrap_or(u64::MAX))),
        };
        let key_id: ApiKeyId = row.parsed(0)?;
        if row.maybe_int(1)?.is_none() {
            let values = [mesh_id.as_str().into(), key_id.as_str().into(), now.as_millis().into()];
            connection.execute(REVOKE, &values).await?;
            let actor = Some((by, authority.display_name.as_ref()));
            let entry = AuditEntry { mesh_id, event: "apikey_revoked", actor, payload: json!({"id": key_id}) };
            audit::record(&mut connection, &entry, now).await?;
            tx.commit().await?;
        }
        Ok(ApiKeyRevoked::Done(key_id))
    }

    /// The valid keys whose secrets begin so: neither revoked nor expired, of members and meshes that are (R9).
    pub async fn api_keys_like(&self, prefix: &str) -> Result<Vec<Candidate>, StoreError> {
        const CANDIDATES: Sql = candidates!(
            "k.secret_prefix = $1 and k.revoked_at is null and (k.expires_at is null or k.expires_at > $2)"
        );
        let mut reader = self.db().read().await?;
        let values = [prefix.into(), self.now().as_millis().into()];
        let rows = reader.connection().rows(CANDIDATES, &values).await?;
        Ok(rows.iter().map(candidate).collect::<sqlx::Result<_>>()?)
    }

    /// What a key lets do now, whether or not it has expired meanwhile; `None` when it was revoked, or its member or mesh is gone (R9).
    pub async fn api_key_access(&self, mesh_id: &MeshId, key_id: &ApiKeyId) -> Result<Option<Access>, StoreError> {
        const ACCESS: Sql = candidates!("k.mesh_id = $1 and k.id = $2 and k.revoked_at is null");
        let mut reader = self.db().read().await?;
        let row = reader.connection().row(ACCESS, &[mesh_id.as_str().into(), key_id.as_str().into()]).await?;
        Ok(row.as_ref().map(candidate).transpose()?.map(|found| found.access))
    }

    /// Notes that a key was used, unless that was noted within the last minute.
    pub async fn note_use_of_api_key(&self, mesh_id: &MeshId, key_id: &ApiKeyId) -> Result<(), StoreError> {
        const NOTE: Sql = sql!(
            "update api_key set last_used_at = $3 where mesh_id = $1 and id = $2 \
             and (last_used_at is null or last_used_at <= $4)"
        );
        let now = self.now();
        let values = [
            mesh_id.as_str().into(),
            key_id.as_str().into(),
            now.as_millis().into(),
            now.minus(NOTED_EVERY).as_millis().into(),
        ];
        let mut tx = self.db().write().await?;
        tx.connection().execute(NOTE, &values).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The members who used a valid key within this time until now, but for those who hide from the viewer.
    pub async fn members_by_key(
        &self,
        mesh_id: &MeshId,
        within: Duration,
        viewer: &MemberId,
    ) -> Result<BTreeSet<MemberId>, StoreError> {
        const USED: Sql = sql!(
            "select k.issued_by_member_id from api_key k \
             left join peer_state p on p.mesh_id = k.mesh_id and p.member_id = k.issued_by_member_id \
             where k.mesh_id = $1 and k.last_used_at >= $2 and k.revoked_at is null \
             and (k.expires_at is null or k.expires_at > $3) \
             and (coalesce(p.visible, 1) = 1 or k.issued_by_member_id = $4)"
        );
        let now = self.now();
        let values: [Value<'_>; 4] = [
            mesh_id.as_str().into(),
            now.minus(within).as_millis().into(),
            now.as_millis().into(),
            viewer.as_str().into(),
        ];
        let mut reader = self.db().read().await?;
        let rows = reader.connection().rows(USED, &values).await?;
        Ok(rows.iter().map(|row| row.parsed(0)).collect::<sqlx::Result<_>>()?)
    }
}

/// Takes out what ended so long ago that it is not listed any more.
async fn forget_ended(
    connection: &mut Connection<'_>,
    (mesh_id, member_id): (&MeshId, &MemberId),
    now: Timestamp,
) -> sqlx::Result<()> {
    const FORGET: Sql = sql!(
        "delete from api_key where mesh_id = $1 and issued_by_member_id = $2 and coalesce(revoked_at, expires_at) < $3"
    );
    let before = now.minus(SHOWN_AFTER_END).as_millis();
    connection.execute(FORGET, &[mesh_id.as_str().into(), member_id.as_str().into(), before.into()]).await.map(drop)
}

/// How many keys the member has made in the last hour, and how many it has.
async fn counts(
    connection: &mut Connection<'_>,
    (mesh_id, member_id): (&MeshId, &MemberId),
    now: Timestamp,
) -> sqlx::Result<(i64, i64)> {
    const LATELY: Sql =
        sql!("select count(*) from api_key where mesh_id = $1 and issued_by_member_id = $2 and created_at > $3");
    const VALID: Sql = sql!(
        "select count(*) from api_key where mesh_id = $1 and issued_by_member_id = $2 and revoked_at is null \
         and (expires_at is null or expires_at > $3)"
    );
    let since = now.minus(Duration::from_hours(1)).as_millis();
    let mut counted = [0; 2];
    for ((sql, time), count) in [(LATELY, since), (VALID, now.as_millis())].into_iter().zip(&mut counted) {
        let row = connection.row(sql, &[mesh_id.as_str().into(), member_id.as_str().into(), time.into()]).await?;
        *count = row.map_or(Ok(0), |row| row.int(0))?;
    }
    Ok(counted.into())
}

async fn insert(connection: &mut Connection<'_>, mesh_id: &MeshId, key: &ApiKey, hash: &str) -> sqlx::Result<()> {
    const INSERT: Sql = sql!(
        "insert into api_key (mesh_id, id, label, secret_prefix, secret_hash, capabilities, topic_scopes, \
         issued_by_member_id, created_at, expires_at) \
         values ($1, $2, $3, $4, $5, $6, nullif($7, ''), $8, $9, nullif($10, 0))"
    );
    let capabilities = json_of(&key.capabilities)?;
    let scopes = key.topic_scopes.as_ref().map(json_of).transpose()?.unwrap_or_default();
    let values: [Value<'_>; 10] = [
        mesh_id.as_str().into(),
        key.id.as_str().into(),
        (&key.label).into(),
        (&key.prefix).into(),
        hash.into(),
        (&capabilities).into(),
        (&scopes).into(),
        key.issued_by_member_id.as_str().into(),
        key.created_at.as_millis().into(),
        key.expires_at.map_or(0, Timestamp::as_millis).into(),
    ];
    connection.execute(INSERT, &values).await.map(drop)
}

fn read(row: &Row) -> sqlx::Result<ApiKey> {
    let time = |column| row.maybe_int(column).map(|time| time.map(Timestamp::from_millis));
    Ok(ApiKey {
        id: row.parsed(0)?,
        label: row.text(1)?,
        prefix: row.text(2)?,
        capabilities: json(&row.text(3)?)?,
        topic_scopes: row.maybe_text(4)?.as_deref().map(json).transpose()?,
        created_at: Timestamp::from_millis(row.int(5)?),
        last_used_at: time(6)?,
        revoked_at: time(7)?,
        expires_at: time(8)?,
        issued_by_member_id: row.parsed(9)?,
    })
}

fn candidate(row: &Row) -> sqlx::Result<Candidate> {
    let mut capabilities: BTreeSet<Capability> = json(&row.text(3)?)?;
    if row.parsed::<MemberRole>(9)? != MemberRole::Admin {
        capabilities.remove(&Capability::Admin);
    }
    let access = Access {
        mesh_id: row.parsed(1)?,
        key_id: row.parsed(2)?,
        capabilities,
        topic_scopes: row.maybe_text(4)?.as_deref().map(json).transpose()?,
        last_used_at: row.maybe_int(5)?.map(Timestamp::from_millis),
        member_id: row.parsed(6)?,
        member_pubkey: row.parsed(7)?,
        display_name: row.parsed(8)?,
    };
    Ok(Candidate { hash: row.text(0)?, access })
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> sqlx::Result<T> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
