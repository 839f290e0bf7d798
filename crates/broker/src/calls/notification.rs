//! Telling who was mentioned. What is kept of it is written with the message.

use claudemesh_proto::event::{SystemEvent, uuid};
use claudemesh_proto::{DisplayName, MeshId};
use claudemesh_store::Posted;
use serde_json::json;

use crate::app::App;

/// Tells the connections of those who are mentioned that can be told.
pub(crate) fn tell(app: &App, (mesh_id, sender): (&MeshId, &DisplayName), posted: &Posted) {
    let now = app.clock.now();
    for (notification_id, member) in &posted.notified {
        // Without randomness nobody is told; the notification is there for whoever asks.
        let Ok(random) = claudemesh_keys::random_bytes() else { return };
        let data = json!({
            "notificationId": notification_id,
            "messageId": posted.message_id,
            "topicId": posted.topic_id,
            "topicName": posted.topic,
            "senderName": sender,
            "kind": "mention",
            "createdAt": now,
        });
        let id = uuid(random);
        let event = SystemEvent::new(&id, mesh_id, now, ("notification", &data));
        let is_meant = |presence: &crate::hub::Presence| presence.knows_topics && presence.member_id == *member;
        app.hub.shout(mesh_id, &event.to_json().into(), is_meant);
    }
}
