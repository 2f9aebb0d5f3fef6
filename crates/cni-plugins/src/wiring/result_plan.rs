//! The link plan of the drop-in plugins: from the result of an IPAM plugin to what the reference's `bridge` and `ptp` make
//! of it (pure). It differs from [`super::plan_link`] in what pods and operators see of the reference.

use std::net::IpAddr;

use cni_spec::IpConfig;
use ipnet::IpNet;
use kernel::link::Mac;
use kernel::route::{Hop, Route};
use link_name::LinkName;

use super::plan::{BOOT, DEAF_TO_ROUTERS, SCOPE_LINK, gateways, host_steps, ipv6, link_local, pod_route};
use super::{LinkPlan, PodAddress, Side, Step, Wiring, mac_of};

/// What is wanted of a link, whatever it hangs on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The node's end and the pod's.
    pub(crate) names: (&'a LinkName, &'a LinkName),
    /// The pod's Ethernet address, where it was asked for.
    pub(crate) mac: Option<Mac>,
    /// A number for Ethernet addresses where there is no IP address that they could follow from.
    pub(crate) number: u64,
    /// Payload of a frame.
    pub(crate) mtu: u32,
    /// Words on the node's end, if any.
    pub(crate) alias: Option<&'a str>,
    /// What the IPAM plugin gave.
    pub(crate) ips: &'a [IpConfig],
    /// The pod's routes.
    pub(crate) routes: &'a [cni_spec::Route],
}

/// A port of a bridge.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Port {
    /// It may send a frame back to where it came from.
    pub(crate) hairpin: bool,
    /// It reaches no other that is isolated, too.
    pub(crate) isolated: bool,
    /// IPv6 addresses are used once nobody else answers to them.
    pub(crate) detect_duplicates: bool,
    /// The pod's end stays down.
    pub(crate) pod_stays_down: bool,
    /// The pod gets its addresses once the link is there.
    pub(crate) addresses_follow: bool,
}

impl Port {
    /// Whether the link-local address that the kernel gives a pod without other IPv6 addresses is given by us, see
    /// [`Step::LinkLocal`].
    fn is_given_link_local(self, ips: &[IpConfig]) -> bool {
        let is_ours_to_give = !self.detect_duplicates && !self.pod_stays_down && !self.addresses_follow;
        is_ours_to_give && !ips.is_empty() && !has_ipv6(ips)
    }
}

const KEEP_ADDRESSES: (&str, &str) = ("net/ipv6/conf/{link}/keep_addr_on_down", "1");
const DETECT_DUPLICATES: [(&str, &str); 2] =
    [("net/ipv6/conf/{link}/enhanced_dad", "1"), ("net/ipv6/conf/{link}/accept_dad", "1")];
/// Nobody else has the address, so that the kernel's own link-local one need not wait either.
const NO_DETECTION: (&str, &str) = ("net/ipv6/conf/{link}/accept_dad", "0");

/// Plans a routed link. The pod holds its address with its subnet's prefix, and reaches the subnet through the gateway. An
/// address without a gateway is reached by nobody: none may be without.
pub(crate) fn plan_routed(wanted: &Wanted<'_>) -> LinkPlan {
    let addresses: Vec<PodAddress> = wanted
        .ips
        .iter()
        .filter_map(|ip| Some(PodAddress { subnet: ip.address, gateway: ip.gateway?, node_address: None }))
        .collect();
    let (pod_mac, host_mac) = macs(wanted);
    let has_ipv6 = has_ipv6(wanted.ips);
    let mut pod_steps = Vec::new();
    pod_steps.extend(has_ipv6.then_some(Step::NoAutomaticLinkLocal));
    pod_steps.extend(wanted.ips.iter().map(|ip| Step::AddressWithoutRoute(ip.address)));
    pod_steps.extend(has_ipv6.then(|| Step::Address(link_local(pod_mac))));
    pod_steps.push(Step::Up);
    for address in &addresses {
        let source = Some(address.subnet.addr());
        let scope = if address.gateway.is_ipv4() { SCOPE_LINK } else { 0 };
        let gateway = IpNet::from(address.gateway);
        add_once(&mut pod_steps, Step::Route(Route { protocol: BOOT, scope, source, ..Route::to(gateway) }));
    }
    pod_steps.extend(gateways(&addresses).into_iter().map(|gateway| Step::Neighbour(gateway, host_mac)));
    for address in &addresses {
        let hops = vec![Hop { gateway: Some(address.gateway), ..Hop::default() }];
        let subnet = address.subnet.trunc();
        if subnet.prefix_len() < subnet.max_prefix_len() {
            let source = Some(address.subnet.addr());
            add_once(
                &mut pod_steps,
                Step::Route(Route { protocol: BOOT, source, hops, ..Route::to(subnet) }),
            );
        }
    }
    add_routes(&mut pod_steps, wanted);
    // What hangs on this link is no record's, so that it carries the protocol number of the reference's.
    let mut host_steps = host_steps(&Wiring::Ptp, pod_mac, &addresses);
    for step in &mut host_steps {
        if let Step::Route(route) = step {
            route.protocol = BOOT;
        }
    }
    host_steps.extend(wanted.alias.map(|alias| Step::Alias(alias.to_owned())));
    let mut pod_settings = vec![DEAF_TO_ROUTERS];
    pod_settings.extend(has_ipv6.then_some(KEEP_ADDRESSES));
    LinkPlan {
        pod_settings,
        pod_steps,
        host_steps,
        host_awaits: ipv6(gateways(&addresses).into_iter()),
        ..bare(wanted, Wiring::Ptp)
    }
}

