//! Routes: one change a destination, never over a route that is not ours alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::allowed_ips::{self, AllowedIpsChange, AllowedIpsFault};
use super::peers::{PeerReport, PeerState};
use crate::cluster::NodeName;
use crate::condition::Condition;
use crate::desired::{DesiredNode, DesiredRoute, GUARD_METRIC};
use crate::family::{Family, PerFamily, overlaps};
use crate::next_hop::{NextHopProblem, NextHops, OnLink};
use crate::observed::{
    Leg, MAIN_TABLE, ObservedNode, ObservedRoute, RouteKey, RouteKind, RoutesByDestination, RoutesTo,
    WireguardPeer,
};
use crate::settings::Settings;

/// A route to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRoute {
    /// Its place in the kernel's tables.
    pub key: RouteKey,
    /// Where it leads; none is `unreachable`.
    pub leg: Option<WantedLeg>,
    /// The peer whose pods it reaches; none for this node's guard.
    pub node: Option<NodeName>,
}

/// Where a route to be leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedLeg {
    /// The peer's address.
    pub via: IpAddr,
    /// Index of the outgoing link.
    pub link: u32,
    /// Its name, to be shown.
    pub link_name: Arc<str>,
    /// Set `RTNH_F_ONLINK`: no connected route confirms the address.
    pub on_link: bool,
    /// This node's internal address where the outgoing link holds it, so that the source is neither a secondary nor
    /// a temporary address.
    pub prefsrc: Option<IpAddr>,
}

/// A route of ours alone that the kernel holds, with all that a delete must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledRoute {
    /// Its place in the kernel's tables.
    pub key: RouteKey,
    /// Its type.
    pub kind: RouteKind,
    /// Where it leads.
    pub leg: Option<Leg>,
}

/// What becomes of one destination. `superseded` are routes of ours with another metric, table or TOS; they go after
/// the new one stands, and stay if it cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteChange {
    /// Create, and fail if anything holds the key (`NLM_F_CREATE | NLM_F_EXCL`).
    Add {
        /// To be.
        route: WantedRoute,
        /// To go afterwards.
        superseded: Vec<InstalledRoute>,
    },
    /// Replace a route of ours with the same key (`NLM_F_REPLACE`).
    Replace {
        /// To be.
        route: WantedRoute,
        /// What it replaces.
        old: InstalledRoute,
        /// To go afterwards.
        superseded: Vec<InstalledRoute>,
    },
    /// Delete; each delete names table, metric, protocol, next hop and link.
    Delete {
        /// Never empty.
        routes: Vec<InstalledRoute>,
        /// A route of ours stands and these are superseded; else no node holds the destination any more.
        superseded: bool,
    },
}

impl RouteChange {
    pub(super) const fn is_delete(&self) -> bool {
        matches!(self, Self::Delete { .. })
    }
}

pub(super) struct RoutePlan {
    pub(super) changes: BTreeMap<IpNet, RouteChange>,
    pub(super) peers: Vec<PeerReport>,
    pub(super) allowed_ips: Vec<AllowedIpsChange>,
}

pub(super) fn plan_routes(
    desired: &DesiredNode,
    observed: &ObservedNode,
    settings: &Settings,
    conditions: &mut Vec<Condition>,
) -> RoutePlan {
    let routes = RoutesByDestination::new(observed.routes.iter());
    let own_holder = |family| {
        let own = desired.internal_ips.get(family).copied()?;
        let (holder, address) = observed.holder_of(own)?;
        address.usable.then_some((holder.index, own))
    };
    let mut own_holders = PerFamily::default();
    for family in Family::BOTH {
        if let Some(holder) = own_holder(family) {
            own_holders.insert(family, holder);
        }
    }
    let mut planner = Planner {
        next_hops: NextHops::new(observed, &desired.internal_ips, settings),
        settings,
        own_holders,
        may_delete: desired.may_delete,
        here: RoutesTo::default(),
        conditions,
        wireguard: &observed.wireguard,
        plan: RoutePlan {
            changes: BTreeMap::new(),
            peers: Vec::with_capacity(desired.routes.len()),
            allowed_ips: Vec::new(),
        },
    };
    let mut installed = routes.in_order();
    for (dst, route) in &desired.routes {
        planner.here = installed.to(dst);
        planner.destination(*dst, route);
    }
    for (node, pod_cidr) in &desired.refused {
        planner.report(node, *pod_cidr, None, None, PeerState::Refused);
    }
    planner.orphans(&routes, desired);
    planner.plan
}

struct Planner<'a> {
    next_hops: NextHops<'a>,
    settings: &'a Settings,
    /// The links that hold this node's own addresses, where those can be sources.
    own_holders: PerFamily<(u32, IpAddr)>,
    may_delete: bool,
    /// What is installed at the destination that is being planned.
    here: RoutesTo<'a, 'a>,
    conditions: &'a mut Vec<Condition>,
    wireguard: &'a BTreeMap<u32, Result<Vec<WireguardPeer>, String>>,
    plan: RoutePlan,
}

