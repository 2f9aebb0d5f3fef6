//! The nodes' own addresses, by which it is told what lies in a pod CIDR and is no pod.

use std::net::IpAddr;

use ipnet::IpNet;

use super::claimed::{Claimed, one_lies_in};
use crate::cluster::{ClusterSnapshot, NodeName};

/// The addresses that are next hops, as numbers in order, and whose they are.
pub(super) struct NodeAddresses<'a> {
    v4: Vec<(u32, &'a NodeName)>,
    v6: Vec<(u128, &'a NodeName)>,
    /// None lies in any node's pod CIDR: so it is, but for a mistake, and nothing has to be searched for.
    lie_outside: bool,
}

impl<'a> NodeAddresses<'a> {
    /// Those of every node, beside all that nodes claim for their pods.
    pub(super) fn of(snapshot: &'a ClusterSnapshot, claimed: &Claimed) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for node in snapshot.nodes.values() {
            for address in node.internal_ips.values() {
                match address {
                    IpAddr::V4(address) => v4.push((u32::from(*address), &node.name)),
                    IpAddr::V6(address) => v6.push((u128::from(*address), &node.name)),
                }
            }
        }
        v4.sort_unstable();
        v6.sort_unstable();
        let lie_outside = claimed.are_disjoint()
            && !one_lies_in(v4.iter().map(|(address, _)| *address), &claimed.v4)
            && !one_lies_in(v6.iter().map(|(address, _)| *address), &claimed.v6);
        Self { v4, v6, lie_outside }
    }

    /// No two nodes have the same.
    pub(super) fn are_unique(&self) -> bool {
        are_unique(&self.v4) && are_unique(&self.v6)
    }

    /// The first one in a node's pod CIDR, and whose it is.
    pub(super) fn first_within(&self, cidr: &IpNet) -> Option<(IpAddr, &'a NodeName)> {
        if self.lie_outside {
            return None;
        }
        match cidr {
            IpNet::V4(cidr) => first_in(&self.v4, cidr.network().into(), cidr.broadcast().into())
                .map(|(address, node)| (IpAddr::V4(address.into()), node)),
            IpNet::V6(cidr) => first_in(&self.v6, cidr.network().into(), cidr.broadcast().into())
                .map(|(address, node)| (IpAddr::V6(address.into()), node)),
        }
    }
}

fn are_unique<A: Ord>(addresses: &[(A, &NodeName)]) -> bool {
    addresses.windows(2).all(|pair| pair[0].0 != pair[1].0)
}

fn first_in<'a, A: Copy + Ord>(
    addresses: &[(A, &'a NodeName)],
    first: A,
    last: A,
) -> Option<(A, &'a NodeName)> {
    let at = addresses.partition_point(|(address, _)| *address < first);
    addresses.get(at).copied().filter(|(address, _)| *address <= last)
}
