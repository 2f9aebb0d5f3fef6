//! What went wrong, and the exit code that says so.

use std::io;
use std::time::Duration;

/// Why something was not proven.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    /// The machine lacks what the tier needs.
    #[error("the cluster tier cannot run here: {0}")]
    Environment(String),
    /// A file operation or system call failed.
    #[error("failed to {attempted}: {source}")]
    Io {
        /// As a phrase that follows "failed to".
        attempted: String,
        /// The cause.
        source: io::Error,
    },
    /// A program ended badly.
    #[error("`{command}` ended with {status}:\n{output}")]
    Program {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        output: String,
    },
    /// A daemon ended though nobody told it to: nothing that is waited for can come any more.
    #[error("{name} ended with {status}; its log ends:\n{log}")]
    Ended {
        /// The daemon.
        name: String,
        /// How it ended.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// The API server refused.
    #[error("{request} was answered {status}: {body}")]
    Api {
        /// Verb and path.
        request: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the answer.
        body: String,
    },
    /// A condition did not come true in time.
    #[error("after {} s still not: {waited_for}; last seen: {last_seen}", after.as_secs())]
    Deadline {
        /// The condition.
        waited_for: String,
        /// For how long.
        after: Duration,
        /// What was there instead.
        last_seen: String,
    },
    /// Something is not as it must be.
    #[error("{0}")]
    Wrong(String),
}

impl TierError {
    /// For `map_err`: what was attempted when an I/O error came.
    pub fn io<E: Into<io::Error>>(attempted: impl Into<String>) -> impl FnOnce(E) -> Self {
        let attempted = attempted.into();
        move |source| Self::Io { attempted, source: source.into() }
    }

    /// The contract's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Environment(_) => 4,
            _ => 1,
        }
    }
}

/// The outcome of a step.
pub type Outcome<T = ()> = Result<T, TierError>;
