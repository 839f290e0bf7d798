//! Who belongs to the mesh, and who is here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use claudemesh_proto::api_key::Capability;
use claudemesh_proto::hello::Group;
use claudemesh_proto::{DisplayName, MemberId, MemberRole, PublicKey, Status, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::calls;
use crate::edge::rest::auth::Caller;
use crate::edge::rest::refusal::{Keyed, Refusal};
use crate::edge::server::Running;

/// Everybody in the mesh.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Members {
    /// By the time they joined; without the removed.
    members: Vec<Member>,
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Member {
    #[serde(rename = "memberId")]
    #[schema(value_type = String)]
    id: MemberId,
    /// 64 hex characters.
    #[schema(value_type = String)]
    pubkey: PublicKey,
    #[schema(value_type = String)]
    display_name: DisplayName,
    /// `admin` or `member`.
    #[schema(value_type = String)]
    role: MemberRole,
    /// Whether a person signed in for it. This broker has no such accounts.
    is_human: bool,
    #[schema(value_type = String, format = DateTime)]
    joined_at: Timestamp,
    /// Whether it has an open connection. Whoever hides is offline to others.
    online: bool,
    /// `idle`, `working`, `dnd` or `offline`: that of its newest presence.
    status: &'static str,
    /// What that presence works on.
    summary: Option<String>,
}

/// Everybody in the mesh, and whether they are here.
#[utoipa::path(
    get,
    path = "/members",
    tag = "members",
    responses((status = 200, description = "Everybody but the removed", body = Members), Keyed)
)]
pub(crate) async fn members(State(running): State<Arc<Running>>, caller: Caller) -> Result<Json<Members>, Refusal> {
    caller.may(&[Capability::Read])?;
    let app = &running.app;
    let present = calls::presence::newest(app, caller.mesh_id(), caller.member_id());
    let members = app.store.members(caller.mesh_id()).await?.into_iter().map(|member| {
        let hides_nothing = member.id == *caller.member_id();
        let online = app.hub.is_member_online(caller.mesh_id(), &member.id, hides_nothing);
        let peer = present.get(&member.pubkey).filter(|_| online);
        Member {
            id: member.id,
            pubkey: member.pubkey,
            display_name: member.display_name,
            role: member.role,
            is_human: false,
            joined_at: member.joined_at,
            online,
            status: peer.map_or("offline", |peer| peer.status.as_str()),
            summary: peer.and_then(|peer| peer.summary.clone()),
        }
    });
    Ok(Json(Members { members: members.collect() }))
}

/// Who is here.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Peers {
    /// One of each member that is here, by their keys.
    peers: Vec<Peer>,
}

/// A member that is here.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Peer {
    /// The member's key: 64 hex characters.
    #[schema(value_type = String)]
    pubkey: PublicKey,
    #[schema(value_type = String)]
    display_name: DisplayName,
    /// `idle`, `working` or `dnd`.
    #[schema(value_type = String)]
    status: Status,
    /// What it works on.
    summary: Option<String>,
    /// `{name, role?}` of each group that it is in.
    #[schema(value_type = Vec<Object>)]
    groups: Vec<Group>,
    /// `ws` with a connection, `rest` with a key that was used in the last five minutes.
    via: &'static str,
}

/// Who is here, over the WebSocket or by a key that was used in the last five minutes. Whoever hides is seen by itself alone.
#[utoipa::path(
    get,
    path = "/peers",
    tag = "members",
    responses((status = 200, description = "One of each member", body = Peers), Keyed)
)]
pub(crate) async fn peers(State(running): State<Arc<Running>>, caller: Caller) -> Result<Json<Peers>, Refusal> {
    caller.may(&[Capability::Read])?;
    let here = calls::presence::here(&running.app, caller.mesh_id(), caller.member_id()).await?;
    let peers = here.into_iter().map(|here| Peer {
        pubkey: here.pubkey,
        display_name: here.display_name,
        status: here.status,
        summary: here.summary,
        groups: here.groups,
        via: if here.is_connected { "ws" } else { "rest" },
    });
    Ok(Json(Peers { peers: peers.collect() }))
}
