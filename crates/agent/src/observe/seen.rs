//! What a pass may take over from the one before: others' routes that matter to ours, and answers to look-ups. It is what
//! the kernel said, never what was applied, and holds only until the kernel tells of something that could change it
//! (docs/decisions/0014).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use kernel::route::{Hop, Route};
use node_network::observed::{FibLookup, FibMatch};
use node_network::plan::{PeerReport, PeerState, RouteChange, probes};
use node_network::{Change, DesiredNode, NODE_ROUTE_PROTOCOL, POD_LINK_PREFIX, POD_ROUTE_PROTOCOL, Plan};

/// `RTPROT_RA`.
pub(super) const ROUTER_ADVERTISEMENT: u8 = 9;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

/// How much of what was seen an event puts in doubt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// It is none of our business.
    #[default]
    Nothing,
    /// What each pass looks at anyway: our routes, links, rules.
    Ours,
    /// All of it.
    Everything,
}

/// What was seen, and is not in doubt.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Others' routes that matter, or all of them while they are not sifted; none while they are not known.
    pub(super) foreign: Option<Vec<Route>>,
    /// The destinations for which they were sifted.
    sifted_for: Option<BTreeSet<IpNet>>,
    /// Look-ups of peers' addresses.
    pub(crate) next_hops: BTreeMap<IpAddr, FibLookup>,
    /// Addresses in peers' pod CIDRs for which our route wins.
    effective: BTreeMap<IpAddr, FibMatch>,
}

impl Seen {
    /// Everything is to be looked at anew.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// What an event of the kernel's puts in doubt; `kind` and `payload` are those of a route socket's message.
    pub(crate) fn doubt(&self, kind: u16, payload: &[u8]) -> Doubt {
        match kind {
            RTM_NEWLINK | RTM_DELLINK => match kernel::link::Link::parse(payload) {
                Some(link) if link.name.starts_with(POD_LINK_PREFIX) => Doubt::Ours,
                _ => Doubt::Everything,
            },
            RTM_NEWROUTE | RTM_DELROUTE => match Route::parse(payload) {
                // What a packet has made the kernel remember.
                None => Doubt::Nothing,
                Some(route) if is_ours(&route) => Doubt::Ours,
                Some(route) => match &self.sifted_for {
                    Some(destinations) if !self.is_concerned(destinations, &route) => Doubt::Nothing,
                    _ => Doubt::Everything,
                },
            },
            _ => Doubt::Everything,
        }
    }

    /// Whether somebody's route, new or gone, could change what was seen.
    fn is_concerned(&self, destinations: &BTreeSet<IpNet>, route: &Route) -> bool {
        let to = route.destination;
        let kept = self.foreign.iter().flatten();
        is_always_kept(route)
            || kept.clone().any(|kept| kept.destination == to)
            || overlaps_one(destinations, &to)
            || self.next_hops.range(to.network()..=to.broadcast()).next().is_some()
            || gateways(route).any(|hop| !kept.clone().flat_map(gateways).any(|known| same_leg(known, hop)))
    }

    /// Whether others' routes were sifted for other destinations than those of `desired`: then they are too few.
    pub(super) fn lacks(&self, desired: &DesiredNode) -> bool {
        let sifted = self.sifted_for.as_ref();
        sifted.is_some_and(|sifted| !desired.routes.keys().all(|destination| sifted.contains(destination)))
    }

    /// All of others' routes, anew.
    pub(super) fn hold_foreign(&mut self, all: Vec<Route>) {
        (self.foreign, self.sifted_for) = (Some(all), None);
    }

    /// Forgets others' routes that do not matter to `desired`.
    pub(super) fn sift_foreign(&mut self, desired: &DesiredNode) {
        if self.sifted_for.is_some() {
            return;
        }
        let Some(foreign) = &mut self.foreign else { return };
        let destinations: BTreeSet<IpNet> = desired.routes.keys().copied().collect();
        let mut known: BTreeSet<(IpAddr, Option<u32>)> = BTreeSet::new();
        foreign.retain(|route| {
            let leads_anew = gateways(route)
                .filter_map(|hop| Some((hop.gateway?, hop.index)))
                .filter(|leg| known.insert(*leg))
                .count()
                > 0;
            leads_anew || is_always_kept(route) || overlaps_one(&destinations, &route.destination)
        });
        foreign.shrink_to_fit();
        self.sifted_for = Some(destinations);
    }

    /// The addresses that have to be looked up to judge whether `peers`' routes are used: not those that were seen to be
    /// and that `plan` has left alone.
    pub(crate) fn unproven(&mut self, peers: &[PeerReport], plan: &Plan) -> Vec<IpAddr> {
        let changed: BTreeSet<IpNet> = plan
            .changes()
            .filter_map(|change| match change {
                Change::Route(RouteChange::Add { route, .. } | RouteChange::Replace { route, .. }) => {
                    Some(route.key.dst)
                }
                _ => None,
            })
            .collect();
        let mut probes = probes(peers);
        let asked: BTreeSet<IpAddr> = probes.iter().copied().collect();
        self.effective.retain(|probe, found| asked.contains(probe) && !changed.contains(&found.dst));
        probes.retain(|probe| !self.effective.contains_key(probe));
        probes
    }

    /// Takes note of the `peers` whose routes were judged, by what look-ups `found`, to be used.
    pub(crate) fn prove(&mut self, peers: &[PeerReport], found: &BTreeMap<IpAddr, FibLookup>) {
        let routed = peers.iter().filter(|peer| peer.state == PeerState::Routed);
        let used = probes(peers).into_iter().zip(routed).filter_map(|(probe, peer)| {
            let found = found.get(&probe)?.as_ref().ok().filter(|found| found.dst == peer.pod_cidr)?;
            // The legs say nothing more: without them ten thousand cost little.
            Some((probe, FibMatch { legs: Vec::new(), ..found.clone() }))
        });
        self.effective.extend(used);
    }

