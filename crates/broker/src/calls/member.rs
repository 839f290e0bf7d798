//! Who belongs to the mesh.

use claudemesh_proto::member::{Member, MemberListResponse};
use claudemesh_proto::{BrokerFrame, ErrorCode, MemberRole};

use crate::app::App;
use crate::calls::Live;
use crate::fault::Fault;

/// Everybody in the caller's mesh but the banned.
pub(crate) async fn list(app: &App, live: &Live) -> Result<BrokerFrame, Fault> {
    let members = app.store.members(&live.mesh_id).await?.into_iter().map(|member| Member {
        online: app.hub.is_member_online(&live.mesh_id, &member.id),
        member_id: member.id,
        pubkey: member.pubkey,
        display_name: member.display_name,
        role: member.role,
        joined_at: member.joined_at,
        role_tag: None,
        groups: Vec::new(),
        message_mode: None,
        last_seen_at: None,
    });
    Ok(BrokerFrame::MemberListResponse(MemberListResponse { members: members.collect() }))
}

/// Whether the caller is an admin now, not when it connected.
pub(crate) async fn is_admin(app: &App, live: &Live) -> Result<bool, Fault> {
    Ok(app.store.role(&live.mesh_id, &live.member_id).await? == Some(MemberRole::Admin))
}

pub(crate) async fn require_admin(app: &App, live: &Live, what: &'static str) -> Result<(), Fault> {
    if is_admin(app, live).await? { Ok(()) } else { Err(Fault::new(ErrorCode::Forbidden, what)) }
}
