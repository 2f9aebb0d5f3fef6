//! What a pod's link is to be: from addresses and a mode to the steps on either side (pure).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use kernel::link::Mac;
use kernel::route::{Hop, Route};
use link_name::LinkName;

use super::{Side, Step, link_local_of, mac_of};

/// Protocol number of a pod's own route on the node (`/etc/iproute2/rt_protos` has no name for it).
pub const POD_ROUTE_PROTOCOL: u8 = 105;
/// `RTPROT_BOOT`: what is set up once and belongs to no daemon.
pub(super) const BOOT: u8 = 3;
/// `RT_SCOPE_LINK`.
pub(super) const SCOPE_LINK: u8 = 253;

/// A pod must not learn addresses and routes from another pod.
pub(super) const DEAF_TO_ROUTERS: (&str, &str) = ("net/ipv6/conf/{link}/accept_ra", "0");

/// How the node's end is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// A routed link of its own: the node holds the gateway address on it, and a route to each pod address.
    Ptp,
    /// A port of a bridge that holds the gateway addresses.
    Bridge {
        /// Which bridge.
        bridge: LinkName,
        /// Whether a frame may go back to where it came from.
        hairpin: bool,
    },
    /// A routed link of its own, and an address of the node's LAN, where the node answers for it.
    L2Routed {
        /// The node's link to the LAN.
        uplink: LinkName,
    },
}

impl Wiring {
    /// Whether the node routes to the pod; else they are neighbours on a bridge.
    #[must_use]
    pub const fn is_routed(&self) -> bool {
        !matches!(self, Self::Bridge { .. })
    }
}

/// An address for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAddress {
    /// The address and the prefix of the subnet it is from.
    pub subnet: IpNet,
    /// The gateway within that subnet.
    pub gateway: IpAddr,
    /// The node's own address that packets from the node to the pod shall carry.
    pub node_address: Option<IpAddr>,
}

impl PodAddress {
    /// The address as the pod holds it: alone on a routed link, with its subnet on a bridge.
    #[must_use]
    pub fn held(&self, wiring: &Wiring) -> IpNet {
        match wiring {
            Wiring::Ptp | Wiring::L2Routed { .. } => IpNet::from(self.subnet.addr()),
            Wiring::Bridge { .. } => self.subnet,
        }
    }

    /// Whether the node holds the gateway as an address of its own, which needs no second place on the pod's link.
    #[must_use]
    pub fn gateway_is_the_nodes(&self) -> bool {
        self.node_address == Some(self.gateway)
    }
}

/// Everything that is to be made of links for one attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPlan {
    /// Name of the node's end.
    pub host_link: LinkName,
    /// Name of the pod's end.
    pub pod_link: LinkName,
    /// Ethernet address of the node's end.
    pub host_mac: Mac,
    /// Ethernet address of the pod's end.
    pub pod_mac: Mac,
    /// Payload of a frame.
    pub mtu: u32,
    /// How the node's end is connected.
    pub wiring: Wiring,
    /// What to write below `/proc/sys` in the pod before its end comes up, `{link}` standing for its name.
    pub pod_settings: Vec<(&'static str, &'static str)>,
    /// What to do in the pod, in order, first.
    pub pod_steps: Vec<Step>,
    /// What to do on the node, in order, second.
    pub host_steps: Vec<Step>,
    /// What to do in the pod last: only now that both ends are up is there a carrier, and the kernel would drop what the
    /// pod sends until it has noticed by itself.
    pub last_pod_steps: Vec<Step>,
    /// IPv6 addresses in the pod for which to wait.
    pub pod_awaits: Vec<Ipv6Addr>,
    /// IPv6 addresses on the node's end for which to wait.
    pub host_awaits: Vec<Ipv6Addr>,
    /// Addresses for which the node answers on its link to the LAN.
    pub proxied: Vec<IpAddr>,
}

impl LinkPlan {
    /// What the pod is reached by: its addresses without its link-local one.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.pod_steps.iter().filter_map(|step| match step {
            Step::Address(IpNet::V6(ip)) if ip.addr().is_unicast_link_local() => None,
            Step::Address(ip) => Some(ip.addr()),
            _ => None,
        })
    }
}

