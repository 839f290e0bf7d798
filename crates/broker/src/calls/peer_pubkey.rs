//! A member changes its key, and shows that it has both.

use claudemesh_keys::{verify, x25519_public};
use claudemesh_proto::limits::MAX_CLOCK_SKEW;
use claudemesh_proto::{MemberId, MeshId, PublicKey, Signature, Timestamp, canonical};
use claudemesh_store::{KeyChange, KeyChanged, StoreError};

use crate::app::App;
use crate::close::Close;

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Change {
    /// The key that the member is to have.
    pub(crate) pubkey: PublicKey,
    pub(crate) proof: Option<Proof>,
}

/// Both keys' signatures.
#[derive(Debug)]
pub(crate) struct Proof {
    /// By the new key.
    pub(crate) signature: Signature,
    /// By the key that the member has.
    pub(crate) previous_signature: Signature,
    /// When they signed.
    pub(crate) timestamp: Timestamp,
}

/// Why a key stays what it is.
#[derive(Debug)]
pub(crate) enum NotChanged {
    /// Nobody could seal for the new key.
    Unusable,
    TimestampSkew,
    BadSignature,
    /// The member has been here, and the change is not signed.
    NeedsProof,
    /// The member's key has changed meanwhile.
    OtherKey,
    KeyInUse,
    NoMember,
    Unavailable(StoreError),
}

impl From<StoreError> for NotChanged {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error)
    }
}

/// Changes a member's key; whether it had another one. Its connections were opened with the old key, and end.
pub(crate) async fn change(
    app: &App,
    whose: (&MeshId, &MemberId),
    Change { pubkey, proof }: Change,
) -> Result<bool, NotChanged> {
    // A key that nobody could seal for must not become a member's.
    x25519_public(&pubkey).map_err(|_| NotChanged::Unusable)?;
    let (mesh_id, member_id) = whose;
    let from = app.store.peer_pubkey(mesh_id, member_id).await?.ok_or(NotChanged::NoMember)?;
    if let Some(proof) = &proof {
        if proof.timestamp.distance(app.clock.now()) > MAX_CLOCK_SKEW {
            return Err(NotChanged::TimestampSkew);
        }
        let at = proof.timestamp.as_millis();
        let signed = canonical::peer_pubkey(mesh_id.as_str(), member_id.as_str(), (&from, &pubkey), at);
        let by_both =
            verify(&pubkey, &signed, &proof.signature).and_then(|()| verify(&from, &signed, &proof.previous_signature));
        by_both.map_err(|_| NotChanged::BadSignature)?;
    }
    let change = KeyChange { from, to: pubkey, is_proven: proof.is_some() };
    match app.store.change_peer_pubkey(whose, &change).await? {
        KeyChanged::Done { changed } => {
            if changed {
                app.hub.end_all_of(mesh_id, member_id, Close::KEY_CHANGED);
                tracing::info!(mesh.id = %mesh_id, member.id = %member_id, "a member has another key");
            }
            Ok(changed)
        }
        KeyChanged::NoMember => Err(NotChanged::NoMember),
        KeyChanged::OtherKey => Err(NotChanged::OtherKey),
        KeyChanged::NeedsProof => Err(NotChanged::NeedsProof),
        KeyChanged::KeyInUse => Err(NotChanged::KeyInUse),
    }
}
