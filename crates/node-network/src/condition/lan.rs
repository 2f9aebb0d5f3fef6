//! What an operator should know of pods on the node's LAN, and of the uplink that leads there.

use ipnet::IpNet;

use super::Severity;
use crate::cluster::NodeName;
use crate::desired::SliceFault;
use crate::family::Family;

/// Something that an operator should know where pods are on the LAN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LanCondition {
    /// Answers on the LAN take the short way, past the node that has translated the question.
    #[error(
        "{}: what pods on the bridge answer their neighbours over {family} passes by this node's translation: they see this \
         node's address for who asks a host port, and Services work for them where kube-proxy masquerades, as it does by its usual \
         clusterCIDR; where it does not, {}set it to 1, or use mode l2-routed (docs/flat-network.md)",
        bridge_sysctl(*family, *loaded),
        if *loaded { "" } else { "load br_netfilter and " }
    )]
    BridgeUnfiltered {
        /// The family.
        family: Family,
        /// The module is loaded.
        loaded: bool,
    },
    /// This node has no part of the LAN.
    #[error(
        "node `{node}` has no slice of the LAN: give it a pod CIDR there, with `lan.slices: annotation` the annotation hostgw.io/lan-slice, or with `index` a name that ends in its number"
    )]
    NoLanSlice {
        /// The node.
        node: NodeName,
    },
    /// Which part of the LAN is this node's cannot be read.
    #[error(
        "annotation hostgw.io/lan-slice of node `{node}` cannot be read: correct it; the CNI configuration stays as it is"
    )]
    LanSliceUnreadable {
        /// The node.
        node: NodeName,
    },
    /// This node's part of the LAN cannot be its own.
    #[error(
        "this node's slice {slice} of the LAN {fault}: give each node a part that is nobody else's; the CNI configuration stays as it is"
    )]
    LanSliceRefused {
        /// The slice.
        slice: IpNet,
        /// What is wrong with it.
        fault: SliceFault,
    },
    /// The bridge by which pods are on the LAN does not exist.
    #[error(
        "setting bridge is `{bridge}`, and this node has no bridge of that name: make it with a port to the LAN, or let the \
         agent do so by setting `uplink`; the CNI configuration stays as it is"
    )]
    NoLanBridge {
        /// Its name.
        bridge: String,
    },
    /// The uplink is not where the settings want it.
    #[error(
        "link `{link}` is not made a port of bridge `{bridge}`, as setting uplink wants: {reason}; it is tried again"
    )]
    UplinkNotJoined {
        /// The link.
        link: String,
        /// The bridge.
        bridge: String,
        /// Why.
        reason: String,
    },
    /// How the uplink stands cannot be told, or not be put right.
    #[error("a move of the uplink may be broken off: {reason}; it is looked at again")]
    UplinkNotPutBack {
        /// Why.
        reason: String,
    },
    /// A DHCP client on the link that was moved might not have been seen.
    #[error(
        "the node's processes cannot be seen from here (hostPID), so that a DHCP client of `{link}` without a socket between two \
         renewals (udhcpc, dhcpcd, connmand) would not be noticed: make sure that none works on it, for it would undo the move"
    )]
    UplinkClientsUnseen {
        /// The link.
        link: String,
    },
}

impl LanCondition {
    /// How much it matters.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::UplinkClientsUnseen { .. } | Self::BridgeUnfiltered { .. } => Severity::Notice,
            _ => Severity::Error,
        }
    }

    /// A stable name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BridgeUnfiltered { .. } => "bridge-unfiltered",
            Self::NoLanSlice { .. } => "no-lan-slice",
            Self::LanSliceUnreadable { .. } => "lan-slice-unreadable",
            Self::LanSliceRefused { .. } => "lan-slice-refused",
            Self::NoLanBridge { .. } => "no-lan-bridge",
            Self::UplinkNotJoined { .. } => "uplink-not-joined",
            Self::UplinkNotPutBack { .. } => "uplink-not-put-back",
            Self::UplinkClientsUnseen { .. } => "uplink-clients-unseen",
        }
    }
}

fn bridge_sysctl(family: Family, loaded: bool) -> String {
    let program = match family {
        Family::Ipv4 => "iptables",
        Family::Ipv6 => "ip6tables",
    };
    format!("net.bridge.bridge-nf-call-{program} is {}", if loaded { "0" } else { "absent" })
}
