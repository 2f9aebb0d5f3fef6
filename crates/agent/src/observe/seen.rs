//! What a pass may take over from the one before: routes, rules, and answers to look-ups. It is what the kernel said, never
//! what was applied, and holds only until the kernel tells of something that could change it (docs/decisions/0014, 0022).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cni_plugins::host_ports::table::TABLE as HOST_PORTS_TABLE;
use ipnet::IpNet;
use kernel::address::Address;
use kernel::events::{Event, REPLACED};
use kernel::link::{self, Link};
use kernel::nftables::{self, TableName};
use kernel::route::{Hop, Route};
use node_network::desired::TABLE_NAME;
use node_network::family::overlaps;
use node_network::observed::{FibLookup, ForwardChain, ObservedNode, Obstacle};
use node_network::plan::{NftChange, PeerReport, PeerState, RouteChange, probe_of};
use node_network::{Change, DesiredNode, NODE_ROUTE_PROTOCOL, POD_ROUTE_PROTOCOL, Plan};

use super::own_routes::{OwnRoutes, Told};
use super::own_table::OwnTable;
use super::routes::observed_route;
use super::set_aside::SetAside;

/// `RTPROT_RA`.
pub(super) const ROUTER_ADVERTISEMENT: u8 = 9;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNETCONF: u16 = 80;
const RTM_DELNETCONF: u16 = 81;

/// How much of what was seen an event puts in doubt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// It is none of our business, or our own doing.
    #[default]
    Nothing,
    /// What each pass looks at anyway, or what was forgotten as the event was heard: our routes, links, rules.
    Ours,
    /// All of it.
    Everything,
}

/// The netlink ports through which this agent changes routes and rules.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OwnPorts {
    pub(crate) route: u32,
    pub(crate) netfilter: u32,
}

/// What was seen, and is not in doubt.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    ports: OwnPorts,
    pub(super) own: OwnRoutes,
    /// Others' routes that matter, or all of them while they are not sifted; none while they are not known.
    pub(super) foreign: Option<Vec<Route>>,
    /// The destinations for which they were sifted, in order.
    sifted_for: Option<Vec<IpNet>>,
    /// Where those lead that are not kept.
    set_aside: SetAside,
    /// Look-ups of peers' addresses.
    pub(super) next_hops: BTreeMap<IpAddr, FibLookup>,
    /// The links that they lead over.
    pub(super) hop_links: BTreeSet<u32>,
    /// Peers' pod CIDRs for which our route was seen to win, in order.
    effective: Vec<IpNet>,
    /// Our table in nftables.
    pub(super) own_table: OwnTable,
    /// Others' chains at the forward hook, and those of them and of others that refuse.
    pub(super) others_chains: Option<(Vec<ForwardChain>, Vec<Obstacle>)>,
}

impl Seen {
    /// Nothing yet.
    pub(crate) fn new(ports: OwnPorts) -> Self {
        Self { ports, ..Self::default() }
    }

    /// Everything is to be looked at anew.
    pub(crate) fn forget(&mut self) {
        *self = Self::new(self.ports);
    }

    /// Takes back what a pass has observed and is done with.
    pub(crate) fn take_back(&mut self, observed: ObservedNode) {
        self.own
            .hold(observed.routes.into_iter().filter(|route| route.is_ours() || route.is_pods()).collect());
        self.next_hops = observed.next_hops;
    }

    /// What was seen of rules is in doubt once `plan` has changed them.
    pub(crate) fn doubt_rules_of(&mut self, plan: &Plan) {
        // Of elements that it changes the kernel tells, and they refuse nothing that others do not.
        let writes_rules = |change| match change {
            Change::Nft(change) => !matches!(change, NftChange::Elements(_)),
            Change::ForwardRule(_) => true,
            _ => false,
        };
        if plan.changes().any(writes_rules) {
            self.forget_rules();
        }
    }

    fn forget_rules(&mut self) {
        self.own_table.forget();
        self.others_chains = None;
    }

