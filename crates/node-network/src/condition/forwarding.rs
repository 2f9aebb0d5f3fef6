//! What an operator should know of sysctls and firewalls that keep this node from forwarding its pods' packets.

use super::Severity;
use crate::family::Family;

/// Something in the way of what is forwarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardingCondition {
    /// A sysctl cannot be read, and so cannot be set.
    #[error(
        "sysctl {sysctl} cannot be read: pods of that family cannot be forwarded; enable the family or mount the host's /proc/sys/net"
    )]
    SysctlUnreadable {
        /// Its path.
        sysctl: String,
    },
    /// A link does not forward although its family does.
    #[error(
        "sysctl {sysctl} is 0, so that packets that come in by that link are not forwarded: set it to 1, where systemd-networkd keeps it by IPv4Forwarding=yes"
    )]
    LinkNotForwarding {
        /// Its path.
        sysctl: String,
    },
    /// Somebody's chain drops what it does not know.
    #[error(
        "chain `{chain}` of table `{table}` ({family}) drops or rejects {filtered} and nothing in it accepts: make sure that it accepts packets from and to {prefixes}"
    )]
    ForeignChainMayDrop {
        /// The table.
        table: String,
        /// The chain.
        chain: String,
        /// The family.
        family: Family,
        /// Which packets it filters.
        filtered: &'static str,
        /// The pods.
        prefixes: String,
    },
    /// Somebody's chain drops pods' packets.
    #[error(
        "chain `{chain}` of table `{table}` ({family}) drops what is forwarded, and is not ours to change: accept packets from and to {prefixes} there"
    )]
    ForeignChainDrops {
        /// The table.
        table: String,
        /// The chain.
        chain: String,
        /// The family.
        family: Family,
        /// The pods.
        prefixes: String,
    },
    /// iptables-legacy drops pods' packets.
    #[error(
        "chain `FORWARD` of iptables-legacy ({family}) drops what is forwarded, and is not ours to change: run `{commands}`"
    )]
    LegacyForwardDrops {
        /// The family.
        family: Family,
        /// What is to be run.
        commands: String,
    },
}

impl ForwardingCondition {
    /// How much it matters.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::ForeignChainMayDrop { .. } | Self::LinkNotForwarding { .. } => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// A stable name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SysctlUnreadable { .. } => "sysctl-unreadable",
            Self::LinkNotForwarding { .. } => "link-not-forwarding",
            Self::ForeignChainMayDrop { .. } => "foreign-chain-may-drop",
            Self::ForeignChainDrops { .. } => "foreign-chain-drops",
            Self::LegacyForwardDrops { .. } => "legacy-forward-drops",
        }
    }
}
