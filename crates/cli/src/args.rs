//! What can be typed.

use clap::{Parser, Subcommand};

use crate::cmd::api_key::ApiKeyVerb;
use crate::cmd::audit::Audit;
use crate::cmd::ban::{Ban, Unban};
use crate::cmd::create::Create;
use crate::cmd::grant::{Block, Grant};
use crate::cmd::group::Group;
use crate::cmd::inbox::ReadInbox;
use crate::cmd::invite::Invite;
use crate::cmd::join::Join;
use crate::cmd::kick::SendAway;
use crate::cmd::leave::Leave;
use crate::cmd::member::MemberVerb;
use crate::cmd::msg_status::MsgStatus;
use crate::cmd::notification::NotificationVerb;
use crate::cmd::send::Send;
use crate::cmd::set_status::SetStatus;
use crate::cmd::summary::Summary;
use crate::cmd::topic::Topic;
use crate::cmd::verify::Verify;
use crate::cmd::visible::Visible;
use crate::exit::Exit;

/// End-to-end encrypted messages between coding-agent sessions.
#[derive(Debug, Parser)]
#[command(name = "claudemesh", version, max_term_width = 100, after_help = after_help())]
pub(crate) struct Arguments {
    /// Print JSON, one value per line, with the fields that each verb's help names; errors stay text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Which mesh, by its slug [default: the only one]
    #[arg(long, global = true, value_name = "SLUG")]
    pub(crate) mesh: Option<String>,
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
        connectedAt, cwd, peerRole, hostname?, peerType?, channel?, model?, stats?, visible?, profile?}]}")]
    Peers,
    SetStatus(SetStatus),
    Summary(Summary),
    Visible(Visible),
    /// List who belongs to the mesh
    #[command(
        after_help = "JSON: {members: [{memberId, pubkey, displayName, role, joinedAt, online, roleTag?, groups?, \
        messageMode, lastSeenAt?}]}"
    )]
    Members,
    Member(MemberVerb),
    Group(Group),
    Topic(Topic),
    Notification(NotificationVerb),
    Apikey(ApiKeyVerb),
    Grant(Grant),
    Block(Block),
    /// List what you let others do to you
    #[command(after_help = "JSON: {grants: {KEY: [CAPABILITY]}}, without those who may do what everybody may")]
    Grants,
    /// Send sessions away and refuse them for a minute; for admins
    #[command(after_help = sent_away!("It is for agents' sessions. Daemons, commands and who listens with inbox --wait are left alone: \
        they do not heed a kick. disconnect closes anybody's connections.\n\n"))]
    Kick(SendAway),
    /// Close connections, which may come back; for admins
    #[command(after_help = sent_away!(""))]
    Disconnect(SendAway),
    Ban(Ban),
    Unban(Unban),
    /// List the members who were removed; every member may
    #[command(after_help = "JSON: {bans: [{name, pubkey, revokedAt}]}")]
    Bans,
    Audit(Audit),
    Send(Send),
    Inbox(ReadInbox),
    MsgStatus(MsgStatus),
    Verify(Verify),
}

/// What is said about verbs that close connections.
macro_rules! sent_away {
    ($words:literal) => {
        concat!($words, "JSON: {closed: [name], skipped: [name]}")
    };
}
use sent_away;

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
    fn the_mesh_is_said_before_or_after_the_verb() {
        for line in [
            "--mesh team peers",
            "peers --mesh team",
            "--mesh team send bob hi",
            "send bob --mesh team hi",
            "--mesh team invite list",
            "invite --mesh team list",
            "invite list --mesh team",
            "invite --mesh team --uses 2",
            "leave --mesh team",
        ] {
            let words = ["claudemesh"].into_iter().chain(line.split(' '));
            let arguments = Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(arguments.mesh.as_deref(), Some("team"), "{line}");
        }
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
            "invite --expires 5",
            "leave",
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
