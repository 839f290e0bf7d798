//! `claudemesh create`

use claudemesh_client::Creation;
use claudemesh_keys::fingerprint;
use serde_json::json;

use crate::args::Create;
use crate::context::Context;
use crate::membership::Shown;
use crate::name::display_name;

pub(crate) async fn run(context: &Context, asked: Create) -> anyhow::Result<()> {
    let display_name = display_name(asked.named.name, &context.config()?)?;
    let creation = Creation { slug: asked.slug, broker: asked.broker, display_name, token: asked.token };
    warn_if_plain(context, &creation.broker);
    let mesh = claudemesh_client::create(&context.home, &creation).await?;
    let owner = context.home.owner_path(&mesh.mesh_id);
    let value = Shown::with(&mesh, json!({ "ownerKeyFile": owner }));
    context
        .output
        .data(&value, |output| format!("Created mesh {} as {}.", output.bold(&mesh.slug), creation.display_name))?;
    context.output.notice(&format!("The owner's key is in {}; it signs invites, so keep a copy.", owner.display()));
    if let Some(key) = context.config()?.owner(&mesh.mesh_id) {
        context.output.notice(&format!("Owner's key: {}; who joins sees the same.", fingerprint(key)));
    }
    context.output.notice("Next: claudemesh invite");
    Ok(())
}

/// Messages are sealed either way; who talks to whom is not.
pub(super) fn warn_if_plain(context: &Context, broker: &claudemesh_client::BrokerUrl) {
    if !broker.is_tls() && !broker.is_loopback() {
        let text =
            "warning: the connection to this broker is not encrypted; others on the way can see who talks to whom";
        context.output.notice(text);
    }
}
