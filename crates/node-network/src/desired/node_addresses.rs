//! The nodes' own addresses, by which it is told what lies in a pod CIDR and is no pod.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::cluster::{ClusterSnapshot, NodeName};

/// The addresses that are next hops, in order, and whose they are.
pub(super) struct NodeAddresses<'a>(Vec<(IpAddr, &'a NodeName)>);

impl<'a> NodeAddresses<'a> {
    /// Those of every node.
    pub(super) fn of(snapshot: &'a ClusterSnapshot) -> Self {
        let nodes = snapshot.nodes.values();
        let mut addresses: Vec<_> = nodes
            .flat_map(|node| node.internal_ips.values().map(move |address| (*address, &node.name)))
            .collect();
        addresses.sort_unstable();
        Self(addresses)
    }

    /// No two nodes have the same.
    pub(super) fn are_unique(&self) -> bool {
        self.0.windows(2).all(|pair| pair[0].0 != pair[1].0)
    }

    /// The first one in `cidr`, and whose it is.
    pub(super) fn first_within(&self, cidr: &IpNet) -> Option<(IpAddr, &'a NodeName)> {
        let at = self.0.partition_point(|(address, _)| *address < cidr.network());
        self.0.get(at).copied().filter(|(address, _)| *address <= cidr.broadcast())
    }
}
