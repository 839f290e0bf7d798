//! `claudemesh group join`, `group leave`, `group list`

use clap::{Args, Subcommand};
use claudemesh_client::Line;
use claudemesh_proto::GroupName;
use claudemesh_proto::hello::Group as InGroup;
use claudemesh_proto::text::one_line;
use serde_json::json;

use crate::context::Context;
use crate::parse;
use crate::table::table;

/// Join, leave and list groups
#[derive(Debug, Args)]
#[command(
    after_help = "What is sent to @NAME reaches everybody in NAME and in NAME/anything. Groups are yours, whichever of your sessions joins them."
)]
pub(crate) struct Group {
    #[command(subcommand)]
    pub(crate) what: GroupWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupWhat {
    /// Join a group, or change your role in it
    #[command(after_help = "JSON: {group, role|null, status: \"joined\"}")]
    Join {
        /// 1-64 of a-z, 0-9 and _./-; case does not matter
        #[arg(value_parser = parse::new_group)]
        name: GroupName,
        /// What you are there
        #[arg(long)]
        role: Option<String>,
    },
    /// Leave a group
    #[command(
        after_help = "JSON: {group, status: \"left\"|\"was-not-in\"|\"still-in\"}; who has left all groups is in those that new \
        sessions start with"
    )]
    Leave {
        /// Its name
        #[arg(value_parser = parse::group)]
        name: GroupName,
    },
    /// List the groups that you are in
    #[command(after_help = "JSON: {groups: [{name, role?}]}")]
    List,
}

pub(crate) async fn run(context: &Context, asked: Group) -> anyhow::Result<()> {
    match asked.what {
        GroupWhat::Join { name, role } => join(context, &name, role.as_deref()).await,
        GroupWhat::Leave { name } => leave(context, &name).await,
        GroupWhat::List => list(context).await,
    }
}

async fn join(context: &Context, name: &GroupName, role: Option<&str>) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let joined = async |line: &mut Line| {
        line.connection().join_group(name, role).await?;
        own_groups(line).await
    };
    let groups = context.on_line(&mesh, joined).await?;
    let name = listed(&groups, name).unwrap_or_else(|| name.to_string());
    let value = json!({ "group": name, "role": role, "status": "joined" });
    context.output.data(&value, |_| format!("You are in {name} now: what is sent to @{name} reaches you."))
}

async fn leave(context: &Context, name: &GroupName) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let left = async |line: &mut Line| {
        let before = own_groups(line).await?;
        line.connection().leave_group(name).await?;
        Ok(before)
    };
    let before = listed(&context.on_line(&mesh, left).await?, name);
    // What is so now shows on a fresh connection: who has left all groups is in those that new sessions start with.
    let after = listed(&context.on_line(&mesh, own_groups).await?, name);
    let shown = after.clone().or_else(|| before.clone()).unwrap_or_else(|| name.to_string());
    let status = match (&before, &after) {
        (_, Some(_)) => "still-in",
        (None, None) => "was-not-in",
        (Some(_), None) => "left",
    };
    context.output.data(&json!({ "group": shown, "status": status }), |_| match status {
        "still-in" => format!("You are still in {shown}: new sessions of yours start in it, or one of them holds it."),
        "was-not-in" => format!("You were not in {shown}."),
        _ => format!("You are in {shown} no more."),
    })?;
    if after.is_some() {
        context
            .output
            .notice("With which groups sessions start: claudemesh member update --group NAME, or --no-groups");
    }
    Ok(())
}

/// A fresh connection that names no groups shows those of its member.
async fn own_groups(line: &mut Line) -> anyhow::Result<Vec<InGroup>> {
    let peers = line.connection().peers().await?;
    let own = peers.into_iter().find(|peer| peer.session_id == line.session_id());
    Ok(own.map(|own| own.groups).unwrap_or_default())
}

/// The group's name as `group list` shows it, when it is there.
fn listed(groups: &[InGroup], name: &GroupName) -> Option<String> {
    let is_it = |group: &&InGroup| group.name.parse::<GroupName>().is_ok_and(|one| one == *name);
    groups.iter().find(is_it).map(|group| one_line(&group.name))
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let groups = context.on_line(&mesh, own_groups).await?;
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
