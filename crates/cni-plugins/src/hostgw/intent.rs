//! From configuration, addresses and facts to what is to be: the link plan, the record's wiring, the result (pure).

use std::net::IpAddr;

use attachment::{
    Allocation, Attachment, Bandwidth, HostPort, MacAddress, Mode, Netns, PodName, PodRoute, RenderedResult,
};
use cni_spec::{AttachResult, CniArgs, CniError, ErrorCode, IpFamily, NetConf, SpecVersion};
use cni_spec::{Interface, IpConfig, NodeAddresses};
use ipnet::IpNet;
use kernel::link::Mac;
use link_name::LinkName;

use super::facts::NodeFacts;
use super::gateway;
use crate::wiring::{BridgePlan, LinkPlan, PodAddress, Wiring, host_link_name, plan_link, shaping_link_name};

/// `RT_SCOPE_LINK`: what is at least as near has no gateway.
const SCOPE_LINK: u8 = 253;

/// What surrounds an attachment, known before its addresses are.
pub(super) struct Surroundings<'a> {
    pub(super) conf: &'a NetConf,
    pub(super) args: &'a CniArgs,
    pub(super) network: &'a attachment::NetworkName,
    pub(super) attachment: &'a Attachment,
    pub(super) facts: NodeFacts,
    pub(super) netns: Netns,
    pub(super) boot_id: String,
    /// How the node's end is connected.
    pub(super) wiring: Wiring,
    /// The bridge as it is, in modes that have one.
    pub(super) bridge_mac: Option<Mac>,
}

/// All that one ADD is to bring about.
pub(super) struct Intent {
    pub(super) link: LinkPlan,
    pub(super) result: AttachResult,
}

impl Surroundings<'_> {
    /// What follows from the addresses that were reserved.
    pub(super) fn intend(&self, allocations: &[Allocation]) -> Intent {
        let addresses: Vec<PodAddress> =
            allocations.iter().filter_map(|given| self.pod_address(given)).collect();
        let routes = self.routes(&addresses);
        let names = (host_link_name(self.network, self.attachment), self.attachment.ifname().clone());
        let mac = self.conf.requested_mac(self.args).map(MacAddress::octets);
        let link = plan_link(names, mac, self.facts.mtu, self.wiring.clone(), &addresses, &routes);
        let result = self.result(&link, &addresses, routes);
        Intent { link, result }
    }

    fn pod_address(&self, allocation: &Allocation) -> Option<PodAddress> {
        Some(PodAddress {
            subnet: allocation.address,
            gateway: allocation.gateway?,
            node_address: self.facts.addresses.of(IpFamily::of(allocation.address.addr())),
        })
    }

    /// The configured routes, through the gateway of their family where they name none.
    fn routes(&self, addresses: &[PodAddress]) -> Vec<cni_spec::Route> {
        let gateway = |family| {
            addresses.iter().map(|address| address.gateway).find(|gateway| IpFamily::of(*gateway) == family)
        };
        let mut routes = self.conf.routes.clone();
        routes.retain(|route| !self.is_there_already(route, addresses));
        for route in &mut routes {
            let on_link = route.scope.is_some_and(|scope| scope >= SCOPE_LINK);
            route.gw = route.gw.or_else(|| gateway(route.family()).filter(|_| !on_link));
        }
        routes
    }

    /// A wish for what is on the pod's link is granted by the link itself; the kernel would refuse it a second time.
    fn is_there_already(&self, route: &cni_spec::Route, addresses: &[PodAddress]) -> bool {
        let on_link = |address: &PodAddress| match self.wiring.is_routed() {
            true => IpNet::from(address.gateway),
            false => address.subnet.trunc(),
        };
        route.gw.is_none()
            && route.is_as_near_as_the_link()
            && addresses.iter().any(|address| on_link(address) == route.dst)
    }

    fn result(
        &self,
        link: &LinkPlan,
        addresses: &[PodAddress],
        routes: Vec<cni_spec::Route>,
    ) -> AttachResult {
        let interface = |name: &LinkName, mac: Option<Mac>, mtu, sandbox| Interface {
            name: name.to_string(),
            mac: mac.and_then(|mac| MacAddress::new(mac).ok()).map(String::from),
            mtu: Some(mtu),
            sandbox,
            ..Interface::default()
        };
        let mut interfaces = Vec::with_capacity(3);
        if let Wiring::Bridge { bridge, .. } = &link.wiring {
            interfaces.push(interface(bridge, self.bridge_mac, link.mtu, None));
        }
        interfaces.push(interface(&link.host_link, Some(link.host_mac), link.mtu, None));
        let sandbox = Some(self.netns.path.clone());
        interfaces.push(interface(&link.pod_link, Some(link.pod_mac), link.mtu, sandbox));
        let pod = interfaces.len() - 1;
        let ips = addresses.iter().map(|address| IpConfig {
            interface: Some(pod),
            address: address.held(&link.wiring),
            gateway: Some(address.gateway),
        });
        AttachResult { ips: ips.collect(), interfaces, routes, dns: self.conf.dns.clone() }
    }

    /// With which addresses the node speaks to its pods.
    pub(super) fn node_addresses(&self) -> Vec<IpAddr> {
        IpFamily::BOTH.into_iter().filter_map(|family| self.facts.addresses.of(family)).collect()
    }

    /// What the record keeps of it.
    pub(super) fn record(&self, intent: &Intent) -> attachment::Wiring {
        let link = &intent.link;
        let mac = |mac: Mac| MacAddress::new(mac).ok();
        let shaped = &self.conf.capabilities.bandwidth;
        let shaping_link = || shaping_link_name(self.network, self.attachment);
        let bandwidth = (shaped.ingress.is_some() || shaped.egress.is_some())
            .then(|| Bandwidth { ifb: shaped.egress.is_some().then(shaping_link) });
        attachment::Wiring {
            netns: self.netns.clone(),
            boot_id: self.boot_id.clone(),
            host_link: link.host_link.clone(),
            mode: self.mode(),
            pod_mac: mac(link.pod_mac),
            host_mac: mac(link.host_mac),
            mtu: link.mtu,
            node_addresses: self.node_addresses(),
            leased: self.conf.ipam.dhcp.is_some(),
            pod_routes: intent
                .result
                .routes
                .iter()
                .map(|route| PodRoute { dst: route.dst, gw: route.gw })
                .collect(),
            bandwidth,
            pod: self.pod_name(),
            result: intent
                .result
                .to_json(SpecVersion::NEWEST)
                .ok()
                .and_then(|json| RenderedResult::from_json(json).ok()),
        }
    }

    /// How records of this network say it.
    pub(super) fn mode(&self) -> Mode {
        match &self.wiring {
            Wiring::Ptp => Mode::Ptp,
            Wiring::Bridge { bridge, .. } if self.conf.mode == cni_spec::Mode::L2 => {
                Mode::L2 { bridge: bridge.clone(), gateways: lan_gateways(self.conf, &self.facts.addresses) }
            }
            Wiring::Bridge { bridge, .. } => Mode::Bridge(bridge.clone()),
            Wiring::L2Routed { uplink } => Mode::L2Routed { uplink: uplink.clone() },
        }
    }

    fn pod_name(&self) -> Option<PodName> {
        Some(PodName { namespace: self.args.pod_namespace.clone()?, name: self.args.pod_name.clone()? })
    }
}

