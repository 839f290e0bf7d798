//! `claudemesh visible`

use serde_json::json;

use crate::args::Visible;
use crate::context::Context;

pub(crate) async fn run(context: &Context, asked: &Visible) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let visible = asked.visible;
    let said = context.on_line_of_session(&mesh, async |line| Ok(line.connection().set_visible(visible).await?));
    said.await?;
    context.output.data(&json!({ "visible": visible }), |_| {
        (if visible { "Others see you." } else { "Others do not see you." }).to_owned()
    })
}
