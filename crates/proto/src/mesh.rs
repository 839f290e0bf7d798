//! Making a mesh whose owner keeps the key: `POST /v1/meshes`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::{MemberId, MeshId};

/// A mesh's short name: `^[a-z0-9][a-z0-9-]{1,31}$`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slug(Box<str>);

/// The text is not a slug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 2-32 characters of a-z, 0-9 and -, not starting with -")]
pub struct BadSlug;

impl Slug {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = BadSlug;

    fn from_str(text: &str) -> Result<Self, BadSlug> {
        let fits = (2..=32).contains(&text.len())
            && !text.starts_with('-')
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        fits.then(|| Self(text.into())).ok_or(BadSlug)
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Slug {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Slug {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Body of `POST /v1/meshes`. The fields stay text so that each can be refused with its own code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshCreate {
    /// The short name.
    pub slug: String,
    /// The owner's public key; its secret half stays with the owner and signs invites.
    pub owner_pubkey: String,
    /// The first member, an admin.
    pub member: FirstMember,
    /// When it was signed, unix milliseconds.
    pub timestamp: i64,
    /// By the owner key over [`crate::canonical::mesh_create`], 128 hex characters.
    pub signature: String,
    /// By the member key over the same bytes.
    pub member_signature: String,
}

/// The creator as a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstMember {
    /// Its public key.
    pub pubkey: String,
    /// Its name.
    pub display_name: String,
}

/// The mesh exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshCreated {
    /// The mesh.
    pub mesh_id: MeshId,
    /// Its short name.
    pub slug: Slug,
    /// The creator.
    pub member_id: MemberId,
}

/// Why a mesh was not made: the `error` of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeshCreateError {
    /// 400: a key, a signature or the name has the wrong shape.
    Malformed,
    /// 400: a signature does not verify.
    BadSignature,
    /// 400: the signed time is more than a minute off.
    TimestampSkew,
    /// 403: this broker does not let this caller make meshes.
    CreationNotAllowed,
    /// 409: a mesh of this name exists.
    SlugTaken,
    /// 422: the name is not a slug.
    InvalidSlug,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_follow_their_pattern() {
        for text in ["ab", "0-", "my-mesh-2", &"a".repeat(32)] {
            assert!(text.parse::<Slug>().is_ok(), "{text}");
        }
        for text in ["", "a", "-a", "Ab", "a_b", "a b", &"a".repeat(33)] {
            assert_eq!(text.parse::<Slug>(), Err(BadSlug), "{text}");
        }
    }
}
