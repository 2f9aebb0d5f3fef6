//! Why a case could not be tried. A plugin that fails is no such reason: its failure is part of the outcome.

use std::path::{Path, PathBuf};

use kernel::KernelError;

/// What keeps the suite from telling an outcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SuiteError {
    /// A file, a folder, a socket or a program could not be used.
    #[error("failed to {attempted}: {source}")]
    Io { attempted: String, source: std::io::Error },
    /// A namespace could not be made or entered.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A command of a case, or one that shows the kernel's state, failed.
    #[error("`{line}` failed: {stderr}")]
    Command { line: String, stderr: String },
    /// What a program printed is not what it always prints.
    #[error("{program} printed what cannot be read: {source}")]
    Unreadable { program: String, source: serde_json::Error },
    /// The thread is still where the machine's own links are.
    #[error("refusing to run in the machine's own network namespace")]
    NotAlone,
    /// The page of the differences has a row that says nothing.
    #[error("{path}, line {line}: {what}", path = path.display())]
    Page { path: PathBuf, line: usize, what: String },
    /// A case names what it does not have.
    #[error("the case speaks of {what} `{name}`, which it does not have")]
    Unknown { what: &'static str, name: String },
    /// The thread of a case ended without an outcome.
    #[error("the thread of the case panicked")]
    Panicked,
}

/// Names the attempt that failed, and what it was about.
pub(crate) fn failed(attempted: &str, path: &Path) -> impl FnOnce(std::io::Error) -> SuiteError {
    let attempted = format!("{attempted} {}", path.display());
    move |source| SuiteError::Io { attempted, source }
}
