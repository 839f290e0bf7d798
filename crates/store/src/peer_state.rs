//! What is remembered of a member between its connections: its groups, whether it shows itself, who it says it is, what it worked
//! on and did, when it was last here.
//!
//! `peer_state.groups` is what the member said of its groups; while it said nothing, or none, its default groups hold.
//! `member_group` has the groups that hold, and is written wherever either of them changes.

use std::collections::BTreeMap;

use claudemesh_proto::hello::RestoredStats;
use claudemesh_proto::presence::Profile;
use claudemesh_proto::{DisplayName, GroupSet, MemberId, MeshId, Timestamp};

use crate::Store;
use crate::batch::Batch;
use crate::error::StoreError;
use crate::request::Request;
use crate::sql::{Connection, Sql, json, sql};

/// What was remembered of a member when it came back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Remembered {
    /// The groups that it said it is in; empty when it never did.
    pub groups: GroupSet,
    /// Whether it shows itself.
    pub visible: bool,
    /// Who it says it is.
    pub profile: Profile,
    /// What it worked on last.
    pub last_summary: Option<String>,
    /// What all its connections have done.
    pub stats: RestoredStats,
}

/// What a handshake says of groups.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum SaidGroups {
    /// Nothing: those hold that held before.
    #[default]
    Nothing,
    /// These are the member's groups from now on.
    Own(GroupSet),
    /// A session is in these; the member is in them too from now on, besides its own.
    Also(GroupSet),
}

/// Something to remember of a member.
#[derive(Debug, Clone)]
pub(crate) struct Remember {
    pub(crate) mesh_id: MeshId,
    pub(crate) member_id: MemberId,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Visible(bool),
    Profile(Profile),
    Summary(String),
    /// A connection ended that was shown under this name and did this.
    Parting(DisplayName, RestoredStats),
}

impl What {
    /// About how many bytes it has beyond ids and a name.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Visible(_) | Self::Parting(..) => 0,
            Self::Summary(text) => text.len(),
            Self::Profile(Profile { avatar, title, bio, capabilities }) => {
                let texts = [avatar, title, bio].into_iter().flatten().chain(capabilities.iter().flatten());
                texts.map(String::len).sum()
            }
        }
    }
}

impl Store {
    /// Remembers whether a member shows itself.
    pub async fn set_visible(&self, mesh: &MeshId, member: &MemberId, visible: bool) -> Result<(), StoreError> {
        self.remember(mesh, member, What::Visible(visible)).await
    }

    /// Remembers who a member says it is.
    pub async fn set_profile(&self, mesh: &MeshId, member: &MemberId, profile: &Profile) -> Result<(), StoreError> {
        self.remember(mesh, member, What::Profile(profile.clone())).await
    }

    /// Remembers what a member works on; an empty text is nothing.
    pub async fn set_summary(&self, mesh: &MeshId, member: &MemberId, summary: &str) -> Result<(), StoreError> {
        self.remember(mesh, member, What::Summary(summary.to_owned())).await
    }

    /// Remembers that a connection of a member ended just now, under which name it was shown, and what it did: that is added to what
    /// others did before. Nobody waits for it: it is lost where the database is away or the journal has all that it can take.
    pub fn note_parting(&self, (mesh, member): (&MeshId, &MemberId), name: &DisplayName, stats: RestoredStats) {
        let what = What::Parting(name.clone(), stats);
        let remember = Remember { mesh_id: mesh.clone(), member_id: member.clone(), what };
        self.0.journal.leave(Request::Remember(Box::new(remember)));
    }

    async fn remember(&self, mesh: &MeshId, member: &MemberId, what: What) -> Result<(), StoreError> {
        let remember = Remember { mesh_id: mesh.clone(), member_id: member.clone(), what };
        self.0.journal.submit(Request::Remember(Box::new(remember)), crate::done).await.await
    }
}

/// A row of `peer_state` as a handshake reads it: groups, profile, visible, summary, stats, last seen.
pub(crate) type StateRow = (Option<String>, String, i64, Option<String>, String, Option<i64>);

