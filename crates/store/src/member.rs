//! Members of a mesh, and what may be changed about them by whom.

use claudemesh_proto::hello::SelfEditable;
use claudemesh_proto::member::MessageMode;
use claudemesh_proto::{DisplayName, GroupSet, MemberId, MemberRole, MeshId, PublicKey, Timestamp};
use serde_json::{Map, Value as Json, json};

use crate::Store;
use crate::audit::{self, AuditEntry};
use crate::authority::authority;
use crate::error::StoreError;
use crate::peer_state::{self, in_force, read_groups};
use crate::sql::{Connection, Row, Sql, Value, json as json_of, sql};

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
    /// Free text beside the name.
    pub role_tag: Option<String>,
    /// Groups it starts with.
    pub default_groups: GroupSet,
    /// `push`, `inbox` or `off`.
    pub message_mode: String,
    /// When it was last here.
    pub last_seen_at: Option<Timestamp>,
}

/// What to change about a member; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberChange {
    /// The name.
    pub display_name: Option<DisplayName>,
    /// Free text beside the name; an empty one takes it away.
    pub role_tag: Option<String>,
    /// Groups it starts with.
    pub default_groups: Option<GroupSet>,
    /// What becomes of its messages.
    pub message_mode: Option<MessageMode>,
    /// What it may do.
    pub role: Option<MemberRole>,
}

/// What became of changing a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChanged {
    /// The member was the first and is the second now; the same when there was nothing to change.
    Done(Box<(Member, Member)>),
    /// Whoever asks may not.
    Denied(Denied),
    /// The mesh has no such member.
    NotFound,
}

/// Why somebody may not change a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Only admins change others.
    Others,
    /// Only admins say who is an admin.
    Role,
    /// In this mesh members do not change this about themselves; the field's name on the wire.
    Field(&'static str),
    /// The owner stays an admin.
    Owner,
}

/// The columns of a [`Member`].
macro_rules! member_columns {
    () => {
        "select m.id, m.peer_pubkey, m.display_name, m.role, m.joined_at, m.role_tag, m.default_groups, m.message_mode, \
         m.last_seen_at, p.last_seen_at, p.groups, a.owner_member_id, a.self_editable from member m \
         left join mesh a on a.id = m.mesh_id \
         left join peer_state p on p.mesh_id = m.mesh_id and p.member_id = m.id "
    };
}

impl Store {
    /// Everybody in the mesh but the removed, by the time they joined.
    pub async fn members(&self, mesh_id: &MeshId) -> Result<Vec<Member>, StoreError> {
        const MEMBERS: Sql = Sql {
            sqlite: concat!(
                member_columns!(),
                "where m.mesh_id = $1 and m.revoked_at is null order by m.joined_at, m.id"
            ),
            postgres: concat!(
                member_columns!(),
                "where m.mesh_id = $1 and m.revoked_at is null order by m.joined_at, m.id"
            ),
        };
        let mut reader = self.db().read().await?;
        let rows = reader.connection().rows(MEMBERS, &[mesh_id.as_str().into()]).await?;
        Ok(rows.iter().map(read).collect::<sqlx::Result<_>>()?)
    }

