//! Whom a name means.
//!
//! Names are claims of whoever chose them, so a name that means two keys means nobody: the candidates are listed and
//! nothing is sent. A session that calls itself what a member is called makes that name ambiguous, it does not take it over.

use std::fmt;

use claudemesh_proto::PublicKey;
use claudemesh_proto::limits::MIN_KEY_PREFIX;
use claudemesh_proto::member::Member;
use claudemesh_proto::presence::Peer;
use claudemesh_proto::text::one_line;

use crate::connection::Connection;
use crate::error::Result;

/// Everybody who can be addressed.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    /// Who is here.
    pub peers: Vec<Peer>,
    /// Who belongs to the mesh.
    pub members: Vec<Member>,
}

/// Somebody who can be addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressee {
    /// The key to seal for and to send to.
    pub key: PublicKey,
    /// The member's key: the same unless a session is addressed; `None` when the key is not known here.
    pub member_key: Option<PublicKey>,
    /// The name, when the key is known.
    pub name: Option<String>,
}

/// Nobody can be addressed by this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// It means more than one.
    Ambiguous {
        /// What was asked for.
        who: String,
        /// Whom it may mean.
        candidates: Vec<Addressee>,
    },
    /// It means nobody.
    Nobody {
        /// What was asked for.
        who: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// It means nobody, and may be the beginning of a key that is too short for one.
    ShortKey {
        /// What was asked for.
        who: String,
        /// The fewest characters that name a key.
        least: usize,
    },
    /// It names a group, a topic or everybody where one is wanted.
    NotOne(String),
    /// It is written like a group or everybody and is neither.
    NoAudience(String),
}

impl Roster {
    /// Asks the broker.
    pub async fn fetch(connection: &Connection) -> Result<Self> {
        let (peers, members) = tokio::join!(connection.peers(), connection.members());
        Ok(Self { peers: peers?, members: members? })
    }

    /// Whom `who` means: a key of 64 hex characters, a name, or the first 8 characters of a key or more.
    ///
    /// A member's name means the member, whichever connection comes for the mail; the name of a session means that session
    /// where it is another than its member's. Letter case makes no other name: who calls itself `Bob` beside `bob` makes both
    /// ambiguous, and does not take one over.
    ///
    /// # Errors
    /// [`Unresolved`] with the candidates or the known names.
    pub fn resolve(&self, who: &str) -> Result<Addressee, Unresolved> {
        self.find(who, MIN_PREFIX)
    }

    /// The same among members alone, for what has consequences: a key's beginning has 12 characters at least.
    ///
    /// # Errors
    /// As above.
    pub fn resolve_member(&self, who: &str) -> Result<Addressee, Unresolved> {
        Self { peers: Vec::new(), members: self.members.clone() }.find(who, MIN_KEY_PREFIX)
    }

    fn find(&self, who: &str, shortest: usize) -> Result<Addressee, Unresolved> {
        let who = who.trim();
        if who == "*" || who.starts_with('@') || who.starts_with('#') {
            return Err(Unresolved::NotOne(one_line(who)));
        }
        if let Ok(key) = who.to_ascii_lowercase().parse() {
            return Ok(self.by_key(key));
        }
        let is_prefix = (shortest..64).contains(&who.len()) && who.bytes().all(|byte| byte.is_ascii_hexdigit());
        let prefix = is_prefix.then(|| who.to_ascii_lowercase());
        let is_meant = |one: &Addressee| {
            one.name.as_deref().is_some_and(|name| is_same_name(name, who))
                || prefix.as_deref().is_some_and(|prefix| one.key.to_string().starts_with(prefix))
        };
        let mut found: Vec<_> = self.everybody().into_iter().filter(is_meant).collect();
        found.sort_by_key(|one| one.key);
        found.dedup_by_key(|one| one.key);
        match (found.pop(), found.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                found.push(last);
                Err(Unresolved::Ambiguous { who: one_line(who), candidates: found })
            }
            (None, _) if is_short_key(who, shortest) => {
                Err(Unresolved::ShortKey { who: one_line(who), least: shortest })
            }
            (None, _) => Err(Unresolved::Nobody { who: one_line(who), known: self.names() }),
        }
    }

    /// The member's name for a key of a member or session, if it is known.
    pub fn member_name(&self, key: &PublicKey) -> Option<String> {
        self.members.iter().find(|member| member.pubkey == *key).map(|member| member.display_name.to_string())
    }

    /// The name of the member or session with this key, if it is known.
    pub fn resolve_key(&self, key: &PublicKey) -> Option<String> {
        self.member_name(key).or_else(|| self.by_key(*key).name)
    }

    fn by_key(&self, key: PublicKey) -> Addressee {
        let known = self.everybody().into_iter().find(|one| one.key == key);
        known.unwrap_or(Addressee { key, member_key: None, name: None })
    }

    /// Members under their names; sessions under theirs, except under the member's, which means the member. A connection
    /// without a session key may go by another name: it means its member too.
    fn everybody(&self) -> Vec<Addressee> {
        let member = |member: &Member| Addressee {
            key: member.pubkey,
            member_key: Some(member.pubkey),
            name: Some(member.display_name.to_string()),
        };
        let present = |peer: &Peer| {
            let name = peer.display_name.to_string();
            let is_members = self.member_name(&peer.member_pubkey).is_some_and(|member| is_same_name(&member, &name));
            let name = (peer.pubkey == peer.member_pubkey || !is_members).then_some(name);
            Addressee { key: peer.pubkey, member_key: Some(peer.member_pubkey), name }
        };
        self.members.iter().map(member).chain(self.peers.iter().map(present)).collect()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.everybody().into_iter().filter_map(|one| one.name).collect();
        names.sort();
        names.dedup();
        names
    }
}

