//! What this node's kernel and files hold, as values: ours, and of others' what could stand in our way.

mod filter;
mod link;
mod nft;
mod obstacle;
mod route;
mod wireguard;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cni_spec::MIN_MTU_V6;
use ipnet::IpNet;

pub use filter::{ChainPosition, ForwardChain, ObservedAccept};
pub use link::{LinkKind, ObservedAddress, ObservedLink};
pub use nft::ObservedNftTable;
pub use obstacle::{Obstacle, ObstacleHook};
pub use route::{
    FibLookup, FibMatch, Leg, ObservedRoute, RouteKey, RouteKind, RoutesByDestination, RoutesInOrder,
    RoutesTo,
};
pub use wireguard::{PublicKey, WireguardPeer};

use crate::desired::Sysctl;
use crate::family::{Family, PerFamily, host_prefix};
use crate::settings::Settings;

/// This node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedNode {
    /// Every link, by its index.
    pub links: BTreeMap<u32, ObservedLink>,
    /// Routes of protocol 104 in every table, and all routes of the tables that the settings and `main` name.
    pub routes: Vec<ObservedRoute>,
    /// For each peer's address, the kernel's look-up (`RTM_GETROUTE` with `RTM_F_FIB_MATCH`).
    pub next_hops: BTreeMap<IpAddr, FibLookup>,
    /// For each WireGuard link that leads to a peer, its peers; or why they cannot be read.
    pub wireguard: BTreeMap<u32, Result<Vec<WireguardPeer>, String>>,
    /// Values of sysctls; one that the kernel does not have, or that cannot be read, is absent.
    pub sysctls: BTreeMap<Sysctl, String>,
    /// The table `inet hostgw`.
    pub nft: Option<ObservedNftTable>,
    /// Others' chains at the forward hook.
    pub forward_chains: Vec<ForwardChain>,
    /// How many neighbours the kernel keeps (`gc_thresh3`), where that is worth knowing and can be seen.
    pub neighbour_limits: PerFamily<u32>,
    /// What else may stand in the way of pods' packets.
    pub obstacles: Vec<Obstacle>,
    /// The conflist's bytes.
    pub conflist: Option<Vec<u8>>,
    /// The file whose existence lets the plugin's STATUS succeed.
    pub ready_file: bool,
}

impl ObservedNode {
    /// Every address of this node, with the link that holds it.
    pub fn addresses(&self) -> impl Iterator<Item = (&ObservedLink, &ObservedAddress)> {
        self.links.values().flat_map(|link| link.addresses.iter().map(move |address| (link, address)))
    }

    /// The link that holds `address`, and the address's flags.
    #[must_use]
    pub fn holder_of(&self, address: IpAddr) -> Option<(&ObservedLink, &ObservedAddress)> {
        self.addresses().find(|(_, held)| held.address.addr() == address)
    }

    /// The link of the default route with the lowest metric in the main table.
    #[must_use]
    pub fn default_route_link(&self, family: Family) -> Option<&ObservedLink> {
        let defaults = self.routes.iter().filter(|route| {
            route.key.table == MAIN_TABLE
                && route.kind == RouteKind::Unicast
                && route.key.dst.prefix_len() == 0
                && Family::of_net(&route.key.dst) == family
        });
        let best = defaults.min_by_key(|route| route.key.metric)?;
        best.legs.iter().find_map(|leg| self.links.get(&leg.link))
    }

