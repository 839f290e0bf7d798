//! `claudemesh verify`

use claudemesh_client::Roster;
use claudemesh_keys::safety_number;
use serde_json::json;

use crate::args::Verify;
use crate::context::Context;
use crate::failure::Failure;

pub(crate) async fn run(context: &Context, asked: &Verify) -> anyhow::Result<()> {
    let mesh = context.mesh(&asked.of)?;
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
    context.output.notice(&format!(
        "Ask {name} for the number that \"claudemesh verify\" shows there, by voice or in person. Equal numbers mean that \
         nobody sits in between."
    ));
    Ok(())
}
