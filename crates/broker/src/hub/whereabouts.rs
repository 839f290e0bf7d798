//! Where open connections are, as the status hooks of their sessions know them: by session id, process and directory, always from
//! one address, or by a token. And what such a hook said a moment before its session connected.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hash};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_proto::presence::PeerRole;
use claudemesh_proto::{ConnectionId, MeshId, PresenceId, PublicKey, Status, Timestamp};

use crate::hub::Presence;

/// How long a report waits for the session that it is about.
const PENDING_FOR: Duration = Duration::from_secs(10);
/// Most reports that wait, in all and from one address.
const MAX_PENDING: usize = 4096;
const MAX_PENDING_OF_ADDRESS: usize = 256;
/// Most connections that one report is for: a session is connected once in each of its meshes.
const MAX_MESHES: usize = 64;

/// Where one open connection is.
#[derive(Debug)]
pub(crate) struct Whereabouts {
    pub(super) mesh_id: MeshId,
    pub(super) presence_id: PresenceId,
    pub(super) connection: ConnectionId,
    /// Later ones have higher numbers.
    number: u64,
    member: PublicKey,
    is_session: bool,
    session_id: String,
    process: Process,
    token: TokenHash,
}

/// The SHA-256 of a hook token.
pub(crate) type TokenHash = [u8; 32];

/// A process in a directory. Without an address it is on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) address: Option<IpAddr>,
    pub(crate) pid: i64,
    pub(crate) cwd: String,
}

/// What a hook says about whom, without a token.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) process: Process,
    /// Empty when it names none.
    pub(crate) session_id: String,
    pub(crate) status: Status,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Directory {
    hasher: RandomState,
    count: u64,
    by_token: HashMap<TokenHash, Arc<Whereabouts>>,
    /// By the hash of what they are known by, and then by number.
    by_name: BTreeMap<(u64, u64), Arc<Whereabouts>>,
    pending: HashMap<Option<IpAddr>, HashMap<Process, (Status, Timestamp)>>,
}

/// What a connection is known by.
#[derive(Hash)]
enum Name<'a> {
    Session(Option<IpAddr>, &'a str),
    Process(&'a Process),
    Place(Option<IpAddr>, &'a str),
}

impl Name<'_> {
    fn is_of(&self, it: &Whereabouts) -> bool {
        match self {
            Self::Session(address, session_id) => it.process.address == *address && it.session_id == *session_id,
            Self::Process(process) => it.process == **process,
            Self::Place(address, cwd) => it.process.address == *address && it.process.cwd == *cwd,
        }
    }
}

impl Whereabouts {
    pub(super) fn new(presence: &Presence, connection: ConnectionId) -> Self {
        let peer = &presence.peer;
        Self {
            mesh_id: presence.mesh_id.clone(),
            presence_id: presence.id.clone(),
            connection,
            number: 0,
            member: peer.member_pubkey,
            is_session: peer.peer_role == PeerRole::Session,
            session_id: peer.session_id.clone(),
            process: Process { address: presence.address, pid: presence.pid, cwd: peer.cwd.clone() },
            token: presence.hook_token,
        }
    }
}

impl Directory {
    /// Lists a connection that was seated.
    pub(super) fn enter(&mut self, mut it: Whereabouts) -> Arc<Whereabouts> {
        self.count += 1;
        it.number = self.count;
        let it = Arc::new(it);
        for name in names(&it) {
            self.by_name.insert((self.hash(&name), it.number), Arc::clone(&it));
        }
        self.by_token.insert(it.token, Arc::clone(&it));
        it
    }

    pub(super) fn leave(&mut self, it: &Whereabouts) {
        for name in names(it) {
            self.by_name.remove(&(self.hash(&name), it.number));
        }
        self.by_token.remove(&it.token);
    }

    pub(super) fn with_token(&self, token: &TokenHash) -> Option<Arc<Whereabouts>> {
        self.by_token.get(token).cloned()
    }

    /// Whom a report may be about, likelier ones first: who is just what it says, who has its session id, who is its process, who is
    /// in its directory; of each the newest, and sessions before commands that name the session which they run in.
    pub(super) fn candidates(&self, report: &Report) -> Vec<Arc<Whereabouts>> {
        let process = &report.process;
        let mut found = Vec::new();
        if !report.session_id.is_empty() {
            let session = Name::Session(process.address, &report.session_id);
            // However many there are who took the same session id for themselves, and came later.
            found.extend(self.known_as(&session, |it| it.process == *process));
            found.extend(self.known_as(&session, |_| true));
        }
        if process.pid > 0 {
            found.extend(self.known_as(&Name::Process(process), |_| true));
        }
        found.extend(self.known_as(&Name::Place(process.address, &process.cwd), |_| true));
        found
    }

    /// The same session in other meshes, under the same member's key: its hook speaks once for all of them. Anybody can say that it
    /// is that session; nobody else has that key.
    pub(super) fn same_session(&self, as_it: &Whereabouts) -> Vec<Arc<Whereabouts>> {
        if as_it.session_id.is_empty() {
            return Vec::new();
        }
        let session = Name::Session(as_it.process.address, &as_it.session_id);
        self.known_as(&session, |it| it.number != as_it.number && it.member == as_it.member)
    }

    /// Keeps what a hook said of a session that is not here yet.
    pub(super) fn keep(&mut self, report: Report, now: Timestamp) {
        let Report { process, status, .. } = report;
        let all: usize = self.pending.values().map(HashMap::len).sum();
        let of_address = self.pending.get_mut(&process.address);
        if let Some(said) = of_address.and_then(|of_address| of_address.get_mut(&process)) {
            *said = (status, now);
            return;
        }
        let of_address = self.pending.get(&process.address).map_or(0, HashMap::len);
        if all < MAX_PENDING && of_address < MAX_PENDING_OF_ADDRESS {
            self.pending.entry(process.address).or_default().insert(process, (status, now));
        }
    }

    /// What a hook said of this one a moment ago.
    pub(super) fn take_pending(&mut self, it: &Whereabouts, now: Timestamp) -> Option<Status> {
        let (status, at) = self.pending.get_mut(&it.process.address)?.remove(&it.process)?;
        is_waiting(at, now).then_some(status)
    }

    /// Forgets reports whose session did not come.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        self.pending.retain(|_, of_address| {
            of_address.retain(|_, (_, at)| is_waiting(*at, now));
            !of_address.is_empty()
        });
    }

    fn known_as(&self, name: &Name<'_>, is_meant: impl Fn(&Whereabouts) -> bool) -> Vec<Arc<Whereabouts>> {
        let hash = self.hash(name);
        let named = self.by_name.range((hash, 0)..=(hash, u64::MAX)).rev().map(|(_, it)| it);
        let mut found: Vec<_> = named.filter(|it| name.is_of(it) && is_meant(it)).take(MAX_MESHES).cloned().collect();
        found.sort_by_key(|it| !it.is_session);
        found
    }

    fn hash(&self, name: &Name<'_>) -> u64 {
        self.hasher.hash_one(name)
    }
}

