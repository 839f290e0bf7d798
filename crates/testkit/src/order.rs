//! Whether what comes on one connection comes in the order of acceptance, as far as the sender's ledger alone tells it.

use std::collections::HashMap;

use claudemesh_proto::MessageId;

use crate::ledger::Target;

/// Where a message stands in the order in which its sender's messages were accepted.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) target: Target,
    /// The connection and the line of the ledger where it was sent first.
    pub(crate) first: (u32, usize),
    /// The line of the ledger where it was acked first.
    pub(crate) acked: Option<usize>,
    /// Whether it was accepted in the order of its first connection.
    pub(crate) is_fixed: bool,
}

/// What has come so far on one connection from one sender in one class.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// The one that was sent last of all.
    last_sent: Option<(usize, MessageId)>,
    /// The same for each connection of the sender, among those accepted in its order.
    last_fixed: HashMap<u32, (usize, MessageId)>,
}

impl Order {
    /// Takes the next one; a message that came before it and was accepted after it.
    pub(crate) fn take(&mut self, message: &MessageId, placed: &Placed) -> Option<MessageId> {
        let (connection, line) = placed.first;
        let overtaken = |last: &(usize, MessageId), by: usize| (last.0 > by).then(|| last.1.clone());
        let by_ack = placed.acked.and_then(|acked| overtaken(self.last_sent.as_ref()?, acked));
        let by_line = placed.is_fixed.then(|| overtaken(self.last_fixed.get(&connection)?, line)).flatten();
        if self.last_sent.as_ref().is_none_or(|last| last.0 < line) {
            self.last_sent = Some((line, message.clone()));
        }
        let last = self.last_fixed.entry(connection).or_insert_with(|| (0, message.clone()));
        if placed.is_fixed && last.0 < line {
            *last = (line, message.clone());
        }
        by_ack.or(by_line)
    }
}
