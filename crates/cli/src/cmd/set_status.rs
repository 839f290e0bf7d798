//! `claudemesh set-status`

use serde_json::json;

use crate::args::SetStatus;
use crate::context::Context;

pub(crate) async fn run(context: &Context, asked: &SetStatus) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let SetStatus { status, source } = *asked;
    let said = context.on_line_of_session(&mesh, async |line| Ok(line.connection().set_status(status, source).await?));
    said.await?;
    context.output.data(&json!({ "status": status }), |_| format!("Said to be {}.", status.as_str()))
}
