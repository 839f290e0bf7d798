//! For tests: a home of one's own and memberships to put into it.

use std::sync::Arc;

use claudemesh_keys::Identity;
use claudemesh_proto::{MemberId, MeshId};
use tempfile::TempDir;

use crate::config::Membership;
use crate::home::Home;

/// A home that does not exist yet, in a directory that is removed when dropped.
pub(crate) fn home() -> (TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("home"));
    (dir, home)
}

/// A membership whose ids and key all come from `seed`.
pub(crate) fn membership(slug: &str, seed: u8) -> Membership {
    Membership {
        mesh_id: MeshId::from_random([seed; 32]),
        member_id: MemberId::from_random([seed; 32]),
        slug: slug.into(),
        name: slug.into(),
        broker_url: "ws://127.0.0.1:7900/ws".parse().unwrap(),
        joined_at: "2026-01-02T03:04:05.678Z".into(),
        identity: Arc::new(Identity::from_seed([seed; 32])),
    }
}