impl fmt::Display for LinkPlan {
    /// The ends and every step, in order, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}, mtu {}", self.host_link, self.pod_link, self.mtu)?;
        let sides = [("pod", &self.pod_steps), ("node", &self.host_steps), ("pod", &self.last_pod_steps)];
        for (side, steps) in sides {
            for step in steps {
                write!(f, "; {side}: {step}")?;
            }
        }
        if let Wiring::L2Routed { uplink } = &self.wiring {
            for ip in &self.proxied {
                write!(f, "; node: answer for {ip} on {uplink}")?;
            }
        }
        Ok(())
    }
}

/// Plans the link of a pod that holds `addresses` (at least one) and has `routes`.
#[must_use]
pub fn plan_link(
    (host_link, pod_link): (LinkName, LinkName),
    mac: Option<Mac>,
    mtu: u32,
    wiring: Wiring,
    addresses: &[PodAddress],
    routes: &[cni_spec::Route],
) -> LinkPlan {
    let first = addresses.first().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.subnet.addr());
    let pod_mac = mac.unwrap_or_else(|| mac_of(first, Side::Pod));
    let host_mac = mac_of(first, Side::Host);
    LinkPlan {
        pod_steps: pod_steps(&wiring, (pod_mac, host_mac), addresses, routes),
        host_steps: host_steps(&wiring, pod_mac, addresses),
        pod_settings: vec![DEAF_TO_ROUTERS],
        last_pod_steps: vec![Step::Settle],
        pod_awaits: ipv6(addresses.iter().map(|address| address.subnet.addr())),
        host_awaits: match wiring {
            Wiring::Bridge { .. } => Vec::new(),
            Wiring::Ptp | Wiring::L2Routed { .. } => ipv6(held_gateways(addresses).into_iter()),
        },
        proxied: match wiring {
            Wiring::L2Routed { .. } => addresses.iter().map(|address| address.subnet.addr()).collect(),
            Wiring::Ptp | Wiring::Bridge { .. } => Vec::new(),
        },
        host_link,
        pod_link,
        host_mac,
        pod_mac,
        mtu,
        wiring,
    }
}

fn pod_steps(
    wiring: &Wiring,
    (pod_mac, host_mac): (Mac, Mac),
    addresses: &[PodAddress],
    routes: &[cni_spec::Route],
) -> Vec<Step> {
    let mut steps = vec![Step::NoAutomaticLinkLocal];
    steps.extend(addresses.iter().map(|address| Step::Address(address.held(wiring))));
    if addresses.iter().any(|address| address.gateway.is_ipv6()) {
        steps.push(Step::Address(link_local(pod_mac)));
    }
    steps.push(Step::Up);
    if wiring.is_routed() {
        // The gateway is in no subnet of the pod's, so it is told that it is on the link.
        steps.extend(gateways(addresses).into_iter().map(|gateway| {
            let scope = if gateway.is_ipv4() { SCOPE_LINK } else { 0 };
            Step::Route(Route { protocol: BOOT, scope, ..Route::to(IpNet::from(gateway)) })
        }));
        // All namespaces of a machine share one neighbour table (`gc_thresh3`, 1024 by default): where it is full, a
        // gateway that must first be asked for cannot be reached. Permanent entries do not count.
        steps.extend(gateways(addresses).into_iter().map(|gateway| Step::Neighbour(gateway, host_mac)));
    }
    steps.extend(routes.iter().map(|route| Step::Route(pod_route(route))));
    steps
}

pub(super) fn pod_route(route: &cni_spec::Route) -> Route {
    let on_link = route.gw.is_none() && route.dst.addr().is_ipv4();
    Route {
        protocol: BOOT,
        scope: route.scope.unwrap_or(if on_link { SCOPE_LINK } else { 0 }),
        metric: route.priority.unwrap_or_default(),
        table: route.effective_table(),
        mtu: route.mtu,
        advmss: route.advmss,
        hops: vec![Hop { gateway: route.gw, ..Hop::default() }],
        ..Route::to(route.dst)
    }
}