fn names(it: &Whereabouts) -> [Name<'_>; 3] {
    let Process { address, cwd, .. } = &it.process;
    [Name::Session(*address, &it.session_id), Name::Process(&it.process), Name::Place(*address, cwd)]
}

fn is_waiting(at: Timestamp, now: Timestamp) -> bool {
    at <= now && now.distance(at) <= PENDING_FOR
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn report(address: u32, pid: i64) -> Report {
        let address = Some(IpAddr::V4(address.into()));
        Report {
            process: Process { address, pid, cwd: "/a".into() },
            session_id: String::new(),
            status: Status::Working,
        }
    }

    fn waiting(directory: &Directory) -> usize {
        directory.pending.values().map(HashMap::len).sum()
    }

    fn whereabouts(number: u8, session_id: &str, is_session: bool) -> Whereabouts {
        Whereabouts {
            mesh_id: "m".parse().unwrap(),
            presence_id: PresenceId::from_random([number; 32]),
            connection: ConnectionId::from_random([number; 32]),
            number: 0,
            member: PublicKey::from_bytes([number; 32]),
            is_session,
            session_id: session_id.into(),
            process: report(1, 7).process,
            token: [number; 32],
        }
    }

    #[test]
    fn what_waits_is_bounded_by_address_and_in_all_and_goes_by_itself() {
        let mut directory = Directory::default();
        (0..1000).for_each(|pid| directory.keep(report(1, pid), at(0)));
        assert_eq!(waiting(&directory), MAX_PENDING_OF_ADDRESS);
        (0..5000).for_each(|address| directory.keep(report(address, 1), at(0)));
        assert_eq!(waiting(&directory), MAX_PENDING);
        assert!(directory.pending.len() <= MAX_PENDING, "who is not kept leaves nothing behind");
        // The same process again replaces what it said before, also when there is no room.
        directory.keep(Report { status: Status::Idle, ..report(1, 1) }, at(5));
        assert_eq!(directory.pending[&report(1, 1).process.address][&report(1, 1).process], (Status::Idle, at(5)));
        directory.sweep(at(11));
        assert_eq!(waiting(&directory), 1);
        directory.sweep(at(16));
        assert!(directory.pending.is_empty());
    }

    #[test]
    fn who_leaves_is_found_by_nothing() {
        let mut directory = Directory::default();
        let [old, command, new] = [(1, "s", true), (2, "s", false), (3, "t", true)]
            .map(|(number, session_id, is_session)| directory.enter(whereabouts(number, session_id, is_session)));
        let asked = Report { session_id: "s".into(), ..report(1, 7) };
        let found = |directory: &Directory| -> Vec<PresenceId> {
            directory.candidates(&asked).into_iter().map(|it| it.presence_id.clone()).collect()
        };
        let by_all = [&old, &command];
        let by_each = [&old, &command, &new, &old, &command, &new, &old, &command];
        let order: Vec<_> = by_all.into_iter().chain(by_each).map(|it| it.presence_id.clone()).collect();
        assert_eq!(found(&directory), order);
        for it in [&old, &command, &new] {
            assert!(directory.with_token(&it.token).is_some());
            directory.leave(it);
            assert!(directory.with_token(&it.token).is_none());
        }
        assert!(found(&directory).is_empty() && directory.by_name.is_empty() && directory.by_token.is_empty());
    }
}
