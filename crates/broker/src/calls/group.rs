//! Joining and leaving groups. They are the member's: whichever of its connections asks, they are kept for all that come later.

use claudemesh_proto::group::{BadGroupName, JoinGroup, LeaveGroup};
use claudemesh_proto::limits::MAX_GROUPS;
use claudemesh_proto::{ErrorCode, GroupName};
use claudemesh_store::Regrouped;

use crate::app::App;
use crate::calls::Live;
use crate::fault::Fault;
use crate::hub::Presence;

/// Puts the caller's member into a group, or changes its role there.
pub(crate) async fn join(app: &App, live: &Live, request: JoinGroup) -> Result<(), Fault> {
    let name = parse(&request.name)?;
    if name.key() == "all" {
        return Err(Fault::invalid("name must not be all: @all means everybody"));
    }
    let role = request.role.as_deref();
    let joined = app.store.join_group((&live.mesh_id, &live.member_id), &name, role).await?;
    show(app, live, &joined, |presence| {
        let mut groups = presence.groups();
        // One that is in as many as it may shows no more.
        let _ = groups.join(&name, role);
        presence.show_groups(groups);
    })
}

/// Takes the caller's member out of a group.
pub(crate) async fn leave(app: &App, live: &Live, request: LeaveGroup) -> Result<(), Fault> {
    let name = parse(&request.name)?;
    let left = app.store.leave_group((&live.mesh_id, &live.member_id), &name).await?;
    show(app, live, &left, |presence| {
        let mut groups = presence.groups();
        groups.leave(&name);
        presence.show_groups(groups);
    })
}

/// What the caller's presences show follows what was stored, also where that was so before: a session may show other groups.
fn show(app: &App, live: &Live, regrouped: &Regrouped, change: impl FnMut(&mut Presence)) -> Result<(), Fault> {
    match regrouped {
        Regrouped::Changed(_) | Regrouped::Unchanged => {
            app.hub.change(&live.mesh_id, live.seat.presence_id(), change);
            Ok(())
        }
        Regrouped::TooMany => Err(Fault::invalid(format!("you are in {MAX_GROUPS} groups; leave one first"))),
        Regrouped::NoMember => Err(Fault::new(ErrorCode::Forbidden, "you are no member of this mesh any more")),
    }
}

fn parse(name: &str) -> Result<GroupName, Fault> {
    name.parse().map_err(|why: BadGroupName| Fault::invalid(format!("name {why}")))
}
