//! How a command can end. The numbers are part of the interface: scripts branch on them.

use std::fmt::Write as _;
use std::process::ExitCode;

/// An exit code. The numbers are those of the existing client; its 1 and 9 stand for what does not happen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    NotAccepted,
    BadArguments,
    Network,
    NotFound,
    Exists,
    NotPermitted,
    Internal,
    Files,
}

impl Exit {
    /// The number, and what `--help` says that it means.
    const fn row(self) -> (u8, &'static str) {
        match self {
            Self::Done => (0, "done"),
            Self::NotAccepted => (2, "the broker does not accept who you are"),
            Self::BadArguments => (3, "what was asked cannot be right, or may mean more than one"),
            Self::Network => (4, "the broker cannot be reached, went away or is overloaded"),
            Self::NotFound => (5, "no such mesh, member, message, invite or key"),
            Self::Exists => (6, "it is there already"),
            Self::NotPermitted => (7, "not permitted, by the broker or by the permissions of files"),
            Self::Internal => (8, "what should not happen"),
            Self::Files => (10, "a file cannot be read, written or understood"),
        }
    }

    /// The table for `--help`.
    pub(crate) fn help() -> String {
        let mut text = "Exit codes:".to_owned();
        for (code, meaning) in Self::ALL.map(Self::row) {
            // Writing into a String does not fail.
            let _ = write!(text, "\n  {code:2}  {meaning}");
        }
        text
    }

    const ALL: [Self; 9] = [
        Self::Done,
        Self::NotAccepted,
        Self::BadArguments,
        Self::Network,
        Self::NotFound,
        Self::Exists,
        Self::NotPermitted,
        Self::Internal,
        Self::Files,
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.row().0.into()
    }
}
