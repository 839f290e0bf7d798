//! Places where a test makes the process die: the promises must hold wherever power or a `kill -9` ends it.
//!
//! `CLAUDEMESH_CRASH_AT=name:count` ends the process, as an abort does, at the count-th time that it passes the named point, and
//! `CLAUDEMESH_PAUSE_AT=name:millis` makes it wait there each time. The second opens the moment before a commit, which is too short
//! for a `kill -9` to hit it by chance: an answer that did not wait for the commit is out by then. Only builds with debug assertions
//! have the points; what is shipped does not look at the variables.
//!
//! | point | what has happened |
//! |---|---|
//! | `open.begun` | the claims of earlier starts are void; nobody was let in yet |
//! | `journal.taken` | requests were taken from the queue; nothing is written |
//! | `batch.written` | everything is in the transaction, which is not committed |
//! | `batch.committed` | the commit is synced; nobody was rung or answered |
//! | `journal.answered` | everybody was rung and answered |
//! | `release.done` | rows of a closed connection are freed in a transaction, which is not committed |
//! | `checkpoint.before` | SQLite's WAL is about to be copied back |
//! | `checkpoint.after` | it was copied back |

/// Dies or dawdles here when a test wants it.
#[cfg(debug_assertions)]
pub(crate) fn crash_point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// What was said before its time gets out before the end.
    const LAST_WORDS: Duration = Duration::from_millis(50);
    // A process dies once, whatever it has open, so one counter for all of it is right; nothing else could hold it that is not
    // there in a release as well.
    static CRASH: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    static PAUSE: OnceLock<Option<(String, u64)>> = OnceLock::new();
    let read = |variable| {
        let text = std::env::var(variable).ok()?;
        let (name, number) = text.rsplit_once(':')?;
        Some((name.to_owned(), number.parse::<u64>().ok()?))
    };
    let pause = |time| tokio::task::block_in_place(|| std::thread::sleep(time));
    let crash = CRASH.get_or_init(|| read("CLAUDEMESH_CRASH_AT").map(|(name, count)| (name, AtomicU64::new(count))));
    if let Some((armed, left)) = crash
        && armed == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        pause(LAST_WORDS);
        std::process::abort();
    }
    if let Some((armed, millis)) = PAUSE.get_or_init(|| read("CLAUDEMESH_PAUSE_AT"))
        && armed == name
    {
        pause(Duration::from_millis(*millis));
    }
}

/// Nothing: the points are for tests.
#[cfg(not(debug_assertions))]
pub(crate) fn crash_point(_name: &str) {}
