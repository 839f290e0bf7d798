//! Notices panics of tasks: a broker's task that panics ends quietly, and a test must not.

use std::sync::{Mutex, Once};

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static WATCH: Once = Once::new();

/// Remembers every panic on a worker thread from now on.
pub(crate) fn watch() {
    WATCH.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_worker = std::thread::current().name().is_some_and(|name| name.starts_with("tokio-"));
            if is_worker && let Ok(mut panics) = PANICS.lock() {
                panics.push(panic.to_string());
            }
            before(panic);
        }));
    });
}

/// The panics so far.
pub(crate) fn seen() -> Vec<String> {
    PANICS.lock().map(|panics| panics.clone()).unwrap_or_default()
}
