//! CHECK: whether an attachment still is what ADD left: each step of the plan by which ADD wired it is looked for. Every
//! difference is told, not only the first.

use std::path::PathBuf;

use attachment::{MacAddress, Mode, Record, State, Store};
use cni_spec::{AttachResult, AttachmentCall, CniError, ErrorCode, IpFamily, NetConf, SpecVersion};
use kernel::link::Link;
use kernel::netlink::{Protocol, Socket};

use crate::bandwidth;
use crate::failure::{host_ports_failed, kernel_refused};
use crate::host_ports;
use crate::inspection::{Place, Side, difference};
use crate::lan_guard;
use crate::namespaces::Namespaces;
use crate::netfilter;
use crate::wiring::{LinkPlan, PodAddress, Step, Wiring, plan_link};

/// Verifies the record, both ends of the link and all that hangs on them, the bridge, shaping and host ports.
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
    let record = &entry.record;
    let namespaces = Namespaces::open(&call.netns, call.netns_override)?;
    let node = Side::observe()?;
    let pod = namespaces.pod.run(Side::observe).map_err(kernel_refused)??;

    let mut differences = Vec::new();
    if entry.state != State::Attached {
        differences.push("its ADD did not finish".to_owned());
    }
    compare_reservation(&expected, record, &mut differences);
    let plan = planned(record, &expected, conf.hairpin);
    compare_pod(&plan, &expected, &pod, &mut differences);
    if let Some(link) = compare_node(&plan, record, &node, &mut differences) {
        let mut socket = Socket::open(Protocol::Route).map_err(kernel_refused)?;
        let limits = &conf.capabilities.bandwidth;
        let shaping = bandwidth::differences(record, limits, link.index, &node.links, &mut socket);
        differences.extend(shaping.map_err(kernel_refused)?);
    }
    differences.extend(host_ports::differences(record).map_err(host_ports_failed)?);
    if conf.lan.anti_spoof {
        let mut socket = netfilter::socket().map_err(kernel_refused)?;
        let host_link = record.wiring.host_link.as_str();
        if !lan_guard::guarded(&mut socket).map_err(kernel_refused)?.contains(host_link) {
            differences.push(format!("what it says over `{host_link}` is not guarded"));
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(CniError::new(
        ErrorCode::CheckFailed,
        format!("attachment {attachment} is not as ADD left it: {}", differences.join("; ")),
    )
    .with_details("delete the pod, so that its controller makes a new one"))
}

/// The plan by which ADD wired the pod, from its record. Routes that only `prevResult` has are a later plugin's.
fn planned(record: &Record, expected: &AttachResult, hairpin: bool) -> LinkPlan {
    let wiring = &record.wiring;
    let addresses: Vec<PodAddress> = record
        .addresses
        .iter()
        .filter_map(|held| {
            let family = IpFamily::of(held.address.addr());
            Some(PodAddress {
                subnet: held.address,
                gateway: held.gateway?,
                node_address: wiring.node_addresses.iter().copied().find(|ip| IpFamily::of(*ip) == family),
            })
        })
        .collect();
    // Older versions of the result leave out a route's table, metric and MTU.
    let recorded = wiring
        .result
        .as_ref()
        .and_then(|result| AttachResult::from_json(result.json().as_bytes(), SpecVersion::NEWEST).ok());
    let mut routes = recorded.map_or_else(Vec::new, |result| result.routes);
    for route in &expected.routes {
        if !routes.iter().any(|known| known.dst.trunc() == route.dst.trunc()) {
            let gateway = addresses.iter().map(|address| address.gateway);
            let of_family = gateway.into_iter().find(|ip| IpFamily::of(*ip) == route.family());
            routes.push(cni_spec::Route { gw: route.gw.or(of_family), ..route.clone() });
        }
    }
    let connected = match &wiring.mode {
        Mode::Ptp => Wiring::Ptp,
        Mode::Bridge(bridge) | Mode::L2 { bridge, .. } => Wiring::Bridge { bridge: bridge.clone(), hairpin },
        Mode::L2Routed { uplink } => Wiring::L2Routed { uplink: uplink.clone() },
    };
    let names = (wiring.host_link.clone(), record.attachment.ifname().clone());
    let mac = wiring.pod_mac.map(MacAddress::octets);
    plan_link(names, mac, wiring.mtu, connected, &addresses, &routes)
}

fn compare_reservation(expected: &AttachResult, record: &Record, differences: &mut Vec<String>) {
    for ip in &expected.ips {
        if !record.addresses.iter().any(|held| held.address.addr() == ip.address.addr()) {
            differences.push(format!("address {} of prevResult is not reserved for it", ip.address.addr()));
        }
    }
}

fn compare_pod(plan: &LinkPlan, expected: &AttachResult, pod: &Side, differences: &mut Vec<String>) {
    let name = plan.pod_link.as_str();
    let Some(link) = pod.link(name) else {
        differences.push(format!("interface `{name}` is gone from the pod"));
        return;
    };
    // A later plugin of the chain may have changed these two on purpose; its result then says so.
    let changed =
        expected.interfaces.iter().find(|interface| interface.sandbox.is_some() && interface.name == name);
    let mac = changed.and_then(|interface| interface.mac.as_ref()?.parse::<MacAddress>().ok());
    let mtu = changed.and_then(|interface| interface.mtu).unwrap_or(plan.mtu);
    compare_link(("interface", link), mac.map_or(plan.pod_mac, MacAddress::octets), mtu, differences);
    differences.extend(plan.pod_steps.iter().filter_map(|step| difference(step, link, pod, Place::Pod)));
    for ip in &expected.ips {
        let planned =
            |step: &Step| matches!(step, Step::Address(address) if address.addr() == ip.address.addr());
        if !plan.pod_steps.iter().any(planned) {
            differences.extend(difference(&Step::Address(ip.address), link, pod, Place::Pod));
        }
    }
}

/// Compares the node's end, and what it is connected to; that end, if it is there.
fn compare_node<'a>(
    plan: &LinkPlan,
    record: &Record,
    node: &'a Side,
    differences: &mut Vec<String>,
) -> Option<&'a Link> {
    let name = plan.host_link.as_str();
    let Some(link) = node.link(name) else {
        differences.push(format!("link `{name}` is gone from the node"));
        return None;
    };
    let mac = record.wiring.host_mac.map_or(plan.host_mac, MacAddress::octets);
    compare_link(("link", link), mac, plan.mtu, differences);
    differences.extend(plan.host_steps.iter().filter_map(|step| difference(step, link, node, Place::Node)));
    if let Wiring::Bridge { bridge: wanted, .. } = &plan.wiring {
        let bridge = node.link(wanted.as_str()).filter(|bridge| link.master == Some(bridge.index));
        let Some(bridge) = bridge else {
            differences.push(format!("link `{name}` is no port of bridge `{wanted}`"));
            return Some(link);
        };
        for step in record.bridge_gateways().map(Step::Address).chain([Step::Up]) {
            differences.extend(difference(&step, bridge, node, Place::Node));
        }
    }
    if let Wiring::L2Routed { uplink } = &plan.wiring {
        let index = node.link(uplink.as_str()).map(|link| link.index);
        for ip in &plan.proxied {
            if !node.proxied.iter().any(|known| Some(known.index) == index && known.ip == *ip) {
                differences.push(format!("the node does not answer for {ip} on `{uplink}`"));
            }
        }
    }
    Some(link)
}

fn compare_link((what, link): (&str, &Link), mac: [u8; 6], mtu: u32, differences: &mut Vec<String>) {
    let name = &link.name;
    if link.mac != Some(mac) {
        let wanted = MacAddress::new(mac).map(|mac| mac.to_string()).unwrap_or_default();
        differences.push(format!("{what} `{name}` has another Ethernet address than {wanted}"));
    }
    if link.mtu != mtu {
        differences.push(format!("{what} `{name}` has MTU {}, not {mtu}", link.mtu));
    }
}
