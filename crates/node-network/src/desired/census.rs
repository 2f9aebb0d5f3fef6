//! What is asked of all nodes, gathered by one walk through them: there may be thousands, none of them in the cache.

use std::net::IpAddr;

use super::address_ranges::AddressRanges;
use super::claimed::Claimed;
use super::node_addresses::NodeAddresses;
use super::precedence::Claim;
use crate::cluster::{ClusterNode, ClusterSnapshot, NodeName};
use crate::family::host_prefix;

/// All nodes, this one among them.
pub(super) struct Census<'a> {
    /// What they claim for their pods, in order of the nodes' names.
    pub(super) claims: Vec<Claim<'a>>,
    /// The same addresses.
    pub(super) claimed: Claimed,
    /// Their own addresses that are next hops.
    pub(super) addresses: NodeAddresses<'a>,
    /// Their further ones.
    further: Vec<IpAddr>,
    /// Those that have a pod CIDR which cannot be read.
    pub(super) unreadable: Vec<&'a ClusterNode>,
}

impl<'a> Census<'a> {
    pub(super) fn of(this_node: &NodeName, snapshot: &'a ClusterSnapshot) -> Self {
        let mut claims = Vec::with_capacity(2 * snapshot.nodes.len());
        let mut addresses = Vec::with_capacity(2 * snapshot.nodes.len());
        let (mut further, mut unreadable) = (Vec::new(), Vec::new());
        for node in snapshot.nodes.values() {
            let is_this_node = node.name == *this_node;
            claims.extend(node.pod_cidrs.values().map(|cidr| Claim::new(node, *cidr, is_this_node)));
            addresses.extend(node.internal_ips.values().map(|address| (*address, &node.name)));
            further.extend(&node.further_internal_ips);
            unreadable.extend(Some(node).filter(|node| node.unreadable_pod_cidr));
        }
        let claimed = Claimed::of(claims.iter().map(|claim| claim.cidr));
        let addresses = NodeAddresses::of(&addresses, &claimed);
        Self { claims, claimed, addresses, further, unreadable }
    }

    /// All addresses of all nodes' own.
    pub(super) fn add_node_addresses(&self, to: &mut AddressRanges) {
        to.v4.extend(self.addresses.v4().map(|address| (address, address)));
        to.v6.extend(self.addresses.v6().map(|address| (address, address)));
        to.extend(self.further.iter().copied().map(host_prefix));
    }
}
