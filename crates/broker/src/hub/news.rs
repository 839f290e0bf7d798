//! What is told of comings and goings. Whoever hides, and a command that only asks, come and go unseen.
//!
//! News of one goes to all, so what a crowd tells of itself grows with its square. Beyond the [`Allowance`] nothing is told: who is
//! here can be asked for, and letting people in comes first.

use std::sync::Arc;

use claudemesh_keys::random_bytes;
use claudemesh_proto::event::{SystemEvent, uuid};
use claudemesh_proto::presence::PeerRole;
use claudemesh_proto::{PresenceId, Timestamp};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::hub::Presence;
use crate::hub::occupant::Occupant;
use crate::hub::room::Room;

/// Most copies of news that one mesh gets at once: all of 300 connections that come back together hear of each other.
const BURST: i64 = 50_000;
/// Copies that a mesh gets a millisecond beside that; each costs some microseconds.
const COPIES_PER_MS: i64 = 5;

/// How many copies of news a mesh may still get.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    left: i64,
    at: Timestamp,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: BURST, at: Timestamp::from_millis(0) }
    }
}

impl Allowance {
    /// What is left after so many copies; `None` when that is more than there is.
    pub(super) fn take(self, copies: usize, now: Timestamp) -> Option<Self> {
        let millis = now.as_millis().saturating_sub(self.at.as_millis()).max(0);
        let left = self.left.saturating_add(millis.saturating_mul(COPIES_PER_MS)).min(BURST);
        let left = left.checked_sub(i64::try_from(copies).ok()?)?;
        (left >= 0).then_some(Self { left, at: now })
    }
}

/// What happened to a presence that others see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It is here, and was not before: its member never, or it is a session.
    Joined,
    /// Its member is back.
    Returned,
    Left,
    Visible,
    Hidden,
}

impl News {
    /// What is told of a presence that has just connected.
    pub(super) fn of_arrival(presence: &Presence) -> Self {
        if presence.returns.is_some() { Self::Returned } else { Self::Joined }
    }

    fn event(self) -> &'static str {
        match self {
            Self::Joined => "peer_joined",
            Self::Returned => "peer_returned",
            Self::Left => "peer_left",
            Self::Visible => "peer_visible",
            Self::Hidden => "peer_hidden",
        }
    }
}

/// The text to tell, the same for everybody; none without an id to give it.
fn text(news: News, of: &Presence, now: Timestamp) -> Option<Utf8Bytes> {
    let id = uuid(random_bytes().ok()?);
    let data = data(news, of);
    Some(SystemEvent::new(&id, &of.mesh_id, now, (news.event(), &data)).to_json().into())
}

fn data(news: News, of: &Presence) -> Value {
    let peer = &of.peer;
    // Existing clients read the one or the other name.
    let mut data = json!({"name": peer.display_name, "displayName": peer.display_name, "pubkey": peer.pubkey});
    let mut add = |name: &str, value: Value| {
        if let Some(fields) = data.as_object_mut() {
            fields.insert(name.to_owned(), value);
        }
    };
    if matches!(news, News::Joined | News::Returned | News::Left) {
        add("groups", json!(peer.groups));
    }
    if let (News::Returned, Some(returns)) = (news, &of.returns) {
        add("lastSeenAt", json!(returns.last_seen_at));
        if let Some(summary) = &returns.summary {
            add("summary", json!(summary));
        }
    }
    data
}

impl Room {
    /// Shows or hides those that the caller means, and tells everybody else. The caller itself is told of only if it stands for
    /// nobody: a command is gone in a moment.
    pub(super) fn show(&mut self, caller: &PresenceId, is_visible: bool, now: Timestamp) {
        let meant = self.meant_by(caller);
        let news = if is_visible { News::Visible } else { News::Hidden };
        for presence_id in &meant {
            let Some(occupant) = self.presences.get_mut(presence_id) else { continue };
            if occupant.presence.is_hidden() != is_visible {
                continue;
            }
            Arc::make_mut(&mut occupant.presence.peer).visible = Some(is_visible);
            let presence = &occupant.presence;
            if !presence.is_cold() || meant.len() == 1 {
                let Some(text) = text(news, presence, now) else { continue };
                self.shout(&text, |other| other.id != *presence_id && other.id != *caller);
            }
        }
    }

    pub(super) fn shout(&self, text: &Utf8Bytes, is_meant: impl Fn(&Presence) -> bool) {
        let meant = self.presences.values().filter(|occupant| is_meant(&occupant.presence));
        meant.filter_map(Occupant::doorbell).for_each(|doorbell| doorbell.say(text.clone()));
    }

    /// Tells who should hear of it that somebody came or went. Of a session that comes, also the other connections of its member.
    pub(super) fn tell(&self, news: News, of: &Presence, now: Timestamp) {
        if self.is_closing || !of.is_announced() {
            return;
        }
        let Some(left) = self.allowance.get().take(self.open, now) else { return };
        self.allowance.set(left);
        let is_for_own = news == News::Joined && of.peer.peer_role == PeerRole::Session;
        if let Some(text) = text(news, of, now) {
            self.shout(&text, |other| other.id != of.id && (is_for_own || other.member_id != of.member_id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    /// How many of so many joiners, a millisecond each, are told of to a crowd that grows with each.
    fn told(joiners: usize) -> usize {
        let mut allowance = Allowance::default();
        let tell = |open: &usize| match allowance.take(*open, at(i64::try_from(*open).unwrap())) {
            Some(left) => {
                allowance = left;
                true
            }
            None => false,
        };
        (0..joiners).filter(tell).count()
    }

    #[test]
    fn a_team_hears_of_everybody_and_a_crowd_of_as_many_as_it_can_take() {
        assert_eq!(told(300), 300);
        let heard = told(10_000);
        assert!((300..2000).contains(&heard), "{heard}");
    }

    #[test]
    fn what_was_used_comes_back_and_never_more() {
        let empty = Allowance::default().take(50_000, at(0)).unwrap();
        assert!(empty.take(1, at(0)).is_none());
        assert!(empty.take(5, at(1)).is_some() && empty.take(6, at(1)).is_none());
        assert!(empty.take(50_000, at(1_000_000)).is_some() && empty.take(50_001, at(1_000_000)).is_none());
        assert!(empty.take(1, at(-5)).is_none(), "a clock that is set back gives nothing");
    }
}