    /// Takes note of an event of a route socket; what it puts in doubt.
    pub(crate) fn hear(&mut self, event: Event<'_>) -> Doubt {
        match event.kind {
            RTM_NEWROUTE | RTM_DELROUTE => match Route::parse(event.payload) {
                // What a packet has made the kernel remember.
                None => Doubt::Nothing,
                Some(route) if is_ours(&route) => self.hear_of_ours(event, &route),
                Some(route) => self.hear_of_others(&route, event.kind == RTM_NEWROUTE),
            },
            RTM_NEWLINK | RTM_DELLINK => match Link::parse(event.payload) {
                Some(link) => {
                    let keeps_routes = link.is_up() && event.kind == RTM_NEWLINK;
                    self.hear_of_link(link.index, |own| !keeps_routes && own.lead_over(link.index))
                }
                None => Doubt::Everything,
            },
            RTM_NEWADDR | RTM_DELADDR => match Address::parse(event.payload) {
                Some(Address { index, ip, .. }) => {
                    let is_gone = event.kind == RTM_DELADDR;
                    self.hear_of_link(index, |own| {
                        is_gone && (own.lead_over(index) || own.come_from(ip.addr()))
                    })
                }
                None => Doubt::Everything,
            },
            RTM_NEWNETCONF | RTM_DELNETCONF => match link::netconf_index(event.payload) {
                Some(index) => self.hear_of_link(index, |_| false),
                None => Doubt::Everything,
            },
            _ => Doubt::Everything,
        }
    }

    fn hear_of_ours(&mut self, event: Event<'_>, route: &Route) -> Doubt {
        let observed = observed_route(route);
        self.own.tell(match event.kind {
            RTM_NEWROUTE => Told::New { route: observed, replaces: event.flags & REPLACED != 0 },
            _ => Told::Gone(observed),
        });
        // What this agent writes is as it was planned, and was looked up after it was written.
        if event.author == self.ports.route { Doubt::Nothing } else { Doubt::Ours }
    }

    fn hear_of_others(&mut self, route: &Route, is_new: bool) -> Doubt {
        let at_ours = self.own.lead_to(&route.destination);
        if at_ours {
            // It may have replaced ours, of which nothing else is told.
            self.own.forget();
        }
        if self.sifted_for.as_ref().is_none_or(|destinations| self.is_concerned(destinations, route)) {
            return Doubt::Everything;
        }
        if is_new {
            self.set_aside.add(route.destination);
        }
        if at_ours { Doubt::Ours } else { Doubt::Nothing }
    }

    /// IPv4 routes that go with their link or address go without a word. Of a link over which nothing leads that was seen of
    /// others or of peers, at most our own routes do; what else there is to it, each pass looks at.
    fn hear_of_link(&mut self, index: u32, may_take_ours: impl FnOnce(&OwnRoutes) -> bool) -> Doubt {
        let mut kept = self.foreign.iter().flatten().flat_map(|route| &route.hops);
        let matters = self.hop_links.contains(&index) || kept.any(|hop| hop.index == Some(index));
        if self.sifted_for.is_none() || matters {
            return Doubt::Everything;
        }
        if may_take_ours(&self.own) {
            self.own.forget();
        }
        Doubt::Ours
    }

    /// Takes note of an event of nftables; what it puts in doubt.
    pub(crate) fn hear_of_rules(&mut self, event: Event<'_>) -> Doubt {
        let told = nftables::told(event.kind, event.payload);
        if event.author == self.ports.netfilter {
            match told {
                nftables::Told::Elements(table) if is_agents_table(&table) => {
                    self.own_table.tell(event.kind, event.payload);
                }
                nftables::Told::Generation => self.own_table.told_all(),
                _ => {}
            }
            return Doubt::Nothing;
        }
        match told {
            nftables::Told::Generation => Doubt::Nothing,
            nftables::Told::Rules(table) | nftables::Told::Elements(table) if is_agents_table(&table) => {
                self.own_table.forget();
                Doubt::Ours
            }
            nftables::Told::Elements(table) if table.name != HOST_PORTS_TABLE => Doubt::Nothing,
            // Looked at in each pass.
            nftables::Told::Elements(_) => Doubt::Ours,
            nftables::Told::Rules(_) => {
                self.others_chains = None;
                Doubt::Ours
            }
            nftables::Told::Other => {
                self.forget_rules();
                Doubt::Ours
            }
        }
    }

    /// Whether somebody's route, new or gone, could change what was seen.
    fn is_concerned(&self, destinations: &[IpNet], route: &Route) -> bool {
        let to = route.destination;
        let kept = self.foreign.iter().flatten();
        is_always_kept(route)
            || kept.clone().any(|kept| kept.destination == to)
            || overlaps_one(destinations, &to)
            || self.next_hops.range(to.network()..=to.broadcast()).next().is_some()
            || gateways(route).any(|hop| !kept.clone().flat_map(gateways).any(|known| same_leg(known, hop)))
    }

    /// Whether one of others' routes that were set aside may matter to a destination of `desired`.
    pub(super) fn lacks(&self, desired: &DesiredNode) -> bool {
        let Some(sifted) = &self.sifted_for else { return false };
        // Both are in order.
        let mut sifted = sifted.iter().peekable();
        desired.routes.keys().any(|wanted| {
            while sifted.next_if(|known| *known < wanted).is_some() {}
            sifted.next_if_eq(&wanted).is_none() && self.set_aside.touches(wanted)
        })
    }

