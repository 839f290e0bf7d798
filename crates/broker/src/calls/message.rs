//! Sending, acknowledging, and asking what became of a message.

use claudemesh_proto::message::{
    Ack, BadTarget, ClientAck, Delivery, Invalid, MessageStatus, MessageStatusResult, RecipientStatus, Send, Target,
};
use claudemesh_proto::{BrokerFrame, DeliveryState, ErrorCode, Priority, PublicKey};
use claudemesh_store::{Appended, NewMessage, Recipient, Settle, Settled, Step, StoreError};

use crate::app::App;
use crate::calls::outgoing::{self, Sender, new_message};
use crate::calls::{Live, member, notification};
use crate::fault::{Fault, UNAVAILABLE};
use crate::metrics::Refused;

/// The reference's words for a target that nobody answers to. Clients match on them.
const NO_RECIPIENT: &str =
    "no connected peer for target (not online, or targetSpec is your own key without another session)";

/// Decides whether a message may go to the store; the words of the refusal if not.
pub(crate) fn check(app: &App, live: &Live, send: Send) -> Result<NewMessage, String> {
    let (config, now) = (&app.settings.config, app.clock.now());
    if !app.limits.may_send(&live.mesh_id, &live.member_id, now) {
        app.metrics.refused(Refused::RateLimit);
        let (rate, burst) = (config.send_rate_per_min, config.send_burst);
        return Err(format!("rate_limit: max {rate} msg/min (burst {burst}) — slow down"));
    }
    let size = send.size_bytes();
    if size > config.max_message_bytes {
        app.metrics.refused(Refused::TooLarge);
        return Err(format!(
            "invalid: payload too large: {size} bytes > MAX_MESSAGE_BYTES={}",
            config.max_message_bytes
        ));
    }
    let invalid = |why: Invalid| {
        app.metrics.refused(Refused::Invalid);
        why.to_string()
    };
    let no_recipient = || {
        app.metrics.refused(Refused::NoRecipient);
        NO_RECIPIENT.to_owned()
    };
    let target = match send.target_spec.parse() {
        Ok(target) => target,
        Err(BadTarget::Malformed) => {
            let why = "must be a member's or session's key, *, @all, @group or #topic-id";
            return Err(invalid(Invalid { field: "targetSpec", why }));
        }
        Err(BadTarget::Nobody) => return Err(no_recipient()),
    };
    let outgoing = send.check(target).map_err(invalid)?;
    let key = if let Target::Key(key) = &outgoing.target { Some(*key) } else { None };
    if key.is_some_and(|key| is_only_oneself(app, live, &key)) {
        return Err(no_recipient());
    }
    let sender =
        Sender { mesh_id: &live.mesh_id, id: &live.member_id, pubkey: live.member_pubkey, name: &live.display_name };
    Ok(NewMessage {
        sender_pubkey: live.sender_pubkey,
        target_is_open: key.is_some_and(|key| app.hub.is_session_open(&live.mesh_id, &key)),
        knows_topics: live.knows_topics,
        ..new_message(sender, outgoing)
    })
}

/// A message to one's own key needs another session to go to: existing clients drop what comes back to its sender.
fn is_only_oneself(app: &App, live: &Live, target: &PublicKey) -> bool {
    let own_session = *target == live.sender_pubkey && *target != live.member_pubkey;
    let own_member = *target == live.member_pubkey;
    own_session || own_member && !app.hub.has_other(&live.mesh_id, &live.member_id, live.seat.presence_id())
}

