//! Numbers that both sides keep to. Each is a default; a broker may be configured to allow less.

use std::time::Duration;

/// Largest WebSocket frame in bytes; beyond it the connection is closed with 1009.
pub const MAX_FRAME_BYTES: usize = 1 << 20;
/// Largest `send` (ciphertext + nonce + target, in bytes) and HTTP body.
pub const MAX_MESSAGE_BYTES: usize = 65_536;
/// Deepest nesting of JSON that is read.
pub const MAX_JSON_DEPTH: usize = 32;
/// Longest display name, in characters; host names, models and session ids may have twice as many bytes.
pub const MAX_NAME_CHARS: usize = 64;
/// Longest working directory, in bytes.
pub const MAX_PATH_BYTES: usize = 1024;
/// Largest `ext` object, in bytes of its JSON text.
pub const MAX_EXT_BYTES: usize = 4096;
/// Longest `client_message_id`, `_reqId` and `id`, in bytes.
pub const MAX_CLIENT_ID_BYTES: usize = 128;
/// Most groups of one connection.
pub const MAX_GROUPS: usize = 32;
/// How far a signed timestamp may be from the broker's clock, either way.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_mins(1);
/// Longest life of a session attestation.
pub const MAX_ATTESTATION_LIFE: Duration = Duration::from_hours(24);
/// How long an accepted handshake signature is remembered. Twice the clock skew and a little, so that none is accepted twice.
pub const REPLAY_MEMORY: Duration = Duration::from_secs(125);
/// Nonce of every box: 24 bytes.
pub const NONCE_BYTES: usize = 24;
/// Most uses of one invite.
pub const MAX_INVITE_USES: u32 = 1000;
/// Longest life of an invite.
pub const MAX_INVITE_LIFE: Duration = Duration::from_hours(366 * 24);
/// Longest invite token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// Longest summary of what somebody works on, in characters.
pub const MAX_SUMMARY_CHARS: usize = 512;
/// Longest avatar of a profile, in characters: an emoji, or a link to a picture.
pub const MAX_AVATAR_CHARS: usize = 512;
/// Longest text about oneself in a profile, in characters.
pub const MAX_BIO_CHARS: usize = 1024;
/// Most things that a profile says somebody is good at; each is as long as a name.
pub const MAX_SKILLS: usize = 32;
/// Fewest characters by which a key is named where that has consequences.
pub const MIN_KEY_PREFIX: usize = 12;
/// Longest description of a topic, in characters.
pub const MAX_DESCRIPTION_CHARS: usize = 1024;
/// Most messages of a topic in one answer.
pub const MAX_HISTORY_PAGE: i64 = 200;
/// Messages of a topic in one answer, when nothing else is asked for.
pub const HISTORY_PAGE: i64 = 50;
/// Most topics that an API key is limited to.
pub const MAX_SCOPES: usize = 64;
