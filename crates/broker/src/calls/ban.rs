//! Removing members, taking them back, and who is removed.

use claudemesh_proto::ban::{BanAck, BanTarget, ListBansResult, Sought, UnbanAck};
use claudemesh_proto::limits::MIN_KEY_PREFIX;
use claudemesh_proto::{BrokerFrame, ErrorCode};
use claudemesh_store::{Authority, Banned, Unbanned};

use crate::app::App;
use crate::calls::Live;
use crate::fault::Fault;

/// Removes a member. Its connections close before this returns, and what waits for it ends (R10).
pub(crate) async fn ban(app: &App, live: &Live, request: BanTarget) -> Result<BrokerFrame, Fault> {
    let target = required(&request)?;
    let banned = match app.store.ban(&live.mesh_id, &live.member_id, &target).await? {
        Banned::Done(banned) => banned,
        Banned::Forbidden => return Err(forbidden("ban")),
        Banned::NotFound => return Err(Fault::new(ErrorCode::NotFound, format!("peer \"{target}\" not found"))),
        Banned::Ambiguous => return Err(ambiguous(&target)),
        Banned::Oneself => return Err(Fault::new(ErrorCode::Invalid, "cannot ban yourself")),
        Banned::Owner => return Err(Fault::new(ErrorCode::Forbidden, "the owner cannot be banned")),
    };
    app.hub.expel(&live.mesh_id, &banned.id);
    tracing::info!(mesh.id = %live.mesh_id, member.id = %banned.id, by = %live.member_id, "a member was removed");
    let ending = async {
        while app.store.end_mail_of(&live.mesh_id, &banned.id).await? {}
        Ok::<_, claudemesh_store::StoreError>(())
    };
    if let Err(error) = ending.await {
        tracing::warn!(error = %error, "what waits for a removed member could not be ended; the next sweep tries again");
    }
    Ok(BrokerFrame::BanAck(BanAck { banned: banned.display_name }))
}

/// Takes a member back.
pub(crate) async fn unban(app: &App, live: &Live, request: BanTarget) -> Result<BrokerFrame, Fault> {
    let target = required(&request)?;
    match app.store.unban(&live.mesh_id, &live.member_id, &target).await? {
        Unbanned::Done(unbanned) => {
            tracing::info!(mesh.id = %live.mesh_id, by = %live.member_id, "a member was taken back");
            Ok(BrokerFrame::UnbanAck(UnbanAck { unbanned }))
        }
        Unbanned::Forbidden => Err(forbidden("unban")),
        Unbanned::NotFound => Err(Fault::new(ErrorCode::NotFound, format!("no banned peer \"{target}\""))),
        Unbanned::Ambiguous => Err(ambiguous(&target)),
    }
}

/// Who is removed; for every member.
pub(crate) async fn list(app: &App, live: &Live) -> Result<BrokerFrame, Fault> {
    Ok(BrokerFrame::ListBansResult(ListBansResult { bans: app.store.bans(&live.mesh_id).await? }))
}

/// Whether the caller is an admin or the owner now, not when it connected; `what` is what else it may not do.
pub(crate) async fn authorise(app: &App, live: &Live, what: &str) -> Result<Authority, Fault> {
    let authority = app.store.authority(&live.mesh_id, &live.member_id).await?;
    authority.filter(|authority| authority.may_administer).ok_or_else(|| forbidden(what))
}

pub(crate) fn ambiguous(target: &Sought) -> Fault {
    Fault::new(ErrorCode::Invalid, format!("\"{target}\" is ambiguous{}", hint(target)))
}

/// What to write instead of a text that means more than one.
fn hint(target: &Sought) -> String {
    if target.key().is_some() {
        return String::new();
    }
    format!(": give the key, or at least its first {MIN_KEY_PREFIX} characters")
}

fn required(request: &BanTarget) -> Result<Sought, Fault> {
    let target = request.target.as_deref().and_then(Sought::new);
    target.ok_or_else(|| Fault::new(ErrorCode::Invalid, "target required"))
}

fn forbidden(what: &str) -> Fault {
    Fault::new(ErrorCode::Forbidden, format!("only owner or admin can {what}"))
}
