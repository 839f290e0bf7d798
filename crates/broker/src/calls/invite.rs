//! Invites over the WebSocket, and joining by one over HTTP.

use claudemesh_keys::{verify, x25519_public};
use claudemesh_proto::invite::{
    InviteCreate, InviteCreated, InviteListResponse, InvitePayload, InviteRevoke, InviteRevokeResponse,
    InviteRevokeStatus, Join, Joined,
};
use claudemesh_proto::limits::{MAX_INVITE_LIFE, MAX_INVITE_USES};
use claudemesh_proto::{
    BrokerFrame, DisplayName, ErrorCode, InviteId, MemberRole, MeshId, PublicKey, Signature, Timestamp,
};
use claudemesh_store::{Mesh, NewInvite, Redeemed, Redemption};

use crate::app::App;
use crate::calls::{Live, member};
use crate::fault::Fault;

const ADMINS_ONLY: &str = "only owner or admin can manage invites";

/// Registers a token that the owner signed on the owner's machine.
pub(crate) async fn create(app: &App, live: &Live, request: InviteCreate) -> Result<BrokerFrame, Fault> {
    member::require_admin(app, live, ADMINS_ONLY).await?;
    let max_uses = request.max_uses.unwrap_or(1);
    if !(1..=MAX_INVITE_USES).contains(&max_uses) {
        return Err(Fault::invalid("maxUses must be 1 to 1000"));
    }
    let mesh = app.store.mesh(&live.mesh_id).await?.ok_or_else(|| Fault::new(ErrorCode::NotFound, "mesh not found"))?;
    let wrong = |why| Fault::new(ErrorCode::InvalidInvite, why);
    let payload = InvitePayload::from_token(&request.token).map_err(|_| wrong("token is not an invite token"))?;
    let (role, expires_at) = check_token(&payload, &mesh, app.clock.now()).map_err(wrong)?;
    let signature = Signature::parse_any_case(&payload.signature).map_err(|_| wrong("token signature is not valid"))?;
    let invite = NewInvite {
        mesh_id: mesh.id,
        token: request.token.clone(),
        signature,
        role,
        max_uses,
        expires_at,
        created_by: live.member_id.clone(),
    };
    let created = app.store.create_invite(&invite).await?.ok_or_else(|| wrong("token is registered already"))?;
    tracing::info!(mesh.id = %live.mesh_id, member.id = %live.member_id, "an invite was registered");
    let url = format!("{}/join/{}", app.settings.public_url, request.token);
    Ok(BrokerFrame::InviteCreated(InviteCreated { id: created.id, url, role, max_uses, expires_at }))
}

/// Every invite of the mesh, without its token.
pub(crate) async fn list(app: &App, live: &Live) -> Result<BrokerFrame, Fault> {
    member::require_admin(app, live, ADMINS_ONLY).await?;
    let invites = app.store.invites(&live.mesh_id).await?;
    Ok(BrokerFrame::InviteListResponse(InviteListResponse { invites }))
}

/// Takes an invite back.
pub(crate) async fn revoke(app: &App, live: &Live, request: InviteRevoke) -> Result<BrokerFrame, Fault> {
    member::require_admin(app, live, ADMINS_ONLY).await?;
    let found = match request.id.parse::<InviteId>() {
        Ok(id) => app.store.revoke_invite(&live.mesh_id, &id, &live.member_id).await?,
        Err(_) => false,
    };
    let status = if found { InviteRevokeStatus::Revoked } else { InviteRevokeStatus::NotFound };
    Ok(BrokerFrame::InviteRevokeResponse(InviteRevokeResponse { id: request.id, status }))
}

/// Why somebody could not join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotJoined {
    /// In the protocol's words.
    Refused(&'static str),
    Unavailable,
}

