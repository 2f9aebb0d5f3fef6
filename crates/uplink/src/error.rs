//! Why a move was not made, or not finished.

use std::io;
use std::path::{Path, PathBuf};

use kernel::KernelError;

use crate::check::Refusal;
use crate::persist::PersistError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The move is unsafe or impossible; nothing was touched.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The configuration for the next boot cannot be written; nothing was touched.
    #[error("{0}")]
    Persist(#[from] PersistError),
    /// The kernel refused something before anything was moved.
    #[error("{0}{remedy}", remedy = remedy(.0))]
    Kernel(#[from] KernelError),
    /// A file cannot be read or written.
    #[error("failed to {attempted} {}: {source}{}", path.display(), file_remedy(source))]
    File {
        /// `read`, `write`, `open`, `lock` or `remove`.
        attempted: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of ours cannot be understood.
    #[error("{} is damaged ({message}): look at the node's addresses and routes, set right what is wrong, and remove the file", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// Another command works on the same link.
    #[error("another `hostgw uplink` command is at work on this link (it holds {}): wait for its end", folder.display())]
    Busy {
        /// The folder whose lock is held.
        folder: PathBuf,
    },
    /// A move waits for its confirmation.
    #[error("a move of {link} is not confirmed yet: `hostgw uplink confirm`, or wait until it is put back")]
    Unconfirmed {
        /// The link.
        link: String,
    },
    /// The watchdog did not come up; nothing was touched.
    #[error("failed to start the watchdog: {0}; nothing was changed")]
    Watchdog(io::Error),
    /// Somebody ended it.
    #[error("the watchdog was ended while the link was moved, so that nobody would put it back in time")]
    Unwatched,
    /// A target does not answer even now; nothing was touched.
    #[error(
        "{target} does not answer before any change, so that its silence would prove nothing: give --probe an address that answers"
    )]
    SilentBefore {
        /// The target.
        target: String,
    },
    /// The move failed, and everything was put back.
    #[error("{reason}; everything was put back")]
    PutBack {
        /// What failed.
        reason: String,
    },
    /// The move failed, and so did putting back.
    #[error("{reason}; putting back is not complete: {left}; `hostgw uplink status` tries again")]
    NotPutBack {
        /// What failed.
        reason: String,
        /// What is missing.
        left: String,
    },
    /// There is nothing to confirm, or to leave.
    #[error("{0}")]
    Nothing(String),
}

fn file_remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied { "; run it as root" } else { "" }
}

fn remedy(error: &KernelError) -> &'static str {
    if error.is_permission() {
        "; run it as root, in the host's network namespace (CAP_NET_ADMIN, CAP_NET_RAW)"
    } else {
        ""
    }
}

impl UplinkError {
    pub(crate) fn file(attempted: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { attempted, path: path.to_owned(), source }
    }

    /// The contract's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Persist(_) | Self::SilentBefore { .. } | Self::Nothing(_) => 2,
            Self::Kernel(error) if error.is_permission() => 4,
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 4,
            _ => 1,
        }
    }
}