    /// Changes what is known of a member in the name of one who may.
    pub async fn change_member(
        &self,
        (mesh_id, by): (&MeshId, &MemberId),
        whom: &MemberId,
        change: &MemberChange,
    ) -> Result<MemberChanged, StoreError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let mut connection = tx.connection();
        audit::lock(&mut connection, mesh_id).await?;
        let Some(row) = find(&mut connection, mesh_id, whom).await? else { return Ok(MemberChanged::NotFound) };
        let before = read(&row)?;
        let editable = row.maybe_text(12)?.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
        let Some(authority) = authority(&mut connection, mesh_id, by).await? else {
            return Ok(MemberChanged::NotFound);
        };
        let who = Who {
            is_admin: authority.may_administer,
            is_oneself: by == whom,
            is_owner: row.maybe_text(11)?.as_deref() == Some(whom.as_str()),
        };
        if let Err(denied) = may(who, editable, change) {
            return Ok(MemberChanged::Denied(denied));
        }
        let after = before.with(change);
        if after == before {
            return Ok(MemberChanged::Done(Box::new((before, after))));
        }
        write(&mut connection, mesh_id, &after).await?;
        let said = row.maybe_text(10)?.map(|said| read_groups(&said)).unwrap_or_default();
        if after.default_groups != before.default_groups {
            let groups = in_force(&said, &after.default_groups);
            peer_state::put_in_force(&mut connection, &[(mesh_id, whom, groups)]).await?;
        }
        let (actor, payload) = ((by, authority.display_name.as_ref()), told(&before, &after));
        let entry = AuditEntry { mesh_id, event: "member_updated", actor: Some(actor), payload };
        audit::record(&mut connection, &entry, now).await?;
        tx.commit().await?;
        Ok(MemberChanged::Done(Box::new((before, after))))
    }
}

impl Member {
    fn with(&self, change: &MemberChange) -> Self {
        let MemberChange { display_name, role_tag, default_groups, message_mode, role } = change.clone();
        let role_tag = role_tag.map_or_else(|| self.role_tag.clone(), |tag| Some(tag).filter(|tag| !tag.is_empty()));
        Self {
            display_name: display_name.unwrap_or_else(|| self.display_name.clone()),
            role_tag,
            default_groups: default_groups.unwrap_or_else(|| self.default_groups.clone()),
            message_mode: message_mode.map_or_else(|| self.message_mode.clone(), |mode| mode.as_str().to_owned()),
            role: role.unwrap_or(self.role),
            ..self.clone()
        }
    }

    /// The fields that are others in `after`, by their names on the wire.
    pub fn differences(&self, after: &Self) -> Vec<&'static str> {
        let fields = [
            ("displayName", self.display_name != after.display_name),
            ("roleTag", self.role_tag != after.role_tag),
            ("groups", self.default_groups != after.default_groups),
            ("messageMode", self.message_mode != after.message_mode),
            ("role", self.role != after.role),
        ];
        fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
    }
}

/// Who asks, and for whom.
#[derive(Debug, Clone, Copy)]
struct Who {
    is_admin: bool,
    is_oneself: bool,
    /// Whether the owner is asked for.
    is_owner: bool,
}

/// Whether a change may be made: one's own as far as the mesh lets members, everything by admins; but the owner stays an admin.
fn may(who: Who, editable: SelfEditable, change: &MemberChange) -> Result<(), Denied> {
    if who.is_owner && change.role == Some(MemberRole::Member) {
        return Err(if who.is_admin { Denied::Owner } else { Denied::Role });
    }
    if who.is_admin {
        return Ok(());
    }
    if !who.is_oneself {
        return Err(Denied::Others);
    }
    if change.role.is_some() {
        return Err(Denied::Role);
    }
    let fields = [
        ("displayName", change.display_name.is_some(), editable.display_name),
        ("roleTag", change.role_tag.is_some(), editable.role_tag),
        ("groups", change.default_groups.is_some(), editable.groups),
        ("messageMode", change.message_mode.is_some(), editable.message_mode),
    ];
    match fields.into_iter().find(|(_, is_asked, is_editable)| *is_asked && !is_editable) {
        Some((field, ..)) => Err(Denied::Field(field)),
        None => Ok(()),
    }
}

fn read(row: &Row) -> sqlx::Result<Member> {
    let seen = row.maybe_int(8)?.max(row.maybe_int(9)?);
    Ok(Member {
        id: row.parsed(0)?,
        pubkey: row.parsed(1)?,
        display_name: row.parsed(2)?,
        role: row.parsed(3)?,
        joined_at: Timestamp::from_millis(row.int(4)?),
        role_tag: row.maybe_text(5)?,
        default_groups: read_groups(&row.text(6)?),
        message_mode: row.text(7)?,
        last_seen_at: seen.map(Timestamp::from_millis),
    })
}

