//! What can be typed.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, value_parser};
use claudemesh_client::BrokerUrl;
use claudemesh_proto::grant::Capability;
use claudemesh_proto::group::BadGroupName;
use claudemesh_proto::hello::Group as InGroup;
use claudemesh_proto::member::MessageMode;
use claudemesh_proto::message::Invalid;
use claudemesh_proto::presence::{BadStatus, StatusSource};
use claudemesh_proto::{DisplayName, GroupName, MemberRole, Priority, Slug, Status};

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
    Inbox(Inbox),
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

/// What is said about verbs that say something of a session.
macro_rules! of_session {
    ($words:literal, $json:literal) => {
        concat!(
            $words,
            "It is said of the session that this command runs in (CLAUDEMESH_SESSION_ID), else of all that you have here.\n\nJSON: ",
            $json
        )
    };
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
    /// The broker: https://HOST, http://HOST:PORT, wss://HOST/ws, ws://HOST:PORT/ws or HOST:PORT,
    /// which means https except on this machine
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
#[command(after_help = "JSON: {id, url, role, maxUses, expiresAt}")]
pub(crate) struct Invite {
    #[command(subcommand)]
    pub(crate) what: Option<InviteWhat>,
    #[command(flatten)]
    pub(crate) new: NewInvite,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InviteWhat {
    /// List the invites of the mesh
    #[command(after_help = "JSON: {invites: [{id, role, maxUses, usedCount, expiresAt, createdAt, revokedAt|null}]}")]
    List,
    /// Take an invite back
    #[command(after_help = "JSON: {id, status: \"revoked\"}")]
    Revoke {
        /// Its id, from `invite list`
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewInvite {
    /// What newcomers will be: member or admin [default: member]
    #[arg(long)]
    pub(crate) role: Option<MemberRole>,
    /// How many may use it, 1 to 1000 [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) uses: Option<u32>,
    /// How long it can be used, such as 30min, 12h or 7d [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) expires: Option<Duration>,
    /// Where newcomers reach the broker [default: its public address, else as this machine does]
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<BrokerUrl>,
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
    /// Which mesh, by its slug; --mesh does as well
    #[arg(value_name = "SLUG", required_unless_present = "mesh", conflicts_with = "mesh")]
    pub(crate) slug: Option<String>,
    /// Also when the owner's key of the mesh is here (its file stays)
    #[arg(long)]
    pub(crate) force: bool,
}

/// Say how busy you are
#[derive(Debug, Args)]
#[command(after_help = of_session!(
    "In idle every message comes, in working and dnd only what was sent with --priority now; the rest is held until idle. Working \
     ends by itself some time after the last word, a minute unless the broker is set otherwise; nothing but another set-status ends \
     dnd. What is said by hand, of no session in particular, is kept, and \
     inbox --wait says it anew whenever it connects, until set-status idle. ",
    "{status: \"idle\"|\"working\"|\"dnd\"}"
))]
pub(crate) struct SetStatus {
    /// idle, working or dnd
    #[arg(value_parser = status)]
    pub(crate) status: Status,
    /// Where it is known from: manual is somebody's word, jsonl was inferred from a transcript
    #[arg(long, default_value = "manual", value_parser = source)]
    pub(crate) source: StatusSource,
}

/// Say what you work on
#[derive(Debug, Args)]
#[command(after_help = of_session!(
    "What is said of no session in particular is kept, and inbox --wait says it anew whenever it connects. ",
    "{summary}"
))]
pub(crate) struct Summary {
    /// One line, 512 characters at most; "" takes it back
    #[arg(required = true)]
    pub(crate) text: Vec<String>,
}

/// Show yourself to others, or hide
#[derive(Debug, Args)]
#[command(after_help = of_session!(
    "Who hides is in nobody else's list of peers, and what is sent to * and to groups does not come either; direct messages come as \
     before. ",
    "{visible: true|false}"
))]
pub(crate) struct Visible {
    /// on or off
    #[arg(value_parser = switch, action = ArgAction::Set)]
    pub(crate) visible: bool,
}

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
    #[arg(long, value_name = "NAME[:ROLE]", value_parser = group_with_role)]
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

