//! What can be typed.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, value_parser};
use claudemesh_client::BrokerUrl;
use claudemesh_proto::{DisplayName, MemberRole, Priority, Slug};

use crate::exit::Exit;

/// End-to-end encrypted messages between coding-agent sessions.
#[derive(Debug, Parser)]
#[command(name = "claudemesh", version, max_term_width = 100, after_help = after_help())]
pub(crate) struct Arguments {
    /// Print JSON, one value per line, with the fields that each verb's help names
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Create(Create),
    Invite(Invite),
    Join(Join),
    /// List the meshes this machine is a member of
    #[command(after_help = "JSON: {meshes: [{mesh, meshId, memberId, brokerUrl, pubkey, joinedAt, ownerKey}]}")]
    List,
    Leave(Leave),
    /// List who is here now, besides this command
    #[command(after_help = "JSON: {peers: [{pubkey, memberPubkey, displayName, status, summary, groups, sessionId, \
        connectedAt, cwd, peerRole, hostname?, peerType?, channel?, model?}]}")]
    Peers(OneMesh),
    /// List who belongs to the mesh
    #[command(after_help = "JSON: {members: [{memberId, pubkey, displayName, role, joinedAt, online}]}")]
    Members(OneMesh),
    Send(Send),
    Inbox(Inbox),
    MsgStatus(MsgStatus),
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(crate) struct OneMesh {
    /// Which mesh, by its slug [default: the only one]
    #[arg(long, value_name = "SLUG")]
    pub(crate) mesh: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Your name in the mesh [default: USER-HOST]
    #[arg(long, env = "CLAUDEMESH_DISPLAY_NAME", hide_env_values = true)]
    pub(crate) name: Option<DisplayName>,
}

/// Create a mesh on a broker; the owner's key stays on this machine
#[derive(Debug, Args)]
#[command(after_help = "JSON: {mesh, meshId, memberId, brokerUrl, pubkey, ownerKeyFile}")]
pub(crate) struct Create {
    /// Its short name: 2-32 characters of a-z, 0-9 and -
    pub(crate) slug: Slug,
    /// The broker: https://HOST, http://HOST:PORT, wss://HOST/ws, ws://HOST:PORT/ws or HOST:PORT
    #[arg(long, value_name = "URL")]
    pub(crate) broker: BrokerUrl,
    /// The broker's setup token, where it wants one; better in the environment, because other users can see arguments
    #[arg(long, env = "CLAUDEMESH_SETUP_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) named: Named,
}

/// Make a link that lets somebody join; needs the owner's key
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "JSON: {id, url, role, maxUses, expiresAt}; list: {invites: [{id, role, maxUses, usedCount, expiresAt, \
        createdAt, revokedAt}]}; revoke: {id, status}"
)]
pub(crate) struct Invite {
    #[command(subcommand)]
    pub(crate) what: Option<InviteWhat>,
    #[command(flatten)]
    pub(crate) new: NewInvite,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InviteWhat {
    /// List the invites of the mesh
    List(OneMesh),
    /// Take an invite back
    Revoke {
        /// Its id, from `invite list`
        id: String,
        #[command(flatten)]
        of: OneMesh,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewInvite {
    /// What newcomers will be: member or admin
    #[arg(long, default_value = "member")]
    pub(crate) role: MemberRole,
    /// How many may use it, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) uses: u32,
    /// How long it can be used, such as 30min, 12h or 7d
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = humantime::parse_duration)]
    pub(crate) expires: Duration,
    /// Where newcomers reach the broker [default: as this machine does]
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<BrokerUrl>,
    #[command(flatten)]
    pub(crate) of: OneMesh,
}

/// Join a mesh with an invite link
#[derive(Debug, Args)]
#[command(
    after_help = "JSON: {mesh, meshId, memberId, brokerUrl, pubkey, ownerPubkey|null, status: \"joined\"|\"already\"}"
)]
pub(crate) struct Join {
    /// The link (…/join/TOKEN) or the token alone
    pub(crate) link: String,
    #[command(flatten)]
    pub(crate) named: Named,
}

