//! The elements that one attachment has in the table of host ports, and back from elements to host ports (pure): one of a
//! map for each address family leads to the pod, and one makes the port work from the pod itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use attachment::{HostPort, Protocol, Record};
use kernel::nftables::{Data, Element, Value};
use kernel::route;
use link_name::LinkName;

use super::table::{Names, V4, V6};

/// One element, and the set that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Placed {
    /// The set's name.
    pub(crate) set: &'static str,
    /// The element.
    pub(crate) element: Element,
}

impl Placed {
    /// Whether it is a way back from a host port to the pod that owns it, or to its neighbours.
    pub(super) fn is_way_back(&self) -> bool {
        [V4, V6].iter().any(|names| [names.hairpin, names.bridged].contains(&self.set))
    }
}

/// Every element of one attachment.
#[must_use]
pub(crate) fn elements_of(record: &Record) -> Vec<Placed> {
    let bridge = record.wiring.mode.bridge();
    let mut placed = Vec::new();
    for port in &record.host_ports {
        for allocation in &record.addresses {
            let pod = allocation.address.addr();
            let node = own_address(record, pod, allocation.gateway);
            for element in elements_at(port, pod, node.map(|node| WayBack { node, bridge })) {
                // One port on two addresses of the node has one way back.
                if !placed.contains(&element) {
                    placed.push(element);
                }
            }
        }
    }
    placed
}

/// How the pod's answers come back to who is near: they are made to come from the node's own address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WayBack<'a> {
    /// The node's address.
    pub(crate) node: IpAddr,
    /// The bridge on which the pod has neighbours.
    pub(crate) bridge: Option<&'a LinkName>,
}

/// The elements of one host port that leads to one address of a pod.
pub(crate) fn elements_at(port: &HostPort, pod: IpAddr, way: Option<WayBack<'_>>) -> Vec<Placed> {
    let Some((set, key)) = key_of(port, pod, Names::of(pod)) else { return Vec::new() };
    let target = [Value::Ip(pod), Value::Port(port.container_port.get())];
    let mut placed = vec![Placed { set, element: Element::mapping(key, target) }];
    placed.extend(way.into_iter().flat_map(|way| ways_back(port, pod, way)));
    placed
}

/// Where the port is listened on in the pod's family; none where the mapping is of the other.
fn key_of(port: &HostPort, pod: IpAddr, names: Names) -> Option<(&'static str, Vec<Value>)> {
    let service = [Value::Proto(number(port.protocol)), Value::Port(port.host_port.get())];
    match port.host_ip {
        Some(ip) if ip.is_ipv4() != pod.is_ipv4() => None,
        Some(ip) if !ip.is_unspecified() => {
            Some((names.exact, std::iter::once(Value::Ip(ip)).chain(service).collect()))
        }
        _ => Some((names.any, service.to_vec())),
    }
}

/// The node's own address in the pod's family, or the gateway, which is the node's as well.
fn own_address(record: &Record, pod: IpAddr, gateway: Option<IpAddr>) -> Option<IpAddr> {
    let own = record.wiring.node_addresses.iter().copied();
    own.chain(gateway).find(|address| address.is_ipv4() == pod.is_ipv4())
}

/// A flow from the pod itself to this host port gets the node's address as its source, or the answer would never leave
/// the pod. The same for a flow from a neighbour on the bridge: the answer would take the short way and miss the
/// translation back. (Where br_netfilter makes the bridge track flows, no link is known at that point, the answer does
/// not miss it, and the neighbour keeps its address.)
fn ways_back(port: &HostPort, pod: IpAddr, way_back: WayBack<'_>) -> Vec<Placed> {
    let WayBack { node, bridge } = way_back;
    let names = Names::of(pod);
    let way = |set, from| {
        let key = [
            from,
            Value::Proto(number(port.protocol)),
            Value::Port(port.host_port.get()),
            Value::Ip(pod),
            Value::Port(port.container_port.get()),
        ];
        Placed { set, element: Element::mapping(key, [Value::Ip(node)]) }
    };
    let mut ways = vec![way(names.hairpin, Value::Ip(pod))];
    // From 127.0.0.1 it comes to no pod.
    if let Some(loopback) = port.host_ip.filter(IpAddr::is_loopback) {
        ways.push(way(names.hairpin, Value::Ip(loopback)));
    }
    if let Some(bridge) = bridge {
        ways.push(way(names.bridged, Value::IfName(bridge.clone())));
    }
    ways
}

