//! `claudemesh summary`

use claudemesh_proto::text::one_line;
use serde_json::json;

use crate::args::Summary;
use crate::context::Context;

pub(crate) async fn run(context: &Context, asked: &Summary) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let summary = one_line(&asked.text.join(" "));
    let said =
        context.on_line_of_session(&mesh, async |line| Ok(line.connection().set_summary(summary.clone()).await?));
    said.await?;
    context.output.data(&json!({ "summary": summary }), |_| {
        if summary.is_empty() { "Said to work on nothing.".to_owned() } else { format!("Said to work on: {summary}") }
    })
}
