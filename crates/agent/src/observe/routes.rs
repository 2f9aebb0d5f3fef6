//! Routes, and look-ups of peers' addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use kernel::KernelError;
use kernel::netlink::Socket;
use kernel::route::{self, Filter, Hop, Route, TABLE_MAIN};
use node_network::desired::DesiredRoute;
use node_network::observed::{FibLookup, FibMatch, Leg, ObservedRoute, RouteKey, RouteKind};
use node_network::{DesiredNode, NODE_ROUTE_PROTOCOL, POD_ROUTE_PROTOCOL};

use super::seen::is_ours;

/// Ours: routes to peers in every table, and pods' own in those where routes to peers may be.
pub(super) fn ours(socket: &mut Socket, table: u32) -> Result<Vec<Route>, KernelError> {
    let tables = tables(table);
    let mut routes = Vec::new();
    for family in FAMILIES {
        let of = |protocol| Filter { protocol: Some(protocol), ..Filter::default() };
        routes.extend(route::dump(socket, family, of(NODE_ROUTE_PROTOCOL))?);
        let pods = route::dump(socket, family, of(POD_ROUTE_PROTOCOL))?;
        routes.extend(pods.into_iter().filter(|route| tables.contains(&route.table)));
    }
    Ok(routes)
}

/// All others' routes of the main table and of `table`. There may be a hundred thousand.
pub(super) fn others(socket: &mut Socket, table: u32) -> Result<Vec<Route>, KernelError> {
    let mut routes = Vec::new();
    for family in FAMILIES {
        for table in tables(table) {
            let of_table = Filter { table: Some(table), ..Filter::default() };
            routes.extend(route::dump(socket, family, of_table)?.into_iter().filter(|route| !is_ours(route)));
        }
    }
    Ok(routes)
}

const FAMILIES: [route::Family; 2] = [route::Family::V4, route::Family::V6];

fn tables(table: u32) -> BTreeSet<u32> {
    [TABLE_MAIN, table].into()
}

/// A route in the words of the plan.
pub(super) fn observed_route(route: &Route) -> ObservedRoute {
    ObservedRoute {
        key: RouteKey { dst: route.destination, table: route.table, metric: route.metric, tos: route.tos },
        protocol: route.protocol,
        kind: kind(route.kind),
        legs: route.hops.iter().map(leg).collect(),
        prefsrc: route.source,
        uses_nexthop_object: route.nexthop_id.is_some(),
    }
}

fn kind(kind: route::RouteKind) -> RouteKind {
    match kind {
        route::RouteKind::Unicast => RouteKind::Unicast,
        route::RouteKind::Local => RouteKind::Local,
        route::RouteKind::Unreachable => RouteKind::Unreachable,
        // `RTN_BLACKHOLE`.
        route::RouteKind::Blackhole => RouteKind::Other(6),
        route::RouteKind::Other(number) => RouteKind::Other(number),
    }
}

fn leg(hop: &Hop) -> Leg {
    Leg { via: hop.gateway, link: hop.index.unwrap_or_default() }
}

/// The kernel's look-up of every peer's address; those that were answered before are not asked again.
pub(super) fn look_up_next_hops(
    socket: &mut Socket,
    desired: &DesiredNode,
    mut known: BTreeMap<IpAddr, FibLookup>,
) -> BTreeMap<IpAddr, FibLookup> {
    let peers = desired.routes.values().filter_map(|route| match route {
        DesiredRoute::Peer { next_hop, .. } => Some(*next_hop),
        DesiredRoute::Hold { .. } | DesiredRoute::Guard => None,
    });
    let unknown = keep_known(&mut known, peers.collect());
    known.extend(look_up_all(socket, &unknown));
    known
}

/// The links that lead to peers, by what was looked up.
pub(super) fn links_of(next_hops: &BTreeMap<IpAddr, FibLookup>) -> BTreeSet<u32> {
    let mut links = BTreeSet::new();
    let legs = next_hops.values().flatten().flat_map(|found| &found.legs);
    // Thousands of peers in a row are behind the same link.
    let mut last = None;
    for link in legs.map(|leg| leg.link) {
        if last.replace(link) != Some(link) {
            links.insert(link);
        }
    }
    links
}

