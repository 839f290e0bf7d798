//! `claudemesh leave`

use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;

/// Forget a mesh and its member key on this machine
#[derive(Debug, Args)]
#[command(after_help = "JSON: {mesh, meshId, status: \"left\"}")]
pub(crate) struct Leave {
    /// Which mesh, by its slug; --mesh does as well
    #[arg(value_name = "SLUG", required_unless_present = "mesh", conflicts_with = "mesh")]
    pub(crate) slug: Option<String>,
    /// Also when the owner's key of the mesh is here (its file stays)
    #[arg(long)]
    pub(crate) force: bool,
}

pub(crate) fn run(context: &Context, asked: &Leave) -> anyhow::Result<()> {
    let config = context.config()?;
    let mesh = config.mesh(asked.slug.as_deref().or(context.wanted.as_deref()))?;
    let owner = context.home.owner_path(&mesh.mesh_id);
    if owner.exists() && !asked.force {
        let text = format!(
            "you own mesh \"{slug}\": its owner's key ({}) is of no use without your member key, so nobody can make invites any \
             more, and the slug stays taken on that broker\n\
             try: claudemesh leave {slug} --force",
            owner.display(),
            slug = mesh.slug,
        );
        return Err(Failure { exit: Exit::NotPermitted, text }.into());
    }
    let is_owner = owner.exists();
    context.home.remove(&mesh.mesh_id)?;
    let value = json!({ "mesh": mesh.slug, "meshId": mesh.mesh_id, "status": "left" });
    context.output.data(&value, |output| format!("Forgot mesh {} and its member key.", output.bold(&mesh.slug)))?;
    context.output.notice(
        "The member stays in the mesh's list. What was received is kept here, and can be read after joining the mesh again.",
    );
    if is_owner {
        context.output.notice(&format!(
            "Its owner's key is lost with it: nobody can make invites any more. The slug {} stays taken on that broker; the key's file \
             stays too ({}).",
            mesh.slug,
            owner.display()
        ));
    }
    Ok(())
}
