//! `claudemesh member update`

use clap::{Args, Subcommand};
use claudemesh_client::Roster;
use claudemesh_proto::hello::Group as InGroup;
use claudemesh_proto::member::MessageMode;
use claudemesh_proto::member::{Member, MemberUpdate};
use claudemesh_proto::text::one_line;
use claudemesh_proto::{DisplayName, MemberRole};
use serde_json::json;

use super::join::warn_of_namesake;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::parse;

/// Change what is known of a member
#[derive(Debug, Args)]
pub(crate) struct MemberVerb {
    #[command(subcommand)]
    pub(crate) what: MemberWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MemberWhat {
    Update(UpdateMember),
}

/// Change what is known of you, or as an admin of anybody
#[derive(Debug, Args)]
#[command(after_help = "JSON: {member: {memberId, pubkey, displayName, role, joinedAt, online, roleTag?, groups?, \
    messageMode, lastSeenAt?}}")]
pub(crate) struct UpdateMember {
    /// A name, a key, or the first 8 characters of a key or more [default: you]
    pub(crate) who: Option<String>,
    /// The name
    #[arg(long)]
    pub(crate) name: Option<DisplayName>,
    /// Free text beside the name; an empty one takes it away
    #[arg(long, value_name = "TEXT")]
    pub(crate) tag: Option<String>,
    /// A group that new sessions are in, with a role in it if you like; say it again for more
    #[arg(long, value_name = "NAME[:ROLE]", value_parser = parse::group_with_role)]
    pub(crate) group: Vec<InGroup>,
    /// New sessions are in no group
    #[arg(long, conflicts_with = "group")]
    pub(crate) no_groups: bool,
    /// What becomes of messages: push, inbox or off; told to clients, claudemesh inbox does not heed it yet
    #[arg(long)]
    pub(crate) mode: Option<MessageMode>,
    /// member or admin; said by admins only
    #[arg(long)]
    pub(crate) role: Option<MemberRole>,
}

impl UpdateMember {
    /// Whether nothing is to be changed.
    pub(crate) fn says_nothing(&self) -> bool {
        let is_grouped = self.no_groups || !self.group.is_empty();
        self.name.is_none() && self.tag.is_none() && !is_grouped && self.mode.is_none() && self.role.is_none()
    }
}

pub(crate) async fn run(context: &Context, asked: MemberVerb) -> anyhow::Result<()> {
    match asked.what {
        MemberWhat::Update(asked) => update(context, asked).await,
    }
}

async fn update(context: &Context, asked: UpdateMember) -> anyhow::Result<()> {
    let mesh = context.mesh()?;
    if asked.says_nothing() {
        return Err(Failure::bad_arguments(NOTHING_SAID));
    }
    let UpdateMember { who, name, tag, group, no_groups, mode, role } = asked;
    let is_renaming = name.is_some();
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
        let member = line.connection().update_member(update).await?;
        // It is done whether this can be found out or not.
        let members = if is_renaming { line.connection().members().await.unwrap_or_default() } else { Vec::new() };
        Ok((member, members))
    });
    let (member, members) = updated.await?;
    context.output.data(&json!({ "member": member }), |_| told(&member))?;
    warn_of_namesake(context, &members, &member, if member.pubkey == mesh.identity.public() { "you" } else { "it" });
    Ok(())
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

const NOTHING_SAID: &str = "nothing to change was named\n\
    try: --name, --tag, --group (or --no-groups), --mode, or as an admin --role; claudemesh member update --help";
