//! `claudemesh group join`, `group leave`, `group list`

use claudemesh_proto::GroupName;
use claudemesh_proto::hello::Group as InGroup;
use claudemesh_proto::text::one_line;
use serde_json::json;

use crate::args::{Group, GroupWhat};
use crate::context::Context;
use crate::table::table;

pub(crate) async fn run(context: &Context, asked: Group) -> anyhow::Result<()> {
    match asked.what {
        GroupWhat::Join { name, role } => join(context, &name, role.as_deref()).await,
        GroupWhat::Leave { name } => leave(context, &name).await,
        GroupWhat::List => list(context).await,
    }
}

async fn join(context: &Context, name: &GroupName, role: Option<&str>) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    context.on_line(&mesh, async |line| Ok(line.connection().join_group(name, role).await?)).await?;
    let value = json!({ "group": name, "role": role, "status": "joined" });
    context.output.data(&value, |_| format!("You are in {name} now: what is sent to @{name} reaches you."))
}

async fn leave(context: &Context, name: &GroupName) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    context.on_line(&mesh, async |line| Ok(line.connection().leave_group(name).await?)).await?;
    context.output.data(&json!({ "group": name, "status": "left" }), |_| format!("You are in {name} no more."))
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    // A fresh connection that names no groups shows those of its member.
    let groups = context.on_line(&mesh, async |line| {
        let peers = line.connection().peers().await?;
        let own = peers.into_iter().find(|peer| peer.session_id == line.session_id());
        Ok(own.map(|own| own.groups).unwrap_or_default())
    });
    let groups = groups.await?;
    context.output.data(&json!({ "groups": groups }), |output| {
        let row =
            |InGroup { name, role }: &InGroup| vec![one_line(name), role.as_deref().map(one_line).unwrap_or_default()];
        table(output, &["GROUP", "ROLE"], &groups.iter().map(row).collect::<Vec<_>>())
    })?;
    if groups.is_empty() {
        context.output.notice("You are in no group. Join one: claudemesh group join NAME");
    }
    Ok(())
}
