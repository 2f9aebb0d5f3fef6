//! Which of two nodes keeps a pod CIDR or an address that both claim.

use std::cmp::Ordering;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::cluster::{ClusterNode, SourceKind};
use crate::family::Family;
use crate::observed::HostFacts;

/// A node's claim to one pod CIDR.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    pub(super) node: &'a ClusterNode,
    pub(super) cidr: IpNet,
    pub(super) next_hop: Option<IpAddr>,
    /// The node on which this runs. It holds a CIDR once it was announced with it; the guard alone proves nothing,
    /// because the loser has one too.
    pub(super) is_this_node: bool,
    /// The kernel already gives the CIDR to this node; looked up only where that decides.
    pub(super) is_held: bool,
}

impl<'a> Claim<'a> {
    /// The claim of `node` to one of its CIDRs.
    pub(super) fn new(node: &'a ClusterNode, cidr: IpNet, is_this_node: bool) -> Self {
        let next_hop = node.internal_ips.get(Family::of_net(&cidr)).copied();
        Self { node, cidr, next_hop, is_this_node, is_held: false }
    }

    /// Looks up whether the kernel gives the CIDR to this node, among the `holders` of all, which are in order.
    pub(super) fn look_up_holder(&mut self, host: &HostFacts, holders: &[(IpNet, IpAddr)]) {
        self.is_held = if self.is_this_node {
            host.announced && host.guards.contains(&self.cidr)
        } else {
            self.next_hop.is_some_and(|hop| holders.binary_search(&(self.cidr, hop)).is_ok())
        };
    }
}

/// `Less` means that `a` wins. The winner is the one that is not terminating; then, of the API, the oldest by
/// `creationTimestamp`, then by UID; of a file, in which those may be anything, the present holder. Names decide
/// last, so that the order is total.
pub(super) fn precedence(a: &Claim<'_>, b: &Claim<'_>, source: SourceKind) -> Ordering {
    // No creation time sorts last: `false` < `true`.
    let age = |claim: &Claim<'_>| (claim.node.created.is_none(), claim.node.created);
    let by_source = || match source {
        SourceKind::Kubernetes => age(a).cmp(&age(b)).then_with(|| a.node.uid.cmp(&b.node.uid)),
        SourceKind::File => b.is_held.cmp(&a.is_held),
    };
    let by_name = || a.node.name.cmp(&b.node.name).then_with(|| a.cidr.cmp(&b.cidr));
    a.node.terminating.cmp(&b.node.terminating).then_with(by_source).then_with(by_name)
}
