//! `claudemesh join`

use claudemesh_client::{Error, Invite, Joining};
use claudemesh_keys::fingerprint;
use claudemesh_proto::text::one_line;
use serde_json::json;

use super::create::warn_if_plain;
use crate::args::Join;
use crate::context::Context;
use crate::membership::Shown;
use crate::name::display_name;

pub(crate) async fn run(context: &Context, asked: Join) -> anyhow::Result<()> {
    let config = context.config()?;
    let mut owner = None;
    let here = config.meshes.iter().find(|mesh| mesh.slug == asked.link).cloned();
    let joining = if let Some(mesh) = here {
        Joining::Already(mesh)
    } else {
        let invite = Invite::read(&asked.link, claudemesh_client::now()).map_err(Error::from)?;
        warn_if_plain(context, &invite.broker);
        if let Some(host) = &invite.foreign_host {
            context.output.notice(&one_line(&format!(
                "warning: the link shows {host}, but the invite leads to the broker {}",
                invite.broker
            )));
        }
        owner = Some(invite.owner);
        let name = display_name(asked.named.name, &config)?;
        claudemesh_client::join(&context.home, &invite, &name).await?
    };
    let (mesh, status) = match &joining {
        Joining::Joined(mesh) => (mesh, "joined"),
        Joining::Already(mesh) => (mesh, "already"),
    };
    let owner = owner.or_else(|| config.owner(&mesh.mesh_id).copied());
    let value = Shown::with(mesh, json!({ "ownerPubkey": owner, "status": status }));
    context.output.data(&value, |output| match &joining {
        Joining::Joined(mesh) => format!("Joined mesh {}.", output.bold(&mesh.slug)),
        Joining::Already(mesh) => format!("Already a member of mesh {}.", output.bold(&mesh.slug)),
    })?;
    let fingerprint = owner.map_or_else(|| "not known here".into(), |owner| fingerprint(&owner));
    context.output.notice(&format!("Broker: {}\nOwner's key: {fingerprint}", mesh.broker_url));
    context.output.notice("Next: claudemesh members, claudemesh send NAME TEXT, claudemesh inbox");
    Ok(())
}
