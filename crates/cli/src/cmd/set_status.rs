//! `claudemesh set-status`

use claudemesh_client::{Connection, Said};
use claudemesh_proto::presence::StatusSource;
use serde_json::json;

use crate::args::SetStatus;
use crate::context::Context;

pub(crate) async fn run(context: &Context, asked: &SetStatus) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let SetStatus { status, source } = *asked;
    let keep = |said: &mut Said| said.set_status(status);
    // What was inferred is not somebody's word.
    let keep: Option<&dyn Fn(&mut Said)> = if source == StatusSource::Manual { Some(&keep) } else { None };
    let said = async |connection: &Connection| connection.set_status(status, source).await;
    let unheard = context.say_of_oneself(&mesh, keep, said).await?;
    context.output.data(&json!({ "status": status }), |_| format!("Said to be {}.", status.as_str()))?;
    if let Some(notice) = unheard {
        context.output.notice(notice);
    }
    Ok(())
}
