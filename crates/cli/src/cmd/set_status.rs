//! `claudemesh set-status`

use clap::Args;
use claudemesh_client::{Connection, Said};
use claudemesh_proto::Status;
use claudemesh_proto::presence::StatusSource;
use serde_json::json;

use crate::context::Context;
use crate::parse;

/// What is said about verbs that say something of a session.
macro_rules! of_session {
    ($words:literal, $json:literal) => {
        concat!(
            $words,
            "It is said of the session that this command runs in (CLAUDEMESH_SESSION_ID), else of all that you have here.\n\nJSON: ",
            $json
        )
    };
}
pub(super) use of_session;

/// Say how busy you are
#[derive(Debug, Args)]
#[command(after_help = of_session!(
    "In idle every message comes, in working and dnd only what was sent with --priority now; the rest is held until idle. Working \
     ends by itself some time after the last word, a minute unless the broker is set otherwise; nothing but another set-status ends \
     dnd. What is said by hand, of no session in particular, is kept, and \
     inbox --wait says it anew whenever it connects, until set-status idle. ",
    "{status: \"idle\"|\"working\"|\"dnd\"}"
))]
pub(crate) struct SetStatus {
    /// idle, working or dnd
    #[arg(value_parser = parse::status)]
    pub(crate) status: Status,
    /// Where it is known from: manual is somebody's word, jsonl was inferred from a transcript
    #[arg(long, default_value = "manual", value_parser = parse::source)]
    pub(crate) source: StatusSource,
}

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
