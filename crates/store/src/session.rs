//! Admitting connections: is the key a member, was this very handshake seen before, who owns the session key.

use std::collections::{HashMap, HashSet};

use claudemesh_proto::group::TooManyGroups;
use claudemesh_proto::hello::SelfEditable;
use claudemesh_proto::{DisplayName, GroupSet, MemberId, MemberRole, MeshId, PublicKey, Signature, Timestamp};

use crate::Store;
use crate::audit::Event;
use crate::batch::Batch;
use crate::error::StoreError;
use crate::peer_state::{self, Remembered, SaidGroups, StateRow, in_force, read_groups};
use crate::sql::{Sql, json, sql};

/// A handshake whose signature was found to be good.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The mesh named.
    pub mesh_id: MeshId,
    /// The member's key.
    pub member_pubkey: PublicKey,
    /// The member's id, when the client wants it checked.
    pub expected_member_id: Option<String>,
    /// The handshake's signature.
    pub signature: Signature,
    /// The session key the connection speaks for.
    pub session: Option<SessionClaim>,
    /// What it says of groups.
    pub groups: SaidGroups,
    /// Whether a presence begins with it, and does not go on: that is logged.
    pub is_arrival: bool,
}

/// A session key named in a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionClaim {
    /// The key.
    pub pubkey: PublicKey,
    /// Whether the handshake was signed with it.
    pub proven: bool,
}

/// What became of an [`Admission`], in the order in which the checks are made.
#[derive(Debug, Clone, PartialEq)]
pub enum Admitted {
    /// The connection may open.
    Welcome(Box<Welcome>),
    /// This signature was accepted before.
    Replayed,
    /// The member was removed from the mesh with this name.
    Revoked {
        /// The mesh's name.
        mesh_name: String,
    },
    /// The key is no member of the mesh, or the mesh does not exist.
    Unknown,
    /// The member's id is another.
    OtherMember,
    /// The session key is another member's, or is itself a member's key.
    SessionKeyTaken,
    /// With the groups that the handshake names the member would be in too many.
    TooManyGroups,
}

/// Whom a connection speaks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Welcome {
    /// The member.
    pub member_id: MemberId,
    /// Its name.
    pub display_name: DisplayName,
    /// What it may do.
    pub role: MemberRole,
    /// Free text beside the name.
    pub role_tag: Option<String>,
    /// Groups it starts with.
    pub default_groups: GroupSet,
    /// Groups that hold for it now.
    pub groups: GroupSet,
    /// `push`, `inbox` or `off`.
    pub message_mode: String,
    /// When it was last here before.
    pub last_seen_at: Option<Timestamp>,
    /// What was remembered of it; `None` when it comes for the first time.
    pub remembered: Option<Remembered>,
    /// What members may change about themselves.
    pub self_editable: SelfEditable,
    /// Whether the session key named was proven before, by this connection or another.
    pub session_was_proven: bool,
}

macro_rules! look_up_joins {
    () => {
        " left join mesh a on a.id = r.value ->> 1 and a.archived_at is null \
          left join member m on m.mesh_id = a.id and m.peer_pubkey = r.value ->> 2 \
          left join handshake h on h.mesh_id = a.id and h.signature = r.value ->> 3 \
          left join session s on s.mesh_id = a.id and s.session_pubkey = r.value ->> 4 \
          left join member k on k.mesh_id = a.id and k.peer_pubkey = r.value ->> 4 \
          left join peer_state p on p.mesh_id = a.id and p.member_id = m.id"
    };
}
type Found = (
    usize,
    Option<String>,
    Option<String>,
    Option<MemberRow>,
    Option<String>,
    Option<(MemberId, Option<i64>)>,
    Option<String>,
    Option<StateRow>,
);
/// id, name, role, role tag, groups, mode, last seen, revoked
type MemberRow = (MemberId, DisplayName, MemberRole, Option<String>, String, String, Option<i64>, Option<i64>);

/// Members of whom something is remembered from this batch on, and their groups where they said so.
type Regrouped<'a> = HashMap<(&'a MeshId, MemberId), Option<GroupSet>>;

