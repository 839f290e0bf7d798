//! `claudemesh join`

use clap::Args;
use claudemesh_client::{Error, Invite, Joining, is_same_name, key_prefix};
use claudemesh_keys::fingerprint;
use claudemesh_proto::member::Member;
use claudemesh_proto::text::one_line;
use serde_json::json;

use super::create::warn_if_plain;
use crate::context::Context;
use crate::failure::is_not_accepted;
use crate::membership::Shown;
use crate::name::Named;
use crate::name::display_name;

/// Join a mesh with an invite link
#[derive(Debug, Args)]
#[command(
    after_help = "JSON: {mesh, meshId, memberId, brokerUrl, pubkey, ownerPubkey|null, status: \"joined\"|\"already\"}"
)]
pub(crate) struct Join {
    /// The link (…/join/TOKEN) or the token alone
    pub(crate) link: String,
    #[command(flatten)]
    pub(crate) named: Named,
}

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
        let name = display_name(asked.named.name.clone(), &config)?;
        claudemesh_client::join(&context.home, &invite, &name).await?
    };
    let (mesh, status) = match &joining {
        Joining::Joined(mesh) => (mesh, "joined"),
        Joining::Already(mesh) => (mesh, "already"),
    };
    let owner = owner.or_else(|| config.owner(&mesh.mesh_id).copied());
    let value = Shown::with(mesh, json!({ "ownerPubkey": owner, "status": status }));
    // It is done whether this can be found out or not; only that we were a member once, and were removed, is no success.
    let members = match context.on_line(mesh, async |line| Ok(line.connection().members().await?)).await {
        Err(error) if matches!(joining, Joining::Already(_)) && is_not_accepted(&error) => return Err(error),
        members => members.unwrap_or_default(),
    };
    let own = members.iter().find(|member| member.member_id == mesh.member_id);
    context.output.data(&value, |output| {
        let name = own.map(|own| format!(" as {}", own.display_name)).unwrap_or_default();
        let slug = output.bold(&mesh.slug);
        match &joining {
            Joining::Joined(_) => format!("Joined mesh {slug}{name}."),
            Joining::Already(_) if asked.named.name.is_some() => {
                format!("Already a member of mesh {slug}{name}; --name changes nothing.")
            }
            Joining::Already(_) => format!("Already a member of mesh {slug}{name}."),
        }
    })?;
    if let Some(own) = own {
        warn_of_namesake(context, &members, own, "you");
    }
    let fingerprint = owner.map_or_else(|| "not known here".into(), |owner| fingerprint(&owner));
    context.output.notice(&format!("Broker: {}\nOwner's key: {fingerprint}", mesh.broker_url));
    context.output.notice("Next: claudemesh members, claudemesh send NAME TEXT, claudemesh inbox");
    Ok(())
}

/// Says that another member has the same name, in whatever letter case: no name that two have means one of them.
pub(super) fn warn_of_namesake(context: &Context, members: &[Member], named: &Member, whom: &str) {
    let is_other = |member: &&Member| member.member_id != named.member_id;
    let is_same = |member: &&Member| is_same_name(member.display_name.as_str(), named.display_name.as_str());
    if let Some(other) = members.iter().filter(is_other).find(is_same) {
        let (name, key) = (&other.display_name, key_prefix(&named.pubkey));
        context
            .output
            .notice(&format!("There is another {name} in this mesh: people must name {whom} by key ({key})."));
    }
}