/// Makes a member of whoever brings a registered, signed token. The checks are in the protocol's order.
pub(crate) async fn join(app: &App, join: Join) -> Result<Joined, NotJoined> {
    let refused = NotJoined::Refused;
    let unavailable = |error: claudemesh_store::StoreError| {
        tracing::error!(error = %error, "a join could not be carried out");
        NotJoined::Unavailable
    };
    let fields = (join.invite_token, join.invite_payload, join.peer_pubkey, join.display_name);
    let (Some(token), Some(payload), Some(pubkey), Some(name)) = fields else {
        return Err(refused("invite_token, invite_payload, peer_pubkey, display_name required"));
    };
    let pubkey: PublicKey = pubkey.parse().map_err(|_| refused("peer_pubkey must be 64 hex chars (32 bytes)"))?;
    // A key that nobody could seal for must not become a member.
    x25519_public(&pubkey).map_err(|_| refused("peer_pubkey is not a usable ed25519 public key"))?;
    let name = DisplayName::clipped(&name);
    let display_name = name.ok_or_else(|| refused("display_name must be 1-64 visible characters"))?;
    let unaddressable = |_| refused("display_name must not begin with @ or #, or be * or all");
    let display_name = display_name.chosen().map_err(unaddressable)?;
    let payload: InvitePayload = serde_json::from_value(payload).map_err(|_| refused("invite_bad_signature"))?;
    let owner = check_signature(&payload).map_err(|()| refused("invite_bad_signature"))?;
    let mesh_id: MeshId = payload.mesh_id.parse().map_err(|_| refused("mesh_not_found"))?;
    let mesh = app.store.mesh(&mesh_id).await.map_err(unavailable)?.ok_or_else(|| refused("mesh_not_found"))?;
    if mesh.owner_pubkey != owner {
        return Err(refused("invite_owner_mismatch"));
    }
    let role = payload.role.parse().map_err(|_| refused("invite_bad_signature"))?;
    // What is redeemed is the token, so the payload must be what the token says: else a token for a member and a payload for an
    // admin, both well signed, would together make an admin.
    let is_what_the_token_says = InvitePayload::from_token(&token).is_ok_and(|said| said == payload);
    let redemption = Redemption { mesh_id, token, role, is_what_the_token_says, pubkey, display_name };
    let turn = app.door.lock().await;
    let redeemed = app.store.redeem_invite(&redemption).await.map_err(unavailable)?;
    drop(turn);
    match redeemed {
        Redeemed::Joined(member_id) => {
            tracing::info!(mesh.id = %redemption.mesh_id, member.id = %member_id, "a member joined");
            Ok(Joined { ok: true, member_id: Some(member_id), already_member: None, error: None })
        }
        Redeemed::AlreadyMember(id) => {
            Ok(Joined { ok: true, member_id: Some(id), already_member: Some(true), error: None })
        }
        Redeemed::NotFound => Err(refused("invite_not_found")),
        Redeemed::OtherMesh => Err(refused("invite_mesh_mismatch")),
        Redeemed::OtherPayload => Err(refused("invite_bad_signature")),
        Redeemed::Revoked => Err(refused("invite_revoked")),
        Redeemed::Expired => Err(refused("invite_expired")),
        Redeemed::MemberRevoked => Err(refused("member_revoked")),
        Redeemed::KeyInUse => Err(refused("peer_pubkey is in use as a session key")),
        Redeemed::Exhausted => Err(refused("invite_exhausted")),
    }
}

/// The owner's key, when the payload is signed with it.
fn check_signature(payload: &InvitePayload) -> Result<PublicKey, ()> {
    if payload.v != 1 {
        return Err(());
    }
    let owner: PublicKey = payload.owner_pubkey.parse().map_err(drop)?;
    let signature = Signature::parse_any_case(&payload.signature).map_err(drop)?;
    verify(&owner, payload.signed_text().as_bytes(), &signature).map_err(drop)?;
    Ok(owner)
}

/// What a token grants, when it is one of this mesh's owner and of a time to come.
fn check_token(payload: &InvitePayload, mesh: &Mesh, now: Timestamp) -> Result<(MemberRole, Timestamp), &'static str> {
    let owner = check_signature(payload).map_err(|()| "token signature is not valid")?;
    if payload.mesh_id != mesh.id.as_str() || payload.mesh_slug != mesh.slug.as_str() {
        return Err("token is for another mesh");
    }
    if owner != mesh.owner_pubkey {
        return Err("token is not signed by the mesh's owner");
    }
    let role = payload.role.parse().map_err(|_| "token role must be admin or member")?;
    let expires_at = Timestamp::from_millis(payload.expires_at.saturating_mul(1000));
    if expires_at <= now {
        return Err("token is expired");
    }
    if expires_at > now.plus(MAX_INVITE_LIFE) {
        return Err("token lasts longer than 366 days");
    }
    Ok((role, expires_at))
}
