//! `claudemesh create`

use clap::Args;
use claudemesh_client::BrokerUrl;
use claudemesh_client::{Creation, Error};
use claudemesh_keys::fingerprint;
use claudemesh_proto::Slug;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::membership::Shown;
use crate::name::Named;
use crate::name::display_name;

/// Create a mesh on a broker; the owner's key stays on this machine
#[derive(Debug, Args)]
#[command(after_help = "JSON: {mesh, meshId, memberId, brokerUrl, pubkey, ownerKeyFile}")]
pub(crate) struct Create {
    /// Its short name: 2-32 characters of a-z, 0-9 and -
    pub(crate) slug: Slug,
    /// The broker: https://HOST, http://HOST:PORT, wss://HOST/ws, ws://HOST:PORT/ws or HOST:PORT,
    /// which means https except on this machine
    #[arg(long, value_name = "URL")]
    pub(crate) broker: BrokerUrl,
    /// The broker's setup token, where it wants one; better in the environment, because other users can see arguments
    #[arg(long, env = "CLAUDEMESH_SETUP_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) named: Named,
}

pub(crate) async fn run(context: &Context, asked: Create) -> anyhow::Result<()> {
    let display_name = display_name(asked.named.name, &context.config()?)?;
    let creation = Creation { slug: asked.slug, broker: asked.broker, display_name, token: asked.token };
    warn_if_plain(context, &creation.broker);
    let created = claudemesh_client::create(&context.home, &creation).await;
    let mesh = created.map_err(|error| refusal(error, &creation))?;
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

/// What only makes sense to who knows what was asked.
fn refusal(error: Error, creation: &Creation) -> anyhow::Error {
    let Error::HttpRefused { word, .. } = &error else { return error.into() };
    let (exit, text) = match (word.as_str(), &creation.token) {
        ("slug_taken", _) => (
            Exit::Exists,
            format!(
                "this broker already has a mesh called {slug}; did you mean to join it?\n\
                 try: another name, or ask the owner of {slug} for an invite: claudemesh join LINK",
                slug = creation.slug
            ),
        ),
        ("creation_not_allowed", None) => (
            Exit::NotPermitted,
            "this broker lets only the bearer of its setup token create a mesh, and none was given\n\
             try: put it into CLAUDEMESH_SETUP_TOKEN; it is in the file setup-token of the broker's data directory"
                .into(),
        ),
        ("creation_not_allowed", Some(_)) => (
            Exit::NotPermitted,
            "this broker does not accept the setup token that was given\n\
             try: compare it with the file setup-token in the broker's data directory, and look at BROKER_MESH_CREATION there"
                .into(),
        ),
        _ => return error.into(),
    };
    Failure { exit, text }.into()
}

/// Messages are sealed either way; who talks to whom is not.
pub(super) fn warn_if_plain(context: &Context, broker: &claudemesh_client::BrokerUrl) {
    if !broker.is_tls() && !broker.is_loopback() {
        let text =
            "warning: the connection to this broker is not encrypted; others on the way can see who talks to whom";
        context.output.notice(text);
    }
}
