//! What is wrong on a node, by a look at its kernel. The lab knows by itself what must be there; it asks neither the
//! agent nor its planner.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use kernel::netlink::{Protocol, Socket};
use kernel::route::{Family, Filter, Route, RouteKind};
use kernel::{KernelError, link, route};

use crate::foreign::OUR_PROTOCOLS;
use crate::ruleset::count_our_rules;

/// What a node's kernel must hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    /// The node.
    pub(crate) node: String,
    /// Its link to the LAN.
    pub(crate) uplink: String,
    /// Peers' pod CIDRs and the addresses through which they are reached; none where the node is on no list, and what
    /// it holds is not judged.
    pub(crate) peers: Option<BTreeMap<IpNet, IpAddr>>,
    /// Addresses that have a route of their own.
    pub(crate) pods: Vec<IpAddr>,
    /// Rules in each chain of ours.
    pub(crate) rules: BTreeMap<String, usize>,
}

/// What is not as it must be; runs in the node's network namespace.
pub(crate) fn wrong(expected: &Expected) -> Vec<String> {
    look(expected).unwrap_or_else(|error| vec![format!("{} cannot be looked at: {error}", expected.node)])
}

fn look(expected: &Expected) -> Result<Vec<String>, KernelError> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut routes = Vec::new();
    for family in [Family::V4, Family::V6] {
        for protocol in OUR_PROTOCOLS {
            let filter = Filter { protocol: Some(protocol), ..Filter::default() };
            routes.extend(route::dump(&mut socket, family, filter)?);
        }
    }
    routes.retain(|route| route.kind == RouteKind::Unicast);
    let node = &expected.node;
    let mut wrong = Vec::new();
    match link::by_name(&mut socket, &expected.uplink)? {
        None => wrong.push(format!("{node} has no link {}", expected.uplink)),
        Some(link) if !link.is_up() || link.flags & link::LOWER_UP == 0 => {
            wrong.push(format!("{node}'s link {} is down", expected.uplink));
        }
        Some(_) => {}
    }
    wrong.extend(expected.peers.iter().flat_map(|peers| wrong_peers(node, peers, &routes)));
    for pod in &expected.pods {
        let own =
            |route: &Route| route.protocol == OUR_PROTOCOLS[1] && route.destination == IpNet::from(*pod);
        if !routes.iter().any(own) {
            wrong.push(format!("{node} has no route to its pod {pod}"));
        }
    }
    let rules = count_our_rules()?;
    for (chain, wanted) in &expected.rules {
        let found = rules.get(chain).copied().unwrap_or(0);
        if found != *wanted {
            wrong.push(format!("{node} has {found} of {wanted} rules in chain {chain}"));
        }
    }
    Ok(wrong)
}

fn wrong_peers(node: &str, wanted: &BTreeMap<IpNet, IpAddr>, routes: &[Route]) -> Vec<String> {
    let found: BTreeMap<IpNet, Option<IpAddr>> = routes
        .iter()
        .filter(|route| route.protocol == OUR_PROTOCOLS[0])
        .map(|route| (route.destination, route.hops.first().and_then(|hop| hop.gateway)))
        .collect();
    let mut wrong = Vec::new();
    for (cidr, hop) in wanted {
        match found.get(cidr) {
            None => wrong.push(format!("{node} has no route to {cidr}")),
            Some(other) if *other != Some(*hop) => {
                wrong.push(format!("{node}'s route to {cidr} does not go through {hop}"));
            }
            Some(_) => {}
        }
    }
    wrong.extend(
        found
            .keys()
            .filter(|cidr| !wanted.contains_key(cidr))
            .map(|cidr| format!("{node} still has a route to {cidr}")),
    );
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::route::Hop;

    #[test]
    fn a_route_that_is_absent_stale_or_leads_elsewhere_is_named() {
        let cidr = |n: u8| format!("10.244.{n}.0/24").parse::<IpNet>().unwrap();
        let hop = |n: u8| IpAddr::from([192, 0, 2, n]);
        let route = |n: u8, via: u8| Route {
            protocol: 104,
            hops: vec![Hop { gateway: Some(hop(via)), ..Hop::default() }],
            ..Route::to(cidr(n))
        };
        let wanted = BTreeMap::from([(cidr(2), hop(12)), (cidr(3), hop(13))]);
        assert_eq!(wrong_peers("node1", &wanted, &[route(2, 12), route(3, 13)]), Vec::<String>::new());
        let found = wrong_peers("node1", &wanted, &[route(2, 99), route(4, 14)]);
        assert_eq!(
            found,
            [
                "node1's route to 10.244.2.0/24 does not go through 192.0.2.12",
                "node1 has no route to 10.244.3.0/24",
                "node1 still has a route to 10.244.4.0/24",
            ]
        );
    }
}
