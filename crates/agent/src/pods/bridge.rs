//! The bridge of bridged pods: that it exists, is up, holds their gateways and has their links as ports; and that it
//! gives up the gateway of a range that was this node's once.

use std::collections::BTreeMap;
use std::path::Path;

use attachment::{Entry, Mode, NetworkName, State};
use cni_plugins::wiring::{BridgePlan, Step, WiringError, is_our_bridge_mac};
use ipnet::IpNet;
use kernel::netlink::{Batch, Socket};
use kernel::{KernelError, address, link};
use link_name::LinkName;
use node_network::Settings;
use node_network::observed::{ObservedLink, ObservedNode};

use super::{PodsReport, Records, links_by_name};

/// Puts back what the bridges of attached pods have lost, and takes from the pods' bridge what it must not keep.
pub(crate) fn restore_bridges(
    socket: &mut Socket,
    data_dir: &Path,
    records: &Records,
    observed: &ObservedNode,
    settings: &Settings,
    report: &mut PodsReport,
) {
    // A record does not say it.
    let hairpin = settings.cni.hairpin;
    for (name, ports) in living_ports(records, observed) {
        let mtu = least_mtu(name, &ports, observed);
        let holds = |port: &Port<'_>| Records::still_holds(data_dir, port.network, port.entry);
        let result = restore_bridge(socket, (name, mtu), &ports, hairpin, (holds, &mut report.done));
        if let Err(error) = result {
            report.problems.push(format!("bridge {name} of {} pods: {error}", ports.len()));
        }
    }
    if let Some(bridge) = settings.pod_bridge() {
        drop_former_gateways(socket, records, observed, bridge, report);
    }
}

/// A pod on a bridge, and the node's end of its link.
struct Port<'a> {
    network: &'a NetworkName,
    entry: &'a Entry,
    link: &'a ObservedLink,
}

/// For each bridge the pods that live, oldest first: who made the bridge, decides its Ethernet address.
fn living_ports<'a>(
    records: &'a Records,
    observed: &'a ObservedNode,
) -> BTreeMap<&'a LinkName, Vec<Port<'a>>> {
    let links = links_by_name(observed);
    let mut bridges: BTreeMap<&LinkName, Vec<Port<'_>>> = BTreeMap::new();
    for (network, entry) in records.entries.iter().filter(|(_, entry)| entry.state == State::Attached) {
        let wiring = &entry.record.wiring;
        if let (Some(name), Some(link)) = (wiring.mode.bridge(), links.get(wiring.host_link.as_str())) {
            bridges.entry(name).or_default().push(Port { network, entry, link });
        }
    }
    for ports in bridges.values_mut() {
        ports.sort_by_key(|port| port.entry.record.created);
    }
    bridges
}

