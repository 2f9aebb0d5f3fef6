//! Every other node's pod CIDRs, reached through that node, and the guard of this node's own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::DesiredInputs;
use super::census::Census;
use super::node_addresses::NodeAddresses;
use super::own_clash::own_clash;
use super::precedence::{Claim, precedence};
use crate::cluster::{ClusterNode, ClusterSnapshot, Freshness, NodeName};
use crate::condition::Condition;
use crate::family::{Family, host_prefix, overlaps};
use crate::observed::{HostFacts, ObservedRoute, RouteKind};

/// Metric of the guard. It must lose against whatever else holds the same prefix, such as the connected route of a
/// pod bridge (metric 0 in IPv4, 256 in IPv6), and so is larger than the metrics that anybody gives to a real route.
pub const GUARD_METRIC: u32 = 104_000;

/// What one destination must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DesiredRoute {
    /// A peer's pods.
    Peer {
        /// The peer.
        node: NodeName,
        /// Its internal address of the same family.
        next_hop: IpAddr,
    },
    /// A peer's pods, while the peer's address is not known: what is installed stays.
    Hold {
        /// The peer.
        node: NodeName,
    },
    /// This node's own pods: an address without a pod must not follow the default route and come back.
    Guard,
}

#[derive(Default)]
pub(super) struct RouteChoice {
    pub(super) routes: BTreeMap<IpNet, DesiredRoute>,
    /// Peers' CIDRs that get no route; the conditions say why.
    pub(super) refused: Vec<(NodeName, IpNet)>,
    /// This node's CIDRs that another node holds by right.
    pub(super) lost_own: Vec<IpNet>,
    /// This node's CIDRs that would cut something off.
    pub(super) clashing_own: Vec<IpNet>,
    pub(super) conditions: Vec<Condition>,
}

pub(super) fn desired_routes(inputs: &DesiredInputs<'_>, census: &Census<'_>) -> RouteChoice {
    let DesiredInputs { this_node, snapshot, settings, host, .. } = *inputs;
    let node_addresses = &census.addresses;
    let disjoint = census.claimed.are_disjoint();
    let claims: Vec<Claim<'_>> = if disjoint && node_addresses.are_unique() {
        // Where no two nodes claim the same, it does not matter who comes first.
        census.claimed.in_order().filter_map(|claim| census.claims.get(claim)).copied().collect()
    } else {
        let mut claims = census.claims.clone();
        let holders = holders(inputs.routes);
        claims.iter_mut().for_each(|claim| claim.look_up_holder(host, &holders));
        claims.sort_by(|a, b| precedence(a, b, snapshot.source));
        claims
    };
    let lost_own: Vec<Loss<'_>> = match disjoint {
        true => Vec::new(),
        false => settle(&claims).1.into_iter().filter(|loss| loss.claim.is_this_node).collect(),
    };
    let mut choice = RouteChoice {
        routes: BTreeMap::new(),
        refused: Vec::new(),
        lost_own: lost_own.iter().map(|loss| loss.claim.cidr).collect(),
        clashing_own: Vec::new(),
        conditions: lost_own.iter().map(Loss::condition).collect(),
    };
    // What another node holds by right and this node was never announced with holds no pods of this node.
    let is_own =
        |claim: &&Claim<'_>| claim.is_this_node && (host.announced || !choice.lost_own.contains(&claim.cidr));
    let certain = known_for_certain(this_node, snapshot).is_some();
    let mut own: Vec<IpNet> = claims.iter().filter(is_own).map(|claim| claim.cidr).collect();
    if certain {
        for cidr in &own {
            match own_clash(cidr, host, node_addresses, settings) {
                None => {
                    choice.routes.insert(*cidr, DesiredRoute::Guard);
                }
                Some(clash) => {
                    choice.clashing_own.push(*cidr);
                    choice.conditions.push(Condition::OwnPodCidrClash { pod_cidr: *cidr, clash });
                }
            }
        }
    } else {
        // Neither a list without this node nor a cache can take away what the guards say was this node's.
        own.extend(&host.guards);
    }
    // What is claimed by no two nodes does not overlap this node's own either; what a guard says was its own, it may.
    let in_the_way = if disjoint && certain { &[] } else { own.as_slice() };
    choice.peers(&claims, disjoint, in_the_way, census, host);
    if !census.unreadable.is_empty() {
        choice.hold_unreadable(this_node, &census.unreadable, &holders(inputs.routes), &own);
    }
    choice
}

