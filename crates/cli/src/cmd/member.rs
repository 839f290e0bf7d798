//! `claudemesh member update`

use claudemesh_client::Roster;
use claudemesh_proto::member::{Member, MemberUpdate};
use claudemesh_proto::text::one_line;
use serde_json::json;

use crate::args::{MemberVerb, MemberWhat, UpdateMember};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;

pub(crate) async fn run(context: &Context, asked: MemberVerb) -> anyhow::Result<()> {
    match asked.what {
        MemberWhat::Update(asked) => update(context, asked).await,
    }
}

async fn update(context: &Context, asked: UpdateMember) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    let UpdateMember { who, name, tag, group, no_groups, mode, role } = asked;
    let mut update = MemberUpdate {
        member_id: None,
        display_name: name.map(|name| name.to_string()),
        role_tag: tag,
        groups: (no_groups || !group.is_empty()).then_some(group),
        message_mode: mode.map(|mode| mode.as_str().to_owned()),
        role: role.map(|role| role.as_str().to_owned()),
    };
    let updated = context.on_line(&mesh, async |line| {
        if let Some(who) = &who {
            let roster = Roster::fetch(line.connection()).await?;
            let whom = roster.resolve(who)?;
            let key = whom.member_key.unwrap_or(whom.key);
            let member = roster.members.iter().find(|member| member.pubkey == key);
            let id = member.map(|member| member.member_id.to_string());
            let nobody = || Failure { exit: Exit::NotFound, text: format!("{whom} is no member of this mesh") };
            update.member_id = Some(id.ok_or_else(nobody)?);
        }
        Ok(line.connection().update_member(update).await?)
    });
    let member = updated.await?;
    context.output.data(&json!({ "member": member }), |_| told(&member))
}

fn told(member: &Member) -> String {
    let groups: Vec<_> = member.groups.iter().map(|group| one_line(&group.name)).collect();
    let groups = if groups.is_empty() { "none".to_owned() } else { groups.join(", ") };
    format!(
        "{} is known like this now: role {}, tag {}, groups of new sessions {groups}, message mode {}.",
        member.display_name,
        member.role.as_str(),
        member.role_tag.as_deref().map_or_else(|| "none".to_owned(), one_line),
        member.message_mode.as_deref().map_or_else(|| "push".to_owned(), one_line),
    )
}
