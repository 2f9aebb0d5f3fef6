//! What others have configured on a node: planted before the agent comes, listed in full before and after.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::route::{DEAD, Family as RouteFamily, Filter, Hop, LINKDOWN, Route};
use kernel::{KernelError, address, link, neighbour, route};

use crate::LabError;
use crate::lan::{execute_missing, index_of, link_name};
use crate::options::Family;
use crate::policy_rule::{self, PolicyRule};
use crate::report::ForeignObjects;
use crate::ruleset;
use crate::topology::is_of;

/// The foreign link: a bridge with the addresses that Docker gives its own.
pub(crate) const LINK: &str = "foreign0";
/// Protocols of our routes: the agent's and the pods' own.
pub(crate) const OUR_PROTOCOLS: [u8; 2] = [104, 105];
/// Names of links that are ours begin so.
const OUR_LINKS: &str = "hgw";
/// A line on an object of somebody's ruleset begins so.
const RULESET_OBJECT: &str = "ruleset object";
/// `RTPROT_STATIC` and `RTPROT_BIRD`.
const STATIC: u8 = 4;
const BIRD: u8 = 12;
/// A routing table that nobody else uses.
const TABLE: u32 = 200;

/// What is planted in one family.
struct Planted {
    address: &'static str,
    statics: &'static str,
    /// Among the cluster's pod CIDRs, but no node's.
    birds: &'static str,
    neighbour: &'static str,
}

fn planted(family: Family) -> Planted {
    match family {
        Family::Ipv4 => Planted {
            address: "172.17.0.1/16",
            statics: "198.18.0.0/15",
            birds: "10.244.200.0/24",
            neighbour: "192.0.2.250",
        },
        Family::Ipv6 => Planted {
            address: "fd00:d0c::1/64",
            statics: "fd00:a::/48",
            birds: "fd00:10:244:200::/64",
            neighbour: "2001:db8:0:1::250",
        },
    }
}

