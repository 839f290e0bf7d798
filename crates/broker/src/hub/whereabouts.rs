//! Where open connections are, as the status hooks of their sessions know them: by session id, process and directory, always from
//! one address, or by a token. And what such a hook said a moment before its session connected.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hash};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_proto::presence::PeerRole;
use claudemesh_proto::{ConnectionId, MeshId, PresenceId, Status, Timestamp};

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

    /// Whom a report may be about, likelier ones first: who has its session id, who is its process, who is in its directory; of
    /// each the newest, and sessions before commands that name the session which they run in.
    pub(super) fn candidates(&self, report: &Report) -> Vec<Arc<Whereabouts>> {
        let process = &report.process;
        let mut found = Vec::new();
        if !report.session_id.is_empty() {
            found.extend(self.known_as(&Name::Session(process.address, &report.session_id)));
        }
        if process.pid > 0 {
            found.extend(self.known_as(&Name::Process(process)));
        }
        found.extend(self.known_as(&Name::Place(process.address, &process.cwd)));
        found
    }

    /// The same session in other meshes: its hook speaks once for all of them.
    pub(super) fn same_session(&self, as_it: &Whereabouts) -> Vec<Arc<Whereabouts>> {
        if as_it.session_id.is_empty() {
            return Vec::new();
        }
        let mut same = self.known_as(&Name::Session(as_it.process.address, &as_it.session_id));
        same.retain(|it| it.number != as_it.number);
        same
    }

    /// Keeps what a hook said of a session that is not here yet.
    pub(super) fn keep(&mut self, report: Report, now: Timestamp) {
        if self.pending.values().map(HashMap::len).sum::<usize>() >= MAX_PENDING {
            self.sweep(now);
        }
        let all: usize = self.pending.values().map(HashMap::len).sum();
        let of_address = self.pending.entry(report.process.address).or_default();
        let is_known = of_address.contains_key(&report.process);
        if is_known || of_address.len() < MAX_PENDING_OF_ADDRESS && all < MAX_PENDING {
            of_address.insert(report.process, (report.status, now));
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

    fn known_as(&self, name: &Name<'_>) -> Vec<Arc<Whereabouts>> {
        let hash = self.hash(name);
        let named = self.by_name.range((hash, 0)..=(hash, u64::MAX)).rev().map(|(_, it)| it);
        let mut found: Vec<_> = named.filter(|it| name.is_of(it)).take(MAX_MESHES).cloned().collect();
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
