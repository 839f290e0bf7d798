//! Everything that can go wrong here.

use std::fmt;
use std::io;
use std::path::PathBuf;

use claudemesh_proto::text::one_line;
use claudemesh_proto::{BrokerFrame, ErrorCode, ErrorFrame, TopicName};

use crate::broker_url::BadUrl;
use crate::connection::Ended;
use crate::link::BadLink;
use crate::message::MAX_TEXT_BYTES;

/// What this crate's calls return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What happened. The text says what and why; what to try is left to whoever knows the user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The home directory of the user is not known and `CLAUDEMESH_CONFIG_DIR` is not set.
    #[error("the home directory is unknown; set CLAUDEMESH_CONFIG_DIR to a directory for configuration and keys")]
    NoHome,
    /// A file or directory of ours can be read or changed by others.
    #[error("{} is open to other users (mode {mode:03o}); after checking what it holds, run: chmod {wanted:03o} {}", path.display(), path.display())]
    TooOpen {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they must be.
        wanted: u32,
    },
    /// The operating system refused something about a file.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of ours does not hold what it should.
    #[error("{} cannot be used: {why}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The mesh is not in the configuration; `known` are those that are.
    #[error("no mesh \"{wanted}\" here; {}", known_meshes(known))]
    NoSuchMesh {
        /// What was asked for.
        wanted: String,
        /// The meshes there are.
        known: Vec<String>,
    },
    /// No mesh was named, and there is not exactly one.
    #[error("which mesh? {}", known_meshes(known))]
    WhichMesh {
        /// The meshes there are.
        known: Vec<String>,
    },
    /// A mesh of that name is already in the configuration.
    #[error("a mesh \"{slug}\" is already in {}", config.display())]
    MeshKnown {
        /// The name.
        slug: String,
        /// Where it is.
        config: PathBuf,
    },
    /// The invite is for a mesh that we are a member of, and says another broker or owner than the configuration does.
    #[error(
        "the invite is for mesh \"{slug}\", which is here already, but says otherwise about it: {invited}; here: {known}"
    )]
    InviteDiffers {
        /// The mesh, as it is called here.
        slug: String,
        /// Broker and owner of the invite.
        invited: String,
        /// Broker and owner of the configuration.
        known: String,
    },
    /// The owner's key of the mesh is not on this machine.
    #[error("the owner's key of mesh \"{slug}\" is not here: {} is missing", path.display())]
    NoOwnerKey {
        /// The mesh.
        slug: String,
        /// The file that would hold it.
        path: PathBuf,
    },
    /// The broker's address cannot be read.
    #[error("broker address \"{text}\" {why}")]
    BadUrl {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: BadUrl,
    },
    /// The invite cannot be used.
    #[error("{0}")]
    BadLink(#[from] BadLink),
    /// A value given by the caller is out of range.
    #[error("{what} {why}")]
    BadInput {
        /// Which value.
        what: &'static str,
        /// What it must be.
        why: String,
    },
    /// The text is longer than a message holds.
    #[error("the text is too long: it has {size_bytes} bytes, and a message holds at most {MAX_TEXT_BYTES}")]
    TooLarge {
        /// How long it is.
        size_bytes: usize,
    },
    /// No connection could be made.
    #[error("cannot reach the broker at {url}: {why}")]
    Unreachable {
        /// The broker.
        url: String,
        /// Why not.
        why: String,
    },
    /// Something did not come in time.
    #[error("no {what} from the broker within {seconds} s")]
    TimedOut {
        /// What was awaited.
        what: &'static str,
        /// For how long.
        seconds: u64,
    },
    /// The connection is over.
    #[error("the connection to the broker ended: {0}")]
    Ended(Ended),
    /// The broker refused the handshake or a request.
    #[error("the broker refused: {message} ({})", code.as_str())]
    Refused {
        /// The word for it.
        code: ErrorCode,
        /// The broker's sentence.
        message: String,
    },
    /// The broker did not accept a message; the text is the broker's.
    #[error("the broker did not accept the message: {0}")]
    NotAccepted(String),
    /// The broker refused an HTTP request.
    #[error("the broker refused: {word} (HTTP {status})")]
    HttpRefused {
        /// The status.
        status: u16,
        /// The `error` of the answer, or what the status is called.
        word: String,
    },
    /// The broker said something that this version does not understand.
    #[error("the broker answered in a way this version does not understand: {0}")]
    Protocol(String),
    /// The topic has no key, and the broker takes none from us.
    #[error("#{topic} has no key, and the broker lets you give it none: what is written there the broker could read")]
    NoTopicKey {
        /// The topic.
        topic: TopicName,
    },
    /// The topic had another key, or had one and has none now.
    #[error(
        "the key of #{topic} is not the one that it had: the broker or a member may be lying, so nothing is read, written or \
         shared there"
    )]
    TopicKeyChanged {
        /// The topic.
        topic: TopicName,
    },
    /// The recipient's key cannot be sealed to: it is no proper key.
    #[error("nothing can be sealed for that key: it is not a proper public key")]
    BadRecipientKey,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
    /// The local inbox failed.
    #[error("the local inbox {} failed: {source}", path.display())]
    Inbox {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
}

