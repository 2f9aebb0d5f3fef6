//! What stands in the way of pods' packets and is not ours to change.

use ipnet::IpNet;

use crate::family::Family;

/// Something that pods' packets may not get through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A base chain drops or rejects what nothing before accepts; whether pods' packets are accepted cannot be told.
    Chain {
        /// The family that it filters.
        family: Family,
        /// Its table.
        table: String,
        /// Its name.
        chain: String,
        /// Which packets it filters.
        hook: ObstacleHook,
    },
    /// FORWARD of iptables-legacy drops or rejects what nothing before accepts.
    LegacyForward {
        /// The family that it filters.
        family: Family,
        /// Everything from these prefixes is accepted before.
        from: Vec<IpNet>,
        /// Everything to these prefixes is accepted before.
        to: Vec<IpNet>,
    },
    /// The family is forwarded, and what comes in by this link is not.
    LinkNotForwarding {
        /// The sysctl that is 0, as a path below `/proc/sys`.
        sysctl: String,
    },
    /// What the bridge to the LAN forwards by itself passes by the rules of a family.
    BridgeUnfiltered {
        /// The family.
        family: Family,
        /// The kernel's module for that is loaded, and is told not to.
        loaded: bool,
    },
}

/// Which packets a chain filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObstacleHook {
    /// Those between two links.
    Forward,
    /// Those to this node.
    Input,
}