/// Destinations of our routes now, in order, with a next hop each: the present holder of a pod CIDR.
fn holders(routes: &[ObservedRoute]) -> Vec<(IpNet, IpAddr)> {
    let ours = routes.iter().filter(|route| route.is_ours() && route.kind == RouteKind::Unicast);
    let hops = ours.flat_map(|route| route.legs.iter().filter_map(|leg| Some((route.key.dst, leg.via?))));
    let mut holders: Vec<_> = hops.collect();
    holders.sort_unstable();
    holders
}

/// This node, unless what the source says of it may be incomplete.
pub(super) fn known_for_certain<'a>(
    this_node: &NodeName,
    snapshot: &'a ClusterSnapshot,
) -> Option<&'a ClusterNode> {
    let this = snapshot.nodes.get(this_node)?;
    (snapshot.freshness == Freshness::Synced && !this.unreadable_pod_cidr).then_some(this)
}

impl RouteChoice {
    fn peers(
        &mut self,
        claims: &[Claim<'_>],
        disjoint: bool,
        own: &[IpNet],
        census: &Census<'_>,
        host: &HostFacts,
    ) {
        let links: Vec<_> =
            host.on_link_prefixes.iter().filter(|(prefix, _)| census.claimed.may_touch(prefix)).collect();
        let mut peers = Vec::with_capacity(claims.len());
        for claim in claims.iter().filter(|claim| !claim.is_this_node) {
            // Own pods come first, whoever is right: the kernel must never send them to another node.
            match own.iter().find(|own| overlaps(own, &claim.cidr)) {
                None => peers.push(*claim),
                Some(own_cidr) => self.refuse(
                    claim,
                    Condition::OverlapsOwnPodCidr {
                        node: claim.node.name.clone(),
                        pod_cidr: claim.cidr,
                        own_cidr: *own_cidr,
                    },
                ),
            }
        }
        if !disjoint {
            let (winners, losses) = settle(&peers);
            peers = winners;
            for loss in losses {
                self.refuse(&loss.claim, loss.condition());
            }
        }
        let mut hop_holders: BTreeMap<IpAddr, &NodeName> = BTreeMap::new();
        let may_share = !census.addresses.are_unique();
        let mut routes: Vec<(IpNet, DesiredRoute)> = Vec::with_capacity(peers.len() + self.routes.len());
        for claim in &peers {
            let node = claim.node.name.clone();
            match peer_route(claim, host, &links, &census.addresses, &hop_holders) {
                Ok(next_hop) => {
                    if may_share {
                        hop_holders.insert(next_hop, &claim.node.name);
                    }
                    routes.push((claim.cidr, DesiredRoute::Peer { node, next_hop }));
                    self.conditions.extend(partly_on_link(claim, &links));
                }
                Err(condition @ Condition::NoInternalIp { .. }) => {
                    routes.push((claim.cidr, DesiredRoute::Hold { node }));
                    self.conditions.push(condition);
                }
                Err(condition) => self.refuse(claim, condition),
            }
        }
        // Made of all at once, the map is built from its leaves on.
        routes.extend(std::mem::take(&mut self.routes));
        self.routes = routes.into_iter().collect();
    }

    /// Where a peer's CIDR cannot be read, the routes that lead to the peer stay, unless others hold them by right.
    fn hold_unreadable(
        &mut self,
        this_node: &NodeName,
        unreadable: &[&ClusterNode],
        holders: &[(IpNet, IpAddr)],
        own: &[IpNet],
    ) {
        for node in unreadable.iter().filter(|node| node.name != *this_node) {
            for (dst, hop) in holders {
                let family = Family::of_net(dst);
                let leads_there = node.internal_ips.get(family) == Some(hop);
                let taken = own.iter().chain(self.routes.keys()).any(|other| overlaps(other, dst));
                if leads_there && !taken && node.pod_cidrs.get(family).is_none() {
                    self.routes.insert(*dst, DesiredRoute::Hold { node: node.name.clone() });
                }
            }
        }
    }

    fn refuse(&mut self, claim: &Claim<'_>, condition: Condition) {
        self.refused.push((claim.node.name.clone(), claim.cidr));
        self.conditions.push(condition);
    }
}

/// A claim that does not stand, and the one that it lost against.
struct Loss<'a> {
    claim: Claim<'a>,
    against: &'a NodeName,
    against_cidr: IpNet,
}

