//! How a connection came to its end.

use std::fmt;

use claudemesh_proto::text::one_line;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// We closed it.
    ByUs,
    /// The broker closed it, with this code and reason.
    ByBroker {
        /// The code of the Close frame; 1005 when it had none.
        code: u16,
        /// The reason given.
        reason: String,
    },
    /// The network or the broker went away.
    Lost(String),
    /// Nothing was heard from the broker for 75 s.
    Silent,
}

impl Ended {
    pub(super) fn by_broker(frame: Option<&CloseFrame>) -> Self {
        match frame {
            Some(frame) => Self::ByBroker { code: frame.code.into(), reason: one_line(&frame.reason) },
            None => Self::ByBroker { code: 1005, reason: String::new() },
        }
    }

    /// Whether a new connection may be let in: not after a refusal, a kick or a ban.
    pub fn may_return(&self) -> bool {
        !matches!(self, Self::ByBroker { code: 1008 | 4001 | BANNED, .. })
    }

    /// Whether the member was removed from the mesh.
    pub fn is_ban(&self) -> bool {
        matches!(self, Self::ByBroker { code: BANNED, .. })
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByUs => f.write_str("it was closed here"),
            Self::ByBroker { code, reason } if reason.is_empty() => write!(f, "the broker closed it ({code})"),
            Self::ByBroker { code, reason } => write!(f, "the broker closed it: {reason} ({code})"),
            Self::Lost(why) => write!(f, "it broke ({why})"),
            Self::Silent => f.write_str("the broker was silent for 75 s"),
        }
    }
}

/// The code that a broker closes a removed member's connections with.
const BANNED: u16 = 4002;