pub(super) fn host_steps(wiring: &Wiring, pod_mac: Mac, addresses: &[PodAddress]) -> Vec<Step> {
    if let Wiring::Bridge { hairpin, .. } = wiring {
        // A port's own link-local address is of no use to anybody, and takes a place in the neighbour table.
        let mut steps = vec![Step::NoAutomaticLinkLocal];
        steps.extend(hairpin.then_some(Step::Hairpin));
        steps.extend([Step::Up, Step::Settle]);
        return steps;
    }
    let mut steps = vec![Step::NoAutomaticLinkLocal];
    steps.extend(held_gateways(addresses).into_iter().map(|gateway| Step::Address(IpNet::from(gateway))));
    steps.push(Step::Up);
    steps.extend(addresses.iter().map(|address| Step::Route(host_route(address))));
    // A permanent neighbour spares the node the question; asking would take an IPv6 link-local address on this end,
    // which is tentative for a second.
    steps.extend(addresses.iter().map(|address| Step::Neighbour(address.subnet.addr(), pod_mac)));
    steps.push(Step::Settle);
    steps
}

/// The node's route to one pod address. Without an explicit source the node would speak from the gateway address,
/// or from a bridge that is no part of this network.
#[must_use]
pub fn host_route(address: &PodAddress) -> Route {
    let ip = address.subnet.addr();
    Route {
        protocol: POD_ROUTE_PROTOCOL,
        scope: if ip.is_ipv4() { SCOPE_LINK } else { 0 },
        source: address.node_address.filter(|source| source.is_ipv4() == ip.is_ipv4()),
        ..Route::to(IpNet::from(ip))
    }
}

/// The gateways that the node holds on the pod's link. An address that it has elsewhere is local anyway.
fn held_gateways(addresses: &[PodAddress]) -> Vec<IpAddr> {
    let elsewhere = |gateway: &IpAddr| {
        addresses.iter().any(|address| address.gateway == *gateway && address.gateway_is_the_nodes())
    };
    gateways(addresses).into_iter().filter(|gateway| !elsewhere(gateway)).collect()
}

/// Each gateway once, also where several addresses share it.
pub(super) fn gateways(addresses: &[PodAddress]) -> Vec<IpAddr> {
    let mut gateways: Vec<IpAddr> = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !gateways.contains(&address.gateway) {
            gateways.push(address.gateway);
        }
    }
    gateways
}

pub(super) fn ipv6(addresses: impl Iterator<Item = IpAddr>) -> Vec<Ipv6Addr> {
    addresses
        .filter_map(|ip| match ip {
            IpAddr::V6(ip) => Some(ip),
            IpAddr::V4(_) => None,
        })
        .collect()
}

