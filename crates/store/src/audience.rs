//! Whom a message is for: a key names a member or a session, an audience names members.
//!
//! What the addresses of a batch mean is read inside the transaction that writes, once per address however many messages have it.

use claudemesh_proto::grant::Capability;
use claudemesh_proto::{DisplayName, MemberId, MeshId, PublicKey, Target, Timestamp};

use crate::interner::Interner;
use crate::look_up::{Listener, Named};
use crate::message::NewMessage;
use crate::recipient::Recipient;

/// The sender of a message, as far as it decides who takes it: member, member's key, key that sealed it.
pub(crate) type From<'a> = (&'a MemberId, PublicKey, PublicKey);
/// A key that messages are for.
type Address<'a> = (&'a MeshId, PublicKey, From<'a>);
/// Everybody, or those in a group or below it.
type Audience<'a> = (&'a MeshId, Option<String>, From<'a>);

/// The addresses of a batch, in the order of the rows that [`LOOK_UP`](crate::look_up::LOOK_UP) reads.
#[derive(Debug, Default)]
pub(crate) struct Addresses<'a> {
    keys: Interner<Address<'a>>,
    audiences: Interner<Audience<'a>>,
    /// Of each message the places of its key and its audience.
    of_messages: Vec<(usize, Option<usize>)>,
}

/// What the addresses of a batch mean.
#[derive(Debug)]
pub(crate) struct Recipients {
    named: Vec<Option<Addressee>>,
    listening: Vec<Vec<Listening>>,
}

/// Whom a key names, and whether they can be sent to.
#[derive(Debug, Clone)]
pub(crate) struct Addressee {
    pub(crate) recipient: Option<(Recipient, MemberId)>,
    /// The session's key was never proven, or too long ago: it takes mail only while a connection holds it.
    pub(crate) only_while_open: bool,
    pub(crate) takes_direct: bool,
    /// The sender's own name; `None` when it was removed.
    pub(crate) sender_name: Option<DisplayName>,
    pub(crate) queued_rows: i64,
    pub(crate) queued_bytes: i64,
}

/// One member of an audience.
#[derive(Debug, Clone)]
pub(crate) struct Listening {
    pub(crate) member: MemberId,
    pub(crate) queued_rows: i64,
    pub(crate) queued_bytes: i64,
}

