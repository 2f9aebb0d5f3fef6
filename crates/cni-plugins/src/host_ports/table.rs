//! The table `inet hostgw_hostport` as a value, and the elements that one attachment has in it (pure).
//!
//! Rules never change; a host port is one element of a map for each address family, and one that makes it work from the
//! pod itself. So adding or removing one is one small transaction, however many there are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use attachment::{HostPort, Protocol, Record};
use ipnet::IpNet;
use kernel::nftables::{
    BaseChain, Chain, ChainKind, Data, DataType, Element, Family, Hook, MapData, NatFlags, NatKind,
    NatTarget, Policy, Rule, Selector, Set, Statement, Table, TableName, Transport, Value, Verdict, priority,
};
use kernel::route;
use link_name::LinkName;

use crate::wiring::HOST;

/// The table's name; its family is `inet`.
pub const TABLE: &str = "hostgw_hostport";

/// Behind kube-proxy (priority -100): what a Service claims, a NodePort or the address of a load balancer, stays the
/// Service's; the first translation of a flow is the only one.
const DESTINATION_PRIORITY: i32 = -95;
/// Before kube-proxy and the agent (100): theirs would masquerade what must have the node's own address.
const SOURCE_PRIORITY: i32 = 95;

/// How many rules each chain has, and how many others jump to it, together: by this the kernel tells, in one question,
/// whether somebody flushed them. (Written down, because an ADD builds no rules.)
pub(super) const CHAIN_USES: [(&str, u32); 5] =
    [("hostports", 10), ("prerouting", 1), ("output", 1), ("postrouting", 4), ("guard", 1)];

/// The table's full name.
pub(super) fn table_name() -> TableName {
    TableName::new(Family::Inet, TABLE)
}

/// Names of the sets and maps of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    version: route::Family,
    /// Ports on all of the node's addresses.
    pub any: &'static str,
    /// Ports on one address.
    pub exact: &'static str,
    /// How a pod reaches its own host port.
    pub hairpin: &'static str,
    /// How its neighbours on a bridge reach it.
    pub bridged: &'static str,
    /// Addresses that are the node's, and yet no place for host ports: those of dummy links, as kube-proxy's ipvs mode
    /// and node-local DNS hold them.
    pub excluded: &'static str,
}

/// IPv4.
pub const V4: Names = Names {
    version: route::Family::V4,
    any: "any4",
    exact: "exact4",
    hairpin: "hairpin4",
    bridged: "bridged4",
    excluded: "excluded4",
};

/// IPv6.
pub const V6: Names = Names {
    version: route::Family::V6,
    any: "any6",
    exact: "exact6",
    hairpin: "hairpin6",
    bridged: "bridged6",
    excluded: "excluded6",
};

impl Names {
    /// Those of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { V4 } else { V6 }
    }

    fn sets(self) -> [Set; 5] {
        let address = DataType::address(self.version);
        let target = || MapData::Values(vec![address, DataType::InetService]);
        let port = [DataType::InetProto, DataType::InetService];
        let from = |from| [from, DataType::InetProto, DataType::InetService, address, DataType::InetService];
        [
            Set::map(self.any, port, target()),
            Set::map(self.exact, [address, DataType::InetProto, DataType::InetService], target()),
            Set::map(self.hairpin, from(address), MapData::Values(vec![address])),
            Set::map(self.bridged, from(DataType::IfName), MapData::Values(vec![address])),
            Set::new(self.excluded, [address]),
        ]
    }

    fn destination_rules(self) -> [Rule; 4] {
        let version = Statement::is(Selector::NfProto, Value::Version(self.version));
        let port = [Selector::L4Proto, Selector::Dport(Transport::Any)];
        let exact = [Selector::Daddr(self.version), Selector::L4Proto, Selector::Dport(Transport::Any)];
        let dnat = |selectors: &[Selector], map| {
            Rule::new([version.clone(), Statement::dnat_to_map(self.version, selectors, map)])
        };
        [
            Rule::new([
                Statement::is_in([Selector::Daddr(self.version)], self.excluded),
                Statement::Verdict(Verdict::Return),
            ]),
            dnat(&exact, self.exact),
            // All of the node's addresses but these: 127/8 leads to a pod only where its link was told to route it,
            // and [::1] cannot be translated at all.
            Rule::new([
                Statement::is(Selector::Daddr(self.version), loopback(self.version)),
                Statement::Verdict(Verdict::Return),
            ]),
            dnat(&port, self.any),
        ]
    }

    fn source_rules(self) -> [Rule; 2] {
        let rule = |from, map: &str| {
            let selectors = vec![
                from,
                Selector::L4Proto,
                Selector::CtOriginalDport,
                Selector::Daddr(self.version),
                Selector::Dport(Transport::Any),
            ];
            let target =
                NatTarget::Map { version: self.version, selectors, map: map.to_owned(), port: false };
            Rule::new([
                Statement::is(Selector::NfProto, Value::Version(self.version)),
                Statement::Nat { kind: NatKind::Source, target, flags: NatFlags::default() },
            ])
        };
        [rule(Selector::Saddr(self.version), self.hairpin), rule(Selector::IifName, self.bridged)]
    }
}

