//! `claudemesh send`

use std::io::{self, Read};
use std::time::Duration;

use clap::Args;
use claudemesh_client::{
    Addressee, Audience, Cipher, Connection, Draft, Error, Line, MAX_TEXT_BYTES, Membership, Roster,
};
use claudemesh_proto::Priority;
use claudemesh_proto::message::{Delivery, RecipientStatus};
use claudemesh_proto::{DeliveryState, MessageId};
use serde_json::json;

use crate::cmd::broadcast;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, IN_PARTS};
use crate::parse;

/// Send a message: to one, sealed for that one alone, or to a group or everybody, NOT encrypted
#[derive(Debug, Args)]
#[command(
    after_help = "What goes to @GROUP or * is not encrypted: the broker can read it, and so can whoever reads its database. @GROUP \
    reaches everybody in GROUP and in GROUP/anything, also those who are away; * and @all mean everybody but you.\n\n\
    A member's name reaches whichever of the member's connections comes for the mail; a session's own \
    name reaches that session. A name that means more than one is refused with the candidates.\n\n\
    JSON: {messageId, to: {name, pubkey}, encrypted: true, state: \"delivered\"|\"queued\"|\"claimed\"|\"held\"|\"expired\"|\"revoked\", \
    status: \"delivered\"|\"held\"|\"disconnected\"|null}; to many: {messageId, to: {audience}, encrypted: false, \
    recipients: [{name, pubkey, status, state, deliveredAt?}]|null}"
)]
pub(crate) struct Send {
    /// A name, a key, or the first 8 characters of a key or more; @GROUP or '*' for many
    pub(crate) who: String,
    /// What to say; - reads it from standard input
    #[arg(required = true)]
    pub(crate) text: Vec<String>,
    /// now interrupts, next waits for a free moment, low for idle time
    #[arg(long, default_value = "next", value_parser = parse::priority)]
    pub(crate) priority: Priority,
}

pub(crate) async fn run(context: &Context, asked: Send) -> anyhow::Result<()> {
    let audience = Audience::named(&asked.who)?;
    let mesh = context.mesh()?;
    let text = text(&asked.text)?;
    if let Some(audience) = audience {
        return broadcast::run(context, &audience, asked.priority, &text).await;
    }
    let (to, id, reached) = sending(context, &mesh, async |line| {
        let to = Roster::fetch(line.connection()).await?.resolve(&asked.who)?;
        let draft = Draft { to: &to.key, reference: &asked.who, priority: asked.priority, text: &text };
        let send = Cipher::new(mesh.identity.clone()).compose(&draft)?;
        let id = line.send(&send).await.map_err(|error| refusal(error, to.key == mesh.identity.public()))?;
        let reached = reached(line.connection(), &id).await;
        Ok((to, id, reached))
    })
    .await?;
    report(context, &to, &id, reached.as_ref())
}

/// Talks to the broker; when it cannot be reached, says that nothing happened.
pub(crate) async fn sending<T>(
    context: &Context,
    mesh: &Membership,
    talk: impl AsyncFnOnce(&mut Line) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut is_open = false;
    let sent = context.on_line_of_topics(mesh, async |line| {
        is_open = true;
        talk(line).await
    });
    let sent = sent.await;
    let refusal = sent.as_ref().err().and_then(|error| error.downcast_ref());
    if refusal.is_some_and(Error::is_rate_limit) {
        context.output.notice("Nothing was sent; try again in a moment.");
    } else if sent.is_err() && !is_open {
        context.output.notice("Nothing was sent or kept.");
    }
    sent
}

/// A broker knows nobody else of our key; only we know that it is ours.
fn refusal(error: Error, is_to_us: bool) -> anyhow::Error {
    match &error {
        Error::NotAccepted(words) if is_to_us && words.starts_with("no connected peer") => {
            let text = "that is you, and you have no other session here that could get it".into();
            Failure { exit: Exit::NotFound, text }.into()
        }
        _ => error.into(),
    }
}