/// Admits a batch of handshakes; one outcome each, in order.
pub(crate) async fn admit(batch: &mut Batch, admissions: &[&Admission]) -> sqlx::Result<Vec<Admitted>> {
    let mut known = look_up(batch, admissions).await?;
    let mut accepted_now: HashSet<(&MeshId, Signature)> = HashSet::new();
    let mut owners_now: HashMap<(&MeshId, PublicKey), (MemberId, bool)> = HashMap::new();
    let mut regrouped: Regrouped<'_> = HashMap::new();
    let mut outcomes = Vec::with_capacity(admissions.len());
    let mut handshakes = Vec::new();
    let mut sessions = Vec::new();
    let mut seen = Vec::new();
    for (index, admission) in admissions.iter().enumerate() {
        let Some(mut found) = known.remove(&index) else {
            outcomes.push(Admitted::Unknown);
            continue;
        };
        found.replayed |= accepted_now.contains(&(&admission.mesh_id, admission.signature));
        if let Some(session) = admission.session {
            found.owner = owners_now.get(&(&admission.mesh_id, session.pubkey)).cloned().or(found.owner);
        }
        if let Some(member) = &found.member
            && let Some(groups) = regrouped.get(&(&admission.mesh_id, member.0.clone()))
        {
            let (state, _) = found.state.get_or_insert_with(|| (Remembered::fresh(), None));
            state.groups = groups.clone().unwrap_or_else(|| state.groups.clone());
        }
        let outcome = decide(admission, &found);
        if let Ok((welcome, groups)) = &outcome {
            if found.state.is_none() || groups.is_some() {
                regrouped.insert((&admission.mesh_id, welcome.member_id.clone()), groups.clone());
            }
            if admission.is_arrival {
                batch.record(arrival(admission, welcome));
            }
            accepted_now.insert((&admission.mesh_id, admission.signature));
            handshakes.push((&admission.mesh_id, admission.signature));
            seen.push((&admission.mesh_id, welcome.member_id.clone()));
            if let Some(session) = admission.session {
                let moved = found.owner.as_ref().is_some_and(|(owner, _)| *owner != welcome.member_id);
                let proven = session.proven || found.owner.is_some_and(|(_, proven)| proven);
                owners_now.insert((&admission.mesh_id, session.pubkey), (welcome.member_id.clone(), proven));
                sessions.push((&admission.mesh_id, session, welcome.member_id.clone(), moved));
            }
        }
        outcomes.push(outcome.map_or_else(|refused| refused, |(welcome, _)| Admitted::Welcome(welcome)));
    }
    remember(batch, &handshakes, &seen).await?;
    own_sessions(batch, &sessions).await?;
    regroup(batch, &regrouped).await?;
    Ok(outcomes)
}

impl Store {
    /// Says that these sessions are still open. Proven keys take mail for as long as a message waits after they were last
    /// seen, and a connection may stay open for longer than that: its key has to be named here at least once a day.
    pub async fn refresh_sessions(&self, open: &[(MeshId, PublicKey)]) -> Result<(), StoreError> {
        const REFRESH: Sql = sql!(
            "update session set last_seen_at = $2 from ",
            rows " where session.mesh_id = r.value ->> 0 and session.session_pubkey = r.value ->> 1"
        );
        if open.is_empty() {
            return Ok(());
        }
        let now = self.database_now().await?.as_millis();
        // In one order everywhere, so that two nodes do not wait for each other.
        let mut open: Vec<_> = open.iter().collect();
        open.sort_unstable();
        let mut tx = self.db().write().await?;
        tx.connection().execute(REFRESH, &[(&json(&open)?).into(), now.into()]).await?;
        Ok(tx.commit().await?)
    }
}

/// The entry that says who came.
pub fn arrival(admission: &Admission, welcome: &Welcome) -> Event {
    let groups = match &admission.groups {
        SaidGroups::Own(groups) | SaidGroups::Also(groups) => groups,
        SaidGroups::Nothing => &welcome.groups,
    };
    // Their names alone: a set has 32 at most, and roles are free text.
    let groups: Vec<&str> = groups.as_slice().iter().map(|group| group.name.as_str()).collect();
    let pubkey = admission.member_pubkey;
    let payload = match admission.session.filter(|session| session.proven) {
        Some(session) => serde_json::json!({
            "pubkey": pubkey, "session_pubkey": session.pubkey, "groups": groups, "via": "session_hello", "role": "session",
        }),
        None => serde_json::json!({
            "pubkey": pubkey, "groups": groups, "restored": welcome.remembered.is_some(), "role": "control-plane",
        }),
    };
    let actor = Some((welcome.member_id.clone(), welcome.display_name.clone()));
    Event { mesh_id: admission.mesh_id.clone(), event: "peer_joined", actor, payload }
}

