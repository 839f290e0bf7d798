//! `claudemesh kick` and `claudemesh disconnect`

use std::time::Duration;

use clap::Args;
use claudemesh_client::{Line, is_short_key};
use claudemesh_proto::ban::{SendAway as Request, SentAway};
use claudemesh_proto::limits::MIN_KEY_PREFIX;
use claudemesh_proto::text::one_line;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::parse;

/// Whose connections to close
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SendAway {
    /// A name, a member's or session's key, or its first 12 characters or more
    pub(crate) target: Option<String>,
    /// Everybody but this command
    #[arg(long)]
    pub(crate) all: bool,
    /// Whoever was silent for so long, such as 10min
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub(crate) stale: Option<Duration>,
}

pub(crate) async fn kick(context: &Context, asked: SendAway) -> anyhow::Result<()> {
    let (whom, request) = request(asked);
    let mesh = context.mesh()?;
    let kicking = async |line: &mut Line| Ok(line.connection().kick(request).await?);
    told(context, whom.as_deref(), context.on_line(&mesh, kicking).await?, "Kicked, and refused for a minute")
}

pub(crate) async fn disconnect(context: &Context, asked: SendAway) -> anyhow::Result<()> {
    let (whom, request) = request(asked);
    let mesh = context.mesh()?;
    let disconnecting = async |line: &mut Line| Ok(line.connection().disconnect(request).await?);
    told(context, whom.as_deref(), context.on_line(&mesh, disconnecting).await?, "Disconnected")
}

/// Whom it is about, when one was named, and how that is asked for.
fn request(asked: SendAway) -> (Option<String>, Request) {
    let SendAway { target, all, stale } = asked;
    let stale = stale.map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    (target.clone(), Request { target, stale, all: all.then_some(true) })
}

fn told(context: &Context, whom: Option<&str>, sent_away: SentAway, done: &str) -> anyhow::Result<()> {
    let skipped = sent_away.skipped_control_plane.unwrap_or_default();
    let closed = sent_away.kicked;
    if let Some(whom) = whom
        && closed.is_empty()
        && skipped.is_empty()
    {
        let short = if is_short_key(whom, MIN_KEY_PREFIX) {
            format!("; a key needs at least {MIN_KEY_PREFIX} characters here")
        } else {
            String::new()
        };
        let text = format!("nobody is connected who is meant by \"{}\"{short}", one_line(whom));
        return Err(Failure { exit: Exit::NotFound, text }.into());
    }
    let names = |names: &[String]| names.iter().map(|name| one_line(name)).collect::<Vec<_>>().join(", ");
    context.output.data(&json!({ "closed": closed, "skipped": skipped }), |_| {
        if closed.is_empty() { "Nobody was sent away.".into() } else { format!("{done}: {}.", names(&closed)) }
    })?;
    if !skipped.is_empty() {
        let left = names(&skipped);
        context.output.notice(&format!("Left alone, because daemons and commands do not heed a kick: {left}."));
    }
    Ok(())
}
