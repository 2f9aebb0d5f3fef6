//! Host ports: ports of the node that lead to a pod, as elements of maps in the table `inet hostgw_hostport`.

pub(crate) mod elements;
mod flows;
mod listener;
mod owner;
mod publish;
mod rebuild;
mod soundness;
pub mod table;
mod wanted;

use kernel::KernelError;

pub(crate) use flows::{forget_flows_from, forget_flows_to};
pub(crate) use listener::refuse_listened;
pub(crate) use publish::{differences, leading_to, publish, withdraw};
pub use rebuild::{RebuildReport, rebuild};
pub(crate) use wanted::wanted;

/// Why host ports could not be opened or closed.
#[derive(Debug, thiserror::Error)]
pub enum HostPortError {
    /// Somebody else has one of them, and lives.
    #[error("host port {port} is taken by {owner}: use another port, or delete that one")]
    Taken {
        /// Protocol and port, with the address where it is on one only.
        port: String,
        /// Whose it is.
        owner: String,
    },
    /// The kernel refused.
    #[error("failed to {attempted} the host ports of attachment {attachment}: {cause}")]
    Kernel {
        /// What was to be done.
        attempted: &'static str,
        /// For whom.
        attachment: String,
        /// Why it was not.
        cause: KernelError,
    },
}