/// The sets and maps of the table, without elements.
pub(super) fn empty_sets() -> Vec<Set> {
    V4.sets().into_iter().chain(V6.sets()).collect()
}

/// Their names.
pub(super) fn set_names() -> impl Iterator<Item = &'static str> {
    [V4, V6]
        .into_iter()
        .flat_map(|names| [names.any, names.exact, names.hairpin, names.bridged, names.excluded])
}

/// The table without host ports.
#[must_use]
pub fn empty_table() -> Table {
    frame(TABLE, no_loopback_from(Statement::iifname_starts_with(HOST.into())))
}

/// A table of host ports without any, of this name; `guard` is the rule that keeps pods from the node's loopback.
pub(crate) fn frame(name: &str, guard_rule: Rule) -> Table {
    let nat = |hook, priority| BaseChain { kind: ChainKind::Nat, hook, priority, policy: Policy::Accept };
    let guard = BaseChain {
        kind: ChainKind::Filter,
        hook: Hook::Prerouting,
        priority: priority::RAW,
        policy: Policy::Accept,
    };
    let local = || Rule::new([Statement::fib_daddr_is_local(), Statement::jump("hostports")]);
    let hostports: Vec<Rule> = V4.destination_rules().into_iter().chain(V6.destination_rules()).collect();
    let mut table = Table::new(Family::Inet, name);
    table.sets = empty_sets();
    table.chains = vec![
        Chain::regular("hostports", hostports),
        Chain::base("prerouting", nat(Hook::Prerouting, DESTINATION_PRIORITY), vec![local()]),
        Chain::base("output", nat(Hook::Output, DESTINATION_PRIORITY), vec![local()]),
        Chain::base(
            "postrouting",
            nat(Hook::Postrouting, SOURCE_PRIORITY),
            V4.source_rules().into_iter().chain(V6.source_rules()).collect(),
        ),
        Chain::base("guard", guard, vec![guard_rule]),
    ];
    table
}

/// Fills the sets of addresses that are the node's and yet no place for host ports.
pub(super) fn exclude(table: &mut Table, addresses: &[IpAddr]) {
    for names in [V4, V6] {
        let Some(set) = table.sets.iter_mut().find(|set| set.name == names.excluded) else { continue };
        let of_family = addresses.iter().filter(|address| Names::of(**address) == names);
        set.elements = of_family.map(|address| Element::of([Value::Ip(*address)])).collect();
        set.elements.sort();
        set.elements.dedup();
    }
}

fn loopback(version: route::Family) -> Value {
    match version {
        route::Family::V4 => Value::Net(IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8)),
        route::Family::V6 => Value::Ip(Ipv6Addr::LOCALHOST.into()),
    }
}

/// A link with `route_localnet`, which host ports on localhost need, and which kube-proxy may turn on for all links, would
/// let its pod reach what listens on the node's loopback alone (CVE-2020-8558).
pub(crate) fn no_loopback_from(links: Statement) -> Rule {
    Rule::new([
        links,
        Statement::is(Selector::Daddr(route::Family::V4), loopback(route::Family::V4)),
        Statement::drop(),
    ])
}

/// One element, and the set that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Placed {
    /// The set's name.
    pub set: &'static str,
    /// The element.
    pub element: Element,
}

impl Placed {
    /// Whether it is a way back from a host port to the pod that owns it, or to its neighbours.
    pub(super) fn is_way_back(&self) -> bool {
        [V4, V6].iter().any(|names| [names.hairpin, names.bridged].contains(&self.set))
    }
}

/// Every element of one attachment.
#[must_use]
pub fn elements_of(record: &Record) -> Vec<Placed> {
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
pub fn number(protocol: Protocol) -> u8 {
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
    fn the_uses_that_are_looked_for_are_those_of_the_table() {
        let table = empty_table();
        let jumps = |name: &str| {
            let all = table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.statements);
            all.filter(|statement| **statement == Statement::jump(name)).count()
        };
        let uses: Vec<(&str, usize)> = table
            .chains
            .iter()
            .map(|chain| (chain.name.as_str(), chain.rules.len() + jumps(&chain.name)))
            .collect();
        assert_eq!(uses, CHAIN_USES.map(|(chain, uses)| (chain, uses as usize)));
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
