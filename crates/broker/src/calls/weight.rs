//! How much of a list fits an answer. What everybody says of themselves adds up: a thousand profiles would be 30 MB, which nobody
//! reads and the broker would have to hold for each who asks and does not (D11).

use std::io;
use std::sync::Arc;

use claudemesh_proto::api_key::ApiKey;
use claudemesh_proto::audit::AuditEntry;
use claudemesh_proto::hello::Group;
use claudemesh_proto::member::Member;
use claudemesh_proto::presence::Peer;
use claudemesh_proto::topic::ListedTopic;
use serde::Serialize;

/// Bytes of JSON up to which entries are whole.
const WHOLE: usize = 1 << 20;
/// Bytes up to which peers keep their place and their groups.
const BRIEF: usize = 2 << 20;

/// Counts what is written to it.
#[derive(Default)]
struct Weight(usize);

impl io::Write for Weight {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Weight {
    /// Adds an entry.
    fn add(&mut self, entry: &impl Serialize) {
        // A count cannot fail, and what is no JSON is found when it is written.
        let _ = serde_json::to_writer(self, entry);
    }
}

/// All of them, in their order: whole as far as they fit, then without what they say of themselves at length, then hardly more than
/// their names and keys.
pub(super) fn peers(peers: Vec<Arc<Peer>>) -> Vec<Peer> {
    let mut weight = Weight::default();
    let shown = peers.into_iter().map(|peer| {
        let shown = match weight.0 {
            0..WHOLE => Arc::unwrap_or_clone(peer),
            WHOLE..BRIEF => brief(&peer),
            _ => bare(&peer),
        };
        weight.add(&shown);
        shown
    });
    shown.collect()
}

/// All of them, in their order: without their groups and tags where those do not fit.
pub(super) fn members(members: Vec<Member>) -> Vec<Member> {
    let mut weight = Weight::default();
    let shown = members.into_iter().map(|member| {
        let shown = if weight.0 < WHOLE { member } else { Member { role_tag: None, groups: Vec::new(), ..member } };
        weight.add(&shown);
        shown
    });
    shown.collect()
}

/// All of them, in their order: without their descriptions where those do not fit.
pub(super) fn topics(topics: Vec<ListedTopic>) -> Vec<ListedTopic> {
    let mut weight = Weight::default();
    let shown = topics.into_iter().map(|topic| {
        let shown = if weight.0 < WHOLE { topic } else { ListedTopic { description: None, ..topic } };
        weight.add(&shown);
        shown
    });
    shown.collect()
}

/// The first ones, as many as fit; at least one.
pub(super) fn entries(entries: Vec<AuditEntry>) -> Vec<AuditEntry> {
    first(entries)
}

/// The newest, as many as fit.
pub(super) fn api_keys(keys: Vec<ApiKey>) -> Vec<ApiKey> {
    first(keys)
}

fn first<T: Serialize>(mut entries: Vec<T>) -> Vec<T> {
    let mut weight = Weight::default();
    let fits = entries.iter().take_while(|entry| {
        weight.add(entry);
        weight.0 < WHOLE
    });
    let fits = fits.count().max(1);
    entries.truncate(fits);
    entries
}

fn brief(peer: &Peer) -> Peer {
    let groups = peer.groups.iter().map(|group| Group { name: group.name.clone(), role: None });
    Peer {
        groups: groups.collect(),
        cwd: peer.cwd.clone(),
        peer_type: peer.peer_type.clone(),
        channel: peer.channel.clone(),
        model: peer.model.clone(),
        ..bare(peer)
    }
}

fn bare(peer: &Peer) -> Peer {
    Peer {
        pubkey: peer.pubkey,
        member_pubkey: peer.member_pubkey,
        display_name: peer.display_name.clone(),
        status: peer.status,
        summary: None,
        groups: Vec::new(),
        session_id: peer.session_id.clone(),
        connected_at: peer.connected_at,
        cwd: String::new(),
        peer_role: peer.peer_role,
        hostname: peer.hostname.clone(),
        peer_type: None,
        channel: None,
        model: None,
        stats: None,
        visible: peer.visible,
        profile: None,
    }
}
