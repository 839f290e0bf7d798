//! `claudemesh verify`

use clap::Args;
use claudemesh_client::{Roster, key_prefix};
use claudemesh_keys::safety_number;
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;

/// Show the safety number to compare with somebody, so that nobody is in between
#[derive(Debug, Args)]
#[command(after_help = "JSON: {name, memberPubkey, ownPubkey, safetyNumber}")]
pub(crate) struct Verify {
    /// A name, a key, or the first 8 characters of a key or more
    pub(crate) peer: String,
}

pub(crate) async fn run(context: &Context, asked: &Verify) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let roster = context.on_line(&mesh, async |line| Ok(Roster::fetch(line.connection()).await?)).await?;
    let peer = roster.resolve(&asked.peer)?;
    // A session is vouched for by its member: the member's key is what lasts, and what is compared.
    let member = peer.member_key.unwrap_or(peer.key);
    let own = mesh.identity.public();
    if member == own {
        return Err(Failure::bad_arguments("that is you; a safety number is between two members"));
    }
    let name = roster.member_name(&member).unwrap_or_else(|| peer.to_string());
    let number = safety_number(&own, &member);
    let value = json!({ "name": name, "memberPubkey": member, "ownPubkey": own, "safetyNumber": number });
    context.output.data(&value, |output| format!("{}\n", output.bold(&number)))?;
    // A name that means somebody else as well, or that a shell would take apart, helps nobody.
    let is_plain = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let means_us = |name: &String| roster.resolve(name).is_ok_and(|one| one.key == own);
    let own_name = roster.member_name(&own).filter(|name| is_plain(name) && means_us(name));
    let own_name = own_name.unwrap_or_else(|| key_prefix(&own));
    context.output.notice(&format!(
        "Ask {name}, by voice or in person, for the number that this shows there: claudemesh verify {own_name}\n\
         Equal numbers mean that nobody sits in between."
    ));
    Ok(())
}
