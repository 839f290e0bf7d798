//! What the judge of a crash test says: how much was looked at, and which promises were broken.

use std::fmt;

use claudemesh_proto::MessageId;

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Different messages sent.
    pub sent: usize,
    /// Of these, sent more than once.
    pub retried: usize,
    /// Of these, acked.
    pub acked: usize,
    /// Of these, posts.
    pub posts: usize,
    /// Refusals, all of them for the moment.
    pub refused: usize,
    /// Different messages received.
    pub received: usize,
    /// Receptions beyond the first of each by a member.
    pub repeated: usize,
    /// Messages received that were never acked to their sender.
    pub unacked_received: usize,
    /// Connections.
    pub connections: usize,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Breach {
    /// The ledger itself makes no sense: the test is at fault.
    Nonsense { client: String, why: String },
    /// Acked, and never received by somebody it was for.
    Lost { client: String, id: String, message: MessageId },
    /// A client's id with more than one message id.
    Doubled { client: String, id: String, messages: Vec<MessageId> },
    /// Received, and never sent by that sender.
    Forged { client: String, message: MessageId, id: Option<String> },
    /// A message id that was seen with another message.
    Altered { client: String, message: MessageId, what: &'static str },
    /// Received by somebody it was not sent to.
    Misdelivered { client: String, message: MessageId },
    /// A post that was acked or received, and is not in the history.
    Unlisted { client: String, id: String, message: MessageId },
    /// In the history under another number than its place, or more than once.
    Misnumbered { reader: String, message: MessageId, seq: i64 },
    /// Received after a message that was accepted later.
    Reordered { client: String, connection: u32, message: MessageId, after: MessageId },
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nonsense { client, why } => write!(f, "the ledger of {client} makes no sense: {why}"),
            Self::Lost { client, id, message } => {
                write!(f, "LOST: {client} was acked {message} ({id}), and not everybody got it")
            }
            Self::Doubled { client, id, messages } => write!(f, "DOUBLED: {id} of {client} is {messages:?}"),
            Self::Forged { client, message, id } => write!(f, "FORGED: {client} got {message} ({id:?}), never sent"),
            Self::Altered { client, message, what } => write!(f, "ALTERED: {client} got {message} with another {what}"),
            Self::Misdelivered { client, message } => write!(f, "MISDELIVERED: {client} got {message}"),
            Self::Unlisted { client, id, message } => {
                write!(f, "UNLISTED: {message} ({id}) of {client} is not in the history")
            }
            Self::Misnumbered { reader, message, seq } => write!(f, "MISNUMBERED: {message} is {seq} in {reader}"),
            Self::Reordered { client, connection, message, after } => {
                write!(f, "REORDERED: {client} got {message} after {after} on connection {connection}")
            }
        }
    }
}
