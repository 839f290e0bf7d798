//! Joining a mesh with an invite.

use std::sync::Arc;

use claudemesh_proto::DisplayName;
use claudemesh_proto::invite::{Join, Joined};
use claudemesh_proto::text::from_base64url;

use crate::clock::now;
use crate::config::Membership;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::link::{BadLink, Invite};
use crate::{http, private_file};

/// What came of joining.
#[derive(Debug, Clone)]
pub enum Joining {
    /// We are a member now.
    Joined(Membership),
    /// We were one before, with this configuration; nothing was asked of the broker.
    Already(Membership),
}

/// Redeems an invite at the broker it names, and adds the mesh to the configuration. The member's key is made here and
/// written down before anything is sent; after an attempt whose outcome is not known, the next one uses the same key.
///
/// # Errors
/// [`Error::MeshKnown`] when another mesh of that name is there, [`Error::HttpRefused`] with the broker's word.
pub async fn join(home: &Home, invite: &Invite, display_name: &DisplayName) -> Result<Joining> {
    let config = home.config()?;
    if let Some(mesh) = config.meshes.iter().find(|mesh| mesh.mesh_id == invite.mesh_id) {
        return Ok(Joining::Already(mesh.clone()));
    }
    if config.meshes.iter().any(|mesh| mesh.slug == invite.slug) {
        return Err(Error::MeshKnown { slug: invite.slug.clone(), config: home.config_path() });
    }
    // As it stands in the token, whatever else a later version may have put there.
    let payload = from_base64url(&invite.token).and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let identity = home.joining_key(&invite.mesh_id)?;
    let request = Join {
        invite_token: Some(invite.token.clone()),
        invite_payload: Some(payload.ok_or(BadLink::Damaged)?),
        peer_pubkey: Some(identity.public().to_string()),
        display_name: Some(display_name.to_string()),
    };
    let joined: Joined = http::post(&invite.broker, "/join", None, &request).await?;
    let (true, Some(member_id)) = (joined.ok, joined.member_id) else {
        return Err(Error::Protocol("it neither let us join nor said why".into()));
    };
    let mesh = Membership {
        mesh_id: invite.mesh_id.clone(),
        member_id,
        slug: invite.slug.clone(),
        name: invite.slug.clone(),
        broker_url: invite.broker.clone(),
        joined_at: now().to_string(),
        identity: Arc::new(identity),
    };
    home.add(&mesh)?;
    private_file::remove(&home.joining_path(&mesh.mesh_id))?;
    Ok(Joining::Joined(mesh))
}