/// Join, leave and list groups
#[derive(Debug, Args)]
#[command(
    after_help = "What is sent to @NAME reaches everybody in NAME and in NAME/anything. Groups are yours, whichever of your sessions joins them."
)]
pub(crate) struct Group {
    #[command(subcommand)]
    pub(crate) what: GroupWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupWhat {
    /// Join a group, or change your role in it
    #[command(after_help = "JSON: {group, role|null, status: \"joined\"}")]
    Join {
        /// 1-64 of a-z, 0-9 and _./-; case does not matter
        #[arg(value_parser = new_group)]
        name: GroupName,
        /// What you are there
        #[arg(long)]
        role: Option<String>,
    },
    /// Leave a group
    #[command(
        after_help = "JSON: {group, status: \"left\"|\"was-not-in\"|\"still-in\"}; who has left all groups is in those that new \
        sessions start with"
    )]
    Leave {
        /// Its name
        #[arg(value_parser = group)]
        name: GroupName,
    },
    /// List the groups that you are in
    #[command(after_help = "JSON: {groups: [{name, role?}]}")]
    List,
}

/// Say what somebody may do to you, and nothing else
#[derive(Debug, Args)]
#[command(
    after_help = "Without a word of yours everybody may read, dm, broadcast and state-read. What a blocked sender sends \
    is refused or held back.\n\nJSON: {name|null, pubkey, capabilities|null}; null is what everybody may"
)]
pub(crate) struct Grant {
    /// A name, a key, or the first 8 characters of a key or more; a member's name stands for all its sessions
    pub(crate) who: String,
    /// read, dm, broadcast, state-read, state-write or file-read
    #[arg(value_name = "CAPABILITY", required_unless_present = "reset")]
    pub(crate) capabilities: Vec<Capability>,
    /// Go back to what everybody may
    #[arg(long, conflicts_with = "capabilities")]
    pub(crate) reset: bool,
}

/// Let somebody do nothing to you; undo it with grant --reset
#[derive(Debug, Args)]
#[command(after_help = "JSON: {name|null, pubkey, capabilities: []}")]
pub(crate) struct Block {
    /// A name, a key, or the first 8 characters of a key or more; a member's name stands for all its sessions
    pub(crate) who: String,
}

/// Whose connections to close
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SendAway {
    /// A name, a member's or session's key, or its first 12 characters or more
    pub(crate) target: Option<String>,
    /// Everybody but this command
    #[arg(long)]
    pub(crate) all: bool,
    /// Whoever was silent for so long, such as 10min
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) stale: Option<Duration>,
}

/// Remove a member from the mesh: nothing reaches it or comes from it any more; for admins
#[derive(Debug, Args)]
#[command(after_help = "What waits for the member ends, and an unban does not bring it back.\n\nJSON: {banned: name}")]
pub(crate) struct Ban {
    /// A name, a member's key, or its first 12 characters or more
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) target: String,
}

/// Take a removed member back; for admins
#[derive(Debug, Args)]
#[command(after_help = "JSON: {unbanned: name}")]
pub(crate) struct Unban {
    /// A name, a member's key, or its first 12 characters or more
    pub(crate) target: String,
}

/// Read or verify what happened in the mesh; for admins
#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    pub(crate) what: AuditWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditWhat {
    /// List entries of the audit log, newest first
    #[command(
        after_help = "On a terminal the details are cut at its width; in a pipe and with --json they are whole.\n\n\
        JSON: {entries: [{id, eventType, actor, actorMemberId?, payload, hash, createdAt}], total}; total counts also what --not-type \
        leaves out"
    )]
    List(AuditList),
    /// Have the broker verify the audit log, and show its newest checkpoint
    #[command(
        after_help = "Keep the checkpoint somewhere else: as long as the entry of its number has its hash in audit list, \
        the log before it is what it was. A log that does not verify ends in exit code 8.\n\n\
        JSON: {valid, entries, brokenAt?, why?, checkpoint?: {seq, hash, hash2, signedAt, pubkey, signature}}"
    )]
    Verify,
}

#[derive(Debug, Args)]
pub(crate) struct AuditList {
    /// How many, 1 to 500
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=500))]
    pub(crate) limit: u32,
    /// How many newer ones to leave out
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) offset: u32,
    /// Only entries of this type, such as member_banned
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: Option<String>,
    /// No entries of this type; say it again for more
    #[arg(long = "not-type", value_name = "TYPE", conflicts_with = "event_type")]
    pub(crate) not_types: Vec<String>,
}

