//! Joining a mesh with an invite.

use std::sync::Arc;

use claudemesh_keys::fingerprint;
use claudemesh_proto::invite::{Join, Joined};
use claudemesh_proto::text::{from_base64url, one_line};
use claudemesh_proto::{DisplayName, PublicKey};

use crate::broker_url::BrokerUrl;
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
/// [`Error::MeshKnown`] when another mesh of that name is there, [`Error::InviteDiffers`] when the mesh is there with another
/// broker or owner: anybody can sign an invite with its id in it. [`Error::HttpRefused`] with the broker's word.
pub async fn join(home: &Home, invite: &Invite, display_name: &DisplayName) -> Result<Joining> {
    let config = home.config()?;
    if let Some(mesh) = config.meshes.iter().find(|mesh| mesh.mesh_id == invite.mesh_id) {
        return match config.owner(&mesh.mesh_id) {
            Some(owner) if *owner != invite.owner => Err(differs(invite, mesh, Some(owner))),
            owner if mesh.broker_url != invite.broker => Err(differs(invite, mesh, owner)),
            _ => Ok(Joining::Already(mesh.clone())),
        };
    }
    if config.meshes.iter().any(|mesh| mesh.slug == invite.slug) {
        return Err(Error::MeshKnown { slug: invite.slug.clone(), config: home.config_path() });
    }
    // As it stands in the token, whatever else a later version may have put there.
    let payload = from_base64url(&invite.token).and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let identity = home.joining_key(invite)?;
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
    home.add(&mesh, &invite.owner)?;
    private_file::remove(&home.joining_path(invite))?;
    Ok(Joining::Joined(mesh))
}

fn differs(invite: &Invite, mesh: &Membership, owner: Option<&PublicKey>) -> Error {
    let side = |broker: &BrokerUrl, owner: Option<&PublicKey>| {
        let owner = owner.map_or_else(|| "not known".into(), fingerprint);
        format!("broker {broker}, owner's key {owner}")
    };
    Error::InviteDiffers {
        slug: one_line(&mesh.slug),
        invited: side(&invite.broker, Some(&invite.owner)),
        known: side(&mesh.broker_url, owner),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use claudemesh_keys::Identity;
    use claudemesh_proto::MemberRole;

    use super::*;
    use crate::samples::{home, membership};

    fn invite(owner: u8, broker: &str) -> Invite {
        Invite {
            token: String::new(),
            mesh_id: "mesh1".parse().unwrap(),
            slug: "team".into(),
            broker: broker.parse().unwrap(),
            role: MemberRole::Member,
            owner: Identity::from_seed([owner; 32]).public(),
            expires_at: now(),
            foreign_host: None,
        }
    }

    #[test]
    fn only_the_same_invite_takes_up_the_key_of_an_attempt() {
        let (_dir, home) = home();
        let key = |invite: &Invite| home.joining_key(invite).unwrap().public();
        let first = invite(6, "wss://good.example/ws");
        let other_case = Invite { mesh_id: "MESH1".parse().unwrap(), ..first.clone() };
        let attempts =
            [first.clone(), other_case, invite(7, "wss://good.example/ws"), invite(6, "wss://evil.example/ws")];
        let keys: HashSet<_> = attempts.iter().map(key).collect();
        assert_eq!(keys.len(), attempts.len(), "no invite is answered with the key of another");
        assert_eq!(key(&first), key(&first.clone()));
        assert!(keys.contains(&key(&first)), "after the others, too");
        let names = std::fs::read_dir(home.dir().join("joining")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap().to_lowercase());
        assert_eq!(names.collect::<HashSet<_>>().len(), attempts.len(), "also where letter case is nothing");
    }

    #[tokio::test]
    async fn an_invite_that_tells_another_story_about_a_known_mesh_is_refused_and_names_both() {
        let (_dir, home) = home();
        let mesh = Membership {
            mesh_id: "mesh1".parse().unwrap(),
            broker_url: "wss://evil.example/ws".parse().unwrap(),
            ..membership("team", 1)
        };
        home.add(&mesh, &Identity::from_seed([6; 32]).public()).unwrap();
        let name = "Ben".parse().unwrap();
        let same = join(&home, &invite(6, "wss://evil.example/ws"), &name).await;
        assert!(matches!(same, Ok(Joining::Already(_))), "{same:?}");
        for (owner, broker) in
            [(7, "wss://evil.example/ws"), (6, "wss://good.example/ws"), (7, "wss://good.example/ws")]
        {
            let refused = join(&home, &invite(owner, broker), &name).await.unwrap_err().to_string();
            for seed in [6, owner] {
                let shown = fingerprint(&Identity::from_seed([seed; 32]).public());
                assert!(refused.contains(&shown), "{refused}");
            }
            assert!(refused.contains(broker) && refused.contains("wss://evil.example/ws"), "{refused}");
        }
    }
}
