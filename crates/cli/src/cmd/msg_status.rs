//! `claudemesh msg-status`

use clap::Args;
use claudemesh_client::key_prefix;
use claudemesh_proto::message::{Delivery, MessageStatusResult};
use claudemesh_proto::text::one_line;

use crate::context::Context;
use crate::output::Output;
use crate::parse;
use crate::table::table;

/// Show what became of a message
#[derive(Debug, Args)]
#[command(
    after_help = "JSON: {messageId, targetSpec, delivered, deliveredAt, recipients: [{name, pubkey, status, state, deliveredAt?}]}"
)]
pub(crate) struct MsgStatus {
    /// The id that send printed, or its first 8 characters or more
    #[arg(value_parser = parse::id_or_prefix)]
    pub(crate) id: String,
}

pub(crate) async fn run(context: &Context, asked: &MsgStatus) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let status = context.on_line(&mesh, async |line| Ok(line.connection().message_status(&asked.id).await?)).await?;
    context.output.data(&status, |output| recipients(output, &status))
}

/// Where it stands with each.
pub(crate) fn recipients(output: &Output, status: &MessageStatusResult) -> String {
    // An older broker says only when the last of them got it: with more than one that is nobody's time in particular.
    let of_all = status.delivered_at.filter(|_| status.recipients.len() == 1);
    let row = |delivery: &Delivery| {
        let at = delivery.delivered_at.or(of_all).map(|at| at.to_string()).unwrap_or_default();
        vec![one_line(&delivery.name), key_prefix(&delivery.pubkey), delivery.state.as_str().into(), at]
    };
    let rows: Vec<_> = status.recipients.iter().map(row).collect();
    table(output, &["RECIPIENT", "KEY", "STATE", "DELIVERED"], &rows)
}
