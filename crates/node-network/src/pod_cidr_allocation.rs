//! Pod CIDRs for nodes that have none, for clusters in which nobody else hands them out. One that is set is never changed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::cluster::{ClusterNode, ClusterSnapshot, NodeName};
use crate::family::{Family, PerFamily};

/// The whole range of one family, and how much of it a node gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterRange {
    cidr: IpNet,
    node_prefix: u8,
}

/// A range that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterRangeError {
    /// Host bits.
    #[error("cluster CIDR `{}` has host bits set: write {}", .0, .0.trunc())]
    HostBits(IpNet),
    /// No node fits.
    #[error("a node's prefix length `{node_prefix}` does not lie within cluster CIDR `{cidr}`: use {} to {}", cidr.prefix_len(), longest_of(cidr))]
    NodePrefix {
        /// The range.
        cidr: IpNet,
        /// Prefix length of a node's share.
        node_prefix: u8,
    },
    /// Two of one family.
    #[error("cluster CIDR `{0}` is a second one of its family: give at most one a family")]
    SecondOfFamily(IpNet),
    /// None.
    #[error("no cluster CIDR is given: name the range of each family of the cluster, such as 10.244.0.0/16")]
    None,
}

/// A node with fewer than two pod addresses is of no use.
fn longest_of(cidr: &IpNet) -> u8 {
    cidr.max_prefix_len() - 2
}

impl ClusterRange {
    /// Checks the two against each other.
    pub fn new(cidr: IpNet, node_prefix: u8) -> Result<Self, ClusterRangeError> {
        if cidr != cidr.trunc() {
            return Err(ClusterRangeError::HostBits(cidr));
        }
        if !(cidr.prefix_len()..=longest_of(&cidr)).contains(&node_prefix) {
            return Err(ClusterRangeError::NodePrefix { cidr, node_prefix });
        }
        Ok(Self { cidr, node_prefix })
    }
}

/// The ranges of a cluster, at most one a family and at least one.
pub fn cluster_ranges(
    ranges: impl IntoIterator<Item = ClusterRange>,
) -> Result<PerFamily<ClusterRange>, ClusterRangeError> {
    let mut found = PerFamily::default();
    for range in ranges {
        if found.insert(Family::of_net(&range.cidr), range).is_some() {
            return Err(ClusterRangeError::SecondOfFamily(range.cidr));
        }
    }
    if found.is_empty() { Err(ClusterRangeError::None) } else { Ok(found) }
}

/// What a node is to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The node.
    pub node: NodeName,
    /// One CIDR of each family of the cluster.
    pub pod_cidrs: PerFamily<IpNet>,
}

/// Why a node gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocationProblem {
    /// The range is used up.
    #[error(
        "node `{node}` gets no pod CIDR: cluster CIDR {cidr} has none free; delete nodes that are gone, or build the cluster with a larger range"
    )]
    Exhausted {
        /// The node.
        node: NodeName,
        /// The range.
        cidr: IpNet,
    },
    /// It has a CIDR of one family only, and the API lets nobody change that.
    #[error(
        "node `{node}` has no {family} pod CIDR, and one that is set cannot be changed: delete the Node, its kubelet registers it anew"
    )]
    Half {
        /// The node.
        node: NodeName,
        /// What it lacks.
        family: Family,
    },
}

