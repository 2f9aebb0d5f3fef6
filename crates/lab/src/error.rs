//! What went wrong in the lab, and the exit code that says so.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use kernel::KernelError;

/// Why a lab could not be built, entered or taken down.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// An option has a value that cannot be meant.
    #[error("{option} is {value}: {remedy}")]
    Option {
        /// The option as it is typed.
        option: &'static str,
        /// What was given.
        value: String,
        /// What to give instead.
        remedy: String,
    },
    /// A system call or file operation failed.
    #[error("failed to {attempted}: {source}")]
    Io {
        /// What was attempted, as a phrase that follows "failed to".
        attempted: String,
        /// The cause.
        source: io::Error,
    },
    /// The kernel refused a netlink request.
    #[error("in {place}: {source}")]
    Kernel {
        /// The namespace in which it was asked.
        place: String,
        /// The request and the kernel's answer.
        source: KernelError,
    },
    /// Namespaces cannot be made here.
    #[error("failed to make the lab's namespaces: {source}; {remedy}")]
    NamespacesRefused {
        /// What to change.
        remedy: String,
        /// The cause.
        source: io::Error,
    },
    /// A program that the lab runs is not there.
    #[error("no program at {}: build it (`cargo build --release`) or name its folder with --bin-dir ({source})", path.display())]
    NoProgram {
        /// Where it was looked for.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The agent ended, though it is to run until it is told to stop.
    #[error("the agent on {node} ended with {status} before it wrote {}; its log ends:\n{log}", waited_for.display())]
    AgentEnded {
        /// The node.
        node: String,
        /// How it ended.
        status: String,
        /// The file that was waited for.
        waited_for: PathBuf,
        /// The end of its log.
        log: String,
    },
    /// Something did not come about in time.
    #[error("{place}: {waited_for} did not come about within {} ms{}", after.as_millis(), with_log(log))]
    Deadline {
        /// Where it was waited for.
        place: String,
        /// What was waited for.
        waited_for: String,
        /// For how long.
        after: Duration,
        /// The end of the agent's log, where there is one.
        log: String,
    },
    /// The network configuration that the agent wrote cannot be run.
    #[error("{}: {reason}", file.display())]
    Conflist {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A plugin failed.
    #[error("{verb} of plugin {plugin} for {pod} failed with {status}: {output}")]
    Plugin {
        /// `CNI_COMMAND`.
        verb: &'static str,
        /// The plugin's type.
        plugin: String,
        /// The pod.
        pod: String,
        /// How the plugin ended.
        status: String,
        /// What it said.
        output: String,
    },
    /// No lab of this name runs.
    #[error("no lab named `{name}` runs: `hostgw lab list` shows those that do")]
    NoSuchLab {
        /// What was asked for.
        name: String,
    },
    /// A kept lab has the name already.
    #[error(
        "a lab named `{name}` runs already: choose another --name, or end it with `hostgw lab down {name}`"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The lab has no such place.
    #[error("lab `{lab}` has no `{place}`: its places are {places}")]
    NoSuchPlace {
        /// The lab.
        lab: String,
        /// What was asked for.
        place: String,
        /// What there is.
        places: String,
    },
    /// A command that was to run in a kept lab could not be started.
    #[error("failed to run {} in {place}: {source}", program.display())]
    NotStarted {
        /// The command.
        program: OsString,
        /// Where it was to run.
        place: String,
        /// The cause.
        source: io::Error,
    },
    /// The process inside the namespaces ended without a word.
    #[error(
        "the lab's first process ended with {status} before it reported; the lines above say how far it came"
    )]
    InnerEnded {
        /// How it ended.
        status: String,
    },
    /// An error that was reported from inside the namespaces.
    #[error("{message}")]
    Inner {
        /// The error's text.
        message: String,
        /// The error's exit code.
        exit: u8,
    },
    /// Ctrl-C or a request to terminate.
    #[error("interrupted; nothing is left behind")]
    Interrupted,
}

fn with_log(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("; the agent's log ends:\n{log}") }
}

impl LabError {
    /// A failed system call or file operation; `attempted` follows "failed to".
    pub(crate) fn io(attempted: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempted = attempted.into();
        move |source| Self::Io { attempted, source }
    }

    /// As [`LabError::io`], for calls that give a bare error number.
    pub(crate) fn call(attempted: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let attempted = attempted.into();
        move |errno| Self::Io { attempted, source: errno.into() }
    }

    /// A netlink request that was refused in `place`.
    pub(crate) fn kernel(place: impl Into<String>) -> impl FnOnce(KernelError) -> Self {
        let place = place.into();
        move |source| Self::Kernel { place, source }
    }

    /// The exit code of the contract: 1 failed, 2 usage, 4 permission, 130 interrupted.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Option { .. } | Self::NoProgram { .. } | Self::NoSuchLab { .. } => 2,
            Self::NoSuchPlace { .. } | Self::NameTaken { .. } => 2,
            Self::NamespacesRefused { .. } => 4,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 4,
            Self::Kernel { source, .. } if source.is_permission() => 4,
            // As shells have it.
            Self::NotStarted { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::NotStarted { .. } => 126,
            Self::Inner { exit, .. } => *exit,
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}
