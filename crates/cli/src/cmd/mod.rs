//! The verbs, one file each.

pub(crate) mod api_key;
pub(crate) mod audit;
pub(crate) mod ban;
mod broadcast;
pub(crate) mod create;
pub(crate) mod grant;
pub(crate) mod group;
pub(crate) mod inbox;
pub(crate) mod invite;
pub(crate) mod join;
pub(crate) mod kick;
pub(crate) mod leave;
mod list;
pub(crate) mod member;
mod members;
pub(crate) mod msg_status;
pub(crate) mod notification;
mod peers;
pub(crate) mod send;
pub(crate) mod set_status;
pub(crate) mod summary;
pub(crate) mod topic;
pub(crate) mod verify;
pub(crate) mod visible;

use crate::args::Verb;
use crate::context::Context;
use crate::failure::Failure;

pub(crate) async fn run(context: &mut Context, verb: Verb) -> anyhow::Result<()> {
    if context.wanted.is_some() && matches!(verb, Verb::Create(_) | Verb::Join(_) | Verb::List) {
        return Err(Failure::bad_arguments(
            "--mesh chooses among the meshes that are here; this verb takes none of them",
        ));
    }
    match verb {
        Verb::Create(asked) => create::run(context, asked).await,
        Verb::Invite(asked) => invite::run(context, asked).await,
        Verb::Join(asked) => join::run(context, asked).await,
        Verb::List => list::run(context),
        Verb::Leave(asked) => leave::run(context, &asked),
        Verb::Peers => peers::run(context).await,
        Verb::SetStatus(asked) => set_status::run(context, &asked).await,
        Verb::Summary(asked) => summary::run(context, &asked).await,
        Verb::Visible(asked) => visible::run(context, &asked).await,
        Verb::Members => members::run(context).await,
        Verb::Member(asked) => member::run(context, asked).await,
        Verb::Group(asked) => group::run(context, asked).await,
        Verb::Grant(asked) => grant::grant(context, asked).await,
        Verb::Block(asked) => grant::block(context, &asked).await,
        Verb::Grants => grant::list(context).await,
        Verb::Kick(asked) => kick::kick(context, asked).await,
        Verb::Disconnect(asked) => kick::disconnect(context, asked).await,
        Verb::Ban(asked) => ban::ban(context, &asked).await,
        Verb::Unban(asked) => ban::unban(context, &asked).await,
        Verb::Bans => ban::list(context).await,
        Verb::Audit(asked) => audit::run(context, asked).await,
        Verb::Topic(asked) => topic::run(context, asked).await,
        Verb::Notification(asked) => notification::run(context, asked).await,
        Verb::Apikey(asked) => api_key::run(context, asked).await,
        Verb::Send(asked) => send::run(context, asked).await,
        Verb::Inbox(asked) => inbox::run(context, &asked).await,
        Verb::MsgStatus(asked) => msg_status::run(context, &asked).await,
        Verb::Verify(asked) => verify::run(context, &asked).await,
    }
}