impl fmt::Display for Addressee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = key_prefix(&self.key);
        match &self.name {
            Some(name) => write!(f, "{} ({key}…)", one_line(name)),
            None => write!(f, "{key}…"),
        }
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambiguous { who, candidates } => {
                write!(f, "\"{who}\" may mean {} recipients, so nothing was done:", candidates.len())?;
                for one in candidates {
                    let kind = if one.member_key == Some(one.key) { "member" } else { "session" };
                    let name = one.name.as_deref().map(one_line).unwrap_or_default();
                    write!(f, "\n  {kind:7} {} {name}", one.key)?;
                }
                Ok(())
            }
            Self::ShortKey { who, least } => {
                write!(f, "nobody is called \"{who}\", and a key needs at least {least} characters")
            }
            Self::Nobody { who, known } if known.is_empty() => write!(f, "nobody is called \"{who}\""),
            Self::Nobody { who, known } => {
                let named = known.get(..NAMED.min(known.len())).unwrap_or_default().join(", ");
                write!(f, "nobody is called \"{who}\"; there are: {named}")?;
                if known.len() > NAMED { write!(f, " and {} more", known.len() - NAMED) } else { Ok(()) }
            }
            Self::NotOne(who) => {
                write!(f, "\"{who}\" means a group, a topic or everybody; one member or session is wanted")
            }
            Self::NoAudience(who) => {
                let grammar = "neither everybody (* or @all) nor a group (@NAME of 1-64 a-z, 0-9 and _./-)";
                write!(f, "\"{who}\" is {grammar}; a topic is written to with claudemesh topic post")
            }
        }
    }
}

impl std::error::Error for Unresolved {}

/// The first 12 characters of a key: what people are shown of it, and enough for [`Roster::resolve`]. A key that is the broker's
/// word may be any text.
pub fn key_prefix(key: &impl fmt::Display) -> String {
    one_line(&key.to_string()).chars().take(12).collect()
}

