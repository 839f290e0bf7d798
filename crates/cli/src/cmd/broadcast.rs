//! `claudemesh send` to a group or everybody.

use claudemesh_client::{Audience, Broadcast};
use claudemesh_proto::message::{Delivery, MessageStatusResult};
use claudemesh_proto::text::one_line;
use claudemesh_proto::{DeliveryState, MessageId, Priority};
use serde_json::json;

use crate::cmd::msg_status::recipients;
use crate::cmd::send::{PATIENCE, notice, sending};
use crate::context::Context;

pub(crate) async fn run(context: &Context, to: &Audience, priority: Priority, text: &str) -> anyhow::Result<()> {
    let send = Broadcast { to, priority, text }.compose()?;
    let mesh = context.mesh()?;
    let (id, reached) = sending(context, &mesh, async |line| {
        let id = line.send(&send).await?;
        // It is accepted whatever this finds, so not finding out fails nothing.
        let reached = line.connection().await_delivery(id.as_str(), PATIENCE).await.ok();
        Ok((id, reached))
    })
    .await?;
    report(context, to, &id, reached.as_ref())
}

fn report(
    context: &Context,
    to: &Audience,
    id: &MessageId,
    reached: Option<&MessageStatusResult>,
) -> anyhow::Result<()> {
    let value = json!({
        "messageId": id,
        "to": { "audience": to.to_string() },
        "encrypted": false,
        "recipients": reached.map(|status| &status.recipients),
    });
    let printed = context.output.data(&value, |output| {
        let table = reached.map(|status| recipients(output, status)).filter(|table| !table.is_empty());
        format!("sent  {id}  to {to}{}", table.map(|table| format!("\n{table}")).unwrap_or_default())
    });
    if printed.is_err() {
        // Whoever believes that it failed sends it again.
        context.output.notice(&format!("The message is sent: {id}."));
    }
    printed?;
    for line in notices(reached.map_or(&[], |status| &status.recipients)) {
        context.output.notice(&line);
    }
    if reached.is_some_and(|status| status.recipients.is_empty()) {
        context.output.notice(&match to {
            Audience::Group(name) => format!("warning: it reaches nobody: nobody but you is in {name} or below it"),
            Audience::Everybody | Audience::All => "warning: it reaches nobody: nobody else is there".into(),
        });
    }
    context.output.notice(NOT_ENCRYPTED);
    Ok(())
}

/// What there is to say of those who do not have it.
fn notices(recipients: &[Delivery]) -> Vec<String> {
    let late: Vec<_> = recipients.iter().filter(|one| one.state != DeliveryState::Delivered).collect();
    let said = late.iter().take(NAMED);
    let said = said.filter_map(|one| notice(&one_line(&one.name), one.state, Some(one.status)));
    let more = late.len().checked_sub(NAMED).filter(|more| *more > 0);
    said.chain(more.map(|more| format!("{more} more do not have it yet."))).collect()
}

const NOT_ENCRYPTED: &str =
    "Not encrypted: the broker can read what goes to a group or to everybody. To one alone it is sealed.";

/// Recipients that get a line of their own; a mesh may have a thousand.
const NAMED: usize = 10;

#[cfg(test)]
mod tests {
    use claudemesh_proto::PublicKey;
    use claudemesh_proto::message::RecipientStatus;

    use super::*;

    fn recipient(name: &str, state: DeliveryState, status: RecipientStatus) -> Delivery {
        Delivery { name: name.into(), pubkey: PublicKey::from_bytes([1; 32]), status, state, delivered_at: None }
    }

    #[test]
    fn who_does_not_have_it_is_named_and_a_crowd_is_counted() {
        let two = [
            recipient("Ann", DeliveryState::Delivered, RecipientStatus::Delivered),
            recipient("Ben", DeliveryState::Queued, RecipientStatus::Disconnected),
        ];
        assert_eq!(notices(&two), ["Ben is offline; the broker keeps it until Ben comes, or it expires."]);
        let crowd = vec![recipient("x", DeliveryState::Held, RecipientStatus::Held); 13];
        assert_eq!(notices(&crowd).len(), 11);
        assert_eq!(notices(&crowd).last().unwrap(), "3 more do not have it yet.");
    }
}
