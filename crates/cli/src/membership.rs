//! What is printed of a membership, by every verb that is about one. Never its secret key.

use claudemesh_client::Membership;
use claudemesh_proto::{MemberId, MeshId, PublicKey};
use serde::Serialize;
use serde_json::Value;

/// The JSON of a membership.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown<'a> {
    mesh: &'a str,
    mesh_id: &'a MeshId,
    member_id: &'a MemberId,
    broker_url: String,
    pubkey: PublicKey,
    /// An object with what the verb adds.
    #[serde(flatten)]
    more: Value,
}

impl<'a> Shown<'a> {
    pub(crate) fn with(mesh: &'a Membership, more: Value) -> Self {
        Self {
            mesh: &mesh.slug,
            mesh_id: &mesh.mesh_id,
            member_id: &mesh.member_id,
            broker_url: mesh.broker_url.ws(),
            pubkey: mesh.identity.public(),
            more,
        }
    }
}
