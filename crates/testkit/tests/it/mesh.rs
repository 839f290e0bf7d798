//! Meshes and members, made the way people make them.

use std::sync::Arc;
use std::time::Duration;

use claudemesh_client::{
    BrokerUrl, Creation, Dial, Handshake, Home, Invite, Joining, MAIL, Membership, Terms, attest, here, now,
};
use claudemesh_keys::Identity;
use claudemesh_proto::MemberRole;
use tempfile::TempDir;

/// Makes a mesh with so many members.
pub(crate) async fn mesh(url: &str, slug: &str, members: usize) -> Vec<Membership> {
    let homes = TempDir::new().unwrap();
    let home = |number: usize| Home::at(homes.path().join(number.to_string()));
    let broker: BrokerUrl = url.parse().unwrap();
    let creation = Creation {
        slug: slug.parse().unwrap(),
        broker: broker.clone(),
        display_name: "member 0".parse().unwrap(),
        token: None,
    };
    let creator = claudemesh_client::create(&home(0), &creation).await.unwrap();
    let owner = home(0).owner_key(&creator).unwrap();
    let uses = u32::try_from(members).unwrap();
    let terms = Terms { role: MemberRole::Member, max_uses: uses, life: Duration::from_hours(1), broker };
    let token = owner.sign_invite(&creator, &terms, now()).unwrap();
    let (connection, _pushes) = Dial::member(&creator, MAIL).unwrap().open().await.unwrap();
    let invitation = connection.create_invite(&token, &terms).await.unwrap();
    connection.close().await;
    let invite = Invite::read(&invitation.url, now()).unwrap();
    let mut joined = vec![creator];
    for number in 1..members {
        let name = format!("member {number}").parse().unwrap();
        match claudemesh_client::join(&home(number), &invite, &name).await.unwrap() {
            Joining::Joined(member) | Joining::Already(member) => joined.push(member),
        }
    }
    joined
}

/// A member's connection, signed with the member's key.
pub(crate) fn control(member: &Membership) -> Dial {
    Dial::member(member, MAIL).unwrap()
}

/// A connection of a new session of a member.
pub(crate) fn session(member: &Membership) -> Dial {
    let session = Arc::new(Identity::generate().unwrap());
    let expires_at = now().plus(Duration::from_hours(20));
    let attestation = attest(&member.identity, &session.public(), expires_at);
    let handshake = Handshake::Session { mesh: member.mesh_id.clone(), session, attestation };
    Dial { url: member.broker_url.clone(), handshake, place: here(MAIL).unwrap() }
}