/// Send a message: to one, sealed for that one alone, or to a group or everybody, NOT encrypted
#[derive(Debug, Args)]
#[command(
    after_help = "What goes to @GROUP or * is not encrypted: the broker can read it, and so can whoever reads its database. @GROUP \
    reaches everybody in GROUP and in GROUP/anything, also those who are away; * and @all mean everybody but you.\n\n\
    A member's name reaches whichever of the member's connections comes for the mail; a session's own \
    name reaches that session. A name that means more than one is refused with the candidates.\n\n\
    JSON: {messageId, to: {name, pubkey}, encrypted: true, state: \"delivered\"|\"queued\"|\"claimed\"|\"held\"|\"expired\"|\"revoked\", \
    status: \"delivered\"|\"held\"|\"disconnected\"|null}; to many: {messageId, to: {audience}, encrypted: false, \
    recipients: [{name, pubkey, status, state, deliveredAt?}]|null}"
)]
pub(crate) struct Send {
    /// A name, a key, or the first 8 characters of a key or more; @GROUP or '*' for many
    pub(crate) who: String,
    /// What to say; - reads it from standard input
    #[arg(required = true)]
    pub(crate) text: Vec<String>,
    /// now interrupts, next waits for a free moment, low for idle time
    #[arg(long, default_value = "next", value_parser = priority)]
    pub(crate) priority: Priority,
}

/// Fetch, open and show new messages
#[derive(Debug, Args)]
#[command(
    after_help = "A message is acknowledged once it is safely in the local inbox.\n\nJSON: one line per message: \
    {messageId, from, senderPubkey, senderMemberPubkey, priority, sentAt, receivedAt, encrypted, text}; encrypted is false for \
    what the broker could read; it and text are null when the message could not be opened"
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
}

/// Show what became of a message
#[derive(Debug, Args)]
#[command(
    after_help = "JSON: {messageId, targetSpec, delivered, deliveredAt, recipients: [{name, pubkey, status, state, deliveredAt?}]}"
)]
pub(crate) struct MsgStatus {
    /// The id that send printed, or its first 8 characters or more
    #[arg(value_parser = id_or_prefix)]
    pub(crate) id: String,
}

/// Show the safety number to compare with somebody, so that nobody is in between
#[derive(Debug, Args)]
#[command(after_help = "JSON: {name, memberPubkey, ownPubkey, safetyNumber}")]
pub(crate) struct Verify {
    /// A name, a key, or the first 8 characters of a key or more
    pub(crate) peer: String,
}

impl NewInvite {
    /// Whether anything was said about a new invite.
    pub(crate) fn is_given(&self) -> bool {
        self.role.is_some() || self.uses.is_some() || self.expires.is_some() || self.broker.is_some()
    }
}

impl UpdateMember {
    /// Whether nothing is to be changed.
    pub(crate) fn says_nothing(&self) -> bool {
        let is_grouped = self.no_groups || !self.group.is_empty();
        self.name.is_none() && self.tag.is_none() && !is_grouped && self.mode.is_none() && self.role.is_none()
    }
}

fn priority(text: &str) -> Result<Priority, &'static str> {
    text.parse().map_err(|invalid: Invalid| invalid.why)
}

fn status(text: &str) -> Result<Status, BadStatus> {
    text.parse()
}

fn source(text: &str) -> Result<StatusSource, &'static str> {
    match text {
        "manual" => Ok(StatusSource::Manual),
        "jsonl" => Ok(StatusSource::Jsonl),
        _ => Err("must be manual or jsonl"),
    }
}

fn switch(text: &str) -> Result<bool, &'static str> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("must be on or off"),
    }
}

/// `@` is how others write it when they send to it.
fn group(text: &str) -> Result<GroupName, BadGroupName> {
    text.strip_prefix('@').unwrap_or(text).parse()
}

/// One to be in. What reads like everybody would never be reached.
fn new_group(text: &str) -> Result<GroupName, String> {
    let name = text.strip_prefix('@').unwrap_or(text);
    if name == "*" || name.eq_ignore_ascii_case("all") {
        return Err("* and @all mean everybody; choose another name".into());
    }
    group(text).map_err(|why| why.to_string())
}

fn group_with_role(text: &str) -> Result<InGroup, String> {
    let (name, role) = text.split_once(':').map_or((text, None), |(name, role)| (name, Some(role.to_owned())));
    Ok(InGroup { name: new_group(name)?.to_string(), role })
}

fn duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("hours or days? write {text}h or {text}d"));
    }
    humantime::parse_duration(text).map_err(|_| "must be a time such as 30min, 12h or 7d".into())
}

fn id_or_prefix(text: &str) -> Result<String, &'static str> {
    if text.len() < 8 { Err("an id has at least 8 letters and digits") } else { Ok(text.to_owned()) }
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
