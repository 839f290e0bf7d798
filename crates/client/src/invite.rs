//! Inviting: the token is signed here with the owner's key, and registered with the broker by an admin's connection.

use std::time::Duration;

use claudemesh_keys::random_bytes;
use claudemesh_proto::frame::Empty;
use claudemesh_proto::invite::{Invite, InviteCreate, InviteCreated, InvitePayload, InviteRevoke, InviteRevokeStatus};
use claudemesh_proto::limits::{MAX_INVITE_LIFE, MAX_INVITE_USES};
use claudemesh_proto::text::base64url;
use claudemesh_proto::{BrokerFrame, ClientFrame, MemberRole, Timestamp};

use crate::broker_url::BrokerUrl;
use crate::clock::now;
use crate::config::Membership;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::owner::OwnerKey;

/// What an invite is good for.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What the newcomer will be.
    pub role: MemberRole,
    /// How often it can be used.
    pub max_uses: u32,
    /// For how long.
    pub life: Duration,
    /// Where newcomers reach the broker.
    pub broker: BrokerUrl,
}

/// An invite that the broker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// What the broker says about it.
    pub created: InviteCreated,
    /// The link to give away. It shows the host that the token leads to, also where the broker would write another.
    pub url: String,
    /// Where it leads.
    pub broker: BrokerUrl,
}

impl OwnerKey {
    /// Signs an invite token. Its root key field, which no client of ours reads, is a random dummy.
    ///
    /// # Errors
    /// [`Error::BadInput`] when the terms are out of range.
    pub fn sign_invite(&self, mesh: &Membership, terms: &Terms, now: Timestamp) -> Result<String> {
        if !(1..=MAX_INVITE_USES).contains(&terms.max_uses) {
            return Err(Error::BadInput { what: "uses", why: format!("must be 1 to {MAX_INVITE_USES}") });
        }
        if terms.life < Duration::from_secs(1) || terms.life > MAX_INVITE_LIFE {
            return Err(Error::BadInput {
                what: "the time until it expires",
                why: "must be 1 second to 366 days".into(),
            });
        }
        let mut payload = InvitePayload {
            v: 1,
            mesh_id: mesh.mesh_id.to_string(),
            mesh_slug: mesh.slug.clone(),
            broker_url: terms.broker.ws(),
            expires_at: now.plus(terms.life).as_millis() / 1000,
            mesh_root_key: base64url(&random_bytes::<32>()?),
            role: terms.role.as_str().into(),
            owner_pubkey: self.identity.public().to_string(),
            signature: String::new(),
        };
        payload.signature = self.identity.sign(payload.signed_text().as_bytes()).to_string();
        Ok(payload.to_token())
    }
}

impl Connection {
    /// Registers a signed token.
    pub async fn create_invite(&self, token: &str, terms: &Terms) -> Result<Invitation> {
        let asked = InviteCreate { token: token.to_owned(), max_uses: Some(terms.max_uses) };
        let created = match self.request(ClientFrame::InviteCreate(asked)).await? {
            BrokerFrame::InviteCreated(created) => created,
            other => return Err(Error::unexpected(&other)),
        };
        let url = terms.broker.http(&format!("/join/{token}"));
        Ok(Invitation { created, url, broker: terms.broker.clone() })
    }

    /// The same invite for where the broker says that people reach it (its `BROKER_PUBLIC_URL`), when that is better than where
    /// it leads. Only the answer about an invite tells that address, so the one that was made is taken back.
    pub async fn lead_to_public_address(
        &self,
        made: Invitation,
        owner: &OwnerKey,
        mesh: &Membership,
        terms: &Terms,
    ) -> Result<Invitation> {
        let Some(broker) = public_address(&made.created.url, &made.broker) else { return Ok(made) };
        self.revoke_invite(made.created.id.as_str()).await?;
        let terms = Terms { broker, ..terms.clone() };
        self.create_invite(&owner.sign_invite(mesh, &terms, now())?, &terms).await
    }