pub(crate) fn text(words: &[String]) -> anyhow::Result<String> {
    let text = match words {
        [only] if only == "-" => from_stdin()?,
        words => words.join(" "),
    };
    if text.is_empty() { Err(Failure::bad_arguments("there is nothing to send: the text is empty")) } else { Ok(text) }
}

fn from_stdin() -> anyhow::Result<String> {
    // One byte more than may be sent is enough to know that it is too much; the newline at its end is not sent.
    let limit = u64::try_from(MAX_TEXT_BYTES + 2)?;
    let mut bytes = Vec::new();
    io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.len() > MAX_TEXT_BYTES {
        let text = format!("standard input holds more than the {MAX_TEXT_BYTES} bytes of a message\ntry: {IN_PARTS}");
        return Err(Failure::bad_arguments(text));
    }
    String::from_utf8(bytes).map_err(|_| Failure::bad_arguments(NOT_TEXT))
}

/// How far the message got in a moment. It is accepted whatever this finds, so not finding out fails nothing.
async fn reached(connection: &Connection, id: &MessageId) -> Option<Delivery> {
    let status = connection.await_delivery(id.as_str(), PATIENCE).await.ok()?;
    status.recipients.into_iter().next()
}

fn report(context: &Context, to: &Addressee, id: &MessageId, reached: Option<&Delivery>) -> anyhow::Result<()> {
    let name = to.name.clone().or_else(|| reached.map(|delivery| claudemesh_proto::text::one_line(&delivery.name)));
    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| to.to_string());
    let state = reached.map_or(DeliveryState::Queued, |delivery| delivery.state);
    let value = json!({
        "messageId": id,
        "to": { "name": to.name, "pubkey": to.key },
        "encrypted": true,
        "state": state,
        "status": reached.map(|delivery| delivery.status),
    });
    let printed = context.output.data(&value, |_| format!("{}  {id}  to {name}", state.as_str()));
    if printed.is_err() {
        // Whoever believes that it failed sends it again.
        context.output.notice(&format!("The message is sent: {id}."));
    }
    printed?;
    if let Some(notice) = notice(&name, state, reached.map(|delivery| delivery.status)) {
        context.output.notice(&notice);
    }
    Ok(())
}

pub(crate) fn notice(name: &str, state: DeliveryState, status: Option<RecipientStatus>) -> Option<String> {
    match (state, status) {
        (DeliveryState::Delivered, _) => None,
        (DeliveryState::Expired | DeliveryState::Revoked, _) => Some(format!("{name} will not get it.")),
        (DeliveryState::Held, _) => Some(format!("{name} is busy and gets it when free; --priority now interrupts.")),
        (DeliveryState::Claimed, _) => Some(format!("{name} was handed it and has not confirmed yet.")),
        (DeliveryState::Queued, Some(RecipientStatus::Disconnected)) => {
            Some(format!("{name} is offline; the broker keeps it until {name} comes, or it expires."))
        }
        (DeliveryState::Queued, _) => {
            Some(format!("{name} is not taking mail just now; the broker keeps it until it does, or it expires."))
        }
    }
}

const NOT_TEXT: &str =
    "standard input is not UTF-8 text, which a message must be\ntry: convert it with iconv, or send it as base64";

/// How long to look whether it arrives. Longer than any recipient that is listening needs, short enough to wait for.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipient_that_does_not_drain_is_said_so() {
        let away = notice("Ben", DeliveryState::Queued, Some(RecipientStatus::Disconnected)).unwrap();
        assert_eq!(away, "Ben is offline; the broker keeps it until Ben comes, or it expires.");
        assert_eq!(notice("Ben", DeliveryState::Delivered, Some(RecipientStatus::Delivered)), None);
        assert!(notice("Ben", DeliveryState::Held, Some(RecipientStatus::Held)).unwrap().contains("busy"));
    }

    #[test]
    fn words_are_joined_and_nothing_is_refused() {
        assert_eq!(text(&["hello".into(), "there".into()]).unwrap(), "hello there");
        assert!(text(&[String::new()]).is_err());
    }
}
