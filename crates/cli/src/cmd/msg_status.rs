//! `claudemesh msg-status`

use claudemesh_client::key_prefix;
use claudemesh_proto::message::{Delivery, MessageStatusResult};
use claudemesh_proto::text::one_line;

use crate::args::MsgStatus;
use crate::context::Context;
use crate::output::Output;
use crate::table::table;

pub(crate) async fn run(context: &Context, asked: &MsgStatus) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let status = context.on_line(&mesh, async |line| Ok(line.connection().message_status(&asked.id).await?)).await?;
    context.output.data(&status, |output| recipients(output, &status))
}

/// Where it stands with each.
pub(crate) fn recipients(output: &Output, status: &MessageStatusResult) -> String {
    // The broker says when the last of them got it: with more than one that is nobody's time in particular.
    let is_one = status.recipients.len() == 1;
    let row = |delivery: &Delivery| {
        let mut row = vec![one_line(&delivery.name), key_prefix(&delivery.pubkey), delivery.state.as_str().into()];
        row.extend(is_one.then(|| status.delivered_at.map(|at| at.to_string()).unwrap_or_default()));
        row
    };
    let rows: Vec<_> = status.recipients.iter().map(row).collect();
    let heads = ["RECIPIENT", "KEY", "STATE", "DELIVERED"];
    table(output, heads.get(..if is_one { 4 } else { 3 }).unwrap_or(&heads), &rows)
}
