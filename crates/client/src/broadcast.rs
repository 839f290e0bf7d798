//! Writing to everybody or to a group.

use std::fmt;

use claudemesh_keys::{random_bytes, request_fingerprint};
use claudemesh_proto::canonical::Destination;
use claudemesh_proto::limits::NONCE_BYTES;
use claudemesh_proto::message::{Send, Target};
use claudemesh_proto::text::{base64, one_line};
use claudemesh_proto::{GroupName, Priority};

use crate::clock::now;
use crate::error::{Error, Result};
use crate::message::MAX_TEXT_BYTES;
use crate::message_id::client_message_id;
use crate::resolve::Unresolved;

/// Many at once: everybody, or a group with those below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// `*`
    Everybody,
    /// `@all`, which is the same.
    All,
    /// `@GROUP`
    Group(GroupName),
}

/// A message to many. It is NOT encrypted: the broker can read it.
#[derive(Debug, Clone, Copy)]
pub struct Broadcast<'a> {
    /// To whom.
    pub to: &'a Audience,
    /// How urgent it is.
    pub priority: Priority,
    /// What it says.
    pub text: &'a str,
}

impl Audience {
    /// The audience that `who` means; `None` when it is the name or key of one.
    ///
    /// # Errors
    /// [`Unresolved::NoAudience`] for a topic, and for what follows an `@` and is no group's name.
    pub fn named(who: &str) -> Result<Option<Self>, Unresolved> {
        let who = who.trim();
        if !who.starts_with(['*', '@', '#']) {
            return Ok(None);
        }
        match who.parse() {
            Ok(Target::Everybody) => Ok(Some(Self::Everybody)),
            Ok(Target::All) => Ok(Some(Self::All)),
            Ok(Target::Group(name)) => Ok(Some(Self::Group(name))),
            Ok(Target::Key(_) | Target::Topic(_)) | Err(_) => Err(Unresolved::NoAudience(one_line(who))),
        }
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("*"),
            Self::All => f.write_str("@all"),
            Self::Group(name) => write!(f, "@{name}"),
        }
    }
}

impl Broadcast<'_> {
    /// A `send` with an id of its own. Sending the same value again is a retry, not another message.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoRandomness`].
    pub fn compose(&self) -> Result<Send> {
        if self.text.len() > MAX_TEXT_BYTES {
            return Err(Error::TooLarge { size_bytes: self.text.len() });
        }
        let target_spec = self.to.to_string();
        let reference = target_spec.strip_prefix('@').unwrap_or(&target_spec);
        let destination = Destination { kind: "topic", reference, reply_to: None };
        let priority = self.priority.as_str();
        Ok(Send {
            priority: Some(priority.into()),
            // Existing clients look for one; nothing is sealed with it.
            nonce: base64(&random_bytes::<NONCE_BYTES>()?),
            ciphertext: base64(self.text.as_bytes()),
            client_message_id: Some(client_message_id(now())?),
            request_fingerprint: Some(request_fingerprint(destination, priority, None, self.text)),
            target_spec,
            ..Send::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use claudemesh_proto::limits::MAX_MESSAGE_BYTES;

    use super::*;

    fn audience(who: &str) -> Audience {
        Audience::named(who).unwrap().unwrap()
    }

    fn compose(who: &str, text: &str) -> Result<Send> {
        Broadcast { to: &audience(who), priority: Priority::Next, text }.compose()
    }

    #[test]
    fn audiences_are_told_from_names_and_from_what_is_neither() {
        assert_eq!(audience("*"), Audience::Everybody);
        assert_eq!(audience("@all"), Audience::All);
        assert_eq!(audience(" @Dev/api ").to_string(), "@Dev/api");
        for one in ["Anna", "all", &"ab".repeat(32), ""] {
            assert_eq!(Audience::named(one), Ok(None), "{one}");
        }
        for neither in ["#topic", "**", "@", "@@dev", "@a b"] {
            assert_eq!(Audience::named(neither), Err(Unresolved::NoAudience(neither.into())));
        }
    }

    /// websocket 2
    #[test]
    fn a_broadcast_is_base64_of_its_text_with_a_nonce_that_nothing_uses() {
        let send = compose("@Dev", "hi – ü").unwrap();
        assert_eq!((send.target_spec.as_str(), send.ciphertext), ("@Dev", base64("hi – ü".as_bytes())));
        assert_eq!(send.priority.as_deref(), Some("next"));
        let other = compose("@Dev", "hi – ü").unwrap();
        assert_ne!((&send.nonce, &send.client_message_id), (&other.nonce, &other.client_message_id));
        let target = other.target_spec.parse().unwrap();
        other.check(target).unwrap();
    }

    /// websocket 3.8
    #[test]
    fn the_fingerprint_names_a_group_without_its_sign() {
        for (who, reference) in [("*", "*"), ("@all", "all"), ("@Dev/api", "Dev/api")] {
            let destination = Destination { kind: "topic", reference, reply_to: None };
            let expected = request_fingerprint(destination, "next", None, "hi");
            assert_eq!(compose(who, "hi").unwrap().request_fingerprint, Some(expected), "{who}");
        }
    }

    #[test]
    fn a_text_has_the_same_limit_as_to_one() {
        let group = format!("@{}", "g".repeat(64));
        let longest = compose(&group, &"x".repeat(MAX_TEXT_BYTES)).unwrap();
        assert!(longest.size_bytes() <= MAX_MESSAGE_BYTES);
        let longer = compose("*", &"x".repeat(MAX_TEXT_BYTES + 1));
        assert!(matches!(longer, Err(Error::TooLarge { size_bytes: 49_065 })));
    }
}