/// Keeps of what is `known` the answers about `hops`; the hops of which there is none, in order.
fn keep_known(known: &mut BTreeMap<IpAddr, FibLookup>, mut hops: Vec<IpAddr>) -> Vec<IpAddr> {
    // A stable sort, because it merges what is in order already: in many clusters addresses follow pod CIDRs.
    hops.sort();
    hops.dedup();
    let mut unknown = Vec::new();
    // Both are in order, so that one walk compares them.
    let mut wanted = hops.into_iter().peekable();
    known.retain(|hop, found| {
        while let Some(earlier) = wanted.next_if(|wanted| wanted < hop) {
            unknown.push(earlier);
        }
        found.is_ok() && wanted.next_if_eq(hop).is_some()
    });
    unknown.extend(wanted);
    unknown
}

/// The route that wins for each address.
pub(crate) fn look_up_all(socket: &mut Socket, addresses: &[IpAddr]) -> BTreeMap<IpAddr, FibLookup> {
    let found = route::look_up_all(socket, addresses);
    let told = found.into_iter().map(|found| found.as_ref().map(fib_match).map_err(ToString::to_string));
    addresses.iter().copied().zip(share(told)).collect()
}

/// What is the answer to several questions in a row is kept once.
fn share(told: impl Iterator<Item = Result<FibMatch, String>>) -> impl Iterator<Item = FibLookup> {
    let mut last: Option<Arc<FibMatch>> = None;
    told.map(move |told| {
        let found = told?;
        let shared = last.take().filter(|last| **last == found).unwrap_or_else(|| Arc::new(found));
        last = Some(Arc::clone(&shared));
        Ok(shared)
    })
}

/// The route that wins for a packet of `pod` that comes in by the link `index`; none where that link is gone.
pub(crate) fn look_up_for_pod(
    socket: &mut Socket,
    address: IpAddr,
    (pod, index): (IpAddr, u32),
) -> Option<FibLookup> {
    match route::look_up_forwarded(socket, address, pod, index) {
        Err(error) if error.errno == rustix::io::Errno::NODEV => None,
        other => Some(other.map(|found| Arc::new(fib_match(&found))).map_err(|error| error.to_string())),
    }
}

fn fib_match(found: &Route) -> FibMatch {
    FibMatch {
        dst: found.destination,
        table: found.table,
        protocol: found.protocol,
        kind: kind(found.kind),
        metric: found.metric,
        legs: found.hops.iter().map(leg).collect(),
    }
}

#[cfg(test)]
mod tests {
    use node_network::family::host_prefix;
    use proptest::prelude::*;

    use super::*;

    fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    proptest! {
        #[test]
        fn asked_is_what_is_wanted_and_was_not_answered_before(
            known in proptest::collection::btree_map(0_u8..12, any::<bool>(), 0..12),
            hops in proptest::collection::vec(0_u8..12, 0..20),
        ) {
            let answer = |number: u8, answered: bool| -> FibLookup {
                let dst = host_prefix(address(number));
                let found = FibMatch { dst, table: 254, protocol: 2, kind: RouteKind::Unicast, metric: 0, legs: Vec::new() };
                if answered { Ok(Arc::new(found)) } else { Err("network is unreachable".to_owned()) }
            };
            let before: BTreeMap<IpAddr, FibLookup> =
                known.iter().map(|(number, answered)| (address(*number), answer(*number, *answered))).collect();
            let mut kept = before.clone();
            let unknown = keep_known(&mut kept, hops.iter().copied().map(address).collect());
            let wanted: BTreeSet<IpAddr> = hops.iter().copied().map(address).collect();
            let (expected_kept, expected_unknown): (Vec<IpAddr>, Vec<IpAddr>) =
                wanted.into_iter().partition(|hop| before.get(hop).is_some_and(Result::is_ok));
            prop_assert_eq!(kept.keys().copied().collect::<Vec<_>>(), expected_kept);
            prop_assert!(kept.iter().all(|(hop, found)| before.get(hop) == Some(found)));
            prop_assert_eq!(unknown, expected_unknown);
        }
    }
}
