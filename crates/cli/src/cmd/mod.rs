//! The verbs, one file each.

mod create;
mod inbox;
mod invite;
mod join;
mod leave;
mod list;
mod members;
mod msg_status;
mod peers;
mod send;
mod verify;

use crate::args::Verb;
use crate::context::Context;

pub(crate) async fn run(context: &mut Context, verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Create(asked) => create::run(context, asked).await,
        Verb::Invite(asked) => invite::run(context, asked).await,
        Verb::Join(asked) => join::run(context, asked).await,
        Verb::List => list::run(context),
        Verb::Leave(asked) => leave::run(context, &asked),
        Verb::Peers(of) => peers::run(context, &of).await,
        Verb::Members(of) => members::run(context, &of).await,
        Verb::Send(asked) => send::run(context, asked).await,
        Verb::Inbox(asked) => inbox::run(context, &asked).await,
        Verb::MsgStatus(asked) => msg_status::run(context, &asked).await,
        Verb::Verify(asked) => verify::run(context, &asked).await,
    }
}