/// The address of the foreign link, a wrong source for anything of ours.
pub(crate) fn link_address(family: Family) -> Result<IpNet, LabError> {
    parse(planted(family).address)
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, LabError> {
    text.parse().map_err(|_| LabError::io(format!("read `{text}`"))(std::io::ErrorKind::InvalidData.into()))
}

/// Plants a link, addresses, routes of several protocols and tables, neighbours, policy rules and a ruleset; runs in
/// the node. `routers` are on the LAN, one in each family, reached over `uplink`.
pub(crate) fn plant(
    node: &str,
    uplink: &str,
    families: &[Family],
    routers: &[IpAddr],
) -> Result<(), LabError> {
    let name = link_name(LINK)?;
    let mut socket = Socket::open(Protocol::Route).map_err(LabError::kernel(node))?;
    let mut batch = Batch::new();
    link::create_bridge(&mut batch, &name, [0x02, 0, 0, 0, 0xf0, 0x05], 1500, true);
    socket.execute_all(&mut batch).map_err(LabError::kernel(node))?;
    let foreign = index_of(&mut socket, LINK).map_err(LabError::kernel(node))?;
    batch.clear();
    for family in families {
        let objects = planted(*family);
        let address: IpNet = parse(objects.address)?;
        address::add(&mut batch, foreign, address, if *family == Family::Ipv6 { address::NODAD } else { 0 });
        let hops = vec![Hop { index: Some(foreign), ..Hop::default() }];
        let statics = parse(objects.statics)?;
        route::add(&mut batch, &Route { table: TABLE, metric: 7, hops, ..Route::to(statics) });
        let rule = PolicyRule {
            priority: 30_000,
            from: Some(address.trunc()),
            table: TABLE,
            ..PolicyRule::default()
        };
        policy_rule::add(&mut batch, &rule);
    }
    socket.execute_all(&mut batch).map_err(LabError::kernel(node))?;
    plant_over_uplink(node, uplink, families, routers)?;
    ruleset::plant_foreign_table().map_err(LabError::kernel(node))
}

/// Plants what goes over the uplink, also once more after that lost it; runs in the node.
pub(crate) fn plant_over_uplink(
    node: &str,
    uplink: &str,
    families: &[Family],
    routers: &[IpAddr],
) -> Result<(), LabError> {
    let mut socket = Socket::open(Protocol::Route).map_err(LabError::kernel(node))?;
    let uplink = index_of(&mut socket, uplink).map_err(LabError::kernel(node))?;
    let mut batch = Batch::new();
    for family in families {
        let objects = planted(*family);
        let gateway = routers.iter().copied().find(|router| is_of(*family, *router));
        let hops = vec![Hop { gateway, index: Some(uplink), ..Hop::default() }];
        let (statics, birds) = (parse(objects.statics)?, parse(objects.birds)?);
        route::add(&mut batch, &Route { protocol: STATIC, hops: hops.clone(), ..Route::to(statics) });
        route::add(&mut batch, &Route { protocol: BIRD, metric: 32, hops, ..Route::to(birds) });
        neighbour::set_permanent(&mut batch, uplink, parse(objects.neighbour)?, [0x02, 0, 0, 0, 0xf0, 0x06]);
    }
    execute_missing(&mut socket, &mut batch).map_err(LabError::kernel(node))
}

/// Everything on the node that is not ours, one object a line; runs in the node.
pub(crate) fn snapshot(node: &str) -> Result<BTreeSet<String>, LabError> {
    lines().map_err(LabError::kernel(node))
}

fn lines() -> Result<BTreeSet<String>, KernelError> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut lines = BTreeSet::new();
    let links = link::dump(&mut socket)?;
    // Indices are not compared: a link that its owner made anew, as it was, has another.
    let named = |index: u32| {
        links
            .iter()
            .find(|link| link.index == index)
            .map_or_else(|| index.to_string(), |link| link.name.clone())
    };
    for link in &links {
        lines.insert(format!(
            "link {}: {:?} {:?} mtu {} up {} master {:?}",
            link.name,
            link.kind,
            link.mac,
            link.mtu,
            link.is_up(),
            link.master.map(named)
        ));
    }
    for address in address::dump(&mut socket)? {
        let flags = address.flags & !address::TENTATIVE;
        lines.insert(format!(
            "address {} link {} flags {flags:#x} scope {}",
            address.ip,
            named(address.index),
            address.scope
        ));
    }
    for family in [RouteFamily::V4, RouteFamily::V6] {
        for mut route in route::dump(&mut socket, family, Filter::default())? {
            if OUR_PROTOCOLS.contains(&route.protocol) {
                continue;
            }
            // Carrier comes and goes without anybody's doing.
            route.hops.iter_mut().for_each(|hop| hop.flags &= !(DEAD | LINKDOWN));
            let over: Vec<_> = route.hops.iter_mut().filter_map(|hop| hop.index.take()).map(named).collect();
            lines.insert(format!("route {route:?} over {over:?}"));
        }
    }
    for neighbour in neighbour::dump(&mut socket, false)? {
        if neighbour.state == neighbour::PERMANENT {
            let over = named(neighbour.index);
            lines.insert(format!("neighbour {} {:?} over {over}", neighbour.ip, neighbour.mac));
        }
    }
    lines.extend(
        policy_rule::dump(&mut socket)?.iter().map(|rule| format!("policy rule {}", hexadecimal(rule))),
    );
    lines.extend(
        ruleset::dump_foreign()?.iter().map(|object| format!("{RULESET_OBJECT} {}", hexadecimal(object))),
    );
    Ok(lines)
}

/// What must stay from when an agent has moved the uplink: the rules as they were, and all else as it is now, but for pods'.
pub(crate) fn moved(before: &BTreeSet<String>, now: BTreeSet<String>) -> BTreeSet<String> {
    let is_rule = |line: &String| line.starts_with(RULESET_OBJECT);
    let rules = before.iter().filter(|line| is_rule(line)).cloned();
    let others = now.into_iter().filter(|line| !is_rule(line) && !line.contains(OUR_LINKS));
    rules.chain(others).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether all that was there before is there still, unchanged. What came in between is not judged: the kernel itself
/// adds routes when forwarding goes on.
pub(crate) fn compare(node: &str, before: &BTreeSet<String>, after: &BTreeSet<String>) -> ForeignObjects {
    let changed: Vec<_> = before.difference(after).cloned().collect();
    ForeignObjects { node: node.to_owned(), ok: changed.is_empty(), compared: before.len(), changed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_or_changed_object_is_named_and_a_new_one_is_not_judged() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<BTreeSet<_>>();
        let before = lines(&["route a", "route b metric 1"]);
        let found = compare("node1", &before, &lines(&["route a", "route b metric 2", "route c"]));
        assert_eq!(
            (found.ok, found.compared, found.changed),
            (false, 2, vec!["route b metric 1".to_owned()])
        );
        assert!(compare("node1", &before, &before).ok);
    }
}
