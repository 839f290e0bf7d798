//! Help texts are part of the interface: they document the JSON and the exit codes.

use crate::user::User;

#[test]
fn every_help_text_is_as_documented() {
    let user = User::new();
    let help = |verb: &str| {
        let words: Vec<_> = verb.split_whitespace().chain(["--help"]).collect();
        let said = user.run(&words);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{verb}");
        format!("\n$ claudemesh {}\n{}", words.join(" "), said.stdout)
    };
    insta::assert_snapshot!(VERBS.map(help).concat());
}

#[test]
fn help_about_help_is_help() {
    let user = User::new();
    let said = user.run(&["help", "--help"]);
    assert_eq!((said.code, said.stdout), (0, user.run(&["--help"]).stdout));
}

#[test]
fn the_version_is_printed() {
    let said = User::new().run(&["--version"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, concat!("claudemesh ", env!("CARGO_PKG_VERSION"), "\n")));
}

/// Every verb, and every part of one that has a help text of its own.
const VERBS: [&str; 52] = [
    "",
    "create",
    "invite",
    "invite list",
    "invite revoke",
    "join",
    "list",
    "leave",
    "peers",
    "set-status",
    "summary",
    "visible",
    "members",
    "member update",
    "group",
    "group join",
    "group leave",
    "group list",
    "topic",
    "topic create",
    "topic list",
    "topic join",
    "topic leave",
    "topic members",
    "topic history",
    "topic post",
    "topic tail",
    "topic read",
    "topic add",
    "topic forget-key",
    "notification",
    "notification list",
    "notification read",
    "apikey",
    "apikey create",
    "apikey list",
    "apikey revoke",
    "grant",
    "block",
    "grants",
    "kick",
    "disconnect",
    "ban",
    "unban",
    "bans",
    "audit",
    "audit list",
    "audit verify",
    "send",
    "inbox",
    "msg-status",
    "verify",
];