/// Plans a port of a bridge. Without addresses the link is one of layer 2, and the kernel's own doing in the pod is not
/// interfered with.
pub(crate) fn plan_port(wanted: &Wanted<'_>, bridge: &LinkName, port: Port) -> LinkPlan {
    let (pod_mac, _) = macs(wanted);
    let has_ipv6 = has_ipv6(wanted.ips);
    let mut pod_settings = Vec::new();
    let mut pod_steps = Vec::new();
    if !wanted.ips.is_empty() || port.addresses_follow {
        pod_settings.push(DEAF_TO_ROUTERS);
        // As the reference's: for neighbours that remember another.
        pod_steps.push(Step::ArpNotify);
        if port.detect_duplicates {
            pod_settings.extend(DETECT_DUPLICATES);
        } else {
            pod_settings.push(NO_DETECTION);
        }
        pod_settings.extend(has_ipv6.then_some(KEEP_ADDRESSES));
    }
    let mut last_pod_steps = vec![Step::Settle];
    if has_ipv6 && !port.detect_duplicates {
        pod_steps.extend([Step::NoAutomaticLinkLocal, Step::Address(link_local(pod_mac))]);
    } else if port.is_given_link_local(wanted.ips) {
        let given = Step::LinkLocal(link_local(pod_mac));
        pod_steps.extend([Step::Examine, Step::NoAutomaticLinkLocal, given]);
        last_pod_steps.push(Step::AutomaticLinkLocal);
    }
    pod_steps.extend(wanted.ips.iter().map(|ip| {
        match port.detect_duplicates && ip.address.addr().is_ipv6() {
            true => Step::DetectedAddress(ip.address),
            false => Step::Address(ip.address),
        }
    }));
    if !port.pod_stays_down {
        pod_steps.push(Step::Up);
    }
    add_routes(&mut pod_steps, wanted);
    let mut host_steps = vec![Step::NoAutomaticLinkLocal];
    host_steps.extend(wanted.alias.map(|alias| Step::Alias(alias.to_owned())));
    host_steps.extend(port.hairpin.then_some(Step::Hairpin));
    host_steps.extend(port.isolated.then_some(Step::Isolated));
    host_steps.extend([Step::Up, Step::Settle]);
    let wiring = Wiring::Bridge { bridge: bridge.clone(), hairpin: port.hairpin };
    LinkPlan { pod_settings, pod_steps, host_steps, last_pod_steps, ..bare(wanted, wiring) }
}

/// All but the steps.
fn bare(wanted: &Wanted<'_>, wiring: Wiring) -> LinkPlan {
    let (pod_mac, host_mac) = macs(wanted);
    LinkPlan {
        host_link: wanted.names.0.clone(),
        pod_link: wanted.names.1.clone(),
        host_mac,
        pod_mac,
        mtu: wanted.mtu,
        wiring,
        pod_settings: Vec::new(),
        pod_steps: Vec::new(),
        host_steps: Vec::new(),
        last_pod_steps: vec![Step::Settle],
        pod_awaits: ipv6(wanted.ips.iter().map(|ip| ip.address.addr())),
        host_awaits: Vec::new(),
        proxied: Vec::new(),
    }
}

