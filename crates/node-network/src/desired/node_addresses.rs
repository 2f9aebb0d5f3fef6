//! The nodes' own addresses, by which it is told what lies in a pod CIDR and is no pod.

use std::net::IpAddr;

use ipnet::IpNet;

use super::claimed::Claimed;
use crate::cluster::NodeName;

/// The addresses that are next hops, as numbers in order, and whose they are.
pub(super) struct NodeAddresses<'a> {
    v4: Vec<(u32, &'a NodeName)>,
    v6: Vec<(u128, &'a NodeName)>,
    /// None lies in any node's pod CIDR: so it is, but for a mistake, and nothing has to be searched for.
    lie_outside: bool,
}

impl<'a> NodeAddresses<'a> {
    /// Of all nodes' addresses in any order, beside all that nodes claim for their pods.
    pub(super) fn of(addresses: &[(IpAddr, &'a NodeName)], claimed: &Claimed) -> Self {
        let (mut v4, mut v6) = (Vec::with_capacity(addresses.len()), Vec::with_capacity(addresses.len()));
        for (address, node) in addresses {
            match address {
                IpAddr::V4(address) => v4.push((u32::from(*address), *node)),
                IpAddr::V6(address) => v6.push((u128::from(*address), *node)),
            }
        }
        v4.sort_unstable();
        v6.sort_unstable();
        let mut all = Self { v4, v6, lie_outside: false };
        all.lie_outside = claimed.are_disjoint() && !claimed.hold_one_of(all.v4(), all.v6());
        all
    }

    /// Those of IPv4, in order.
    pub(super) fn v4(&self) -> impl Iterator<Item = u32> {
        self.v4.iter().map(|(address, _)| *address)
    }

    /// Those of IPv6, in order.
    pub(super) fn v6(&self) -> impl Iterator<Item = u128> {
        self.v6.iter().map(|(address, _)| *address)
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