    /// All of others' routes, anew.
    pub(super) fn hold_foreign(&mut self, all: Vec<Route>) {
        (self.foreign, self.sifted_for) = (Some(all), None);
    }

    /// Of others' routes keeps those that matter to `desired`, and of the rest only where they lead.
    pub(super) fn sift_foreign(&mut self, desired: &DesiredNode) {
        let wanted = desired.routes.keys();
        if let Some(sifted) = &mut self.sifted_for {
            // Of the routes that were set aside none leads to the new ones, or they would have been listed again.
            if !wanted.clone().eq(sifted.iter()) {
                *sifted = wanted.copied().collect();
            }
            return;
        }
        let Some(foreign) = &mut self.foreign else { return };
        let destinations: Vec<IpNet> = wanted.copied().collect();
        let mut known: BTreeSet<(IpAddr, Option<u32>)> = BTreeSet::new();
        let mut set_aside = Vec::new();
        foreign.retain(|route| {
            let leads_anew = gateways(route)
                .filter_map(|hop| Some((hop.gateway?, hop.index)))
                .filter(|leg| known.insert(*leg))
                .count()
                > 0;
            let matters =
                leads_anew || is_always_kept(route) || overlaps_one(&destinations, &route.destination);
            if !matters {
                set_aside.push(route.destination);
            }
            matters
        });
        foreign.shrink_to_fit();
        self.set_aside = SetAside::of(set_aside);
        self.sifted_for = Some(destinations);
    }

    /// The addresses that have to be looked up to judge whether `peers`' routes are used: not those of routes that were
    /// seen to be and that `plan` has left alone.
    pub(crate) fn unproven(&self, peers: &[PeerReport], plan: &Plan) -> Vec<IpAddr> {
        let changed: BTreeSet<IpNet> = plan
            .changes()
            .filter_map(|change| match change {
                Change::Route(RouteChange::Add { route, .. } | RouteChange::Replace { route, .. }) => {
                    Some(route.key.dst)
                }
                _ => None,
            })
            .collect();
        // Both are in order; a peer that were not would be looked up once more.
        let mut effective = self.effective.iter().peekable();
        let unproven = routed(peers).filter(|pod_cidr| {
            while effective.next_if(|proven| *proven < pod_cidr).is_some() {}
            effective.next_if_eq(&pod_cidr).is_none() || changed.contains(pod_cidr)
        });
        unproven.map(probe_of).collect()
    }

    /// Takes note of the `peers` whose routes were judged to be used.
    pub(crate) fn prove(&mut self, peers: &[PeerReport]) {
        self.effective = routed(peers).collect();
        self.effective.sort_unstable();
    }
}

/// The pod CIDRs of peers that have a route.
fn routed(peers: &[PeerReport]) -> impl Iterator<Item = IpNet> {
    peers.iter().filter(|peer| peer.state == PeerState::Routed).map(|peer| peer.pod_cidr)
}

pub(super) fn is_ours(route: &Route) -> bool {
    matches!(route.protocol, NODE_ROUTE_PROTOCOL | POD_ROUTE_PROTOCOL)
}

/// Defaults lead to peers where a setting says so, and what routers advertise decides how links are set.
fn is_always_kept(route: &Route) -> bool {
    route.destination.prefix_len() == 0 || route.protocol == ROUTER_ADVERTISEMENT
}

fn gateways(route: &Route) -> impl Iterator<Item = &Hop> {
    route.hops.iter().filter(|hop| hop.gateway.is_some())
}

fn same_leg(a: &Hop, b: &Hop) -> bool {
    (a.gateway, a.index) == (b.gateway, b.index)
}

/// Whether `net` shares an address with one of `destinations`, which are in order and share none with each other.
fn overlaps_one(destinations: &[IpNet], net: &IpNet) -> bool {
    let host = |address: IpAddr| IpNet::from(address);
    let behind = destinations.partition_point(|other| *other <= host(net.network()));
    let at_or_before = behind.checked_sub(1).and_then(|at| destinations.get(at));
    let inside = destinations.get(behind).filter(|other| **other <= host(net.broadcast()));
    [at_or_before, inside].into_iter().flatten().any(|other| overlaps(other, net))
}

fn is_agents_table(table: &TableName) -> bool {
    table.name == TABLE_NAME && table.family == nftables::Family::Inet
}

#[cfg(test)]
mod tests;
