//! The messages that a connection has sent and the store has not answered. Acks go out in the order of the sends.

use std::collections::VecDeque;

use claudemesh_proto::Priority;
use claudemesh_store::{Appended, Pending, StoreError};

/// Sends whose ack is outstanding; beyond it the socket is not read.
const AT_ONCE: usize = 1024;

/// Sends on their way, oldest first.
#[derive(Default)]
pub(crate) struct Sends(VecDeque<Sent>);

/// A send on its way.
pub(crate) struct Sent {
    pub(crate) id: String,
    pub(crate) request_id: Option<String>,
    pub(crate) priority: Priority,
    pub(crate) answer: Pending<Appended>,
}

/// A send that the store has answered.
pub(crate) struct Answered {
    pub(crate) id: String,
    pub(crate) request_id: Option<String>,
    pub(crate) priority: Priority,
    pub(crate) appended: Result<Appended, StoreError>,
}

impl Sends {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= AT_ONCE
    }

    pub(crate) fn push(&mut self, sent: Sent) {
        self.0.push_back(sent);
    }

    /// The oldest send with its answer; never, when there is none. Dropping the future loses nothing: a send stays in its place
    /// until it is answered.
    pub(crate) async fn answered(&mut self) -> Answered {
        if let Some(sent) = self.0.front_mut() {
            let appended = (&mut sent.answer).await;
            if let Some(Sent { id, request_id, priority, .. }) = self.0.pop_front() {
                return Answered { id, request_id, priority, appended };
            }
        }
        std::future::pending().await
    }
}
