//! How much one member or one address may do in a time. Addresses are `None` where they are not counted.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::net::IpAddr;

use claudemesh_proto::{ApiKeyId, MemberId, MeshId, PublicKey, Timestamp};

use crate::config::Config;
use crate::edge::address::Hearsay;
use crate::edge::bucket::{Buckets, Rate};
use crate::edge::guests::{Guests, network};
use crate::hub::{Process, TokenHash};

/// An address may call as many hooks as so many processes.
const PROCESSES_OF_ADDRESS: u32 = 20;

/// Every limit that is counted over time or by address.
#[derive(Debug)]
pub(crate) struct Limits {
    sends: Buckets<(MeshId, MemberId)>,
    requests: Buckets<(MeshId, MemberId)>,
    searches: Buckets<(MeshId, MemberId)>,
    /// By what a handshake proves: who has too many is not looked up.
    hellos: Buckets<(MeshId, PublicKey)>,
    failed_hellos: Buckets<IpAddr>,
    failed_keys: Buckets<IpAddr>,
    /// By the hash of address, process and directory: what a caller names costs no memory here.
    hooks: Buckets<u64>,
    hooks_of_address: Buckets<IpAddr>,
    /// By tokens of open connections alone.
    hooks_of_token: Buckets<TokenHash>,
    creations: Buckets<IpAddr>,
    /// Once a minute each: what is noted of a key's use.
    uses: Buckets<ApiKeyId>,
    topics: Buckets<(MeshId, MemberId)>,
    hasher: RandomState,
    /// Whether addresses can be told apart.
    pub(crate) hearsay: Hearsay,
    /// WebSockets that have not said hello.
    pub(crate) strangers: Guests,
    /// Connections that are still HTTP. One of a page's or proxy's kind may well have several at once.
    pub(crate) callers: Guests,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        let rate = Rate::per_minute;
        let of_address = config.hook_rate_limit_per_min.saturating_mul(PROCESSES_OF_ADDRESS);
        Self {
            sends: Buckets::new(rate(config.send_rate_per_min, config.send_burst)),
            requests: Buckets::new(rate(config.request_rate_per_min, config.request_burst)),
            searches: Buckets::new(rate(config.search_rate_per_min, config.search_rate_per_min)),
            hellos: Buckets::new(rate(config.hello_rate_per_min, config.hello_burst)),
            failed_hellos: Buckets::new(rate(config.failed_hellos_per_min, config.failed_hellos_per_min)),
            failed_keys: Buckets::new(rate(config.failed_keys_per_min, config.failed_keys_per_min)),
            hooks: Buckets::new(rate(config.hook_rate_limit_per_min, config.hook_rate_limit_per_min)),
            hooks_of_address: Buckets::new(rate(of_address, of_address)),
            hooks_of_token: Buckets::new(rate(config.hook_rate_limit_per_min, config.hook_rate_limit_per_min)),
            creations: Buckets::new(rate(config.creation_rate_per_min, config.creation_rate_per_min)),
            uses: Buckets::new(rate(1, 1)),
            topics: Buckets::new(Rate::per_hour(config.topic_rate_per_hour)),
            hasher: RandomState::new(),
            hearsay: Hearsay::default(),
            strangers: Guests::new(config.max_unauthenticated_per_address),
            callers: Guests::new(2 * config.max_unauthenticated_per_address),
        }
    }

    /// Whether the member may send one more message now.
    pub(crate) fn may_send(&self, mesh: &MeshId, member: &MemberId, now: Timestamp) -> bool {
        take(&self.sends, mesh, member, now)
    }

    /// Whether the member may ask one more question now.
    pub(crate) fn may_ask(&self, mesh: &MeshId, member: &MemberId, now: Timestamp) -> bool {
        take(&self.requests, mesh, member, now)
    }

    /// Whether the member may look through what was written once more now.
    pub(crate) fn may_search(&self, mesh: &MeshId, member: &MemberId, now: Timestamp) -> bool {
        take(&self.searches, mesh, member, now)
    }

    /// Whether the owner of the key may open one more connection now.
    pub(crate) fn may_enter(&self, mesh: &MeshId, member: &PublicKey, now: Timestamp) -> bool {
        take(&self.hellos, mesh, member, now)
    }

    /// Whether an address may call hooks at all now.
    pub(crate) fn may_call_hooks(&self, address: Option<IpAddr>, now: Timestamp) -> bool {
        address.is_none_or(|address| self.hooks_of_address.take(network(address), now))
    }

    /// Whether the hook of a process may be called now.
    pub(crate) fn may_call_hook(&self, process: &Process, now: Timestamp) -> bool {
        self.hooks.take(self.hasher.hash_one(process), now)
    }

    /// Whether the hook with this token may be called now.
    pub(crate) fn may_call_hook_of(&self, token: &TokenHash, now: Timestamp) -> bool {
        self.hooks_of_token.take(*token, now)
    }

    /// Whether an address may make or join a mesh now.
    pub(crate) fn may_create(&self, address: Option<IpAddr>, now: Timestamp) -> bool {
        address.is_none_or(|address| self.creations.take(network(address), now))
    }

    /// Whether the member may make one more topic now.
    pub(crate) fn may_make_topic(&self, mesh: &MeshId, member: &MemberId, now: Timestamp) -> bool {
        take(&self.topics, mesh, member, now)
    }

    /// No topic was made after all.
    pub(crate) fn made_no_topic(&self, mesh: &MeshId, member: &MemberId) {
        self.topics.give_back(&(mesh.clone(), member.clone()));
    }

    /// Whether that a key is used is to be noted now.
    pub(crate) fn may_note_use(&self, key: &ApiKeyId, now: Timestamp) -> bool {
        self.uses.take(key.clone(), now)
    }

    /// Counts a handshake that failed.
    pub(crate) fn hello_failed(&self, address: Option<IpAddr>, now: Timestamp) {
        if let Some(address) = address {
            self.failed_hellos.take(network(address), now);
        }
    }

    /// Whether the address may try a handshake.
    pub(crate) fn may_greet(&self, address: Option<IpAddr>, now: Timestamp) -> bool {
        address.is_none_or(|address| self.failed_hellos.has_any(&network(address), now))
    }

    /// Counts an API key that is none.
    pub(crate) fn key_failed(&self, address: Option<IpAddr>, now: Timestamp) {
        if let Some(address) = address {
            self.failed_keys.take(network(address), now);
        }
    }

    /// Whether the address may present an API key.
    pub(crate) fn may_present_key(&self, address: Option<IpAddr>, now: Timestamp) -> bool {
        address.is_none_or(|address| self.failed_keys.has_any(&network(address), now))
    }
}

/// The key is built only when there is a limit: this runs for every message.
fn take<K: Clone + Hash + Eq>(buckets: &Buckets<(MeshId, K)>, mesh: &MeshId, member: &K, now: Timestamp) -> bool {
    buckets.is_unlimited() || buckets.take((mesh.clone(), member.clone()), now)
}