/// The pod's and the node's Ethernet address.
fn macs(wanted: &Wanted<'_>) -> (Mac, Mac) {
    let of = |side| match wanted.ips.first() {
        Some(ip) => mac_of(ip.address.addr(), side),
        None => {
            let [first, ..] = mac_of(IpAddr::from([0; 4]), side);
            let [_, _, _, a, b, c, d, e] = wanted.number.to_be_bytes();
            [first, a, b, c, d, e]
        }
    };
    (wanted.mac.unwrap_or_else(|| of(Side::Pod)), of(Side::Host))
}

fn has_ipv6(ips: &[IpConfig]) -> bool {
    ips.iter().any(|ip| ip.address.addr().is_ipv6())
}

/// The wished routes, through the first gateway of their family where they name none.
fn add_routes(steps: &mut Vec<Step>, wanted: &Wanted<'_>) {
    let gateways = || wanted.ips.iter().filter_map(|ip| ip.gateway);
    for route in wanted.routes {
        let of_family = |gateway: &IpAddr| gateway.is_ipv4() == route.dst.addr().is_ipv4();
        let gw = route.gw.or_else(|| gateways().find(of_family));
        let planned = pod_route(&cni_spec::Route { dst: route.dst.trunc(), gw, ..route.clone() });
        // A pod of several networks may have a default route from each: the last one is preferred.
        add_once(steps, Step::PreferredRoute(planned));
    }
}

/// The kernel would refuse the same route a second time.
fn add_once(steps: &mut Vec<Step>, step: Step) {
    let same_place = |known: &Step| match (known, &step) {
        (Step::Route(known) | Step::PreferredRoute(known), Step::Route(new) | Step::PreferredRoute(new)) => {
            (known.destination, known.table, known.metric, known.tos)
                == (new.destination, new.table, new.metric, new.tos)
                && known.hops == new.hops
        }
        _ => false,
    };
    if !steps.iter().any(same_place) {
        steps.push(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(address: &str, gateway: Option<&str>) -> IpConfig {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        IpConfig { interface: None, address: address.parse().unwrap(), gateway }
    }

    fn planned(ips: &[IpConfig], routes: &[&str], plan: impl Fn(&Wanted<'_>) -> LinkPlan) -> String {
        let routes: Vec<cni_spec::Route> =
            routes.iter().map(|dst| cni_spec::Route::new(dst.parse().unwrap(), None)).collect();
        let (host, pod) = (LinkName::new("veth0").unwrap(), LinkName::new("eth0").unwrap());
        let wanted = Wanted {
            names: (&host, &pod),
            mac: None,
            number: 0x0102_0304_0506_0708,
            mtu: 1500,
            alias: Some("x"),
            ips,
            routes: &routes,
        };
        let plan = plan(&wanted);
        let settings: Vec<String> =
            plan.pod_settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        format!("{}\n{}", settings.join("\n"), plan.to_string().replace("; ", "\n"))
    }

    fn dual() -> [IpConfig; 2] {
        [ip("10.1.2.5/24", Some("10.1.2.1")), ip("fd00::5/64", Some("fd00::1"))]
    }

    #[test]
    fn a_routed_pod_reaches_its_subnet_through_the_gateway() {
        insta::assert_snapshot!(planned(&dual(), &["0.0.0.0/0", "::/0", "10.1.2.0/24"], plan_routed));
    }

    #[test]
    fn a_port_has_its_subnet_on_the_link() {
        let cni0 = LinkName::new("cni0").unwrap();
        let port = Port { hairpin: true, isolated: true, ..Port::default() };
        insta::assert_snapshot!(planned(&dual(), &["0.0.0.0/0", "0.0.0.0/0"], |wanted| plan_port(
            wanted, &cni0, port
        )));
    }

    #[test]
    fn a_port_without_ipv6_addresses_gets_its_link_local_one_before_there_is_a_carrier() {
        let cni0 = LinkName::new("cni0").unwrap();
        insta::assert_snapshot!(planned(&dual()[..1], &["0.0.0.0/0"], |wanted| plan_port(
            wanted,
            &cni0,
            Port::default()
        )));
    }

    #[test]
    fn without_addresses_the_pods_end_is_only_set_up() {
        let cni0 = LinkName::new("cni0").unwrap();
        insta::assert_snapshot!(planned(&[], &[], |wanted| plan_port(wanted, &cni0, Port::default())));
    }
}
