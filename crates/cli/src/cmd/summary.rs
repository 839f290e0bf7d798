//! `claudemesh summary`

use clap::Args;
use claudemesh_client::{Connection, Said};
use claudemesh_proto::text::one_line;
use serde_json::json;

use super::set_status::of_session;
use crate::context::Context;

/// Say what you work on
#[derive(Debug, Args)]
#[command(after_help = of_session!(
    "What is said of no session in particular is kept, and inbox --wait says it anew whenever it connects. ",
    "{summary}"
))]
pub(crate) struct Summary {
    /// One line, 512 characters at most; "" takes it back
    #[arg(required = true)]
    pub(crate) text: Vec<String>,
}

pub(crate) async fn run(context: &Context, asked: &Summary) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let summary = one_line(&asked.text.join(" "));
    let keep = |said: &mut Said| said.set_summary(&summary);
    let said = async |connection: &Connection| connection.set_summary(summary.clone()).await;
    let unheard = context.say_of_oneself(&mesh, Some(&keep), said).await?;
    context.output.data(&json!({ "summary": summary }), |_| {
        if summary.is_empty() { "Said to work on nothing.".to_owned() } else { format!("Said to work on: {summary}") }
    })?;
    if let Some(notice) = unheard {
        context.output.notice(notice);
    }
    Ok(())
}