impl<'a> Planner<'a> {
    fn report(
        &mut self,
        node: &NodeName,
        pod_cidr: IpNet,
        next_hop: Option<IpAddr>,
        link: Option<Arc<str>>,
        state: PeerState,
    ) {
        self.plan.peers.push(PeerReport { node: node.clone(), pod_cidr, next_hop, link, state });
    }

    fn destination(&mut self, dst: IpNet, desired: &DesiredRoute) {
        let key = |metric| RouteKey { dst, table: self.settings.routes.table, metric, tos: 0 };
        match desired {
            DesiredRoute::Guard => {
                self.put(key(GUARD_METRIC), None, None);
            }
            DesiredRoute::Hold { node } => {
                let installed = self.here.at.iter().find(|route| route.is_ours());
                let hop = installed.and_then(|route| route.legs.first()?.via);
                let state = if installed.is_some() { PeerState::Held } else { PeerState::Refused };
                self.report(node, dst, hop, None, state);
            }
            DesiredRoute::Peer { node, next_hop } => {
                let key = key(self.settings.routes.metric);
                self.peer(key, node, *next_hop);
            }
        }
    }

    fn peer(&mut self, key: RouteKey, node: &NodeName, address: IpAddr) {
        let dst = key.dst;
        let installed = self.here.at.iter().copied().find(|route| route.key == key && route.is_ours_alone());
        let link = match self.next_hops.towards(address, installed) {
            Ok(link) => link,
            Err(problem) => return self.no_next_hop(dst, node, address, problem),
        };
        if link.wireguard {
            self.check_allowed_ips(&link, dst, node, address);
        }
        let leg = WantedLeg {
            via: address,
            link: link.link,
            link_name: link.name.clone(),
            on_link: link.forced,
            prefsrc: self.prefsrc(Family::of(address), link.link),
        };
        let stands = self.put(key, Some(leg), Some(node));
        let state = if stands { PeerState::Routed } else { PeerState::Refused };
        self.shadows(key);
        self.report(node, dst, Some(address), Some(link.name), state);
    }

    fn check_allowed_ips(&mut self, link: &OnLink, pod_cidr: IpNet, node: &NodeName, address: IpAddr) {
        let fault = match self.wireguard.get(&link.link) {
            Some(Ok(peers)) => allowed_ips::fault(address, pod_cidr, peers),
            Some(Err(reason)) => Some(AllowedIpsFault::Unreadable(reason.clone())),
            None => Some(AllowedIpsFault::Unreadable("nobody looked".to_owned())),
        };
        match fault {
            None => {}
            Some(AllowedIpsFault::Missing(peer)) if self.settings.routes.maintain_allowed_ips => {
                let (link, link_name) = (link.link, link.name.to_string());
                let node = node.clone();
                self.plan.allowed_ips.push(AllowedIpsChange { link, link_name, peer, pod_cidr, node });
            }
            Some(fault) => {
                let (node, link) = (node.clone(), link.name.to_string());
                self.conditions.push(Condition::WireguardNextHop { node, pod_cidr, link, fault });
            }
        }
    }

    fn prefsrc(&self, family: Family, link: u32) -> Option<IpAddr> {
        let (holder, own) = self.own_holders.get(family)?;
        (*holder == link).then_some(*own)
    }

    /// What leads to the same address stays whatever the reason, unless the address is ours. What leads elsewhere
    /// stays only while nothing is known.
    fn no_next_hop(&mut self, dst: IpNet, node: &NodeName, address: IpAddr, problem: NextHopProblem) {
        let leads_there = |route: &ObservedRoute| route.legs.iter().any(|leg| leg.via == Some(address));
        let keep = |route: &ObservedRoute| {
            problem != NextHopProblem::Local && (problem.is_ignorance() || leads_there(route))
        };
        let (kept, gone): (Vec<_>, Vec<_>) =
            self.here.at.iter().copied().filter(|route| route.is_ours()).partition(|route| keep(route));
        self.delete(dst, &gone, false);
        let held = !kept.is_empty();
        let state = if held { PeerState::Held } else { PeerState::Refused };
        self.report(node, dst, Some(address), None, state);
        self.conditions.push(Condition::NoNextHop {
            node: node.clone(),
            pod_cidr: dst,
            address,
            problem,
            held,
        });
    }

