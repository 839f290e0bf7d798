//! Invites: signed by the owner's key on the owner's machine, registered with the broker, redeemed by `POST /join`.

use serde::{Deserialize, Serialize};

use crate::id::{InviteId, MemberId};
use crate::limits::MAX_TOKEN_BYTES;
use crate::member::MemberRole;
use crate::text::{base64url, from_base64url};
use crate::time::Timestamp;

/// What an invite token says, in the order in which its JSON is written. FROZEN: existing clients read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitePayload {
    /// 1.
    pub v: i64,
    /// The mesh.
    pub mesh_id: String,
    /// Its short name.
    pub mesh_slug: String,
    /// Where its broker listens: `ws://…/ws` or `wss://…/ws`.
    pub broker_url: String,
    /// Last moment it can be redeemed, unix seconds.
    pub expires_at: i64,
    /// Read by nobody; a random dummy in tokens of ours.
    pub mesh_root_key: String,
    /// What the newcomer may do.
    pub role: String,
    /// The owner's public key.
    pub owner_pubkey: String,
    /// By the owner key over [`InvitePayload::signed_text`].
    pub signature: String,
}

/// The token is not base64url of an invite's JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an invite token")]
pub struct BadToken;

impl InvitePayload {
    /// The bytes that the owner signs. FROZEN: existing clients verify them.
    pub fn signed_text(&self) -> String {
        let Self { mesh_id, mesh_slug, broker_url, expires_at, mesh_root_key, role, owner_pubkey, .. } = self;
        format!("1|{mesh_id}|{mesh_slug}|{broker_url}|{expires_at}|{mesh_root_key}|{role}|{owner_pubkey}")
    }

    /// The token: base64url of the JSON.
    pub fn to_token(&self) -> String {
        base64url(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a token of at most 4 KiB.
    ///
    /// # Errors
    /// [`BadToken`] when it is longer, or not base64url of an invite's JSON. The signature is not checked here.
    pub fn from_token(token: &str) -> Result<Self, BadToken> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(BadToken);
        }
        let bytes = from_base64url(token).ok_or(BadToken)?;
        serde_json::from_slice(&bytes).map_err(|_| BadToken)
    }
}

/// Body of `POST /join`. The fields are optional so that each can be refused with its own words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// The token as it stands in the link.
    #[serde(default)]
    pub invite_token: Option<String>,
    /// The token decoded.
    #[serde(default)]
    pub invite_payload: Option<serde_json::Value>,
    /// The newcomer's public key, 64 hex characters.
    #[serde(default)]
    pub peer_pubkey: Option<String>,
    /// The newcomer's name.
    #[serde(default)]
    pub display_name: Option<String>,
}

/// Answer of `POST /join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Whether the key is a member now.
    pub ok: bool,
    /// The member, with `ok`.
    #[serde(default, rename = "memberId", skip_serializing_if = "Option::is_none")]
    pub member_id: Option<MemberId>,
    /// Present when it was one before; the invite was not used then.
    #[serde(default, rename = "alreadyMember", skip_serializing_if = "Option::is_none")]
    pub already_member: Option<bool>,
    /// Why not, without `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An owner or admin registers a signed token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InviteCreate {
    /// The signed token.
    #[serde(default)]
    pub token: String,
    /// How often it can be redeemed, 1 to 1000; absent means once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<u32>,
}

/// The invite is registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InviteCreated {
    /// The invite.
    pub id: InviteId,
    /// The link to give away.
    pub url: String,
    /// What the newcomer may do.
    pub role: MemberRole,
    /// How often it can be redeemed.
    pub max_uses: u32,
    /// Until when.
    pub expires_at: Timestamp,
}

/// Every invite of the mesh, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteListResponse {
    /// The invites; no token is ever shown again.
    pub invites: Vec<Invite>,
}

/// One invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Invite {
    /// The invite.
    pub id: InviteId,
    /// What the newcomer may do.
    pub role: MemberRole,
    /// How often it can be redeemed.
    pub max_uses: u32,
    /// How often it was.
    pub used_count: u32,
    /// Until when.
    pub expires_at: Timestamp,
    /// Since when.
    pub created_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// An owner or admin takes an invite back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRevoke {
    /// The invite.
    #[serde(default)]
    pub id: String,
}

/// What became of the revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRevokeResponse {
    /// As asked.
    pub id: String,
    /// The outcome.
    pub status: InviteRevokeStatus,
}

/// The outcome of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InviteRevokeStatus {
    /// Nobody can redeem it any more (also when it was revoked before).
    Revoked,
    /// The mesh has no such invite.
    NotFound,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back() {
        let payload = InvitePayload {
            v: 1,
            mesh_id: "mesh1".into(),
            mesh_slug: "slug".into(),
            broker_url: "wss://h/ws".into(),
            expires_at: 1_700_000_000,
            mesh_root_key: "AAAA".into(),
            role: "member".into(),
            owner_pubkey: "8a".into(),
            signature: "b6".into(),
        };
        assert_eq!(payload.signed_text(), "1|mesh1|slug|wss://h/ws|1700000000|AAAA|member|8a");
        assert_eq!(InvitePayload::from_token(&payload.to_token()), Ok(payload));
        assert_eq!(InvitePayload::from_token("e30"), Err(BadToken));
        assert_eq!(InvitePayload::from_token(&"A".repeat(5000)), Err(BadToken));
    }
}
