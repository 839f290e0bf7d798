//! Who belongs to the mesh, and what is known of each.

use std::fmt::Display;
use std::sync::Arc;

use claudemesh_proto::event::{SystemEvent, uuid};
use claudemesh_proto::limits::MAX_NAME_CHARS;
use claudemesh_proto::member::{self as wire, MemberListResponse, MemberUpdate, MemberUpdated};
use claudemesh_proto::text::one_line;
use claudemesh_proto::{BrokerFrame, DisplayName, ErrorCode, GroupSet, MemberId};
use claudemesh_store::{Denied, Member, MemberChange, MemberChanged};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::calls::{Live, weight};
use crate::fault::Fault;

/// Everybody in the caller's mesh but the banned.
pub(crate) async fn list(app: &App, live: &Live) -> Result<BrokerFrame, Fault> {
    let sees_all = is_admin(app, live).await?;
    let members = app.store.members(&live.mesh_id).await?;
    let is_seen = |member: &Member| sees_all || member.id == live.member_id;
    let members = members.into_iter().map(|member| shown(app, live, is_seen(&member), member)).collect();
    Ok(BrokerFrame::MemberListResponse(MemberListResponse { members: weight::members(members) }))
}

/// Changes what is known of a member, and tells those who are here.
pub(crate) async fn update(app: &App, live: &Live, request: MemberUpdate) -> Result<BrokerFrame, Fault> {
    let not_found = || Fault::new(ErrorCode::NotFound, "member not found");
    let whom: MemberId = match &request.member_id {
        Some(id) => id.parse().map_err(|_| not_found())?,
        None => live.member_id.clone(),
    };
    let change = parse(request)?;
    if change == MemberChange::default() {
        return Err(Fault::invalid("no fields to update"));
    }
    let (before, after) = match app.store.change_member((&live.mesh_id, &live.member_id), &whom, &change).await? {
        MemberChanged::Done(done) => *done,
        MemberChanged::Denied(denied) => return Err(Fault::new(ErrorCode::Forbidden, words(denied))),
        MemberChanged::NotFound => return Err(not_found()),
    };
    if before != after {
        tracing::info!(mesh.id = %live.mesh_id, member.id = %whom, by = %live.member_id, "a member was updated");
        show(app, live, &before, &after);
        tell(app, live, &before, &after);
    }
    Ok(BrokerFrame::MemberUpdated(MemberUpdated { member: shown(app, live, true, after) }))
}

/// Whether the caller is an admin now, not when it connected.
pub(crate) async fn is_admin(app: &App, live: &Live) -> Result<bool, Fault> {
    let authority = app.store.authority(&live.mesh_id, &live.member_id).await?;
    Ok(authority.is_some_and(|authority| authority.may_administer))
}

pub(crate) async fn require_admin(app: &App, live: &Live, what: &'static str) -> Result<(), Fault> {
    if is_admin(app, live).await? { Ok(()) } else { Err(Fault::new(ErrorCode::Forbidden, what)) }
}

/// As the caller sees it: whether somebody is here who hides is for that member itself and for admins.
fn shown(app: &App, live: &Live, hides_nothing: bool, member: Member) -> wire::Member {
    wire::Member {
        online: app.hub.is_member_online(&live.mesh_id, &member.id, hides_nothing),
        member_id: member.id,
        pubkey: member.pubkey,
        display_name: member.display_name,
        role: member.role,
        joined_at: member.joined_at,
        role_tag: member.role_tag,
        groups: member.default_groups.into_vec(),
        message_mode: Some(member.message_mode),
        last_seen_at: member.last_seen_at,
    }
}

fn parse(request: MemberUpdate) -> Result<MemberChange, Fault> {
    fn field<T, E: Display>(name: &str, parsed: Option<Result<T, E>>) -> Result<Option<T>, Fault> {
        parsed.transpose().map_err(|why| Fault::invalid(format!("{name} {why}")))
    }
    let tag = request.role_tag.map(|tag| {
        let tag = one_line(&tag);
        if tag.chars().count() <= MAX_NAME_CHARS { Ok(tag) } else { Err("must be 64 characters at most") }
    });
    let groups = request.groups.map(GroupSet::read).transpose();
    let name: Option<DisplayName> = field("displayName", request.display_name.map(|name| name.parse()))?;
    Ok(MemberChange {
        display_name: field("displayName", name.map(DisplayName::chosen))?,
        role_tag: field("roleTag", tag)?,
        default_groups: groups.map_err(|bad_field| Fault::invalid(bad_field.to_string()))?,
        message_mode: field("messageMode", request.message_mode.map(|mode| mode.parse()))?,
        role: field("role", request.role.map(|role| role.parse()))?,
    })
}

fn words(denied: Denied) -> String {
    match denied {
        Denied::Others => "only owner or admin can update others".into(),
        Denied::Role => "only owner or admin can change role".into(),
        Denied::Field(field) => format!("only owner or admin can change {field} in this mesh"),
        Denied::Owner => "role of the owner must be admin".into(),
    }
}

/// The member's presences follow, but for what they said of themselves.
fn show(app: &App, live: &Live, before: &Member, after: &Member) {
    app.hub.change_member(&live.mesh_id, &after.id, |presence| {
        presence.member_name = after.display_name.clone();
        if presence.peer.display_name == before.display_name && before.display_name != after.display_name {
            Arc::make_mut(&mut presence.peer).display_name = after.display_name.clone();
        }
        presence.show_default_groups(&after.default_groups);
    });
}

/// Tells the member's connections what is new about it.
fn tell(app: &App, live: &Live, before: &Member, after: &Member) {
    let mut news = Map::new();
    for field in before.differences(after) {
        let value = match field {
            "displayName" => json!(after.display_name),
            "roleTag" => json!(after.role_tag),
            "groups" => json!(after.default_groups),
            "messageMode" => json!(after.message_mode),
            // Who is an admin is asked of the broker each time.
            _ => continue,
        };
        news.insert(field.to_owned(), value);
    }
    if news.is_empty() {
        return;
    }
    news.insert("name".to_owned(), json!(after.display_name));
    // Without randomness nobody is told; what was stored is there for whoever asks.
    let Ok(random) = claudemesh_keys::random_bytes() else { return };
    let (id, data) = (uuid(random), Value::Object(news));
    let event = SystemEvent::new(&id, &live.mesh_id, app.clock.now(), ("profile_updated", &data));
    app.hub.shout(&live.mesh_id, &event.to_json().into(), |presence| presence.member_id == after.id);
}
