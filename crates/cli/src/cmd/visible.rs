//! `claudemesh visible`

use clap::{ArgAction, Args};
use serde_json::json;

use super::set_status::of_session;
use crate::context::Context;
use crate::parse;

/// Show yourself to others, or hide
#[derive(Debug, Args)]
#[command(after_help = of_session!(
    "Who hides is in nobody else's list of peers, and what is sent to * and to groups does not come either; direct messages come as \
     before. ",
    "{visible: true|false}"
))]
pub(crate) struct Visible {
    /// on or off
    #[arg(value_parser = parse::switch, action = ArgAction::Set)]
    pub(crate) visible: bool,
}

pub(crate) async fn run(context: &Context, asked: &Visible) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let visible = asked.visible;
    let said = context.on_line_of_session(&mesh, async |line| Ok(line.connection().set_visible(visible).await?));
    said.await?;
    context.output.data(&json!({ "visible": visible }), |_| {
        (if visible { "Others see you." } else { "Others do not see you." }).to_owned()
    })
}