fn restore_bridge(
    socket: &mut Socket,
    (name, mtu): (&LinkName, u32),
    ports: &[Port<'_>],
    hairpin: bool,
    (holds, done): (impl Fn(&Port<'_>) -> bool, &mut Vec<String>),
) -> Result<(), WiringError> {
    let plan = BridgePlan {
        name: name.clone(),
        gateways: gateways(ports),
        mtu,
        leads_to_lan: ports.iter().any(|port| matches!(port.entry.record.wiring.mode, Mode::L2 { .. })),
    };
    let (bridge, repairs) = plan.restore(socket)?;
    done.extend(repairs.into_iter().map(|repair| format!("bridge {name}: {repair}")));
    for port in ports {
        let Port { link, entry, .. } = port;
        let lost = link.master != Some(bridge.index);
        if !lost && link.up || !holds(port) {
            continue;
        }
        let mut batch = Batch::new();
        if lost {
            link::set_master(&mut batch, link.index, bridge.index);
            if hairpin {
                Step::Hairpin.write(&mut batch, link.index);
            }
        }
        Step::Up.write(&mut batch, link.index);
        match socket.execute_all(&mut batch) {
            Ok(()) => {
                let what = if lost { "made a port again" } else { "set up again" };
                done.push(format!("bridge {name}: {} of pod {} {what}", link.name, entry.record.attachment));
            }
            // The pod went meanwhile.
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error.attempting(format!("make {} a port again", link.name)).into()),
        }
    }
    Ok(())
}

/// What the kernel would have chosen: as much as the smallest port takes, also one that somebody else put there, or that
/// was lost and is about to be one again.
fn least_mtu(bridge: &LinkName, ports: &[Port<'_>], observed: &ObservedNode) -> u32 {
    let found = observed.links.values().find(|link| link.name == bridge.as_str()).map(|link| link.index);
    let ours = ports.iter().map(|port| port.link.mtu);
    let all = observed.links.values().filter(|link| link.master.is_some() && link.master == found);
    all.map(|link| link.mtu).chain(ours).min().unwrap_or_default()
}

/// Each gateway once, with its subnet's prefix, in the order of the pods.
fn gateways(ports: &[Port<'_>]) -> Vec<IpNet> {
    let mut gateways = Vec::new();
    for gateway in ports.iter().flat_map(|port| port.entry.record.bridge_gateways()) {
        if !gateways.contains(&gateway) {
            gateways.push(gateway);
        }
    }
    gateways
}

/// Takes from the pods' bridge the gateways of ranges that were this node's once: they would keep the node's packets
/// from whoever owns the range next. An address goes only from a bridge that we made, if it is the gateway that a range
/// has by default, in none of the ranges that the runtime was given, and no record has an address beside it.
fn drop_former_gateways(
    socket: &mut Socket,
    records: &Records,
    observed: &ObservedNode,
    bridge: &str,
    report: &mut PodsReport,
) {
    // What the runtime was given before this pass: an ADD that began with an older one is done, or has its record.
    let Some(given) = observed.conflist.as_deref().and_then(given_ranges) else { return };
    let Some(link) = observed.links.values().find(|link| link.name == bridge) else { return };
    let former = former_gateways(link, records, &given);
    if former.is_empty() || !matches!(is_ours(socket, bridge), Ok(true)) {
        return;
    }
    for gateway in former {
        let mut batch = Batch::new();
        address::delete(&mut batch, link.index, gateway);
        match socket.execute_all(&mut batch) {
            Ok(()) => {
                report.done.push(format!("bridge {bridge}: gateway {gateway} of a former range removed"));
            }
            Err(error) if error.is_absent() => {}
            Err(error) => report.problems.push(format!("bridge {bridge}: {error}")),
        }
    }
}

/// The subnets of a conflist's ranges; none where it has none, or cannot be read.
fn given_ranges(conflist: &[u8]) -> Option<Vec<IpNet>> {
    let document: serde_json::Value = serde_json::from_slice(conflist).ok()?;
    let plugins = document.get("plugins")?.as_array()?;
    let sets = plugins.iter().filter_map(|plugin| plugin.pointer("/ipam/ranges")?.as_array()).flatten();
    let ranges = sets.filter_map(serde_json::Value::as_array).flatten();
    let subnets: Option<Vec<IpNet>> =
        ranges.map(|range| range.get("subnet")?.as_str()?.parse().ok()).collect();
    subnets.filter(|subnets| !subnets.is_empty())
}

fn is_ours(socket: &mut Socket, bridge: &str) -> Result<bool, KernelError> {
    let found = link::by_name(socket, bridge)?;
    Ok(found.is_some_and(|link| {
        link.kind.as_deref() == Some("bridge") && link.mac.is_some_and(is_our_bridge_mac)
    }))
}

fn former_gateways(link: &ObservedLink, records: &Records, given: &[IpNet]) -> Vec<IpNet> {
    let in_use = records.addresses();
    let held = link.addresses.iter().map(|held| held.address);
    held.filter(|held| {
        let prefix = held.trunc();
        // `fe80::1/64` would be one by its looks.
        let is_link_local = matches!(held, IpNet::V6(held) if held.addr().is_unicast_link_local());
        is_default_gateway(held)
            && !is_link_local
            && !given.iter().any(|subnet| subnet.contains(&held.addr()))
            && !in_use.iter().any(|ip| prefix.contains(ip))
    })
    .collect()
}

/// The first address behind its network's.
fn is_default_gateway(held: &IpNet) -> bool {
    match held {
        IpNet::V4(held) => u32::from(held.network()).checked_add(1) == Some(u32::from(held.addr())),
        IpNet::V6(held) => u128::from(held.network()).checked_add(1) == Some(u128::from(held.addr())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_of_a_conflist_are_read_whole_or_not_at_all() {
        let conflist = |ranges: &str| {
            format!(r#"{{"plugins":[{{"type":"hostgw-cni","ipam":{{"ranges":{ranges}}}}}]}}"#).into_bytes()
        };
        let dual = conflist(r#"[[{"subnet":"10.244.1.0/24"}],[{"subnet":"fd00::/64"}]]"#);
        let expected = ["10.244.1.0/24", "fd00::/64"].map(|subnet| subnet.parse().unwrap());
        assert_eq!(given_ranges(&dual), Some(expected.to_vec()));
        for bad in ["[]", r#"[[{"subnet":"10.244.1.0/24"}],[{"subnet":"x"}]]"#, r#"[[{}]]"#] {
            assert_eq!(given_ranges(&conflist(bad)), None, "{bad}");
        }
        assert_eq!(given_ranges(b"{"), None);
    }

    #[test]
    fn only_the_first_address_of_a_network_is_a_default_gateway() {
        for (address, is_gateway) in
            [("10.244.1.1/24", true), ("fd00::1/64", true), ("10.244.1.2/24", false), ("10.0.0.1/32", false)]
        {
            assert_eq!(is_default_gateway(&address.parse().unwrap()), is_gateway, "{address}");
        }
    }
}