/// What the log says of a change: which fields are others, and of name and role, by which people know each other, from what to what.
fn told(before: &Member, after: &Member) -> Json {
    let mut payload = Map::new();
    payload.insert("memberId".into(), json!(after.id));
    payload.insert("fields".into(), json!(before.differences(after)));
    if before.display_name != after.display_name {
        payload.insert("displayName".into(), json!({"from": before.display_name, "to": after.display_name}));
    }
    if before.role != after.role {
        payload.insert("role".into(), json!({"from": before.role, "to": after.role}));
    }
    Json::Object(payload)
}

/// A member's own name, removed or not.
pub(crate) async fn name(
    connection: &mut Connection<'_>,
    mesh_id: &MeshId,
    member_id: &MemberId,
) -> sqlx::Result<Option<DisplayName>> {
    const NAME: Sql = sql!("select display_name from member where mesh_id || '' = $1 and id = $2");
    let row = connection.row(NAME, &[mesh_id.as_str().into(), member_id.as_str().into()]).await?;
    row.map(|row| row.parsed(0)).transpose()
}

async fn find(connection: &mut Connection<'_>, mesh_id: &MeshId, member_id: &MemberId) -> sqlx::Result<Option<Row>> {
    const FIND: Sql = Sql {
        sqlite: concat!(member_columns!(), "where m.mesh_id || '' = $1 and m.id = $2 and m.revoked_at is null"),
        postgres: concat!(member_columns!(), "where m.mesh_id || '' = $1 and m.id = $2 and m.revoked_at is null"),
    };
    connection.row(FIND, &[mesh_id.as_str().into(), member_id.as_str().into()]).await
}

async fn write(connection: &mut Connection<'_>, mesh_id: &MeshId, member: &Member) -> sqlx::Result<()> {
    const WRITE: Sql = sql!(
        "update member set display_name = $3, role_tag = nullif($4, ''), default_groups = $5, message_mode = $6, role = $7 \
         where mesh_id || '' = $1 and id = $2"
    );
    let groups = json_of(&member.default_groups)?;
    let values: [Value<'_>; 7] = [
        mesh_id.as_str().into(),
        member.id.as_str().into(),
        member.display_name.as_str().into(),
        member.role_tag.as_deref().unwrap_or_default().into(),
        (&groups).into(),
        (&member.message_mode).into(),
        member.role.as_str().into(),
    ];
    connection.execute(WRITE, &values).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(is_admin: bool, is_oneself: bool, is_owner: bool) -> Who {
        Who { is_admin, is_oneself, is_owner }
    }

    #[test]
    fn members_change_what_the_mesh_lets_them_of_themselves_and_admins_everything() {
        let name = MemberChange { display_name: Some("New".parse().unwrap()), ..MemberChange::default() };
        let role = MemberChange { role: Some(MemberRole::Member), ..MemberChange::default() };
        let all = SelfEditable::default();
        let no_name = SelfEditable { display_name: false, ..all };
        assert_eq!(may(who(false, true, false), all, &name), Ok(()));
        assert_eq!(may(who(false, true, false), no_name, &name), Err(Denied::Field("displayName")));
        assert_eq!(may(who(true, true, false), no_name, &name), Ok(()));
        assert_eq!(may(who(false, false, false), all, &name), Err(Denied::Others));
        assert_eq!(may(who(true, false, true), no_name, &name), Ok(()));
        assert_eq!(may(who(false, true, false), all, &role), Err(Denied::Role));
        assert_eq!(may(who(true, true, false), all, &role), Ok(()));
        assert_eq!(may(who(true, false, true), all, &role), Err(Denied::Owner));
        assert_eq!(may(who(true, true, true), all, &role), Err(Denied::Owner));
        let admin = MemberChange { role: Some(MemberRole::Admin), ..MemberChange::default() };
        assert_eq!(may(who(true, false, true), all, &admin), Ok(()));
    }
}