impl Loss<'_> {
    fn condition(&self) -> Condition {
        Condition::OverlappingPodCidr {
            node: self.claim.node.name.clone(),
            pod_cidr: self.claim.cidr,
            other: self.against.clone(),
            other_cidr: self.against_cidr,
        }
    }
}

/// The claims that stand and those that do not, of claims in order of precedence.
fn settle<'a>(claims: &[Claim<'a>]) -> (Vec<Claim<'a>>, Vec<Loss<'a>>) {
    let (mut winners, mut losses) = (Vec::with_capacity(claims.len()), Vec::new());
    let mut accepted: BTreeMap<IpNet, &NodeName> = BTreeMap::new();
    for claim in claims {
        match overlapping(&accepted, &claim.cidr) {
            Some((against_cidr, against)) => losses.push(Loss { claim: *claim, against, against_cidr }),
            None => {
                accepted.insert(claim.cidr, &claim.node.name);
                winners.push(*claim);
            }
        }
    }
    (winners, losses)
}

/// The next hop of a peer's CIDR, or why it gets no route.
fn peer_route(
    claim: &Claim<'_>,
    host: &HostFacts,
    links: &[&(IpNet, String)],
    node_addresses: &NodeAddresses<'_>,
    hop_holders: &BTreeMap<IpAddr, &NodeName>,
) -> Result<IpAddr, Condition> {
    let (node, pod_cidr) = (&claim.node.name, claim.cidr);
    let Some(next_hop) = claim.next_hop else {
        return Err(Condition::NoInternalIp { node: node.clone(), family: Family::of_net(&pod_cidr) });
    };
    if let Some(link) = host.local_addresses.get(&next_hop) {
        return Err(Condition::PeerAddressIsLocal {
            node: node.clone(),
            address: next_hop,
            link: link.clone(),
        });
    }
    if let Some(other) = hop_holders.get(&next_hop).filter(|other| **other != node) {
        return Err(Condition::DuplicateInternalIp {
            node: node.clone(),
            address: next_hop,
            other: (*other).clone(),
        });
    }
    if let Some((address, holder)) = node_addresses.first_within(&pod_cidr) {
        return Err(Condition::PodCidrHoldsNodeAddress {
            node: node.clone(),
            pod_cidr,
            address,
            holder: holder.clone(),
        });
    }
    if let Some((prefix, link)) = links.iter().find(|(prefix, _)| pod_cidr.contains(prefix)) {
        return Err(Condition::PodCidrCoversLink {
            node: node.clone(),
            pod_cidr,
            prefix: *prefix,
            link: link.clone(),
        });
    }
    Ok(next_hop)
}

/// The CIDR lies inside a connected prefix: routed all the same, for it is the more specific, but worth a word.
fn partly_on_link(claim: &Claim<'_>, links: &[&(IpNet, String)]) -> Option<Condition> {
    let (prefix, link) = links.iter().find(|(prefix, _)| prefix.contains(&claim.cidr))?;
    Some(Condition::PodCidrInsideLink {
        node: claim.node.name.clone(),
        pod_cidr: claim.cidr,
        prefix: *prefix,
        link: link.clone(),
    })
}

/// The accepted CIDR that shares an address with `cidr`. Accepted ones are disjoint, so that only the nearest one
/// that begins at or before `cidr` can hold it, and only ones that begin inside it can be held by it.
fn overlapping<'a>(accepted: &BTreeMap<IpNet, &'a NodeName>, cidr: &IpNet) -> Option<(IpNet, &'a NodeName)> {
    let from_start = host_prefix(cidr.network());
    let at_or_before = accepted.range(..=from_start).next_back();
    let inside = accepted.range(from_start..=host_prefix(cidr.broadcast())).next();
    let found = [at_or_before, inside].into_iter().flatten().find(|(other, _)| overlaps(other, cidr))?;
    Some((*found.0, found.1))
}

#[cfg(test)]
mod tests;
