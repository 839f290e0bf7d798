//! `claudemesh members`

use claudemesh_client::key_prefix;
use claudemesh_proto::member::Member;
use claudemesh_proto::text::one_line;
use serde_json::json;

use crate::context::Context;
use crate::table::table;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let members = context.on_line(&mesh, async |line| Ok(line.connection().members().await?)).await?;
    context.output.data(&json!({ "members": members }), |output| {
        let own = mesh.identity.public();
        let row = |member: &Member| {
            let here = if member.online { "online" } else { "offline" };
            let you = if member.pubkey == own { "you" } else { "" };
            vec![
                member.display_name.to_string(),
                member.role.as_str().into(),
                here.into(),
                member.role_tag.as_deref().map(one_line).unwrap_or_default(),
                key_prefix(&member.pubkey),
                you.into(),
            ]
        };
        let rows: Vec<_> = members.iter().map(row).collect();
        table(output, &["NAME", "ROLE", "PRESENCE", "TAG", "KEY", ""], &rows)
    })
}