    /// Plans one route, and tells whether it stands afterwards.
    fn put(&mut self, key: RouteKey, leg: Option<WantedLeg>, node: Option<&NodeName>) -> bool {
        let here = self.here.at;
        // So nearly all of them are, in nearly every pass.
        if let [only] = here
            && only.key == key
            && only.is_ours_alone()
            && is_as_wanted(only, leg.as_ref())
        {
            return true;
        }
        let route = WantedRoute { key, leg, node: node.cloned() };
        let (at_key, elsewhere): (Vec<_>, Vec<_>) = here.iter().copied().partition(|found| found.key == key);
        let old_ones: Vec<_> = elsewhere.into_iter().filter(|found| found.is_ours()).collect();
        if let Some(foreign) = at_key.iter().find(|found| !found.is_ours_alone()) {
            let ours = |leg: &Leg| route.leg.as_ref().is_some_and(|wanted| leads_like(wanted, *leg));
            let carries_ours = foreign.legs.len() > 1 && foreign.legs.iter().any(ours);
            self.conditions.push(if foreign.is_ours() || carries_ours {
                Condition::MultipathClash { key }
            } else {
                Condition::RouteClash { key, protocol: foreign.protocol }
            });
            // A clash leaves a peer with its old route; a route of this node's own pods to a peer is wrong anyhow.
            if route.leg.is_none() {
                self.delete(key.dst, &old_ones, false);
            }
            return carries_ours;
        }
        match at_key.first() {
            Some(installed) if is_as_wanted(installed, route.leg.as_ref()) => {
                self.delete(key.dst, &old_ones, true);
            }
            Some(installed) => {
                let superseded = self.deletable(&old_ones);
                let change = RouteChange::Replace { route, old: InstalledRoute::of(installed), superseded };
                self.plan.changes.insert(key.dst, change);
            }
            None => {
                let superseded = self.deletable(&old_ones);
                self.plan.changes.insert(key.dst, RouteChange::Add { route, superseded });
            }
        }
        true
    }

    fn orphans(&mut self, routes: &RoutesByDestination<'_>, desired: &DesiredNode) {
        // Both are in order.
        let mut wanted = desired.routes.keys().peekable();
        for (dst, here) in routes.each() {
            while wanted.next_if(|wanted| **wanted < dst).is_some() {}
            if wanted.peek() == Some(&&dst) {
                continue;
            }
            let ours: Vec<_> = here.iter().copied().filter(|route| route.is_ours()).collect();
            if !ours.is_empty() && !may_be_somebodys(&dst, desired) {
                self.delete(dst, &ours, false);
            }
        }
    }

    fn delete(&mut self, dst: IpNet, routes: &[&ObservedRoute], superseded: bool) {
        let routes = self.deletable(routes);
        if !routes.is_empty() {
            self.plan.changes.insert(dst, RouteChange::Delete { routes, superseded });
        }
    }

    /// Those that are ours alone, if anything may be deleted at all. Which leg of a multipath set is ours cannot be
    /// told, so that it is left.
    fn deletable(&mut self, routes: &[&ObservedRoute]) -> Vec<InstalledRoute> {
        if !self.may_delete {
            return Vec::new();
        }
        let (alone, mixed): (Vec<_>, Vec<_>) =
            routes.iter().copied().partition(|route| route.is_ours_alone());
        self.conditions.extend(mixed.iter().map(|route| Condition::MultipathClash { key: route.key }));
        alone.into_iter().map(InstalledRoute::of).collect()
    }

    /// Routes of others to the same destination with a lower metric, or to a part of it.
    fn shadows(&mut self, key: RouteKey) {
        let within = self.here.within.iter();
        let foreign = within
            .filter(|route| !route.is_ours() && !route.is_pods())
            .filter(|route| route.key.table == key.table || route.key.table == MAIN_TABLE);
        let wins = |route: &&&'a ObservedRoute| route.key.dst != key.dst || route.key.metric < key.metric;
        let shadow = foreign.filter(wins).map(|route| Condition::RouteShadowed {
            pod_cidr: key.dst,
            key: route.key,
            protocol: route.protocol,
        });
        // One is enough to act upon, and a list could be long.
        self.conditions.extend(shadow.take(1));
    }
}

/// A node that cannot be told may hold this destination; one that overlaps what a known node holds, it may not.
fn may_be_somebodys(dst: &IpNet, desired: &DesiredNode) -> bool {
    let own = desired.own.iter().flat_map(|own| own.pod_cidrs.values());
    // What is only held may be as stale as this.
    let routed = desired.routes.iter().filter(|(_, route)| !matches!(route, DesiredRoute::Hold { .. }));
    let refused = || desired.refused.iter().any(|(_, cidr)| cidr == dst);
    desired.kept_orphans.contains(&Family::of_net(dst))
        && !own.chain(routed.map(|(cidr, _)| cidr)).any(|known| overlaps(known, dst))
        && !refused()
}

impl InstalledRoute {
    fn of(route: &ObservedRoute) -> Self {
        Self { key: route.key, kind: route.kind, leg: route.legs.first().copied() }
    }
}

fn is_as_wanted(installed: &ObservedRoute, wanted: Option<&WantedLeg>) -> bool {
    match (wanted, installed.legs.first()) {
        (None, _) => installed.kind == RouteKind::Unreachable,
        (Some(leg), Some(found)) => {
            installed.kind == RouteKind::Unicast
                && leads_like(leg, *found)
                && installed.prefsrc == leg.prefsrc
        }
        (Some(_), None) => false,
    }
}

fn leads_like(wanted: &WantedLeg, found: Leg) -> bool {
    found.via == Some(wanted.via) && found.link == wanted.link
}

#[cfg(test)]
mod tests;
