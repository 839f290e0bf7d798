//! Posting over HTTP: the same message as over the WebSocket, in the name of the member whose key it is.

use claudemesh_proto::message::{Invalid, Send, Target};
use claudemesh_proto::{MessageId, TopicSought};
use claudemesh_store::{Access, Appended, Closed, StoreError, Topic};

use crate::app::App;
use crate::calls::notification;
use crate::calls::outgoing::{Sender, count, failed, new_message};
use crate::metrics::Refused;

/// A message that is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) topic: Topic,
    pub(crate) message_id: MessageId,
    /// How many were notified; 0 for a message that was kept before.
    pub(crate) notified: usize,
    pub(crate) reply_to_id: Option<String>,
    pub(crate) body_version: i64,
    /// Its number in the topic, unless it was kept before.
    pub(crate) seq: Option<i64>,
}

/// Why a message was not posted.
#[derive(Debug)]
pub(crate) enum NotPosted {
    TooOften,
    TooLarge,
    Invalid(Invalid),
    Shut(Closed),
    /// It is a plaintext, and the topic has a key.
    Encrypted,
    /// Its client's id was used for another message.
    Reused,
    /// The topics of the mesh hold too much.
    Full,
    /// The sender was removed.
    Removed,
    Failed(StoreError),
}

impl From<StoreError> for NotPosted {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// Posts a message into a topic.
pub(crate) async fn post(app: &App, access: &Access, topic: &TopicSought, send: Send) -> Result<Kept, NotPosted> {
    let refused = |why, refusal| {
        app.metrics.refused(why);
        refusal
    };
    if !app.limits.may_send(&access.mesh_id, &access.member_id, app.clock.now()) {
        return Err(refused(Refused::RateLimit, NotPosted::TooOften));
    }
    if send.size_bytes() > app.settings.config.max_message_bytes {
        return Err(refused(Refused::TooLarge, NotPosted::TooLarge));
    }
    let found = app.store.topic((&access.mesh_id, &access.member_id), topic).await;
    let topic = match found.inspect_err(|error| app.metrics.refused(failed(error)))? {
        Ok(topic) => topic,
        Err(closed) => return Err(refused(Refused::Forbidden, NotPosted::Shut(closed))),
    };
    let outgoing = send.check(Target::Topic(topic.id.clone()));
    let outgoing = outgoing.map_err(|why| refused(Refused::Invalid, NotPosted::Invalid(why)))?;
    let body_version = outgoing.post.as_ref().map_or(1, |post| post.body_version.into());
    let priority = outgoing.priority;
    let sender = Sender {
        mesh_id: &access.mesh_id,
        id: &access.member_id,
        pubkey: access.member_pubkey,
        name: &access.display_name,
    };
    // Whoever reaches this interface reaches the topic's key, too.
    let appended = app.store.append(new_message(sender, outgoing)).await.await;
    count(app, priority, &appended);
    kept(app, access, (topic, body_version), appended?)
}

fn kept(
    app: &App,
    access: &Access,
    (topic, body_version): (Topic, i64),
    appended: Appended,
) -> Result<Kept, NotPosted> {
    Err(match appended {
        Appended::Posted(posted) => {
            notification::tell(app, (&access.mesh_id, &access.display_name), &posted);
            let notified = posted.notified.len();
            let (message_id, reply_to_id, seq) = (posted.message_id, posted.reply_to_id, Some(posted.seq));
            return Ok(Kept { topic, message_id, notified, reply_to_id, body_version, seq });
        }
        Appended::Kept(message_id) => {
            return Ok(Kept { topic, message_id, notified: 0, reply_to_id: None, body_version, seq: None });
        }
        Appended::TopicEncrypted => NotPosted::Encrypted,
        Appended::Reused => NotPosted::Reused,
        Appended::TopicsFull => {
            app.metrics.refused(Refused::QueueFull);
            return Err(NotPosted::Full);
        }
        Appended::SenderRevoked => NotPosted::Removed,
        // The others are of messages for people.
        _ => NotPosted::Shut(Closed::NotFound),
    })
}