/// The bridge that `conf` wants, with the gateway of every range that is this node's to hold.
pub(super) fn bridge_plan(conf: &NetConf, facts: &NodeFacts) -> Option<BridgePlan> {
    let (gateways, leads_to_lan) = match conf.mode {
        cni_spec::Mode::Ptp | cni_spec::Mode::L2Routed => return None,
        cni_spec::Mode::Bridge => {
            (distinct(conf.ipam.range_sets.ranges().map(|range| (range, range.gateway()))), false)
        }
        cni_spec::Mode::L2 => (lan_gateways(conf, &facts.addresses), true),
    };
    Some(BridgePlan { name: conf.bridge.clone(), gateways, mtu: facts.mtu, leads_to_lan })
}

/// The gateways that the bridge to the LAN must be given: not the LAN's router, as a DHCP server's is, nor what the node
/// holds anyway.
fn lan_gateways(conf: &NetConf, node: &NodeAddresses) -> Vec<IpNet> {
    let of_server = |range: &cni_spec::Range| conf.ipam.dhcp.is_some() && range.family() == IpFamily::V4;
    let ranges = conf.ipam.range_sets.ranges().filter(|range| conf.lan.is_gateway && !of_server(range));
    let given = ranges.filter_map(|range| Some((range, range.given_gateway()?)));
    distinct(given.filter(|(range, gateway)| node.of(range.family()) != Some(*gateway)))
}

/// Each gateway once, with its subnet's prefix.
fn distinct<'a>(gateways: impl Iterator<Item = (&'a cni_spec::Range, IpAddr)>) -> Vec<IpNet> {
    let mut distinct: Vec<IpNet> = Vec::new();
    for (range, gateway) in gateways {
        let gateway = IpNet::new(gateway, range.subnet().prefix_len()).unwrap_or_else(|_| gateway.into());
        if !distinct.contains(&gateway) {
            distinct.push(gateway);
        }
    }
    distinct
}

/// The ranges as the store wants them.
pub(super) fn ranges(conf: &NetConf, node: &NodeAddresses) -> Result<Vec<Vec<attachment::Range>>, CniError> {
    // The gateway of one range may lie in another.
    let all = conf.ipam.range_sets.ranges();
    let gateways = all.map(|range| gateway::of(conf, range, node)).collect::<Result<Vec<IpAddr>, _>>()?;
    let range = |range: &cni_spec::Range| {
        let mut excluded = gateways.clone();
        if conf.mode.is_of_lan() {
            // The node is a host of the subnet, too.
            excluded.extend(node.of(range.family()));
        }
        Ok(attachment::Range {
            addresses: attachment::AddressRange::new(range.start(), range.end()).map_err(|error| {
                CniError::new(ErrorCode::InvalidNetworkConfig, format!("`ipam.ranges`: {error}"))
            })?,
            subnet: range.subnet(),
            gateway: Some(gateway::of(conf, range, node)?),
            excluded,
        })
    };
    conf.ipam.range_sets.as_slice().iter().map(|set| set.ranges().iter().map(range).collect()).collect()
}

/// The host ports as the store wants them.
pub(super) fn host_ports(conf: &NetConf) -> Vec<HostPort> {
    let on_localhost = conf.localhost_ports && conf.ipam.has_family(IpFamily::V4);
    crate::host_ports::wanted(&conf.capabilities.port_mappings, on_localhost)
}