/// The pod that an element leads to, or whose way back it is.
pub(super) fn pod_of(placed: &Placed) -> Option<IpAddr> {
    let leads_there = [V4, V6].iter().any(|names| placed.set == names.any || placed.set == names.exact);
    let held = match &placed.element.data {
        Some(Data::Values(target)) if leads_there => target.first(),
        // Where from, protocol, port of the node, pod, port of the pod.
        _ => placed.element.key.get(3),
    };
    match held {
        Some(Value::Ip(pod)) => Some(*pod),
        _ => None,
    }
}

/// Whether an element is at the place of this port, wherever it leads.
pub(super) fn is_at(placed: &Placed, port: &HostPort) -> bool {
    [V4, V6].iter().any(|names| {
        let of_version: IpAddr = match names.version {
            route::Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            route::Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        key_of(port, of_version, *names) == Some((placed.set, placed.element.key.clone()))
    })
}

/// The mappings whose elements these are, as far as they lead to one of a pod's addresses: what [`elements_of`] made
/// elements of.
pub(super) fn ports_of(placed: &[Placed], pod: &[IpAddr]) -> Vec<HostPort> {
    let mut ports: Vec<HostPort> = Vec::new();
    let to_pod = |placed: &&Placed| pod_of(placed).is_some_and(|ip| pod.contains(&ip));
    for Placed { set, element } in placed.iter().filter(to_pod) {
        let (host_ip, service) = match (element.key.as_slice(), *set) {
            ([Value::Ip(ip), service @ ..], set) if set == V4.exact || set == V6.exact => (*ip, service),
            (service, set) if set == V4.any => (Ipv4Addr::UNSPECIFIED.into(), service),
            (service, set) if set == V6.any => (Ipv6Addr::UNSPECIFIED.into(), service),
            _ => continue,
        };
        let (&[Value::Proto(number), Value::Port(host)], Some(Data::Values(target))) =
            (service, &element.data)
        else {
            continue;
        };
        let (Some(protocol), Ok(host_port), Some(&Value::Port(pods))) =
            (protocol(number), host.try_into(), target.get(1))
        else {
            continue;
        };
        let Ok(container_port) = pods.try_into() else { continue };
        let port = HostPort { protocol, host_ip: Some(host_ip), host_port, container_port };
        // The same on all addresses of the other family is one mapping on all addresses.
        let twin = ports.iter_mut().find(|twin| {
            let both =
                twin.host_ip.is_some_and(|ip| ip.is_unspecified() && ip.is_ipv4() != host_ip.is_ipv4());
            both && HostPort { host_ip: port.host_ip, ..(**twin).clone() } == port
        });
        match twin {
            Some(twin) if host_ip.is_unspecified() => twin.host_ip = None,
            _ => ports.push(port),
        }
    }
    ports
}

fn protocol(wanted: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|protocol| number(*protocol) == wanted)
}

