//! How a failed request is told over the WebSocket.

use std::borrow::Cow;

use claudemesh_proto::{ErrorCode, ErrorFrame};
use claudemesh_store::StoreError;

/// What is said everywhere when the broker itself is at a loss. Must not hold a word that clients take for permanent.
pub(crate) const UNAVAILABLE: &str = "temporarily unavailable, try again";

/// Why a request on the WebSocket failed, in the words that its client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: ErrorCode,
    pub(crate) message: Cow<'static, str>,
}

impl Fault {
    pub(crate) fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    pub(crate) fn unavailable() -> Self {
        Self::new(ErrorCode::Unavailable, UNAVAILABLE)
    }

    pub(crate) fn frame(self) -> ErrorFrame {
        ErrorFrame { code: self.code, message: self.message.into_owned() }
    }
}

/// The cause is logged here, once; the client learns only that it can try again.
impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %error, "a call could not be answered from the store");
        Self::unavailable()
    }
}
