//! Whether a step of a link plan is still in effect, on what was observed (pure).

use std::net::IpAddr;

use attachment::MacAddress;
use ipnet::IpNet;
use kernel::address::{Address, DADFAILED, DEPRECATED, TENTATIVE};
use kernel::link::{Link, Mac};
use kernel::neighbour;
use kernel::route::{Route, TABLE_MAIN};

use super::Side;
use crate::wiring::{POD_ROUTE_PROTOCOL, Step};

/// Metric that the kernel gives an IPv6 route without one (`IP6_RT_PRIO_USER`).
const IPV6_METRIC: u32 = 1024;

/// Where a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Pod,
    Node,
}

/// What differs from `step` on `link`, in words; none where it is in effect, or was only a means to an end.
pub(crate) fn difference(step: &Step, link: &Link, side: &Side, place: Place) -> Option<String> {
    let name = &link.name;
    match step {
        Step::NoAutomaticLinkLocal
        | Step::AutomaticLinkLocal
        | Step::LinkLocal(_)
        | Step::Examine
        | Step::Settle
        | Step::ArpNotify
        | Step::Alias(_)
        | Step::Mtu(_) => None,
        Step::Up if link.is_up() => None,
        Step::Up => Some(match place {
            Place::Pod => format!("interface `{name}` is down"),
            Place::Node => format!("link `{name}` is down"),
        }),
        Step::Hairpin if link.hairpin == Some(true) => None,
        Step::Hairpin => Some(format!("port `{name}` sends no frame back to where it came from")),
        Step::Isolated if link.isolated == Some(true) => None,
        Step::Isolated => Some(format!("port `{name}` is not isolated")),
        Step::Address(ip) | Step::AddressWithoutRoute(ip) | Step::DetectedAddress(ip) => {
            address(*ip, link, side)
        }
        Step::Neighbour(ip, mac) => permanent_neighbour(*ip, *mac, link, side),
        Step::Route(wanted) | Step::PreferredRoute(wanted) => route(wanted, link, side, place),
    }
}

/// What is wrong with an address that somebody else may have added, and that may still be looking for another holder.
pub(crate) fn gateway_difference(ip: IpNet, link: &Link, side: &Side) -> Option<String> {
    let is_held = |held: &Address| held.index == link.index && held.ip == ip && held.flags & DADFAILED == 0;
    let is_used = side.addresses.iter().any(is_held);
    (!is_used).then(|| format!("address {ip} is gone from `{}`, or another host has it", link.name))
}

fn address(ip: IpNet, link: &Link, side: &Side) -> Option<String> {
    let name = &link.name;
    let held = side.addresses.iter().find(|held| held.index == link.index && held.ip == ip);
    let Some(held) = held else { return Some(format!("address {ip} is gone from `{name}`")) };
    if ip.addr().is_ipv4() {
        return None;
    }
    let flaws = [
        (DADFAILED, "was found to be another host's, too"),
        (TENTATIVE, "is tentative"),
        (DEPRECATED, "is deprecated"),
    ];
    let (_, flaw) = flaws.into_iter().find(|(flag, _)| held.flags & flag != 0)?;
    Some(format!("address {ip} on `{name}` {flaw}"))
}

fn permanent_neighbour(ip: IpAddr, mac: Mac, link: &Link, side: &Side) -> Option<String> {
    let name = &link.name;
    let known = side
        .neighbours
        .iter()
        .find(|known| known.index == link.index && known.ip == ip && known.state & neighbour::PERMANENT != 0);
    match known {
        None => Some(format!("the permanent neighbour {ip} is gone from `{name}`")),
        Some(known) if known.mac == Some(mac) => None,
        Some(known) => {
            Some(format!("neighbour {ip} on `{name}` is at {}, not {}", shown(known.mac), shown(Some(mac))))
        }
    }
}

fn shown(mac: Option<Mac>) -> String {
    mac.and_then(|mac| MacAddress::new(mac).ok())
        .map_or_else(|| "no address".to_owned(), |mac| mac.to_string())
}

/// Among the routes to the same destination in the same table over this link, one must be as wanted.
fn route(wanted: &Route, link: &Link, side: &Side, place: Place) -> Option<String> {
    let mut alike = side.routes.iter().filter(|found| {
        found.destination.trunc() == wanted.destination.trunc()
            && found.table == wanted.table
            && found.hops.iter().any(|hop| hop.index == Some(link.index))
    });
    let table =
        if wanted.table == TABLE_MAIN { String::new() } else { format!(" in table {}", wanted.table) };
    let Some(first) = alike.next() else {
        return Some(match place {
            Place::Pod => format!("route {}{table} is gone from the pod", wanted.destination),
            Place::Node => format!("the node's route to {} is gone", wanted.destination.addr()),
        });
    };
    let flaws = flaws(wanted, first);
    if flaws.is_empty() || alike.any(|other| self::flaws(wanted, other).is_empty()) {
        return None;
    }
    let subject = match place {
        Place::Pod => format!("route {}{table} in the pod", wanted.destination),
        Place::Node => format!("the node's route to {}", wanted.destination.addr()),
    };
    Some(format!("{subject} has {}", flaws.join(", ")))
}

fn flaws(wanted: &Route, found: &Route) -> Vec<String> {
    let ipv6 = wanted.destination.addr().is_ipv6();
    let metric = if ipv6 && wanted.metric == 0 { IPV6_METRIC } else { wanted.metric };
    let gateway = |route: &Route| route.hops.first().and_then(|hop| hop.gateway);
    let mut flaws = vec![
        flaw("gateway", gateway(found), gateway(wanted)),
        flaw("metric", Some(found.metric), Some(metric)),
        flaw("MTU", found.mtu, wanted.mtu),
        flaw("MSS", found.advmss, wanted.advmss),
        flaw("source", found.source, wanted.source),
        flaw("TOS", Some(found.tos), Some(wanted.tos)),
    ];
    // IPv6 routes have no scope. Who set a pod's route is nobody's affair, whose the node's is tells us apart.
    if !ipv6 {
        flaws.push(flaw("scope", Some(found.scope), Some(wanted.scope)));
    }
    if wanted.protocol == POD_ROUTE_PROTOCOL {
        flaws.push(flaw("protocol", Some(found.protocol), Some(wanted.protocol)));
    }
    flaws.into_iter().flatten().collect()
}

fn flaw<T: PartialEq + ToString>(what: &str, found: Option<T>, wanted: Option<T>) -> Option<String> {
    let shown = |value: Option<T>| value.map_or_else(|| "none".to_owned(), |value| value.to_string());
    (found != wanted).then(|| format!("{what} {}, not {}", shown(found), shown(wanted)))
}
