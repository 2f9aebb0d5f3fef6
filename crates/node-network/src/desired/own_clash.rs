//! Whether a pod CIDR of this node may be used here: its guard would cut off whatever else lies in it.

use std::net::IpAddr;

use cni_spec::DEFAULT_BRIDGE;
use ipnet::IpNet;

use super::node_addresses::NodeAddresses;
use crate::cluster::NodeName;
use crate::family::overlaps;
use crate::observed::HostFacts;
use crate::settings::Settings;

/// What lies in a pod CIDR of this node and is no pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnClash {
    /// A node, this one or another.
    #[error("holds address {address} of node `{holder}`")]
    NodeAddress {
        /// The address.
        address: IpAddr,
        /// The node.
        holder: NodeName,
    },
    /// A connected network, or a part of it.
    #[error("overlaps {prefix} on link `{link}` of this node")]
    Link {
        /// The connected prefix.
        prefix: IpNet,
        /// Its link.
        link: String,
    },
    /// A router that this node uses.
    #[error("holds gateway {0} of a route of this node")]
    Gateway(IpAddr),
}

pub(super) fn own_clash(
    cidr: &IpNet,
    host: &HostFacts,
    node_addresses: &NodeAddresses<'_>,
    settings: &Settings,
) -> Option<OwnClash> {
    if let Some((address, holder)) = node_addresses.first_within(cidr) {
        return Some(OwnClash::NodeAddress { address, holder: holder.clone() });
    }
    // The pods' bridge of another mode, or of a network plugin that was here before, with its gateway address.
    let former_bridge = |prefix: &IpNet, link: &str| {
        let configured = settings.bridge.as_ref().is_some_and(|bridge| bridge.as_str() == link);
        prefix == cidr && (link == DEFAULT_BRIDGE || configured) && host.bridge_fault.is_none()
    };
    let mut prefixes = host.on_link_prefixes.iter().filter(|(prefix, _)| overlaps(prefix, cidr));
    if let Some((prefix, link)) = prefixes.find(|(prefix, link)| !former_bridge(prefix, link)) {
        return Some(OwnClash::Link { prefix: *prefix, link: link.clone() });
    }
    host.gateways.iter().find(|gateway| cidr.contains(*gateway)).copied().map(OwnClash::Gateway)
}

#[cfg(test)]
mod tests;
