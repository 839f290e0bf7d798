//! The one place that asks the time of day.

use std::time::SystemTime;

use claudemesh_proto::Timestamp;

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
pub fn now() -> Timestamp {
    SystemTime::now().into()
}
