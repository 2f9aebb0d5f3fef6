//! The node's side of routed pods: link up, gateway address, route, neighbour. A link that flapped, or an address of
//! the node that changed, takes some of them away.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use attachment::{Record, State};
use cni_plugins::wiring::{PodAddress, Step, host_route};
use ipnet::IpNet;
use kernel::KernelError;
use kernel::netlink::{Batch, Socket};
use kernel::route::{self, Hop, Route};
use node_network::observed::{
    MAIN_TABLE, ObservedLink, ObservedNode, ObservedRoute, RouteKind, RoutesByDestination,
};
use node_network::{Family, PerFamily};

use super::{PodsReport, Records, index_is_gone};

/// What the kernel gives an IPv6 route that names no metric (`IP6_RT_PRIO_USER`).
const IPV6_DEFAULT_METRIC: u32 = 1024;

/// Puts back what attached, routed pods have lost. `internal_ips` are the node's own addresses, the source of packets
/// from the node to its pods.
pub(crate) fn restore(
    socket: &mut Socket,
    data_dir: &Path,
    records: &Records,
    observed: &ObservedNode,
    internal_ips: &PerFamily<IpAddr>,
    report: &mut PodsReport,
) {
    let links: BTreeMap<&str, &ObservedLink> =
        observed.links.values().map(|link| (link.name.as_str(), link)).collect();
    let routed = records
        .entries
        .iter()
        .filter(|(_, entry)| entry.state == State::Attached && entry.record.wiring.mode.bridge().is_none());
    let mut routed = routed.peekable();
    if routed.peek().is_none() {
        return;
    }
    let of_main = observed.routes.iter().filter(|route| route.key.table == MAIN_TABLE);
    let routes = RoutesByDestination::new(of_main);
    for (network, entry) in routed {
        let Some(link) = links.get(entry.record.wiring.host_link.as_str()) else { continue };
        let holds = || Records::still_holds(data_dir, network, entry);
        for address in pod_addresses(&entry.record, observed, internal_ips) {
            match restore_address(socket, &entry.record, link, &address, &routes, holds) {
                Ok(Some(done)) => report.done.push(format!("pod {}: {done}", entry.record.attachment)),
                Ok(None) => {}
                // A DEL took the link away since it was observed, and with it all that was to be put back.
                Err(_) if index_is_gone(socket, link.index) => {}
                Err(error) => report.problems.push(format!("pod {}: {error}", entry.record.attachment)),
            }
        }
    }
}

fn pod_addresses<'a>(
    record: &'a Record,
    observed: &'a ObservedNode,
    internal_ips: &'a PerFamily<IpAddr>,
) -> impl Iterator<Item = PodAddress> + 'a {
    record.addresses.iter().filter_map(move |allocation| {
        let family = Family::of(allocation.address.addr());
        let held = |address: &&IpAddr| observed.holder_of(**address).is_some_and(|(_, held)| held.usable);
        let recorded = record.wiring.node_addresses.iter().find(|address| Family::of(**address) == family);
        let node_address = internal_ips.get(family).filter(held).or_else(|| recorded.filter(held)).copied();
        Some(PodAddress { subnet: allocation.address, gateway: allocation.gateway?, node_address })
    })
}

/// What was done, if anything had to be and the record still `holds`.
fn restore_address(
    socket: &mut Socket,
    record: &Record,
    link: &ObservedLink,
    address: &PodAddress,
    routes: &RoutesByDestination<'_>,
    holds: impl Fn() -> bool,
) -> Result<Option<String>, KernelError> {
    let mut wanted = host_route(address);
    wanted.hops = vec![Hop { index: Some(link.index), ..Hop::default() }];
    let metric = if address.subnet.addr().is_ipv6() { IPV6_DEFAULT_METRIC } else { 0 };
    let here = routes.at(&wanted.destination);
    let at_key = here.iter().find(|found| found.key.metric == metric && found.key.tos == 0);
    match at_key {
        Some(found) if !found.is_pods() => Ok(None),
        Some(found) if leads_over(found, link) && sources_agree(found, &wanted) => Ok(None),
        _ if !holds() => Ok(None),
        Some(_) => {
            let mut batch = Batch::new();
            route::replace(&mut batch, &wanted);
            execute(socket, &mut batch, &wanted)?;
            Ok(Some(format!("route to {} corrected", wanted.destination)))
        }
        None => {
            let mut batch = Batch::new();
            // A gateway that was the node's own address at ADD never stood on the pod's link.
            let holds_gateway = record.wiring.node_addresses.contains(&address.gateway)
                || link.addresses.iter().any(|held| held.address.addr() == address.gateway);
            let mut steps = Vec::new();
            if !link.up {
                steps.push(Step::Up);
            }
            if !holds_gateway {
                steps.push(Step::Address(IpNet::from(address.gateway)));
            }
            steps.push(Step::Route(wanted.clone()));
            let mac = record.wiring.pod_mac.map(|mac| Step::Neighbour(address.subnet.addr(), mac.octets()));
            steps.extend(mac);
            for step in steps {
                step.write(&mut batch, link.index);
            }
            execute(socket, &mut batch, &wanted)?;
            Ok(Some(format!("route to {} put back", wanted.destination)))
        }
    }
}

fn leads_over(found: &ObservedRoute, link: &ObservedLink) -> bool {
    found.kind == RouteKind::Unicast && matches!(found.legs.as_slice(), [leg] if leg.link == link.index)
}

/// Where the node's address is not known, whatever source is there stays.
fn sources_agree(found: &ObservedRoute, wanted: &Route) -> bool {
    wanted.source.is_none() || found.prefsrc == wanted.source
}

/// What is there already is as good.
fn execute(socket: &mut Socket, batch: &mut Batch, wanted: &Route) -> Result<(), KernelError> {
    match socket.execute(batch)?.into_iter().find(|failure| !failure.error.is_present()) {
        None => Ok(()),
        Some(failure) => {
            let attempted =
                format!("{} to restore the route to {}", failure.error.attempted, wanted.destination);
            Err(failure.error.attempting(attempted))
        }
    }
}