impl Remembered {
    /// What a row says, and when the member was last seen by it.
    pub(crate) fn of((groups, profile, visible, summary, stats, last_seen): StateRow) -> (Self, Option<Timestamp>) {
        let remembered = Self {
            groups: groups.map(|groups| read_groups(&groups)).unwrap_or_default(),
            visible: visible != 0,
            profile: serde_json::from_str(&profile).unwrap_or_default(),
            last_summary: summary.filter(|summary| !summary.is_empty()),
            stats: serde_json::from_str(&stats).unwrap_or_default(),
        };
        (remembered, last_seen.map(Timestamp::from_millis))
    }

    /// What is remembered of somebody who came for the first time.
    pub(crate) fn fresh() -> Self {
        Self { visible: true, ..Self::default() }
    }
}

/// The groups in a column; what is not written by us is none.
pub(crate) fn read_groups(column: &str) -> GroupSet {
    serde_json::from_str(column).unwrap_or_default()
}

/// The groups that hold: those that the member said, else its default ones.
pub(crate) fn in_force<'a>(said: &'a GroupSet, default: &'a GroupSet) -> &'a GroupSet {
    if said.is_empty() { default } else { said }
}

/// Makes the rows of members that have none, and sets the groups where there are some, each member once.
pub(crate) async fn keep(
    connection: &mut Connection<'_>,
    members: &[(&MeshId, &MemberId, Option<&GroupSet>)],
    now: Timestamp,
) -> sqlx::Result<()> {
    const KEEP: Sql = sql!(
        "insert into peer_state (mesh_id, member_id, groups, updated_at) \
         select r.value ->> 0, r.value ->> 1, r.value ->> 2, $2 from ",
        rows " where true on conflict (mesh_id, member_id) do update set \
               groups = coalesce(excluded.groups, peer_state.groups), updated_at = excluded.updated_at"
    );
    if members.is_empty() {
        return Ok(());
    }
    let row = |&(mesh, member, groups): &(_, _, Option<&GroupSet>)| {
        let groups = groups.map(json).transpose()?;
        sqlx::Result::Ok((mesh, member, groups))
    };
    let rows: Vec<(&MeshId, &MemberId, Option<String>)> = members.iter().map(row).collect::<sqlx::Result<_>>()?;
    connection.later(KEEP, &[(&json(&rows)?).into(), now.as_millis().into()]).await
}

/// Says which groups hold for members from now on, each member once.
pub(crate) async fn put_in_force(
    connection: &mut Connection<'_>,
    members: &[(&MeshId, &MemberId, &GroupSet)],
) -> sqlx::Result<()> {
    const CLEAR: Sql = sql!(
        "delete from member_group where (mesh_id, member_id) in (select r.value ->> 0, r.value ->> 1 from ",
        rows ")"
    );
    const FILL: Sql = sql!(
        "insert into member_group (mesh_id, name, member_id) select r.value ->> 0, r.value ->> 1, r.value ->> 2 from ",
        rows ""
    );
    if members.is_empty() {
        return Ok(());
    }
    let whose: Vec<_> = members.iter().map(|(mesh, member, _)| (mesh, member)).collect();
    connection.later(CLEAR, &[(&json(&whose)?).into()]).await?;
    let of = |(mesh, member, groups): &(&MeshId, &MemberId, &GroupSet)| {
        let name = |group: &claudemesh_proto::hello::Group| group.name.to_ascii_lowercase();
        groups.as_slice().iter().map(|group| ((*mesh).clone(), name(group), (*member).clone())).collect::<Vec<_>>()
    };
    let groups: Vec<_> = members.iter().flat_map(of).collect();
    if groups.is_empty() {
        return Ok(());
    }
    connection.later(FILL, &[(&json(&groups)?).into()]).await
}

/// Most that is counted of one connection, and of all together: sums stay numbers that every reader of JSON can hold.
const MOST_OF_ONE: u64 = 1 << 40;

macro_rules! update_all_but_stats {
    () => {
        "update peer_state set visible = coalesce(cast(r.value ->> 2 as bigint), visible), \
         profile = coalesce(r.value ->> 3, profile), last_summary = coalesce(r.value ->> 4, last_summary), \
         last_display_name = coalesce(r.value ->> 5, last_display_name), \
         last_seen_at = coalesce(cast(r.value ->> 6 as bigint), last_seen_at), updated_at = $2, cumulative_stats = "
    };
}

