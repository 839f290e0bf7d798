//! How much of everything.

use std::time::Duration;

/// How much work each row does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// How long load is kept up before anything is counted.
    pub(crate) warm_up: Duration,
    /// How long load is kept up.
    pub(crate) load: Duration,
    /// Members who write to each other.
    pub(crate) peers: usize,
    /// Members who hear a broadcast.
    pub(crate) audience: usize,
    /// Messages that each of them sends in the burst.
    pub(crate) burst: u64,
    /// Messages of the ping-pong.
    pub(crate) pings: usize,
    /// Handshakes to count.
    pub(crate) handshakes: usize,
    /// Idle connections whose memory is counted.
    pub(crate) idle: usize,
    /// Connections of a large mesh.
    pub(crate) crowd: usize,
    /// How long memory may settle, and how long idling is watched.
    pub(crate) settle: Duration,
    /// Starts of an empty broker.
    pub(crate) starts: usize,
    /// Messages queued when the broker starts, one start for each number.
    pub(crate) queued: &'static [u64],
    /// Messages that wait while a send is measured, one measurement for each number.
    pub(crate) growth: &'static [u64],
    /// Members of the meshes in which a send is measured.
    pub(crate) members: &'static [usize],
    /// Messages of each sender there.
    pub(crate) to_each: u64,
    /// Readers of one topic's events.
    pub(crate) streams: usize,
    /// Posts that each of them hears.
    pub(crate) posts: usize,
    /// Messages of a topic whose history is read, one measurement for each number.
    pub(crate) history: &'static [u64],
    /// Pages read of it.
    pub(crate) pages: usize,
    /// Rounds of each floor.
    pub(crate) floor_rounds: usize,
}

impl Sizes {
    /// What `docs/performance.md` is made with.
    pub(crate) fn full(seconds: u32, million: bool) -> Self {
        Self {
            warm_up: Duration::from_millis(500),
            load: Duration::from_secs(seconds.into()),
            peers: 100,
            audience: 200,
            burst: 1000,
            pings: 3000,
            handshakes: 4000,
            idle: 5000,
            crowd: 10_000,
            settle: Duration::from_secs(3),
            starts: 5,
            queued: if million { &[100_000, 1_000_000] } else { &[100_000] },
            growth: if million { &[1000, 10_000, 100_000, 1_000_000] } else { &[1000, 10_000, 100_000] },
            members: &[10, 100, 1000],
            to_each: 3000,
            streams: 500,
            posts: 1000,
            history: if million { &[1000, 1_000_000] } else { &[1000, 100_000] },
            pages: 2000,
            floor_rounds: 2000,
        }
    }

    /// Enough to see every row work with an unoptimised broker.
    pub(crate) fn smoke() -> Self {
        Self {
            warm_up: Duration::from_millis(20),
            load: Duration::from_millis(100),
            peers: 4,
            audience: 3,
            burst: 10,
            pings: 10,
            handshakes: 10,
            idle: 10,
            crowd: 12,
            settle: Duration::from_millis(50),
            starts: 1,
            queued: &[50],
            growth: &[10, 20],
            members: &[1, 3],
            to_each: 20,
            streams: 3,
            posts: 5,
            history: &[200],
            pages: 5,
            floor_rounds: 10,
        }
    }
}
