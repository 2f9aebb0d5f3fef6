//! CHECK: whether an attachment still is what ADD left. Every difference is told, not only the first.

use std::net::IpAddr;
use std::path::PathBuf;

use attachment::{Mode, Record, State, Store};
use cni_spec::{AttachResult, AttachmentCall, CniError, ErrorCode, NetConf};
use ipnet::IpNet;
use kernel::address::{self, Address};
use kernel::link::{self, Link};
use kernel::netlink::{Protocol, Socket};
use kernel::route::{self, Family, Filter, Route};

use super::facts::Namespaces;
use crate::failure::{host_ports_failed, kernel_refused};
use crate::host_ports;
use crate::wiring::POD_ROUTE_PROTOCOL;

/// What the kernel holds on one side.
struct Side {
    links: Vec<Link>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
}

impl Side {
    fn observe() -> Result<Self, CniError> {
        let mut socket = Socket::open(Protocol::Route).map_err(kernel_refused)?;
        let mut routes = route::dump(&mut socket, Family::V4, Filter::default()).map_err(kernel_refused)?;
        routes.extend(route::dump(&mut socket, Family::V6, Filter::default()).map_err(kernel_refused)?);
        Ok(Self {
            links: link::dump(&mut socket).map_err(kernel_refused)?,
            addresses: address::dump(&mut socket).map_err(kernel_refused)?,
            routes,
        })
    }

    fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }
}

/// Verifies the record, both ends of the link, addresses, routes and host ports.
pub(crate) fn check(call: &AttachmentCall<PathBuf>, conf: &NetConf) -> Result<(), CniError> {
    let (network, attachment) = (&conf.base.name, &call.attachment);
    let expected = conf.base.required_prev_result()?;
    let io = |error: &dyn std::fmt::Display| CniError::new(ErrorCode::Io, error.to_string());
    let store = Store::find(&conf.ipam.data_dir, network).map_err(|error| io(&error))?;
    let entry = match &store {
        Some(store) => store.lookup(attachment).map_err(|error| io(&error))?,
        None => None,
    };
    let Some(entry) = entry else {
        return Err(CniError::new(
            ErrorCode::UnknownContainer,
            format!(
                "attachment {attachment} of network `{network}` has no record: it was never added, or was deleted"
            ),
        ));
    };
    let namespaces = Namespaces::open(&call.netns, call.netns_override)?;
    let node = Side::observe()?;
    let pod = namespaces.pod.run(Side::observe).map_err(kernel_refused)??;

    let mut differences = Vec::new();
    if entry.state != State::Attached {
        differences.push("its ADD did not finish".to_owned());
    }
    compare_reservation(&expected, &entry.record, &mut differences);
    compare_pod(&expected, &entry.record, &pod, &mut differences);
    compare_node(&entry.record, &node, &mut differences);
    differences.extend(host_ports::differences(&entry.record).map_err(host_ports_failed)?);
    if differences.is_empty() {
        return Ok(());
    }
    Err(CniError::new(
        ErrorCode::CheckFailed,
        format!("attachment {attachment} is not as ADD left it: {}", differences.join("; ")),
    )
    .with_details("delete the pod, so that its controller makes a new one"))
}

fn compare_reservation(expected: &AttachResult, record: &Record, differences: &mut Vec<String>) {
    for ip in &expected.ips {
        if !record.addresses.iter().any(|held| held.address.addr() == ip.address.addr()) {
            differences.push(format!("address {} of prevResult is not reserved for it", ip.address.addr()));
        }
    }
}

fn compare_pod(expected: &AttachResult, record: &Record, pod: &Side, differences: &mut Vec<String>) {
    let name = record.attachment.ifname().as_str();
    let Some(link) = pod.link(name) else {
        differences.push(format!("interface `{name}` is gone from the pod"));
        return;
    };
    if !link.is_up() {
        differences.push(format!("interface `{name}` is down"));
    }
    if let (Some(expected), Some(found)) = (record.wiring.pod_mac, link.mac)
        && expected.octets() != found
    {
        differences.push(format!("interface `{name}` has another Ethernet address than {expected}"));
    }
    if link.mtu != record.wiring.mtu {
        differences.push(format!("interface `{name}` has MTU {}, not {}", link.mtu, record.wiring.mtu));
    }
    for ip in &expected.ips {
        if !pod.addresses.iter().any(|found| found.index == link.index && found.ip == ip.address) {
            differences.push(format!("address {} is gone from `{name}`", ip.address));
        }
    }
    for wanted in &expected.routes {
        let found = |route: &&Route| {
            same_destination(route.destination, wanted.dst)
                && route
                    .hops
                    .iter()
                    .any(|hop| hop.index == Some(link.index) && hop.gateway == gateway_of(wanted, expected))
        };
        if !pod.routes.iter().any(|route| found(&route)) {
            differences.push(format!("route {} is gone from the pod", wanted.dst));
        }
    }
}

/// A route of the result that names no gateway goes by that of its family.
fn gateway_of(route: &cni_spec::Route, result: &AttachResult) -> Option<IpAddr> {
    let of_family = |gateway: &IpAddr| gateway.is_ipv4() == route.dst.addr().is_ipv4();
    route.gw.or_else(|| result.ips.iter().filter_map(|ip| ip.gateway).find(of_family))
}

fn same_destination(one: IpNet, other: IpNet) -> bool {
    one.trunc() == other.trunc()
}

fn compare_node(record: &Record, node: &Side, differences: &mut Vec<String>) {
    let name = record.wiring.host_link.as_str();
    let Some(link) = node.link(name) else {
        differences.push(format!("link `{name}` is gone from the node"));
        return;
    };
    if !link.is_up() {
        differences.push(format!("link `{name}` is down"));
    }
    match &record.wiring.mode {
        Mode::Bridge(bridge) => {
            let master = link.master.and_then(|index| node.links.iter().find(|link| link.index == index));
            if master.is_none_or(|master| master.name != bridge.as_str()) {
                differences.push(format!("link `{name}` is no port of bridge `{bridge}`"));
            }
        }
        Mode::Ptp => {
            for held in &record.addresses {
                let destination = IpNet::from(held.address.addr());
                let routed = node.routes.iter().any(|route| {
                    route.destination == destination
                        && route.protocol == POD_ROUTE_PROTOCOL
                        && route.hops.iter().any(|hop| hop.index == Some(link.index))
                });
                if !routed {
                    differences.push(format!("the node's route to {} is gone", held.address.addr()));
                }
            }
        }
    }
}
