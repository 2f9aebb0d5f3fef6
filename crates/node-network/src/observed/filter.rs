//! Others' chains at the forward hook: an `accept` of ours elsewhere does not override their drop.

use crate::desired::ForwardAccept;
use crate::family::Family;

/// A base chain of somebody else at the forward hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardChain {
    /// The family that it filters; an `inet` chain is listed once for each.
    pub family: Family,
    /// Its table's name.
    pub table: String,
    /// Its own name.
    pub chain: String,
    /// What nothing accepts is dropped by its policy; of a chain that iptables owns, also by a rule in it, or in a chain
    /// to which it sends everything, that drops or rejects everything.
    pub drops: bool,
    /// iptables owns it: it is `FORWARD` of `ip filter` or `ip6 filter`. In others we never write.
    pub owned_by_iptables: bool,
    /// Docker's chain for the administrator's rules exists and `FORWARD` jumps to it.
    pub docker_user: bool,
    /// Accept rules of ours in the chain or in `DOCKER-USER`.
    pub accepts: Vec<ObservedAccept>,
}

/// An accept rule of ours in a chain of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedAccept {
    /// Where it stands.
    pub position: ChainPosition,
    /// What it accepts.
    pub accept: ForwardAccept,
    /// No rule of somebody else stands before it.
    pub on_top: bool,
    /// The kernel's handle of the rule.
    pub handle: u64,
}

/// Which of iptables' chains holds a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChainPosition {
    /// `FORWARD` itself.
    Forward,
    /// `DOCKER-USER`, which Docker leaves to the administrator and jumps to first.
    DockerUser,
}

impl ChainPosition {
    /// The chain's name.
    #[must_use]
    pub const fn chain_name(self) -> &'static str {
        match self {
            Self::Forward => "FORWARD",
            Self::DockerUser => "DOCKER-USER",
        }
    }
}
