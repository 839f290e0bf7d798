//! `claudemesh summary`

use claudemesh_client::{Connection, Said};
use claudemesh_proto::text::one_line;
use serde_json::json;

use crate::args::Summary;
use crate::context::Context;

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
