//! How this broker ends a WebSocket: the code and the reason of its Close, by which clients tell whether to come back.

/// A Close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
}

impl Close {
    /// Another connection took up the same lease.
    pub(crate) const REPLACED: Self = Self { code: 1000, reason: "session_replaced" };
    /// An admin closed the connection; its client may come back at once.
    pub(crate) const DISCONNECTED: Self = Self { code: 1000, reason: "disconnected" };
    /// The same, because nothing was heard on it.
    pub(crate) const DISCONNECTED_STALE: Self = Self { code: 1000, reason: "disconnected_stale" };
    /// The member has another key now; its client may come back with that one.
    pub(crate) const KEY_CHANGED: Self = Self { code: 1000, reason: "key_changed" };
    /// The broker stops.
    pub(crate) const SHUTTING_DOWN: Self = Self { code: 1001, reason: "shutting down" };
    /// Bytes that are no WebSocket.
    pub(crate) const PROTOCOL_ERROR: Self = Self { code: 1002, reason: "protocol error" };
    /// A text frame of other bytes.
    pub(crate) const NOT_UTF8: Self = Self { code: 1007, reason: "text is not UTF-8" };
    /// Nothing good was said in the time for it.
    pub(crate) const HELLO_TIMEOUT: Self = Self::policy_violation("hello timeout");
    /// A frame beyond the limit.
    pub(crate) const FRAME_TOO_LARGE: Self = Self { code: 1009, reason: "frame too large" };
    /// Said to who does not read, behind everything that was written before: it arrives when reading begins again at once, and a
    /// reader who wakes later finds the line ended.
    pub(crate) const SLOW_CONSUMER: Self = Self { code: 1013, reason: "slow consumer" };
    /// An admin sent the session away: its client stays away, or is refused for a while.
    pub(crate) const KICKED: Self = Self { code: 4001, reason: "kicked" };
    /// The same, because nothing was heard from it.
    pub(crate) const KICKED_STALE: Self = Self { code: 4001, reason: "kicked_stale" };
    /// The member was removed: its client need not come back.
    pub(crate) const BANNED: Self = Self { code: 4002, reason: "banned" };

    /// Whether nothing that still comes in is listened to, and nothing more is handed out.
    pub(crate) const fn is_at_once(self) -> bool {
        matches!(self.code, 4001 | 4002)
    }

    /// A handshake was refused, with the word of the error before it.
    pub(crate) const fn policy_violation(reason: &'static str) -> Self {
        Self { code: 1008, reason }
    }
}