/// What the tables say about one handshake.
struct Known {
    mesh_name: String,
    self_editable: SelfEditable,
    member: Option<MemberRow>,
    replayed: bool,
    /// The session key's owner, and whether it proved the key.
    owner: Option<(MemberId, bool)>,
    /// The member whose own key the session key is.
    namesake: Option<String>,
    /// What is remembered of the member, and when it was last seen by that.
    state: Option<(Remembered, Option<Timestamp>)>,
}

/// The welcome, and the member's groups where they are others from now on.
fn decide(admission: &Admission, known: &Known) -> Result<(Box<Welcome>, Option<GroupSet>), Admitted> {
    if known.replayed {
        return Err(Admitted::Replayed);
    }
    let Some((id, display_name, role, role_tag, groups, message_mode, last_seen, revoked)) = known.member.clone()
    else {
        return Err(Admitted::Unknown);
    };
    if revoked.is_some() {
        return Err(Admitted::Revoked { mesh_name: known.mesh_name.clone() });
    }
    if admission.expected_member_id.as_ref().is_some_and(|expected| expected != id.as_str()) {
        return Err(Admitted::OtherMember);
    }
    if let Some(session) = admission.session {
        let others = known.owner.as_ref().is_some_and(|(owner, proven)| *owner != id && (*proven || !session.proven));
        if others || known.namesake.as_ref().is_some_and(|namesake| namesake != id.as_str()) {
            return Err(Admitted::SessionKeyTaken);
        }
    }
    let default_groups = read_groups(&groups);
    let state = known.state.as_ref();
    let said = state.map(|(state, _)| state.groups.clone()).unwrap_or_default();
    let changed = said_now(&admission.groups, &said, &default_groups).map_err(|_| Admitted::TooManyGroups)?;
    let seen = last_seen.map(Timestamp::from_millis).max(state.and_then(|(_, seen)| *seen));
    let welcome = Box::new(Welcome {
        member_id: id,
        display_name,
        role,
        role_tag,
        groups: in_force(changed.as_ref().unwrap_or(&said), &default_groups).clone(),
        default_groups,
        message_mode,
        last_seen_at: seen,
        remembered: state.map(|(state, _)| state.clone()),
        self_editable: known.self_editable,
        session_was_proven: known.owner.as_ref().is_some_and(|(_, proven)| *proven),
    });
    Ok((welcome, changed))
}

/// What a member has said of its groups, when a handshake changes that.
fn said_now(handshake: &SaidGroups, said: &GroupSet, default: &GroupSet) -> Result<Option<GroupSet>, TooManyGroups> {
    Ok(match handshake {
        SaidGroups::Nothing => None,
        SaidGroups::Own(groups) => (groups != said).then(|| groups.clone()),
        SaidGroups::Also(groups) => {
            let mut all = in_force(said, default).clone();
            all.join_all(groups)?.then_some(all)
        }
    })
}

async fn look_up(batch: &mut Batch, admissions: &[&Admission]) -> sqlx::Result<HashMap<usize, Known>> {
    const LOOK_UP: Sql = sql!(
        sqlite: concat!(
            "select json_group_array(json_array(cast(r.value ->> 0 as bigint), a.name, a.self_editable, \
             case when m.id is null then null else json_array(m.id, m.display_name, m.role, m.role_tag, m.default_groups, \
             m.message_mode, m.last_seen_at, m.revoked_at) end, h.signature, \
             case when s.member_id is null then null else json_array(s.member_id, s.proven_at) end, k.id, \
             case when p.member_id is null then null else json_array(p.groups, p.profile, p.visible, p.last_summary, \
             p.cumulative_stats, p.last_seen_at) end)) \
             from jsonb_each($1) r",
            look_up_joins!()
        ),
        postgres: concat!(
            "select json_agg(json_build_array(cast(r.value ->> 0 as bigint), a.name, a.self_editable, \
             case when m.id is null then null else json_build_array(m.id, m.display_name, m.role, m.role_tag, \
             m.default_groups, m.message_mode, m.last_seen_at, m.revoked_at) end, h.signature, \
             case when s.member_id is null then null else json_build_array(s.member_id, s.proven_at) end, k.id, \
             case when p.member_id is null then null else json_build_array(p.groups, p.profile, p.visible, p.last_summary, \
             p.cumulative_stats, p.last_seen_at) end))::text \
             from jsonb_array_elements($1::text::jsonb) r(value)",
            look_up_joins!()
        ),
    );
    if admissions.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<_> = admissions
        .iter()
        .enumerate()
        .map(|(index, admission)| {
            let session = admission.session.map(|session| session.pubkey);
            (index, &admission.mesh_id, admission.member_pubkey, admission.signature, session)
        })
        .collect();
    let found: Vec<Found> = batch.connection().folded(LOOK_UP, &[(&json(&rows)?).into()]).await?;
    let known =
        found.into_iter().filter_map(|(index, mesh_name, self_editable, member, signature, owner, namesake, state)| {
            let known = Known {
                mesh_name: mesh_name?,
                self_editable: self_editable.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default(),
                member,
                replayed: signature.is_some(),
                owner: owner.map(|(id, proven_at)| (id, proven_at.is_some())),
                namesake,
                state: state.map(Remembered::of),
            };
            Some((index, known))
        });
    Ok(known.collect())
}

