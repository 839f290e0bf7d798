//! What is told of comings and goings. Whoever hides, and a command that only asks, come and go unseen.

use claudemesh_keys::random_bytes;
use claudemesh_proto::Timestamp;
use claudemesh_proto::event::{SystemEvent, uuid};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::hub::Presence;

/// What happened to a presence that others see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It is here, and was not before: its member never, or it is a session.
    Joined,
    /// Its member is back.
    Returned,
    Left,
    Visible,
    Hidden,
}

impl News {
    /// What is told of a presence that has just connected.
    pub(super) fn of_arrival(presence: &Presence) -> Self {
        if presence.returns.is_some() { Self::Returned } else { Self::Joined }
    }

    fn event(self) -> &'static str {
        match self {
            Self::Joined => "peer_joined",
            Self::Returned => "peer_returned",
            Self::Left => "peer_left",
            Self::Visible => "peer_visible",
            Self::Hidden => "peer_hidden",
        }
    }
}

/// The text to tell, the same for everybody; none without an id to give it.
pub(super) fn text(news: News, of: &Presence, now: Timestamp) -> Option<Utf8Bytes> {
    let id = uuid(random_bytes().ok()?);
    let data = data(news, of);
    Some(SystemEvent::new(&id, &of.mesh_id, now, (news.event(), &data)).to_json().into())
}

fn data(news: News, of: &Presence) -> Value {
    let peer = &of.peer;
    // Existing clients read the one or the other name.
    let mut data = json!({"name": peer.display_name, "displayName": peer.display_name, "pubkey": peer.pubkey});
    let mut add = |name: &str, value: Value| {
        if let Some(fields) = data.as_object_mut() {
            fields.insert(name.to_owned(), value);
        }
    };
    if matches!(news, News::Joined | News::Returned | News::Left) {
        add("groups", json!(peer.groups));
    }
    if let (News::Returned, Some(returns)) = (news, &of.returns) {
        add("lastSeenAt", json!(returns.last_seen_at));
        if let Some(summary) = &returns.summary {
            add("summary", json!(summary));
        }
    }
    data
}
