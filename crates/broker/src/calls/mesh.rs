//! Making a mesh whose owner keeps the key.

use claudemesh_keys::{verify, x25519_public};
use claudemesh_proto::limits::MAX_CLOCK_SKEW;
use claudemesh_proto::mesh::{MeshCreate, MeshCreateError, MeshCreated};
use claudemesh_proto::{DisplayName, PublicKey, Signature, Slug, Timestamp, canonical};
use claudemesh_store::NewMesh;
use subtle::ConstantTimeEq as _;

use crate::app::{App, Settings};
use crate::config::MeshCreation;

/// Why a mesh was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotCreated {
    Refused(MeshCreateError),
    Unavailable,
}

/// Whether this caller may make meshes.
pub(crate) fn may_create(settings: &Settings, is_local: bool, bearer: Option<&str>) -> bool {
    let has_token = bearer.is_some_and(|token| token.as_bytes().ct_eq(settings.setup_token.text.as_bytes()).into());
    match settings.mesh_creation {
        MeshCreation::Open => true,
        MeshCreation::Loopback => is_local || has_token,
        MeshCreation::Token => has_token,
        MeshCreation::Closed => false,
    }
}

/// Checks both signatures and makes the mesh, with its creator as admin.
pub(crate) async fn create(app: &App, request: &MeshCreate) -> Result<MeshCreated, NotCreated> {
    let mesh = check(request, app.clock.now()).map_err(NotCreated::Refused)?;
    let turn = app.door.lock().await;
    let made = app.store.create_mesh(&mesh).await.map_err(|error| {
        tracing::error!(error = %error, "a mesh could not be made");
        NotCreated::Unavailable
    })?;
    drop(turn);
    let made = made.ok_or(NotCreated::Refused(MeshCreateError::SlugTaken))?;
    tracing::info!(mesh.id = %made.mesh_id, member.id = %made.member_id, "a mesh was made");
    Ok(MeshCreated { mesh_id: made.mesh_id, slug: mesh.slug, member_id: made.member_id })
}

fn check(request: &MeshCreate, now: Timestamp) -> Result<NewMesh, MeshCreateError> {
    let slug: Slug = request.slug.parse().map_err(|_| MeshCreateError::InvalidSlug)?;
    let owner_pubkey = usable_key(&request.owner_pubkey)?;
    let member_pubkey = usable_key(&request.member.pubkey)?;
    let display_name: DisplayName = request.member.display_name.parse().map_err(|_| MeshCreateError::Malformed)?;
    let display_name = display_name.chosen().map_err(|_| MeshCreateError::Malformed)?;
    let signature = Signature::parse_any_case(&request.signature).map_err(|_| MeshCreateError::Malformed)?;
    let member_signature =
        Signature::parse_any_case(&request.member_signature).map_err(|_| MeshCreateError::Malformed)?;
    if Timestamp::from_millis(request.timestamp).distance(now) > MAX_CLOCK_SKEW {
        return Err(MeshCreateError::TimestampSkew);
    }
    // The name is signed as it was written, not as it is shown.
    let name = &request.member.display_name;
    let signed = canonical::mesh_create(&request.slug, &owner_pubkey, &member_pubkey, name, request.timestamp);
    let verified =
        verify(&owner_pubkey, &signed, &signature).and_then(|()| verify(&member_pubkey, &signed, &member_signature));
    verified.map_err(|_| MeshCreateError::BadSignature)?;
    Ok(NewMesh { slug, owner_pubkey, member_pubkey, display_name })
}

/// A key that nobody could seal for must not become a member.
fn usable_key(text: &str) -> Result<PublicKey, MeshCreateError> {
    let key: PublicKey = text.parse().map_err(|_| MeshCreateError::Malformed)?;
    x25519_public(&key).map(|_| key).map_err(|_| MeshCreateError::Malformed)
}
