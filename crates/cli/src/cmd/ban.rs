//! `claudemesh ban`, `claudemesh unban` and `claudemesh bans`

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use claudemesh_client::{Line, Roster, key_prefix};
use serde_json::json;

use crate::context::Context;
use crate::table::table;

/// Remove a member from the mesh: nothing reaches it or comes from it any more; for admins
#[derive(Debug, Args)]
#[command(after_help = "What waits for the member ends, and an unban does not bring it back.\n\nJSON: {banned: name}")]
pub(crate) struct Ban {
    /// A name, a member's key, or its first 12 characters or more
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) target: String,
}

/// Take a removed member back; for admins
#[derive(Debug, Args)]
#[command(after_help = "JSON: {unbanned: name}")]
pub(crate) struct Unban {
    /// A name, a member's key, or its first 12 characters or more
    pub(crate) target: String,
}

pub(crate) async fn ban(context: &Context, asked: &Ban) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let banning = async |line: &mut Line| {
        // A name that means two is told with its candidates, as everywhere; the broker gets a key, which means one.
        let whom = Roster::fetch(line.connection()).await?.resolve_member(&asked.target)?;
        Ok(line.connection().ban(&whom.key.to_string()).await?)
    };
    let name = context.on_line(&mesh, banning).await?;
    context.output.data(&json!({ "banned": name }), |_| {
        format!(
            "Removed {name}: its connections are closed, and nothing reaches it. Take it back: claudemesh unban {name}"
        )
    })
}

pub(crate) async fn unban(context: &Context, asked: &Unban) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let name = context.on_line(&mesh, async |line| Ok(line.connection().unban(&asked.target).await?)).await?;
    context.output.data(&json!({ "unbanned": name }), |_| format!("{name} is a member again."))
}

pub(crate) async fn list(context: &Context) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let bans = context.on_line(&mesh, async |line| Ok(line.connection().bans().await?)).await?;
    context.output.data(&json!({ "bans": bans }), |output| {
        let row = |ban: &claudemesh_proto::ban::Ban| {
            vec![ban.name.to_string(), key_prefix(&ban.pubkey), ban.revoked_at.to_string()]
        };
        table(output, &["NAME", "KEY", "REMOVED"], &bans.iter().map(row).collect::<Vec<_>>())
    })?;
    if bans.is_empty() {
        context.output.notice("Nobody was removed from this mesh.");
    }
    Ok(())
}
