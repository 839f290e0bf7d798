//! Making a mesh whose owner keeps the key.

use std::sync::Arc;

use claudemesh_proto::mesh::{FirstMember, MeshCreate, MeshCreated};
use claudemesh_proto::{DisplayName, Slug, canonical};

use crate::broker_url::BrokerUrl;
use crate::clock::now;
use crate::config::Membership;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::{http, private_file};

/// What a mesh is created with.
#[derive(Debug, Clone)]
pub struct Creation {
    /// Its short name.
    pub slug: Slug,
    /// The broker that will carry it.
    pub broker: BrokerUrl,
    /// The creator's name in it.
    pub display_name: DisplayName,
    /// The broker's setup token, where it wants one.
    pub token: Option<String>,
}

/// Creates a mesh and adds it to the configuration. The owner's and the member's key are made here and written down before
/// anything is sent; after an attempt whose outcome is not known, the next one uses the same keys.
///
/// # Errors
/// [`Error::MeshKnown`] before anything is sent, [`Error::HttpRefused`] with the broker's word.
pub async fn create(home: &Home, creation: &Creation) -> Result<Membership> {
    let Creation { slug, broker, display_name, token } = creation;
    if home.config()?.meshes.iter().any(|mesh| mesh.slug == slug.as_str()) {
        return Err(Error::MeshKnown { slug: slug.to_string(), config: home.config_path() });
    }
    let keys = home.creation_keys(slug)?;
    let (owner, member, timestamp) = (keys.owner.public(), keys.member.public(), now().as_millis());
    let signed = canonical::mesh_create(slug.as_str(), &owner, &member, display_name.as_str(), timestamp);
    let request = MeshCreate {
        slug: slug.to_string(),
        owner_pubkey: owner.to_string(),
        member: FirstMember { pubkey: member.to_string(), display_name: display_name.to_string() },
        timestamp,
        signature: keys.owner.sign(&signed).to_string(),
        member_signature: keys.member.sign(&signed).to_string(),
    };
    let created: MeshCreated = http::post(broker, "/v1/meshes", token.as_deref(), &request).await?;
    home.keep_owner_key(&created.mesh_id, slug, &keys.owner)?;
    let mesh = Membership {
        mesh_id: created.mesh_id,
        member_id: created.member_id,
        slug: slug.to_string(),
        name: slug.to_string(),
        broker_url: broker.clone(),
        joined_at: now().to_string(),
        identity: Arc::new(keys.member),
    };
    home.add(&mesh)?;
    private_file::remove(&home.creation_path(slug))?;
    Ok(mesh)
}