/// Whether two names are one to who reads or types them: letter case makes no difference.
pub fn is_same_name(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

/// Whether somebody may have meant it as the beginning of a key that is too short to name one.
pub fn is_short_key(who: &str, least: usize) -> bool {
    (SHORTEST..least).contains(&who.len()) && who.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Characters of a key that name it where a wrong guess is seen at once.
const MIN_PREFIX: usize = 8;

/// What is shorter and could be the beginning of a key is rather a name.
const SHORTEST: usize = 4;

/// Names that fit into an answer; a mesh may have a thousand.
const NAMED: usize = 20;

#[cfg(test)]
mod tests {
    use claudemesh_proto::presence::PeerRole;
    use claudemesh_proto::{MemberId, MemberRole, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32])
    }

    fn member(byte: u8, name: &str) -> Member {
        Member {
            member_id: MemberId::from_random([byte; 32]),
            pubkey: key(byte),
            display_name: name.parse().unwrap(),
            role: MemberRole::Member,
            joined_at: Timestamp::from_millis(0),
            online: true,
            role_tag: None,
            groups: vec![],
            message_mode: None,
            last_seen_at: None,
        }
    }

    fn peer(session: u8, member: u8, name: &str) -> Peer {
        Peer {
            pubkey: key(session),
            member_pubkey: key(member),
            display_name: name.parse().unwrap(),
            status: claudemesh_proto::Status::Idle,
            summary: None,
            groups: vec![],
            session_id: "s".into(),
            connected_at: Timestamp::from_millis(0),
            cwd: String::new(),
            peer_role: if session == member { PeerRole::ControlPlane } else { PeerRole::Session },
            hostname: None,
            peer_type: None,
            channel: None,
            model: None,
            stats: None,
            visible: None,
            profile: None,
        }
    }

    fn roster() -> Roster {
        Roster {
            members: vec![member(0xaa, "Anna"), member(0xbb, "Ben"), member(0xcc, "carl")],
            peers: vec![
                peer(0xa1, 0xaa, "Anna"),
                peer(0xa2, 0xaa, "anna-api"),
                peer(0xa3, 0xaa, "anna-web"),
                peer(0xaa, 0xaa, "Anna"),
                peer(0xb1, 0xbb, "api"),
                peer(0xc1, 0xcc, "api"),
            ],
        }
    }

    fn resolve(who: &str) -> Result<PublicKey, Unresolved> {
        roster().resolve(who).map(|one| one.key)
    }

    #[test]
    fn a_members_name_means_the_member_also_while_a_session_of_that_name_is_here() {
        assert_eq!(resolve("Anna"), Ok(key(0xaa)));
        assert_eq!(resolve(" anna "), Ok(key(0xaa)));
        assert_eq!(resolve("Carl"), Ok(key(0xcc)));
    }

    #[test]
    fn a_sessions_own_name_means_that_session() {
        let one = roster().resolve("anna-api").unwrap();
        assert_eq!((one.key, one.member_key), (key(0xa2), Some(key(0xaa))));
    }

    #[test]
    fn a_connection_without_a_session_key_means_its_member_under_any_name() {
        let mut roster = roster();
        roster.peers.push(peer(0xbb, 0xbb, "ben-at-home"));
        assert_eq!(roster.resolve("ben-at-home").unwrap().key, key(0xbb));
    }

    #[test]
    fn a_session_cannot_take_over_a_members_name() {
        let mut roster = roster();
        roster.peers.push(peer(0xe1, 0xcc, "Ben"));
        let Err(Unresolved::Ambiguous { candidates, .. }) = roster.resolve("Ben") else { panic!("not ambiguous") };
        assert_eq!(candidates.iter().map(|one| one.key).collect::<Vec<_>>(), [key(0xbb), key(0xe1)]);
    }

    #[test]
    fn a_newcomer_whose_name_differs_in_case_takes_no_name_over() {
        let mut roster = roster();
        roster.members.push(member(0xdd, "BEN"));
        for who in ["Ben", "BEN", "ben"] {
            let Err(Unresolved::Ambiguous { candidates, .. }) = roster.resolve(who) else { panic!("not ambiguous") };
            assert_eq!(candidates.iter().map(|one| one.key).collect::<Vec<_>>(), [key(0xbb), key(0xdd)]);
        }
        roster.peers.push(peer(0xa4, 0xaa, "ANNA"));
        assert_eq!(roster.resolve("anna").unwrap().key, key(0xaa), "a session named like its own member");
    }

    #[test]
    fn where_it_has_consequences_only_members_are_meant_and_by_twelve_characters() {
        let roster = roster();
        assert_eq!(roster.resolve_member("ben").unwrap().key, key(0xbb));
        assert_eq!(roster.resolve_member("bbbbbbbbbbbb").unwrap().key, key(0xbb));
        let short = roster.resolve_member("bbbbbbbbbbb").unwrap_err();
        assert_eq!(short.to_string(), "nobody is called \"bbbbbbbbbbb\", and a key needs at least 12 characters");
        assert!(matches!(roster.resolve_member("anna-api"), Err(Unresolved::Nobody { .. })));
    }

    #[test]
    fn an_ambiguous_name_lists_the_candidates() {
        let text = resolve("api").unwrap_err().to_string();
        assert_eq!(
            text,
            format!(
                "\"api\" may mean 2 recipients, so nothing was done:\n  session {} api\n  session {} api",
                key(0xb1),
                key(0xc1)
            )
        );
    }

    #[test]
    fn a_prefix_of_eight_names_a_key_and_a_shorter_one_nothing() {
        assert_eq!(resolve("bbbbbbbb"), Ok(key(0xbb)));
        assert_eq!(resolve("BBBBBBBBBB"), Ok(key(0xbb)));
        let short = resolve("bbbbbbb").unwrap_err();
        assert_eq!(short.to_string(), "nobody is called \"bbbbbbb\", and a key needs at least 8 characters");
        let mut roster = roster();
        roster.members.push(member(0xdd, "bbbbbbbb"));
        assert!(
            matches!(roster.resolve("bbbbbbbb"), Err(Unresolved::Ambiguous { .. })),
            "a name that looks like a prefix"
        );
    }

    #[test]
    fn a_whole_key_needs_nobody_to_know_it() {
        let one = roster().resolve(&key(0xee).to_string().to_uppercase()).unwrap();
        assert_eq!(one, Addressee { key: key(0xee), member_key: None, name: None });
        assert_eq!(resolve(&key(0xa3).to_string()), Ok(key(0xa3)));
    }

    #[test]
    fn unknown_names_list_the_known_and_groups_are_not_one() {
        assert_eq!(
            resolve("Dora").unwrap_err().to_string(),
            "nobody is called \"Dora\"; there are: Anna, Ben, anna-api, anna-web, api, carl"
        );
        let many =
            Roster { members: (1..=23).map(|byte| member(byte, &format!("m{byte:02}"))).collect(), peers: vec![] };
        assert!(many.resolve("Dora").unwrap_err().to_string().ends_with("m19, m20 and 3 more"));
        for who in ["*", "@all", "#topic"] {
            assert_eq!(resolve(who), Err(Unresolved::NotOne(who.into())));
        }
    }

    proptest! {
        #[test]
        fn whoever_is_found_was_meant(who in "[a-cA-C0-9 -]{0,12}") {
            if let Ok(one) = roster().resolve(&who) {
                let named = one.name.is_some_and(|name| name.to_lowercase() == who.trim().to_lowercase());
                prop_assert!(named || one.key.to_string().starts_with(&who.trim().to_lowercase()));
            }
        }
    }
}