/// The CIDRs for all nodes that have none, the oldest node first. `promised` are those that were given a moment ago and
/// that the snapshot may not show yet.
#[must_use]
pub fn allocate(
    snapshot: &ClusterSnapshot,
    ranges: &PerFamily<ClusterRange>,
    promised: &BTreeMap<NodeName, PerFamily<IpNet>>,
) -> (Vec<Assignment>, Vec<AllocationProblem>) {
    let mut free: Vec<Free> =
        ranges.iter().map(|(family, range)| Free::new(family, *range, snapshot, promised)).collect();
    let (mut assignments, mut problems) = (Vec::new(), Vec::new());
    let mut nodes: Vec<&ClusterNode> = snapshot.nodes.values().filter(|node| !node.terminating).collect();
    nodes.sort_by_key(|node| (node.created.is_none(), node.created, &node.name));
    for node in nodes {
        if !node.pod_cidrs.is_empty() || node.unreadable_pod_cidr {
            let lacks =
                ranges.iter().map(|(family, _)| family).find(|family| node.pod_cidrs.get(*family).is_none());
            if let Some(family) = lacks.filter(|_| !node.unreadable_pod_cidr) {
                problems.push(AllocationProblem::Half { node: node.name.clone(), family });
            }
            continue;
        }
        if promised.contains_key(&node.name) {
            continue;
        }
        // All families or none: what is set cannot be completed later.
        let found: Vec<Option<IpNet>> = free.iter_mut().map(Free::peek).collect();
        match found.iter().position(Option::is_none) {
            Some(missing) => {
                problems.push(AllocationProblem::Exhausted {
                    node: node.name.clone(),
                    cidr: free[missing].range.cidr,
                });
            }
            None => {
                let mut pod_cidrs = PerFamily::default();
                for (free, cidr) in free.iter_mut().zip(found.into_iter().flatten()) {
                    free.take();
                    pod_cidrs.insert(Family::of_net(&cidr), cidr);
                }
                assignments.push(Assignment { node: node.name.clone(), pod_cidrs });
            }
        }
    }
    (assignments, problems)
}

/// What is left of a range.
struct Free {
    range: ClusterRange,
    /// Disjoint, by their first address: what is taken.
    taken: BTreeMap<u128, u128>,
    /// Everything before is taken.
    cursor: u128,
    /// Addresses of a node's share, less one.
    span: u128,
    last: u128,
}

impl Free {
    fn new(
        family: Family,
        range: ClusterRange,
        snapshot: &ClusterSnapshot,
        promised: &BTreeMap<NodeName, PerFamily<IpNet>>,
    ) -> Self {
        let cidrs = snapshot.nodes.values().filter_map(|node| node.pod_cidrs.get(family));
        let cidrs = cidrs.chain(promised.values().filter_map(|cidrs| cidrs.get(family)));
        let mut intervals: Vec<(u128, u128)> =
            cidrs.map(|cidr| (number(cidr.network()), number(cidr.broadcast()))).collect();
        // A node's address within would be cut off by the route to the pods.
        let addresses = snapshot.nodes.values().flat_map(ClusterNode::all_internal_ips);
        let of_family = addresses.filter(|address| Family::of(*address) == family);
        intervals.extend(of_family.map(|address| (number(address), number(address))));
        intervals.sort_unstable();
        let mut taken: BTreeMap<u128, u128> = BTreeMap::new();
        for (first, last) in intervals {
            match taken.last_entry() {
                Some(mut before) if *before.get() >= first => {
                    let end = (*before.get()).max(last);
                    before.insert(end);
                }
                _ => {
                    taken.insert(first, last);
                }
            }
        }
        let host_bits = u32::from(range.cidr.max_prefix_len() - range.node_prefix);
        Self {
            range,
            taken,
            cursor: number(range.cidr.network()),
            span: (1_u128 << host_bits) - 1,
            last: number(range.cidr.broadcast()),
        }
    }

    /// The first free share.
    fn peek(&mut self) -> Option<IpNet> {
        loop {
            let end = self.cursor.checked_add(self.span).filter(|end| *end <= self.last)?;
            match self.taken.range(..=end).next_back() {
                Some((_, taken)) if *taken >= self.cursor => {
                    // The next multiple of a share's size behind what is taken.
                    self.cursor = (taken | self.span).checked_add(1)?;
                }
                _ => return self.net(),
            }
        }
    }

    /// What [`Self::peek`] gave is taken.
    fn take(&mut self) {
        self.taken.insert(self.cursor, self.cursor + self.span);
    }

    fn net(&self) -> Option<IpNet> {
        match self.range.cidr {
            IpNet::V4(_) => {
                let address = Ipv4Addr::from(u32::try_from(self.cursor).ok()?);
                Ipv4Net::new(address, self.range.node_prefix).ok().map(IpNet::V4)
            }
            IpNet::V6(_) => {
                Ipv6Net::new(Ipv6Addr::from(self.cursor), self.range.node_prefix).ok().map(IpNet::V6)
            }
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests;