/// `IPPROTO_…`.
#[must_use]
pub(crate) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attachment::{Allocation, Mode, Netns, NetworkName, Wiring};

    fn port(protocol: Protocol, host_ip: Option<&str>, host_port: u16) -> HostPort {
        HostPort {
            protocol,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port: host_port.try_into().unwrap(),
            container_port: 80.try_into().unwrap(),
        }
    }

    fn record(mode: Mode, host_ports: Vec<HostPort>) -> Record {
        let allocation = |address: &str, gateway: &str, range: &str| Allocation {
            address: address.parse().unwrap(),
            gateway: Some(gateway.parse().unwrap()),
            range: range.parse().unwrap(),
        };
        Record {
            network: NetworkName::new("net").unwrap(),
            attachment: "c:eth0".parse().unwrap(),
            created: 0,
            addresses: vec![
                allocation("10.244.1.5/24", "10.244.1.1", "10.244.1.1-10.244.1.254"),
                allocation("fd00::5/64", "fd00::1", "fd00::1-fd00::ffff"),
            ],
            host_ports,
            wiring: Wiring {
                netns: Netns { path: "/run/netns/p".into(), dev: 4, inode: 5 },
                boot_id: String::new(),
                host_link: LinkName::new("hgw1").unwrap(),
                mode,
                pod_mac: None,
                host_mac: None,
                mtu: 1500,
                node_addresses: vec!["192.0.2.11".parse().unwrap()],
                pod_routes: Vec::new(),
                leased: false,
                bandwidth: None,
                pod: None,
                result: None,
            },
        }
    }

    fn sets(record: &Record) -> Vec<&'static str> {
        elements_of(record).iter().map(|placed| placed.set).collect()
    }

    #[test]
    fn every_element_tells_its_pod_and_those_of_a_port_where_it_is() {
        let ports = vec![
            port(Protocol::Tcp, None, 80),
            port(Protocol::Udp, Some("192.0.2.11"), 80),
            port(Protocol::Tcp, Some("::"), 81),
        ];
        let record = record(Mode::Bridge(LinkName::new("cni0").unwrap()), ports.clone());
        let placed = elements_of(&record);
        for element in &placed {
            let pod = pod_of(element).unwrap();
            assert!(record.addresses.iter().any(|held| held.address.addr() == pod));
        }
        let at = |port| placed.iter().filter(|placed| is_at(placed, port)).count();
        let pod: Vec<IpAddr> = record.addresses.iter().map(|held| held.address.addr()).collect();
        let mut found = ports_of(&placed, &pod);
        found.sort_by_key(|found| ports.iter().position(|port| port == found));
        assert_eq!(found, ports);
        assert_eq!(ports_of(&placed, &[]), []);
        assert_eq!(ports.iter().map(at).collect::<Vec<_>>(), [2, 1, 1]);
        assert_eq!(at(&port(Protocol::Udp, None, 80)), 0);
    }

    #[test]
    fn a_port_on_all_addresses_is_one_element_a_family_and_one_hairpin_each() {
        let record = record(Mode::Ptp, vec![port(Protocol::Tcp, None, 8080)]);
        assert_eq!(sets(&record), ["any4", "hairpin4", "any6", "hairpin6"]);
    }

    #[test]
    fn a_port_on_one_address_or_family_stays_in_that_family() {
        for (host_ip, expected) in [
            ("192.0.2.11", ["exact4", "hairpin4"]),
            ("0.0.0.0", ["any4", "hairpin4"]),
            ("::", ["any6", "hairpin6"]),
        ] {
            let record = record(Mode::Ptp, vec![port(Protocol::Udp, Some(host_ip), 53)]);
            assert_eq!(sets(&record), expected, "{host_ip}");
        }
    }

    #[test]
    fn one_port_on_two_addresses_has_one_way_back() {
        let ports =
            vec![port(Protocol::Tcp, Some("192.0.2.11"), 80), port(Protocol::Tcp, Some("192.0.2.12"), 80)];
        assert_eq!(elements_of(&record(Mode::Ptp, ports)).len(), 3);
    }

    #[test]
    fn a_bridged_pods_neighbours_have_a_way_back_too() {
        let bridge = LinkName::new("cni0").unwrap();
        let record = record(Mode::Bridge(bridge), vec![port(Protocol::Sctp, None, 9)]);
        assert_eq!(sets(&record), ["any4", "hairpin4", "bridged4", "any6", "hairpin6", "bridged6"]);
    }

    #[test]
    fn without_an_address_of_the_node_the_gateway_serves() {
        let record = record(Mode::Ptp, vec![port(Protocol::Tcp, Some("::"), 80)]);
        let hairpin = elements_of(&record).into_iter().find(|placed| placed.set == "hairpin6").unwrap();
        assert_eq!(
            hairpin.element,
            Element::mapping(hairpin.element.key.clone(), [Value::Ip("fd00::1".parse().unwrap())])
        );
    }
}