macro_rules! added {
    (sqlite $field:literal, $column:literal) => {
        concat!(
            "'",
            $field,
            "', min(coalesce(cumulative_stats ->> '",
            $field,
            "', 0) + (r.value ->> ",
            $column,
            "), 9007199254740991)"
        )
    };
    (postgres $field:literal, $column:literal) => {
        concat!(
            "'",
            $field,
            "', least(coalesce((cumulative_stats::jsonb ->> '",
            $field,
            "')::bigint, 0) + (r.value ->> ",
            $column,
            ")::bigint, 9007199254740991)"
        )
    };
}

/// Remembers what a batch of requests says, in order.
pub(crate) async fn remember(batch: &mut Batch, requests: &[&Remember]) -> sqlx::Result<()> {
    const MAKE: Sql = sql!(
        "insert into peer_state (mesh_id, member_id, updated_at) select r.value ->> 0, r.value ->> 1, $2 from ",
        rows " where true on conflict (mesh_id, member_id) do nothing"
    );
    const UPDATE: Sql = sql!(
        sqlite: concat!(
            update_all_but_stats!(), "json_object(",
            added!(sqlite "messagesIn", "7"), ", ", added!(sqlite "messagesOut", "8"), ", ",
            added!(sqlite "toolCalls", "9"), ", ", added!(sqlite "errors", "10"),
            ") from jsonb_each($1) r where peer_state.mesh_id = r.value ->> 0 and peer_state.member_id = r.value ->> 1"
        ),
        postgres: concat!(
            update_all_but_stats!(), "jsonb_build_object(",
            added!(postgres "messagesIn", "7"), ", ", added!(postgres "messagesOut", "8"), ", ",
            added!(postgres "toolCalls", "9"), ", ", added!(postgres "errors", "10"),
            ")::text from jsonb_array_elements($1::text::jsonb) r(value) \
             where peer_state.mesh_id = r.value ->> 0 and peer_state.member_id = r.value ->> 1"
        ),
    );
    if requests.is_empty() {
        return Ok(());
    }
    let mut changes: BTreeMap<(&MeshId, &MemberId), Change<'_>> = BTreeMap::new();
    for Remember { mesh_id, member_id, what } in requests {
        changes.entry((mesh_id, member_id)).or_default().take(what);
    }
    let now = batch.now.as_millis();
    let mut rows = Vec::with_capacity(changes.len());
    for ((mesh, member), Change { visible, profile, summary, name, stats }) in changes {
        let (visible, profile) = (visible.map(i64::from), profile.map(json).transpose()?);
        let seen = name.map(|_| now);
        let RestoredStats { messages_in: got, messages_out: sent, tool_calls: called, errors: failed } = stats;
        rows.push((mesh, member, visible, profile, summary, name, seen, got, sent, called, failed));
    }
    let rows = json(&rows)?;
    batch.connection().later(MAKE, &[(&rows).into(), now.into()]).await?;
    batch.connection().later(UPDATE, &[(&rows).into(), now.into()]).await
}

/// What several requests say of one member.
#[derive(Debug, Default)]
struct Change<'a> {
    visible: Option<bool>,
    profile: Option<&'a Profile>,
    summary: Option<&'a str>,
    /// Under which name it was last here, when a connection ended.
    name: Option<&'a DisplayName>,
    stats: RestoredStats,
}

impl<'a> Change<'a> {
    fn take(&mut self, what: &'a What) {
        match what {
            What::Visible(visible) => self.visible = Some(*visible),
            What::Profile(profile) => self.profile = Some(profile),
            What::Summary(summary) => self.summary = Some(summary),
            What::Parting(name, stats) => {
                self.name = Some(name);
                let RestoredStats { messages_in, messages_out, tool_calls, errors } = &mut self.stats;
                for (sum, part) in [
                    (messages_in, stats.messages_in),
                    (messages_out, stats.messages_out),
                    (tool_calls, stats.tool_calls),
                    (errors, stats.errors),
                ] {
                    *sum += part.min(MOST_OF_ONE);
                }
            }
        }
    }
}