async fn remember(
    batch: &mut Batch,
    handshakes: &[(&MeshId, Signature)],
    seen: &[(&MeshId, MemberId)],
) -> sqlx::Result<()> {
    const HANDSHAKES: Sql = sql!(
        "insert into handshake (mesh_id, signature, accepted_at) select r.value ->> 0, r.value ->> 1, $2 from ",
        rows ""
    );
    const SEEN: Sql = sql!(
        "update member set last_seen_at = $2 from ",
        rows " where member.id = r.value ->> 1 and member.mesh_id || '' = r.value ->> 0"
    );
    if handshakes.is_empty() {
        return Ok(());
    }
    let now = batch.now.as_millis();
    batch.connection().later(HANDSHAKES, &[(&json(&handshakes)?).into(), now.into()]).await?;
    batch.connection().later(SEEN, &[(&json(&seen)?).into(), now.into()]).await?;
    Ok(())
}

async fn regroup(batch: &mut Batch, regrouped: &Regrouped<'_>) -> sqlx::Result<()> {
    let kept: Vec<_> = regrouped.iter().map(|((mesh, member), groups)| (*mesh, member, groups.as_ref())).collect();
    let changed = kept.iter().filter_map(|&(mesh, member, groups)| Some((mesh, member, groups?)));
    let changed: Vec<_> = changed.collect();
    let now = batch.now;
    peer_state::keep(&mut batch.connection(), &kept, now).await?;
    peer_state::put_in_force(&mut batch.connection(), &changed).await
}

async fn own_sessions(batch: &mut Batch, sessions: &[(&MeshId, SessionClaim, MemberId, bool)]) -> sqlx::Result<()> {
    const SESSIONS: Sql = sql!(
        "insert into session (mesh_id, session_pubkey, member_id, proven_at, last_seen_at) \
         select r.value ->> 0, r.value ->> 1, r.value ->> 2, cast(r.value ->> 3 as bigint), $2 from ",
        rows " where true on conflict (mesh_id, session_pubkey) do update set member_id = excluded.member_id, \
               proven_at = coalesce(excluded.proven_at, session.proven_at), last_seen_at = excluded.last_seen_at"
    );
    // What was sent to the key belongs to whoever proves it: it was sealed for that key. Nobody else's claim on it holds.
    const MOVE_MAIL: Sql = sql!(
        "update delivery set member_id = $3, claim_incarnation = null, claim_connection = null, claim_until = null \
         where mesh_id = $1 and recipient = $2 and state = 'queued'"
    );
    if sessions.is_empty() {
        return Ok(());
    }
    let now = batch.now.as_millis();
    // The last claim on a key in one batch wins; PostgreSQL refuses to touch a row twice in one statement.
    let latest: HashMap<_, _> = sessions
        .iter()
        .map(|(mesh, session, member, _)| ((*mesh, session.pubkey), (session.proven.then_some(now), member)))
        .fold(HashMap::new(), |mut latest: HashMap<_, (Option<i64>, &MemberId)>, (key, (proven, member))| {
            let earlier = latest.get(&key).and_then(|(proven, _)| *proven);
            latest.insert(key, (proven.or(earlier), member));
            latest
        });
    let rows: Vec<_> = latest.iter().map(|((mesh, key), (proven, member))| (mesh, key, member, proven)).collect();
    batch.connection().later(SESSIONS, &[(&json(&rows)?).into(), now.into()]).await?;
    for (mesh, session, member, _) in sessions.iter().filter(|(.., moved)| *moved) {
        let key = session.pubkey.to_string();
        batch.connection().later(MOVE_MAIL, &[mesh.as_str().into(), (&key).into(), member.as_str().into()]).await?;
    }
    Ok(())
}
