//! A message on its way to the store and what became of it, by whatever interface it came.

use claudemesh_proto::message::Outgoing;
use claudemesh_proto::{DisplayName, MemberId, MeshId, Priority, PublicKey};
use claudemesh_store::{Appended, NewMessage, StoreError};

use crate::app::App;
use crate::metrics::Refused;

/// The member that sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender<'a> {
    pub(crate) mesh_id: &'a MeshId,
    pub(crate) id: &'a MemberId,
    pub(crate) pubkey: PublicKey,
    pub(crate) name: &'a DisplayName,
}

/// The message as it is kept: sealed with the member's own key, by a client that reaches the keys of topics.
pub(crate) fn new_message(sender: Sender<'_>, outgoing: Outgoing) -> NewMessage {
    NewMessage {
        mesh_id: sender.mesh_id.clone(),
        sender_member_id: sender.id.clone(),
        sender_member_pubkey: sender.pubkey,
        sender_pubkey: sender.pubkey,
        sender_name: sender.name.clone(),
        target: outgoing.target,
        target_is_open: false,
        priority: outgoing.priority,
        nonce: outgoing.nonce,
        ciphertext: outgoing.ciphertext,
        ext: outgoing.ext,
        client_message_id: outgoing.client_message_id,
        request_fingerprint: outgoing.request_fingerprint,
        post: outgoing.post,
        knows_topics: true,
    }
}

/// Counts what the store answered.
pub(crate) fn count(app: &App, priority: Priority, appended: &Result<Appended, StoreError>) {
    let why = match appended {
        Ok(Appended::Kept(_) | Appended::Posted(_)) => return app.metrics.routed(priority),
        Ok(Appended::Blocked) => {
            app.metrics.dropped_by_grant();
            Refused::Forbidden
        }
        Ok(Appended::NoTopic | Appended::TopicEncrypted | Appended::SenderRevoked) => Refused::Forbidden,
        Ok(Appended::NoRecipient) => Refused::NoRecipient,
        Ok(Appended::MeshFull | Appended::TopicsFull | Appended::QueueFull) => Refused::QueueFull,
        Ok(Appended::Reused) => Refused::Invalid,
        Err(error) => failed(error),
    };
    app.metrics.refused(why);
}

/// As what it counts that the store did not answer.
pub(crate) fn failed(error: &StoreError) -> Refused {
    match error {
        StoreError::Refused(_) => Refused::Invalid,
        StoreError::Unavailable(_) => Refused::Unavailable,
    }
}