    /// Our route, where it was seen to win for `probe`.
    pub(crate) fn proven(&self, probe: IpAddr) -> Option<FibMatch> {
        self.effective.get(&probe).cloned()
    }
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

/// Whether `net` shares an address with one of `destinations`, which share none with each other.
fn overlaps_one(destinations: &BTreeSet<IpNet>, net: &IpNet) -> bool {
    let host = |address: IpAddr| IpNet::from(address);
    let at_or_before = destinations.range(..=host(net.network())).next_back();
    let inside = destinations.range(host(net.network())..=host(net.broadcast())).next();
    let overlaps = |other: &&IpNet| other.contains(net) || net.contains(*other);
    [at_or_before, inside].iter().flatten().any(overlaps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::netlink::Batch;
    use kernel::route::{add, delete};
    use node_network::desired::DesiredRoute;
    use node_network::observed::RouteKind;
    use node_network::{NodeName, PerFamily};

    fn route(destination: &str, protocol: u8, via: Option<&str>) -> Route {
        let hop = Hop { gateway: via.map(|via| via.parse().unwrap()), index: Some(2), ..Hop::default() };
        Route { protocol, hops: vec![hop], ..Route::to(destination.parse().unwrap()) }
    }

    fn desired() -> DesiredNode {
        let next_hop = "192.0.2.12".parse().unwrap();
        let peer = DesiredRoute::Peer { node: NodeName::new("node2").unwrap(), next_hop };
        DesiredNode {
            routes: [("10.244.2.0/24".parse().unwrap(), peer)].into(),
            refused: Vec::new(),
            may_delete: true,
            kept_orphans: BTreeSet::new(),
            internal_ips: PerFamily::default(),
            own: None,
            conditions: Vec::new(),
        }
    }

    fn seen(foreign: Vec<Route>) -> Seen {
        let mut seen = Seen::default();
        seen.hold_foreign(foreign);
        seen.sift_foreign(&desired());
        let on_link = FibMatch {
            dst: "192.0.2.0/24".parse().unwrap(),
            table: 254,
            protocol: 2,
            kind: RouteKind::Unicast,
            metric: 0,
            legs: Vec::new(),
        };
        seen.next_hops.insert("192.0.2.12".parse().unwrap(), Ok(on_link));
        seen
    }

    fn doubt_of(seen: &Seen, route: &Route) -> Doubt {
        let (mut made, mut gone) = (Batch::new(), Batch::new());
        add(&mut made, route);
        delete(&mut gone, route);
        let told = seen.doubt(RTM_NEWROUTE, &made.bytes()[16..]);
        assert_eq!(seen.doubt(RTM_DELROUTE, &gone.bytes()[16..]), told);
        told
    }

    #[test]
    fn of_others_routes_those_stay_that_could_matter() {
        let apart = |number: u8| route(&format!("30.0.0.{number}/32"), 4, Some("192.0.2.1"));
        let mut foreign: Vec<Route> = (0..100).map(apart).collect();
        foreign.push(route("10.244.2.128/25", 4, None));
        foreign.push(route("10.0.0.0/8", 4, None));
        foreign.push(route("0.0.0.0/0", 4, None));
        foreign.push(route("31.0.0.0/8", ROUTER_ADVERTISEMENT, None));
        foreign.push(route("32.0.0.0/8", 4, None));
        let kept: Vec<String> =
            seen(foreign).foreign.unwrap().iter().map(|route| route.destination.to_string()).collect();
        assert_eq!(kept, ["30.0.0.0/32", "10.244.2.128/25", "10.0.0.0/8", "0.0.0.0/0", "31.0.0.0/8"]);
    }

    #[test]
    fn somebodys_route_far_from_ours_is_none_of_our_business() {
        let seen = seen(vec![route("30.0.0.0/32", 4, Some("192.0.2.1"))]);
        assert_eq!(doubt_of(&seen, &route("198.18.0.0/24", 4, Some("192.0.2.1"))), Doubt::Nothing);
        assert_eq!(doubt_of(&seen, &route("198.18.0.0/24", 4, None)), Doubt::Nothing);
    }

    #[test]
    fn a_route_that_could_change_what_was_seen_puts_everything_in_doubt() {
        let seen = seen(vec![route("30.0.0.0/32", 4, Some("192.0.2.1"))]);
        let clashing =
            ["10.244.2.0/24", "10.244.2.7/32", "10.244.0.0/16", "0.0.0.0/0", "192.0.2.12/32", "30.0.0.0/32"];
        for destination in clashing {
            assert_eq!(doubt_of(&seen, &route(destination, 4, None)), Doubt::Everything, "{destination}");
        }
        let by_another_gateway = route("198.18.0.0/24", 4, Some("192.0.2.2"));
        assert_eq!(doubt_of(&seen, &by_another_gateway), Doubt::Everything);
        let nothing_is_known = Seen::default();
        assert_eq!(doubt_of(&nothing_is_known, &route("198.18.0.0/24", 4, None)), Doubt::Everything);
    }

    #[test]
    fn our_own_routes_and_pods_links_are_looked_at_in_each_pass_anyway() {
        let seen = seen(Vec::new());
        assert_eq!(doubt_of(&seen, &route("10.244.2.0/24", NODE_ROUTE_PROTOCOL, None)), Doubt::Ours);
        assert_eq!(doubt_of(&seen, &route("10.244.1.7/32", POD_ROUTE_PROTOCOL, None)), Doubt::Ours);
        // RTM_NEWRULE
        assert_eq!(seen.doubt(32, &[0; 12]), Doubt::Everything);
    }
}