/// `fe80::…/64` of an Ethernet address.
pub(super) fn link_local(mac: Mac) -> IpNet {
    IpNet::new_assert(IpAddr::V6(link_local_of(mac)), 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(subnet: &str, gateway: &str, node: &str) -> PodAddress {
        PodAddress {
            subnet: subnet.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            node_address: Some(node.parse().unwrap()),
        }
    }

    fn plan(wiring: Wiring) -> LinkPlan {
        let names = (LinkName::new("hgw0123456789ab").unwrap(), LinkName::new("eth0").unwrap());
        let addresses = [
            address("10.244.1.5/24", "10.244.1.1", "192.0.2.11"),
            address("fd00:10:244:1::5/64", "fd00:10:244:1::1", "2001:db8::11"),
        ];
        let routes = [
            cni_spec::Route::new("0.0.0.0/0".parse().unwrap(), Some("10.244.1.1".parse().unwrap())),
            cni_spec::Route::new("::/0".parse().unwrap(), Some("fd00:10:244:1::1".parse().unwrap())),
        ];
        plan_link(names, None, 1500, wiring, &addresses, &routes)
    }

    fn shown(plan: &LinkPlan) -> String {
        let side = |name: &str, steps: &[Step]| {
            steps.iter().map(|step| format!("{name}: {step}\n")).collect::<String>()
        };
        side("pod", &plan.pod_steps) + &side("node", &plan.host_steps) + &side("pod", &plan.last_pod_steps)
    }

    #[test]
    fn a_routed_pod_holds_its_address_alone_and_the_node_holds_the_gateway() {
        insta::assert_snapshot!(shown(&plan(Wiring::Ptp)), @r"
        pod: turn off the automatic link-local address
        pod: add address 10.244.1.5/32
        pod: add address fd00:10:244:1::5/128
        pod: add address fe80::858:aff:fef4:105/64
        pod: set the link up
        pod: add route 10.244.1.1/32 protocol 3
        pod: add route fd00:10:244:1::1/128 protocol 3
        pod: add permanent neighbour 10.244.1.1 at 0e:58:0a:f4:01:05
        pod: add permanent neighbour fd00:10:244:1::1 at 0e:58:0a:f4:01:05
        pod: add route 0.0.0.0/0 via 10.244.1.1 protocol 3
        pod: add route ::/0 via fd00:10:244:1::1 protocol 3
        node: turn off the automatic link-local address
        node: add address 10.244.1.1/32
        node: add address fd00:10:244:1::1/128
        node: set the link up
        node: add route 10.244.1.5/32 source 192.0.2.11 protocol 105
        node: add route fd00:10:244:1::5/128 source 2001:db8::11 protocol 105
        node: add permanent neighbour 10.244.1.5 at 0a:58:0a:f4:01:05
        node: add permanent neighbour fd00:10:244:1::5 at 0a:58:0a:f4:01:05
        node: look the link up again
        pod: look the link up again
        ");
    }

    #[test]
    fn a_bridged_pod_holds_its_subnet_and_the_node_only_a_port() {
        let bridge = LinkName::new("cni0").unwrap();
        insta::assert_snapshot!(shown(&plan(Wiring::Bridge { bridge, hairpin: true })), @r"
        pod: turn off the automatic link-local address
        pod: add address 10.244.1.5/24
        pod: add address fd00:10:244:1::5/64
        pod: add address fe80::858:aff:fef4:105/64
        pod: set the link up
        pod: add route 0.0.0.0/0 via 10.244.1.1 protocol 3
        pod: add route ::/0 via fd00:10:244:1::1 protocol 3
        node: turn off the automatic link-local address
        node: let the port send frames back
        node: set the link up
        node: look the link up again
        pod: look the link up again
        ");
    }

    #[test]
    fn a_routed_pod_of_the_lan_is_answered_for_and_leaves_by_the_nodes_own_address() {
        let mut addresses = [
            address("10.10.1.5/16", "192.0.2.11", "192.0.2.11"),
            address("fd00:10::5/64", "2001:db8::11", "2001:db8::11"),
        ];
        let plan_for = |addresses: &[PodAddress]| {
            let names = (LinkName::new("hgw0").unwrap(), LinkName::new("eth0").unwrap());
            let wiring = Wiring::L2Routed { uplink: LinkName::new("up0").unwrap() };
            plan_link(names, None, 1500, wiring, addresses, &[])
        };
        let plan = plan_for(&addresses);
        assert!(plan.pod_steps.contains(&Step::Address("10.10.1.5/32".parse().unwrap())));
        assert_eq!(plan.proxied, addresses.clone().map(|address| address.subnet.addr()));
        let held =
            |plan: &LinkPlan| plan.host_steps.iter().filter(|step| matches!(step, Step::Address(_))).count();
        assert_eq!((held(&plan), plan.host_awaits.len()), (0, 0));
        // The first address of a node's slice is the node's, given to it by the configuration alone.
        addresses[0].gateway = "10.10.1.0".parse().unwrap();
        let plan = plan_for(&addresses);
        assert!(plan.host_steps.contains(&Step::Address("10.10.1.0/32".parse().unwrap())));
        assert_eq!(held(&plan), 1);
    }

    #[test]
    fn a_link_is_set_up_only_after_its_addresses_are_there() {
        for steps in [plan(Wiring::Ptp).pod_steps, plan(Wiring::Ptp).host_steps] {
            let up = steps.iter().position(|step| *step == Step::Up).unwrap();
            assert!(
                steps[up..].iter().all(|step| !matches!(step, Step::Address(_) | Step::NoAutomaticLinkLocal))
            );
            assert!(steps[..up].iter().all(|step| !matches!(step, Step::Route(_))));
        }
    }

    #[test]
    fn two_addresses_of_one_subnet_share_one_gateway_step() {
        let addresses = [
            address("10.244.1.5/24", "10.244.1.1", "192.0.2.11"),
            address("10.244.1.6/24", "10.244.1.1", "192.0.2.11"),
        ];
        let names = (LinkName::new("hgw0").unwrap(), LinkName::new("eth0").unwrap());
        let plan = plan_link(names, None, 1500, Wiring::Ptp, &addresses, &[]);
        let gateways = plan.host_steps.iter().filter(|step| matches!(step, Step::Address(_))).count();
        assert_eq!(gateways, 1);
    }
}
