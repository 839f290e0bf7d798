//! `claudemesh peers`

use claudemesh_client::key_prefix;
use claudemesh_proto::presence::{Peer, PeerRole};
use claudemesh_proto::text::one_line;
use serde_json::json;

use crate::context::Context;
use crate::table::table;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let peers = context.on_line(&mesh, async |line| {
        let mut peers = line.connection().peers().await?;
        peers.retain(|peer| peer.session_id != line.session_id());
        Ok(peers)
    });
    let peers = peers.await?;
    context.output.data(&json!({ "peers": peers }), |output| {
        let rows: Vec<_> = peers.iter().map(row).collect();
        table(output, &["NAME", "STATUS", "KIND", "HOST", "GROUPS", "KEY", "WORKING ON"], &rows)
    })?;
    if peers.is_empty() {
        context.output.notice("Nobody else is here. claudemesh members shows who may come.");
    }
    Ok(())
}

fn row(peer: &Peer) -> Vec<String> {
    let kind = match peer.peer_role {
        PeerRole::Session => "session",
        PeerRole::ControlPlane => peer.channel.as_deref().unwrap_or("-"),
    };
    let host = peer.hostname.as_deref().unwrap_or("-");
    let groups: Vec<_> = peer.groups.iter().map(|group| one_line(&group.name)).collect();
    let hidden = if peer.visible == Some(false) { " (hidden)" } else { "" };
    let summary = peer.summary.as_deref().unwrap_or_default();
    vec![
        peer.display_name.to_string(),
        format!("{}{hidden}", peer.status.as_str()),
        one_line(kind),
        one_line(host),
        groups.join(", "),
        key_prefix(&peer.pubkey),
        one_line(summary),
    ]
}