/// The ack of a message that the store has answered for.
pub(crate) fn acknowledge(
    (app, live): (&App, &Live),
    (id, priority): (String, Priority),
    appended: Result<Appended, StoreError>,
) -> Ack {
    outgoing::count(app, priority, &appended);
    let error = match appended {
        Ok(Appended::Kept(message_id)) => {
            return Ack { id, message_id: message_id.to_string(), queued: true, error: None };
        }
        Ok(Appended::Posted(posted)) => {
            notification::tell(app, (&live.mesh_id, &live.display_name), &posted);
            return Ack { id, message_id: posted.message_id.to_string(), queued: true, error: None };
        }
        Ok(Appended::NoTopic) => "forbidden: no such topic for you",
        Ok(Appended::TopicEncrypted) => "forbidden: topic is encrypted",
        Ok(Appended::NoRecipient) => NO_RECIPIENT,
        Ok(Appended::Blocked) => "forbidden: blocked by recipient grants (sender lacks dm capability)",
        Ok(Appended::MeshFull) => "mesh queue full",
        Ok(Appended::TopicsFull) => "mesh topics full",
        Ok(Appended::QueueFull) => "recipient queue full",
        Ok(Appended::Reused) => "invalid: client_message_id was used with another request_fingerprint",
        Ok(Appended::SenderRevoked) => "forbidden: you were removed from this mesh",
        Err(StoreError::Refused(_)) => "invalid: message cannot be stored",
        Err(StoreError::Unavailable(_)) => UNAVAILABLE,
    };
    refuse(id, error.to_owned())
}

/// The ack of a message that was not accepted.
pub(crate) fn refuse(id: String, error: String) -> Ack {
    Ack { id, message_id: String::new(), queued: false, error: Some(error) }
}

/// An ack for a message that this connection does not hold: it may have been handed to an earlier one of the same recipient.
/// Without the broker's id it means nothing here.
pub(crate) fn settle_unheld(live: &Live, session: Option<PublicKey>, ack: &ClientAck) -> Option<Settle> {
    let message_id = ack.broker_message_id.as_deref()?.parse().ok()?;
    let member = Recipient::Member(live.member_id.clone());
    let recipients = std::iter::once(member).chain(session.map(Recipient::Session)).collect();
    Some(Settle {
        mesh_id: live.mesh_id.clone(),
        by: live.member_id.clone(),
        which: Settled::Message(message_id, recipients),
    })
}

/// The path of a message, for its sender, its recipients and admins; to anybody else it does not exist.
pub(crate) async fn status(app: &App, live: &Live, request: MessageStatus) -> Result<BrokerFrame, Fault> {
    let prefix = &request.message_id;
    if !(8..=32).contains(&prefix.len()) || !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        let shown = prefix.chars().count();
        return Err(Fault::invalid(format!("messageId must be 8-32 base62 chars (got {shown})")));
    }
    let not_found = || Fault::new(ErrorCode::NotFound, "message not found");
    let path = app.store.message_path(&live.mesh_id, prefix).await?.ok_or_else(not_found)?;
    let concerns =
        path.sender_member_id == live.member_id || path.steps.iter().any(|step| step.member_id == live.member_id);
    if !concerns && !member::is_admin(app, live).await? {
        return Err(not_found());
    }
    let urgency = path.priority;
    let delivered = path.steps.iter().all(|step| step.state == DeliveryState::Delivered);
    Ok(BrokerFrame::MessageStatusResult(MessageStatusResult {
        message_id: request.message_id,
        target_spec: path.target_spec,
        delivered,
        delivered_at: path.steps.iter().filter_map(|step| step.ended_at).max().filter(|_| delivered),
        recipients: path.steps.iter().map(|step| delivery(app, live, step, urgency)).collect(),
    }))
}

fn delivery(app: &App, live: &Live, step: &Step, urgency: Priority) -> Delivery {
    let status = match step.state {
        DeliveryState::Delivered => RecipientStatus::Delivered,
        _ if app.hub.is_draining(&live.mesh_id, &step.recipient) => RecipientStatus::Held,
        _ => RecipientStatus::Disconnected,
    };
    let pubkey = match step.recipient {
        Recipient::Session(key) => key,
        Recipient::Member(_) => step.member_pubkey,
    };
    let waits_for_rest = step.state == DeliveryState::Queued
        && urgency != Priority::Now
        && app.hub.is_busy(&live.mesh_id, &step.recipient);
    let state = if waits_for_rest { DeliveryState::Held } else { step.state };
    let delivered_at = step.ended_at.filter(|_| step.state == DeliveryState::Delivered);
    Delivery { name: step.display_name.to_string(), pubkey, status, state, delivered_at }
}