/// Forget a mesh and its member key on this machine
#[derive(Debug, Args)]
#[command(after_help = "JSON: {mesh, meshId, status: \"left\"}")]
pub(crate) struct Leave {
    /// Which mesh, by its slug
    pub(crate) mesh: String,
    /// Also when the owner's key of the mesh is here (its file stays)
    #[arg(long)]
    pub(crate) force: bool,
}

/// Send a message, sealed for its recipient alone
#[derive(Debug, Args)]
#[command(
    after_help = "A member's name reaches whichever of the member's connections comes for the mail; a session's own \
    name reaches that session. A name that means more than one is refused with the candidates.\n\n\
    JSON: {messageId, to: {name, pubkey}, state: \"delivered\"|\"queued\"|\"claimed\"|\"held\"|\"expired\"|\"revoked\", \
    status: \"delivered\"|\"held\"|\"disconnected\"|null}"
)]
pub(crate) struct Send {
    /// A name, a key, or the first 8 characters of a key or more
    pub(crate) who: String,
    /// What to say; - reads it from standard input
    #[arg(required = true)]
    pub(crate) text: Vec<String>,
    /// now interrupts, next waits for a free moment, low for idle time
    #[arg(long, default_value = "next")]
    pub(crate) priority: Priority,
    #[command(flatten)]
    pub(crate) of: OneMesh,
}

/// Fetch, open and show new messages
#[derive(Debug, Args)]
#[command(
    after_help = "A message is acknowledged once it is safely in the local inbox.\n\nJSON: one line per message: \
    {messageId, from, senderPubkey, senderMemberPubkey, priority, sentAt, receivedAt, text}; text is null when the message \
    could not be opened"
)]
pub(crate) struct Inbox {
    /// Go on until interrupted, also across lost connections
    #[arg(long, conflicts_with_all = ["all", "local"])]
    pub(crate) wait: bool,
    /// Show earlier messages too
    #[arg(long)]
    pub(crate) all: bool,
    /// The most messages that --all shows
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "all", value_parser = value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Only what is here already, without asking the broker
    #[arg(long)]
    pub(crate) local: bool,
    #[command(flatten)]
    pub(crate) of: OneMesh,
}

/// Show what became of a message
#[derive(Debug, Args)]
#[command(
    after_help = "JSON: {messageId, targetSpec, delivered, deliveredAt, recipients: [{name, pubkey, status, state}]}"
)]
pub(crate) struct MsgStatus {
    /// The id that send printed, or its first 8 characters or more
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) of: OneMesh,
}

/// Show the safety number to compare with somebody, so that nobody is in between
#[derive(Debug, Args)]
#[command(after_help = "JSON: {name, memberPubkey, ownPubkey, safetyNumber}")]
pub(crate) struct Verify {
    /// A name, a key, or the first 8 characters of a key or more
    pub(crate) peer: String,
    #[command(flatten)]
    pub(crate) of: OneMesh,
}

fn after_help() -> String {
    let files = "Files are in ~/.claudemesh, or where CLAUDEMESH_CONFIG_DIR points. NO_COLOR turns colour off.";
    format!("{}\n\n{files}", Exit::help())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn words_need_no_quotes() {
        let arguments = Arguments::try_parse_from(["claudemesh", "send", "bob", "hello", "there", "--json"]).unwrap();
        let Verb::Send(send) = arguments.verb else { panic!("not a send") };
        assert_eq!((send.text.join(" ").as_str(), arguments.json), ("hello there", true));
    }

    #[test]
    fn invite_takes_options_or_a_subcommand() {
        for line in
            ["invite", "invite --uses 5 --expires 12h --role admin", "invite list --mesh team", "invite revoke abc"]
        {
            let words = ["claudemesh"].into_iter().chain(line.split(' '));
            assert!(Arguments::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "invite --uses x",
            "invite --expires soon",
            "invite --role king",
            "invite revoke",
            "inbox --wait --all",
            "inbox --all --limit 0",
        ] {
            let words = ["claudemesh"].into_iter().chain(line.split(' '));
            assert!(Arguments::try_parse_from(words).is_err(), "{line}");
        }
    }
}