/// The family of an [`Error`], which programs turn into exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The broker does not accept who we are.
    Auth,
    /// What was asked cannot be right.
    BadInput,
    /// The broker cannot be reached or went away.
    Network,
    /// It does not exist.
    NotFound,
    /// It exists already.
    Exists,
    /// We may not, here or there.
    Permission,
    /// Files.
    Io,
    /// Anything that should not happen.
    Internal,
}

impl Error {
    /// A refusal in the broker's words, on one line: a second one could pose as ours.
    pub(crate) fn refused(refusal: &ErrorFrame) -> Self {
        Self::Refused { code: refusal.code, message: one_line(&refusal.message) }
    }

    /// An answer of a kind that the request does not have.
    pub(crate) fn unexpected(frame: &BrokerFrame) -> Self {
        Self::Protocol(format!("\"{}\" answers another question", frame.kind()))
    }

    /// What is wrong with an answer. The reason may quote the broker.
    pub(crate) fn protocol(why: impl fmt::Display) -> Self {
        Self::Protocol(one_line(&why.to_string()))
    }

    /// The family.
    pub fn kind(&self) -> Kind {
        match self {
            Self::TooOpen { .. } | Self::NoTopicKey { .. } | Self::TopicKeyChanged { .. } => Kind::Permission,
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Kind::Permission,
            Self::NoHome | Self::File { .. } | Self::BadFile { .. } | Self::Inbox { .. } => Kind::Io,
            Self::NoSuchMesh { .. } | Self::NoOwnerKey { .. } => Kind::NotFound,
            Self::MeshKnown { .. } | Self::InviteDiffers { .. } => Kind::Exists,
            Self::WhichMesh { .. }
            | Self::BadUrl { .. }
            | Self::BadLink(_)
            | Self::BadInput { .. }
            | Self::TooLarge { .. }
            | Self::BadRecipientKey => Kind::BadInput,
            Self::Ended(ended) if ended.is_ban() => Kind::Auth,
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Ended(_) => Kind::Network,
            Self::Refused { code, .. } => kind_of_code(*code),
            Self::NotAccepted(text) => kind_of_ack(text),
            Self::HttpRefused { status, word } => kind_of_status(*status, word),
            Self::Protocol(_) | Self::NoRandomness => Kind::Internal,
        }
    }

    /// Whether it was refused because there was too much of it, which passes in a moment.
    pub fn is_rate_limit(&self) -> bool {
        match self {
            Self::Refused { code, .. } => *code == ErrorCode::RateLimit,
            Self::NotAccepted(words) => words.starts_with(ErrorCode::RateLimit.as_str()),
            _ => false,
        }
    }

    /// Whether trying the same again may work: the broker was not reached, went away, or is short of something.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Ended(ended) => ended.may_return(),
            Self::Refused { code, .. } => {
                matches!(code, ErrorCode::Unavailable | ErrorCode::Capacity | ErrorCode::RateLimit)
            }
            _ => false,
        }
    }
}

fn kind_of_code(code: ErrorCode) -> Kind {
    match code {
        ErrorCode::Unauthorized
        | ErrorCode::Revoked
        | ErrorCode::BadSignature
        | ErrorCode::TimestampSkew
        | ErrorCode::Replayed
        | ErrorCode::Expired => Kind::Auth,
        ErrorCode::Forbidden => Kind::Permission,
        ErrorCode::NotFound | ErrorCode::TopicNotFound => Kind::NotFound,
        ErrorCode::InvalidArgument | ErrorCode::InvalidArgs | ErrorCode::Invalid | ErrorCode::InvalidInvite => {
            Kind::BadInput
        }
        ErrorCode::Capacity
        | ErrorCode::RateLimit
        | ErrorCode::Unavailable
        | ErrorCode::AuditQueryError
        | ErrorCode::AuditVerifyError => Kind::Network,
        _ => Kind::Internal,
    }
}

fn kind_of_ack(text: &str) -> Kind {
    if text.starts_with("forbidden") {
        Kind::Permission
    } else if text.starts_with("invalid") {
        Kind::BadInput
    } else if text.starts_with("no connected peer") {
        Kind::NotFound
    } else {
        Kind::Network
    }
}

fn kind_of_status(status: u16, word: &str) -> Kind {
    match (status, word) {
        (_, "member_revoked") | (401, _) => Kind::Auth,
        (403, _) => Kind::Permission,
        (404 | 410, _) => Kind::NotFound,
        (409, _) => Kind::Exists,
        (400..=499, _) => Kind::BadInput,
        _ => Kind::Network,
    }
}

fn known_meshes(known: &[String]) -> String {
    if known.is_empty() { "there is none yet".into() } else { format!("there are: {}", known.join(", ")) }
}

impl From<claudemesh_keys::NoRandomness> for Error {
    fn from(_: claudemesh_keys::NoRandomness) -> Self {
        Self::NoRandomness
    }
}