impl<'a> Addresses<'a> {
    pub(crate) fn of(messages: &[&'a NewMessage]) -> Self {
        let mut addresses = Self::default();
        for message in messages {
            // Whether the sender is still a member is known by its own key.
            let key = addresses.keys.intern(key_of(message));
            let audience = audience_of(message).map(|audience| addresses.audiences.intern(audience));
            addresses.of_messages.push((key, audience));
        }
        addresses
    }

    /// Every mesh in which there is an address.
    pub(crate) fn meshes(&self) -> impl Iterator<Item = &MeshId> {
        self.keys.in_order.iter().map(|(mesh, ..)| *mesh)
    }

    /// Keys as rows: place, mesh, key, sender, its member's key, its session's key.
    pub(crate) fn key_rows(&self) -> Vec<impl serde::Serialize> {
        let rows = self.keys.in_order.iter().enumerate();
        rows.map(|(place, (mesh, key, (member, first, second)))| (place, mesh, key, member, first, second)).collect()
    }

    /// Broadcasts as rows: place, mesh, sender, its member's key, its session's key.
    pub(crate) fn broadcast_rows(&self) -> Vec<impl serde::Serialize> {
        let all = self.audiences.in_order.iter().enumerate().filter(|(_, (_, group, _))| group.is_none());
        all.map(|(place, (mesh, _, (member, first, second)))| (place, mesh, member, first, second)).collect()
    }

    /// Groups as rows, each as two ranges of names: the group itself, and what is below it.
    pub(crate) fn group_rows(&self) -> Vec<impl serde::Serialize> {
        /// Behind everything that a name can hold.
        const LAST: char = '~';
        let groups = self.audiences.in_order.iter().enumerate();
        let groups = groups.filter_map(|(place, (mesh, group, from))| Some((place, mesh, group.as_ref()?, from)));
        let rows = groups.flat_map(|(place, mesh, group, (member, first, second))| {
            let ranges = [(group.clone(), group.clone()), (format!("{group}/"), format!("{group}/{LAST}"))];
            ranges.map(|(from, to)| (place, mesh, member, first, second, from, to))
        });
        rows.collect()
    }

    /// What the addresses mean. Sessions whose key was proven before `oldest` were gone for too long.
    pub(crate) fn recipients(&self, named: Vec<Named>, listeners: Vec<Listener>, oldest: Timestamp) -> Recipients {
        let mut recipients = Recipients {
            named: self.keys.in_order.iter().map(|_| None).collect(),
            listening: self.audiences.in_order.iter().map(|_| Vec::new()).collect(),
        };
        for found in named {
            let Some((_, key, _)) = self.keys.in_order.get(found.place) else { continue };
            if let Some(slot) = recipients.named.get_mut(found.place) {
                *slot = Some(Addressee::of(*key, found, oldest));
            }
        }
        for Listener { place, member, queued_rows, queued_bytes } in listeners {
            if let Some(listening) = recipients.listening.get_mut(place) {
                listening.push(Listening { member, queued_rows, queued_bytes });
            }
        }
        // Whoever is in a group and in one below it hears once.
        for listening in &mut recipients.listening {
            listening.sort_unstable_by(|a, b| a.member.cmp(&b.member));
            listening.dedup_by(|a, b| a.member == b.member);
        }
        recipients
    }

    /// Whom the key of a message names, by the message's place; for an audience, its sender.
    pub(crate) fn addressee<'r>(&self, found: &'r Recipients, message: usize) -> Option<&'r Addressee> {
        let (key, _) = self.of_messages.get(message)?;
        found.named.get(*key)?.as_ref()
    }

    /// Who hears a message, by its place, when it is for an audience.
    pub(crate) fn listening<'r>(&self, found: &'r Recipients, message: usize) -> Option<&'r [Listening]> {
        let (_, audience) = self.of_messages.get(message)?;
        found.listening.get((*audience)?).map(Vec::as_slice)
    }
}

impl Addressee {
    fn of(key: PublicKey, found: Named, oldest: Timestamp) -> Self {
        let by_member = found.member.map(|id| (Recipient::Member(id.clone()), id));
        let by_session = found.owner.map(|id| (Recipient::Session(key), id));
        let is_lasting = found.last_seen_at.is_some_and(|seen| seen >= oldest.as_millis());
        Self {
            only_while_open: by_member.is_none() && !(found.proven_at.is_some() && is_lasting),
            recipient: by_member.or(by_session),
            takes_direct: found.capabilities.is_none_or(|words| allows(&words, Capability::Dm)),
            sender_name: found.sender_name,
            queued_rows: found.queued_rows,
            queued_bytes: found.queued_bytes,
        }
    }
}

/// Whether a member's grant holds a capability.
fn allows(words: &str, capability: Capability) -> bool {
    let words: Vec<String> = serde_json::from_str(words).unwrap_or_default();
    words.iter().any(|word| word == capability.as_str())
}

fn sender(message: &NewMessage) -> From<'_> {
    (&message.sender_member_id, message.sender_member_pubkey, message.sender_pubkey)
}

fn key_of(message: &NewMessage) -> Address<'_> {
    let key = if let Target::Key(key) = message.target { key } else { message.sender_member_pubkey };
    (&message.mesh_id, key, sender(message))
}

fn audience_of(message: &NewMessage) -> Option<Audience<'_>> {
    let group = match &message.target {
        Target::Key(_) | Target::Topic(_) => return None,
        Target::Everybody | Target::All => None,
        Target::Group(name) => Some(name.key()),
    };
    Some((&message.mesh_id, group, sender(message)))
}