    /// What the choice of desired routes needs to know of this node.
    #[must_use]
    pub fn host_facts(&self, settings: &Settings) -> HostFacts {
        let pod_bridge = settings.pod_bridge();
        let mut facts = HostFacts { announced: self.conflist.is_some(), ..HostFacts::default() };
        facts.bridge_fault = pod_bridge.and_then(|name| self.bridge_fault(name, settings));
        facts.lan_bridge_missing = settings.lan_bridge().is_some_and(|name| {
            !self.links.values().any(|link| link.name == name && link.kind == LinkKind::Bridge)
        });
        let pods_own = |link: &ObservedLink| {
            let named = pod_bridge == Some(link.name.as_str()) && facts.bridge_fault.is_none();
            named || link.is_pod_link() || self.has_pod_ports(link, settings)
        };
        let of_pods: BTreeSet<u32> = self.links.values().filter(|l| pods_own(l)).map(|l| l.index).collect();
        for (link, address) in self.addresses() {
            if link.mtu < MIN_MTU_V6 {
                facts.links_without_ipv6.insert(link.name.clone(), link.mtu);
            }
            if link.up && address.usable {
                facts.usable_addresses.insert(address.address.addr());
            }
            facts.local_addresses.entry(address.address.addr()).or_insert_with(|| link.name.clone());
            let of_pods = of_pods.contains(&link.index);
            let prefix = address.address.trunc();
            if !of_pods && link.kind != LinkKind::Loopback && prefix != host_prefix(address.address.addr()) {
                facts.on_link_prefixes.push((prefix, link.name.clone()));
            }
        }
        let guards =
            self.routes.iter().filter(|route| route.is_ours() && route.kind == RouteKind::Unreachable);
        facts.guards = guards.map(|route| route.key.dst).collect();
        let foreign = self.routes.iter().filter(|route| !route.is_ours() && !route.is_pods());
        let legs = foreign.flat_map(|route| &route.legs).filter(|leg| !of_pods.contains(&leg.link));
        facts.gateways = legs.filter_map(|leg| leg.via).collect();
        facts
    }

    /// A bridge that only pods are joined to.
    fn has_pod_ports(&self, bridge: &ObservedLink, settings: &Settings) -> bool {
        let mut ports = self.links.values().filter(|port| port.master == Some(bridge.index)).peekable();
        ports.peek().is_some() && ports.all(|port| settings.is_pod_port(port))
    }

    fn bridge_fault(&self, name: &str, settings: &Settings) -> Option<BridgeFault> {
        let bridge = self.links.values().find(|link| link.name == name)?;
        if bridge.kind != LinkKind::Bridge {
            return Some(BridgeFault::NoBridge);
        }
        let mut ports = self.links.values().filter(|port| port.master == Some(bridge.index));
        let foreign = ports.find(|port| !settings.is_pod_port(port))?;
        Some(BridgeFault::ForeignPort(foreign.name.clone()))
    }
}

/// `RT_TABLE_MAIN` (`linux/rtnetlink.h`).
pub const MAIN_TABLE: u32 = 254;

/// Why a link cannot be the pods' bridge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BridgeFault {
    /// A link of another kind has the name.
    #[error("is a link and no bridge")]
    NoBridge,
    /// The bridge joins something else: with the node's uplink in it, rules about pods would hit the network.
    #[error("has port `{0}`, which is no pod's")]
    ForeignPort(String),
}

/// What the choice of desired routes needs to know of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Every address of this node, and the name of the link that holds it.
    pub local_addresses: BTreeMap<IpAddr, String>,
    /// Those of links that are up, which are neither tentative nor duplicates.
    pub usable_addresses: BTreeSet<IpAddr>,
    /// Links with addresses that are too small for IPv6, and their MTUs in bytes.
    pub links_without_ipv6: BTreeMap<String, u32>,
    /// Next hops of others' routes, but for those that lead to pods.
    pub gateways: BTreeSet<IpAddr>,
    /// Why the bridge that the settings name for pods is none of the pods'.
    pub bridge_fault: Option<BridgeFault>,
    /// The settings name a bridge to the LAN (mode `l2`), and there is none of that name.
    pub lan_bridge_missing: bool,
    /// Connected prefixes of links that are not pods', and the links' names.
    pub on_link_prefixes: Vec<(IpNet, String)>,
    /// Our guards now: this node's pod CIDRs as it last knew them.
    pub guards: Vec<IpNet>,
    /// The runtime was given a CNI configuration: pods may have addresses of the guarded CIDRs.
    pub announced: bool,
}
