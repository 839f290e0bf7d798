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
/// [`Error::MeshKnown`] before anything is sent, [`Error::HttpRefused`] with the broker's word, [`Error::Protocol`] when the
/// answer is about a mesh that cannot be the new one.
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
    check(home, slug, &created)?;
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
    home.add(&mesh, &owner)?;
    private_file::remove(&home.creation_path(slug))?;
    Ok(mesh)
}

/// Nothing is written for an answer that names another mesh: it would be that one's files.
fn check(home: &Home, slug: &Slug, created: &MeshCreated) -> Result<()> {
    if created.slug != *slug {
        return Err(Error::Protocol(format!("it made a mesh \"{}\" when asked for \"{slug}\"", created.slug)));
    }
    if home.config()?.meshes.iter().any(|mesh| mesh.mesh_id == created.mesh_id) {
        return Err(Error::Protocol(format!(
            "it gave the new mesh the id {}, which another has here",
            created.mesh_id
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use claudemesh_keys::Identity;
    use claudemesh_proto::MemberId;

    use super::*;
    use crate::hostile::Hostile;
    use crate::samples::{home, membership};

    fn creation(broker: &BrokerUrl) -> Creation {
        Creation {
            slug: "later".parse().unwrap(),
            broker: broker.clone(),
            display_name: "Anna".parse().unwrap(),
            token: None,
        }
    }

    async fn answering(mesh_id: &str, slug: &str) -> Hostile {
        let answer = MeshCreated {
            mesh_id: mesh_id.parse().unwrap(),
            slug: slug.parse().unwrap(),
            member_id: MemberId::from_random([5; 32]),
        };
        Hostile::http(201, serde_json::to_string(&answer).unwrap()).await
    }

    #[tokio::test]
    async fn a_broker_cannot_replace_the_owners_key_of_another_mesh() {
        let (_dir, home) = home();
        let (first, owner) = (membership("first", 7), Identity::from_seed([3; 32]));
        let mesh = &first.mesh_id;
        home.keep_owner_key(mesh, &"first".parse().unwrap(), &owner).unwrap();
        let broker = answering(mesh.as_str(), "later").await;
        for is_member in [false, true] {
            if is_member {
                home.add(&first, &owner.public()).unwrap();
            }
            let refused = create(&home, &creation(&broker.url)).await;
            assert!(matches!(refused, Err(Error::Protocol(_))), "{refused:?}");
            assert_eq!(home.owner_key(&first).unwrap().identity.public(), owner.public());
        }
        assert_eq!(home.config().unwrap().meshes.len(), 1);
    }

    #[tokio::test]
    async fn no_mesh_id_names_the_file_of_an_attempt() {
        let (_dir, home) = home();
        let slug = "later".parse().unwrap();
        let before = home.creation_keys(&slug).unwrap().owner.public();
        let mesh = create(&home, &creation(&answering("pending-later", "later").await.url)).await.unwrap();
        assert_eq!(home.owner_key(&mesh).unwrap().identity.public(), before);
    }

    #[tokio::test]
    async fn an_answer_about_another_mesh_is_refused_and_keeps_the_keys() {
        let (_dir, home) = home();
        let before = home.creation_keys(&"later".parse().unwrap()).unwrap().owner.public();
        let refused = create(&home, &creation(&answering("m1", "another").await.url)).await;
        assert!(matches!(refused, Err(Error::Protocol(_))), "{refused:?}");
        assert_eq!(home.creation_keys(&"later".parse().unwrap()).unwrap().owner.public(), before);
        assert!(home.config().unwrap().meshes.is_empty() && !home.has_owner_key(&"m1".parse().unwrap()));
    }
}
