//! Who mentioned us.

use claudemesh_proto::text::one_line;
use claudemesh_proto::{DisplayName, MessageId, NotificationId, Timestamp, TopicId, TopicName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api_key::Bearer;
use crate::error::Result;

/// One notification.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// The message.
    pub id: MessageId,
    /// The notification.
    pub notification_id: NotificationId,
    /// Where it was written.
    pub topic_id: TopicId,
    /// Its name.
    pub topic_name: TopicName,
    /// Who wrote it.
    pub sender_name: String,
    /// What it is for: `mention`.
    pub kind: String,
    /// Since when it is read.
    #[serde(default)]
    pub read_at: Option<Timestamp>,
    /// When it was written.
    pub created_at: Timestamp,
}

/// Somebody mentions us just now.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mention {
    /// The message.
    pub message_id: MessageId,
    /// Where it was written.
    pub topic_name: TopicName,
    /// Who wrote it.
    pub sender_name: DisplayName,
}

impl Mention {
    /// The mention that an event of the broker tells of; `None` for every other event.
    pub(crate) fn in_event(text: &str) -> Option<Self> {
        let event: Event = serde_json::from_str(text).ok()?;
        if event.event == "notification" { serde_json::from_value(event.event_data).ok() } else { None }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    event: String,
    event_data: Value,
}

impl Bearer {
    /// Notifications of ours since a time, newest first; 50 at most.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn notifications(&self, since: Timestamp, unread_only: bool) -> Result<Vec<Notification>> {
        let unread = if unread_only { "&unread=1" } else { "" };
        let mut answer: Answer = self.get(&format!("/v1/notifications?since={since}{unread}")).await?;
        for one in &mut answer.notifications {
            one.sender_name = one_line(&one.sender_name);
            one.kind = one_line(&one.kind);
        }
        Ok(answer.notifications)
    }

    /// Marks these as read, or all when none are named. How many were named; not told of all.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn read_notifications(&self, ids: &[String]) -> Result<Option<u64>> {
        let body = if ids.is_empty() { json!({ "all": true }) } else { json!({ "ids": ids }) };
        let answer: Marked = self.post("/v1/notifications/read", &body).await?;
        Ok(answer.marked.as_u64())
    }
}

#[derive(Deserialize)]
struct Marked {
    /// A count, or `all`.
    marked: Value,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    notifications: Vec<Notification>,
}
