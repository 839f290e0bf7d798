//! `claudemesh ban`, `claudemesh unban` and `claudemesh bans`

use claudemesh_client::{Line, Roster, key_prefix};
use serde_json::json;

use crate::args::{Ban, Unban};
use crate::context::Context;
use crate::table::table;

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
