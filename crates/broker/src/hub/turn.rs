//! Who of a room takes whose mail, and is woken for it.
//!
//! A member's mail goes to one of its connections, and a session key's to who has proven it, else to who names it.

use claudemesh_proto::presence::PeerRole;
use claudemesh_proto::{MemberId, PresenceId, PublicKey, Status};
use claudemesh_store::Recipient;

use crate::hub::Takes;
use crate::hub::occupant::Occupant;
use crate::hub::room::Room;

impl Occupant {
    fn takes_mail(&self) -> bool {
        self.is_open() && !self.presence.is_quiet
    }

    /// Whose turn it is to take the member's mail: a daemon first, then sessions, then a command that runs for a moment; among
    /// equals whoever came first.
    fn turn(&self) -> (u8, u64) {
        let class = match (self.presence.peer.peer_role, self.presence.session) {
            (PeerRole::ControlPlane, None) => 0,
            (PeerRole::Session, _) => 1,
            (PeerRole::ControlPlane, Some(_)) => 2,
        };
        (class, self.entrance)
    }
}

impl Room {
    pub(super) fn has_other(&self, member: &MemberId, than: &PresenceId) -> bool {
        self.of_member(member).any(|occupant| occupant.takes_mail() && occupant.presence.id != *than)
    }

    /// Somebody has proven the key: whoever only named it no longer takes its mail.
    pub(super) fn unbelieve(&mut self, key: &PublicKey) {
        for presence_id in self.sessions.get(key).into_iter().flatten() {
            if let Some(occupant) = self.presences.get_mut(presence_id) {
                occupant.presence.speaks_for_session = occupant.presence.session.is_some_and(|session| session.proven);
            }
        }
    }

    pub(super) fn ring(&self, recipient: &Recipient, from_start: bool) {
        match recipient {
            Recipient::Member(member) => {
                if let Some(doorbell) = self.claimant(member).and_then(Occupant::doorbell) {
                    doorbell.ring(from_start);
                }
            }
            Recipient::Session(key) => {
                if let Some(doorbell) = self.session_claimant(key).and_then(Occupant::doorbell) {
                    doorbell.ring(from_start);
                }
            }
        }
    }

    /// Wakes every connection of a member, to look from the start.
    pub(super) fn wake(&self, member: &MemberId) {
        self.of_member(member).filter_map(Occupant::doorbell).for_each(|doorbell| doorbell.ring(true));
    }

    pub(super) fn takes(&self, presence: &PresenceId) -> Takes {
        let Some(occupant) = self.presences.get(presence) else { return Takes::default() };
        let is_me = |claimant: Option<&Occupant>| claimant.is_some_and(|it| it.presence.id == *presence);
        let session = occupant.presence.session.map(|session| session.pubkey);
        Takes {
            member: is_me(self.claimant(&occupant.presence.member_id)),
            session: session.filter(|key| is_me(self.session_claimant(key))),
        }
    }

    pub(super) fn is_session_open(&self, key: &PublicKey) -> bool {
        self.of_session(key).any(|occupant| occupant.is_open() && occupant.presence.speaks_for_session)
    }

    pub(super) fn open_sessions(&self) -> impl Iterator<Item = PublicKey> {
        self.sessions.keys().copied().filter(|key| self.is_session_open(key))
    }

    pub(super) fn is_draining(&self, recipient: &Recipient) -> bool {
        self.drain(recipient).is_some()
    }

    pub(super) fn is_busy(&self, recipient: &Recipient) -> bool {
        self.drain(recipient).is_some_and(|occupant| occupant.presence.peer.status != Status::Idle)
    }

    fn drain(&self, recipient: &Recipient) -> Option<&Occupant> {
        match recipient {
            Recipient::Member(member) => self.claimant(member),
            Recipient::Session(key) => self.session_claimant(key),
        }
    }

    /// The one connection that takes the member's mail.
    pub(super) fn claimant(&self, member: &MemberId) -> Option<&Occupant> {
        self.of_member(member).filter(|occupant| occupant.takes_mail()).min_by_key(|occupant| occupant.turn())
    }

    /// The one connection that takes mail for a session key: who has proven it, else who names it.
    pub(super) fn session_claimant(&self, key: &PublicKey) -> Option<&Occupant> {
        self.of_session(key)
            .filter(|occupant| occupant.takes_mail() && occupant.presence.speaks_for_session)
            .min_by_key(|occupant| occupant.turn())
    }
}
