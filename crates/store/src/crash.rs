//! Places where a test makes the process die: the promises must hold wherever power or a `kill -9` ends it.
//!
//! `CLAUDEMESH_CRASH_AT=name:count` ends the process, as an abort does, at the count-th time that it passes the named point. Only
//! builds with debug assertions have the points; what is shipped does not look at the variable.
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

/// Dies here when a test wants it.
#[cfg(debug_assertions)]
pub(crate) fn crash_point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    // A process dies once, whatever it has open, so one counter for all of it is right; nothing else could hold it that is not
    // there in a release as well.
    static ARMED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("CLAUDEMESH_CRASH_AT").ok()?;
        let (name, count) = text.rsplit_once(':')?;
        Some((name.to_owned(), AtomicU64::new(count.parse().ok()?)))
    });
    if let Some((armed, left)) = armed
        && armed == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        std::process::abort();
    }
}

/// Nothing: the points are for tests.
#[cfg(not(debug_assertions))]
pub(crate) fn crash_point(_name: &str) {}
