//! A pod as the plugin attaches it: a record, a routed link, routes, and no host ports yet in the kernel.

use std::net::IpAddr;
use std::num::NonZeroU16;

use attachment::{
    AddressRange, Allocation, Attachment, Bandwidth, HostPort, MacAddress, Mode, Netns, NetworkName, PodName,
    Protocol, Range, Request, Store, Wiring,
};
use cni_plugins::wiring::{
    BridgePlan, PodAddress, Side, attach, host_link_name, mac_of, plan_link, shaping_link_name,
};
use ipnet::IpNet;
use kernel::netlink::{self, Socket};
use kernel::netns::NetNs;
use link_name::LinkName;

use super::{Node, enter_new_namespace};

pub(crate) struct Pod {
    pub(crate) ns: NetNs,
    pub(crate) attachment: Attachment,
    pub(crate) host_link: LinkName,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Long enough ago for anything to be reclaimed.
const AGE_SECONDS: u64 = 3_600;

/// Attaches pod `id` to `node`, with TCP host port 8080 leading to its port 80.
pub(crate) fn attach_pod(node: &Node, id: &str) -> Pod {
    let port = |port| NonZeroU16::new(port).unwrap();
    let host_port =
        HostPort { protocol: Protocol::Tcp, host_ip: None, host_port: port(8080), container_port: port(80) };
    attach_with_ports(node, id, &[host_port])
}

/// Attaches pod `id` to `node`.
pub(crate) fn attach_with_ports(node: &Node, id: &str, host_ports: &[HostPort]) -> Pod {
    attach_as(node, id, host_ports, &Mode::Ptp, None)
}

/// Attaches pod `id` to `node`, for pod `default/ID` of Kubernetes.
pub(crate) fn attach_for_kubernetes(node: &Node, id: &str) -> Pod {
    let name = PodName { namespace: "default".to_owned(), name: id.to_owned() };
    attach_as(node, id, &[], &Mode::Ptp, Some(&name))
}

/// Attaches pod `id` to `node` as a port of `cni0`.
pub(crate) fn attach_bridged(node: &Node, id: &str) -> Pod {
    attach_bridged_with_ports(node, id, &[])
}

/// The same, with host ports.
pub(crate) fn attach_bridged_with_ports(node: &Node, id: &str, host_ports: &[HostPort]) -> Pod {
    attach_as(node, id, host_ports, &Mode::Bridge(LinkName::new("cni0").unwrap()), None)
}

/// Attaches pod `id` to `node`, which answers for it on this link.
pub(crate) fn attach_answered(node: &Node, id: &str, uplink: &str) -> Pod {
    attach_as(node, id, &[], &Mode::L2Routed { uplink: LinkName::new(uplink).unwrap() }, None)
}

/// Attaches pod `id` to `node` as a port of its bridge to the LAN.
pub(crate) fn attach_on_lan(node: &Node, id: &str, bridge: &str) -> Pod {
    attach_as(node, id, &[], &Mode::L2 { bridge: LinkName::new(bridge).unwrap(), gateways: Vec::new() }, None)
}

fn attach_as(node: &Node, id: &str, host_ports: &[HostPort], mode: &Mode, pod: Option<&PodName>) -> Pod {
    let network = NetworkName::new("hostgw").unwrap();
    let attachment = format!("{id}:eth0").parse::<Attachment>().unwrap();
    let host_link = host_link_name(&network, &attachment);
    let shaping_link = shaping_link_name(&network, &attachment);
    let store = Store::open(&node.paths().ipam_dir(), &network).unwrap();
    let ranges = [
        range("10.244.1.0/24", "10.244.1.2", "10.244.1.254", "10.244.1.1"),
        range("fd00:10:244:1::/64", "fd00:10:244:1::2", "fd00:10:244:1::ffff", "fd00:10:244:1::1"),
    ];
    let request = Request { attachment: &attachment, range_sets: &ranges, requested: &[], host_ports };
    let created =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() - AGE_SECONDS;
    let wire = |allocations: &[Allocation]| Wiring {
        netns: Netns { path: format!("/run/netns/{id}"), dev: 0, inode: 0 },
        boot_id: "boot".to_owned(),
        host_link: host_link.clone(),
        mode: mode.clone(),
        pod_mac: MacAddress::new(mac_of(allocations[0].address.addr(), Side::Pod)).ok(),
        host_mac: None,
        mtu: 1500,
        node_addresses: vec!["192.0.2.11".parse().unwrap(), "2001:db8::11".parse().unwrap()],
        pod_routes: Vec::new(),
        leased: false,
        bandwidth: Some(Bandwidth { ifb: Some(shaping_link.clone()) }),
        pod: pod.cloned(),
        result: None,
    };
    let reservation = store.reserve(&request, created, wire).unwrap();
    let addresses: Vec<PodAddress> = reservation
        .record()
        .addresses
        .iter()
        .map(|allocation| PodAddress {
            subnet: allocation.address,
            gateway: allocation.gateway.unwrap(),
            node_address: reservation
                .record()
                .wiring
                .node_addresses
                .iter()
                .find(|address| address.is_ipv4() == allocation.address.addr().is_ipv4())
                .copied(),
        })
        .collect();
    let ns = enter_new_namespace();
    node.ns.enter().unwrap();
    let eth0 = LinkName::new("eth0").unwrap();
    let mut host = Socket::open(netlink::Protocol::Route).unwrap();
    let (wiring, bridge) = match mode {
        Mode::Ptp => (cni_plugins::wiring::Wiring::Ptp, None),
        Mode::L2Routed { uplink } => (cni_plugins::wiring::Wiring::L2Routed { uplink: uplink.clone() }, None),
        Mode::Bridge(name) | Mode::L2 { bridge: name, .. } => {
            let of = |address: &PodAddress| IpNet::new(address.gateway, address.subnet.prefix_len()).unwrap();
            let gateways = addresses.iter().map(of).collect();
            let plan = BridgePlan { name: name.clone(), gateways, mtu: 1500, leads_to_lan: false };
            let wiring = cni_plugins::wiring::Wiring::Bridge { bridge: name.clone(), hairpin: true };
            (wiring, Some(plan.ensure(&mut host).unwrap()))
        }
    };
    let plan = plan_link((host_link.clone(), eth0), None, 1500, wiring, &addresses, &[]);
    attach(&plan, bridge.as_ref(), &node.ns, &ns, &mut host).unwrap();
    reservation.mark_attached().unwrap();
    let addresses = addresses.iter().map(|address| address.subnet.addr()).collect();
    Pod { ns, attachment, host_link, addresses }
}

fn range(subnet: &str, first: &str, last: &str, gateway: &str) -> Vec<Range> {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    vec![Range {
        addresses: AddressRange::new(ip(first), ip(last)).unwrap(),
        subnet: subnet.parse().unwrap(),
        gateway: Some(ip(gateway)),
        excluded: Vec::new(),
    }]
}