    /// Every invite of the mesh, newest first.
    pub async fn invites(&self) -> Result<Vec<Invite>> {
        match self.request(ClientFrame::InviteList(Empty {})).await? {
            BrokerFrame::InviteListResponse(list) => Ok(list.invites),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Takes an invite back.
    pub async fn revoke_invite(&self, id: &str) -> Result<InviteRevokeStatus> {
        match self.request(ClientFrame::InviteRevoke(InviteRevoke { id: id.to_owned() })).await? {
            BrokerFrame::InviteRevokeResponse(answer) => Ok(answer.status),
            other => Err(Error::unexpected(&other)),
        }
    }
}

/// The address in the broker's link, when others are better led there than to `ours`. A broker that was told none writes the
/// address that it listens on, which may lead nobody anywhere; and no broker may take the TLS away from us.
fn public_address(link: &str, ours: &BrokerUrl) -> Option<BrokerUrl> {
    let (address, _token) = link.split_once("/join/")?;
    let public: BrokerUrl = address.parse().ok()?;
    let leads_somewhere = !public.is_loopback() && !public.is_unspecified();
    let is_better = public.is_tls() || (ours.is_loopback() && !ours.is_tls());
    (leads_somewhere && is_better && public != *ours).then_some(public)
}

#[cfg(test)]
mod tests {
    use claudemesh_keys::Identity;

    use super::*;
    use crate::link;
    use crate::samples::membership;

    fn owner() -> (OwnerKey, Membership) {
        let mesh = membership("team", 2);
        (OwnerKey { mesh_id: mesh.mesh_id.clone(), identity: Identity::from_seed([1; 32]) }, mesh)
    }

    fn terms() -> Terms {
        let broker = "wss://h.example/ws".parse().unwrap();
        Terms { role: MemberRole::Admin, max_uses: 3, life: Duration::from_mins(1), broker }
    }

    #[test]
    fn a_signed_invite_can_be_joined_with_and_holds_no_root_key() {
        let (owner, mesh) = owner();
        let now = Timestamp::from_millis(1_700_000_000_999);
        let (first, second) = (owner.sign_invite(&mesh, &terms(), now), owner.sign_invite(&mesh, &terms(), now));
        let invite = link::Invite::read(&first.unwrap(), now).unwrap();
        assert_eq!(
            (&invite.mesh_id, invite.role, invite.owner),
            (&mesh.mesh_id, MemberRole::Admin, owner.identity.public())
        );
        assert_eq!(invite.broker.ws(), "wss://h.example/ws");
        assert_ne!(invite.token, second.unwrap(), "the dummy is random");
    }

    #[test]
    fn terms_out_of_range_are_refused() {
        let (owner, mesh) = owner();
        let sign = |terms: Terms| owner.sign_invite(&mesh, &terms, Timestamp::from_millis(0));
        for terms in [
            Terms { max_uses: 0, ..terms() },
            Terms { max_uses: 1001, ..terms() },
            Terms { life: Duration::ZERO, ..terms() },
            Terms { life: Duration::MAX, ..terms() },
        ] {
            assert!(matches!(sign(terms), Err(Error::BadInput { .. })));
        }
    }

    #[test]
    fn a_brokers_address_is_taken_where_it_is_better_than_ours() {
        let cases = [
            ("http://127.0.0.1:7900", "https://mesh.example", Some("wss://mesh.example/ws")),
            ("http://127.0.0.1:7900", "http://lan.example:7900", Some("ws://lan.example:7900/ws")),
            ("http://lan.example", "https://mesh.example", Some("wss://mesh.example/ws")),
            ("https://mesh.example", "https://mesh.example", None),
            ("https://mesh.example", "http://mesh.example", None),
            ("https://mesh.example", "http://127.0.0.1:7900", None),
            ("http://lan.example:7900", "http://10.0.0.5:7900", None),
            ("http://127.0.0.1:7900", "http://0.0.0.0:7900", None),
            ("http://localhost:7900", "http://127.0.0.1:7900", None),
            ("http://127.0.0.1:7900", "https://user@mesh.example", None),
        ];
        for (ours, theirs, wanted) in cases {
            let taken = public_address(&format!("{theirs}/join/x"), &ours.parse().unwrap());
            assert_eq!(taken.map(|url| url.ws()).as_deref(), wanted, "{ours} {theirs}");
        }
    }
}
