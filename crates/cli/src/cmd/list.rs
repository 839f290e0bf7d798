//! `claudemesh list`

use claudemesh_client::Membership;
use claudemesh_proto::text::one_line;
use serde_json::json;

use crate::context::Context;
use crate::membership::Shown;
use crate::table::table;

pub(crate) fn run(context: &Context) -> anyhow::Result<()> {
    let meshes = context.config()?.meshes;
    let owns = |mesh: &Membership| context.home.has_owner_key(&mesh.mesh_id);
    let value = |mesh| Shown::with(mesh, json!({ "joinedAt": mesh.joined_at, "ownerKey": owns(mesh) }));
    let values: Vec<_> = meshes.iter().map(value).collect();
    context.output.data(&json!({ "meshes": values }), |output| {
        let row = |mesh: &Membership| {
            let owner = if owns(mesh) { "here" } else { "-" };
            vec![one_line(&mesh.slug), mesh.broker_url.ws(), owner.into(), mesh.mesh_id.to_string()]
        };
        let rows: Vec<_> = meshes.iter().map(row).collect();
        table(output, &["MESH", "BROKER", "OWNER KEY", "ID"], &rows)
    })?;
    if meshes.is_empty() {
        context.output.notice("No mesh yet. Create one: claudemesh create SLUG --broker URL, or claudemesh join LINK");
    }
    Ok(())
}
