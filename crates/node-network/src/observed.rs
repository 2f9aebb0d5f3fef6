//! What this node's kernel and files hold, as values: ours, and of others' what could stand in our way.

mod filter;
mod link;
mod nft;
mod route;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

pub use filter::{ChainPosition, ForwardChain, ObservedAccept};
pub use link::{LinkKind, ObservedAddress, ObservedLink};
pub use nft::ObservedNftTable;
pub use route::{FibLookup, FibMatch, Leg, ObservedRoute, RouteKey, RouteKind};

use crate::desired::Sysctl;
use crate::family::{Family, host_prefix};

/// This node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedNode {
    /// Every link, by its index.
    pub links: BTreeMap<u32, ObservedLink>,
    /// Routes of protocol 104 in every table, and all routes of the tables that the settings and `main` name.
    pub routes: Vec<ObservedRoute>,
    /// For each peer's address, the kernel's look-up (`RTM_GETROUTE` with `RTM_F_FIB_MATCH`).
    pub next_hops: BTreeMap<IpAddr, FibLookup>,
    /// Values of sysctls; one that the kernel does not have, or that cannot be read, is absent.
    pub sysctls: BTreeMap<Sysctl, String>,
    /// The table `inet hostgw`.
    pub nft: Option<ObservedNftTable>,
    /// Others' chains at the forward hook.
    pub forward_chains: Vec<ForwardChain>,
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
    pub fn host_facts(&self, pod_bridge: Option<&str>) -> HostFacts {
        let mut facts = HostFacts { announced: self.conflist.is_some(), ..HostFacts::default() };
        for (link, address) in self.addresses() {
            facts.local_addresses.entry(address.address.addr()).or_insert_with(|| link.name.clone());
            let of_pods = link.is_pod_link() || pod_bridge == Some(link.name.as_str());
            let prefix = address.address.trunc();
            if !of_pods && link.kind != LinkKind::Loopback && prefix != host_prefix(address.address.addr()) {
                facts.on_link_prefixes.push((prefix, link.name.clone()));
            }
        }
        for route in self.routes.iter().filter(|route| route.is_ours()) {
            match route.kind {
                RouteKind::Unicast => {
                    let hops = route.legs.iter().filter_map(|leg| leg.via);
                    facts.holders.entry(route.key.dst).or_default().extend(hops);
                }
                RouteKind::Unreachable => facts.guards.push(route.key.dst),
                _ => {}
            }
        }
        facts
    }
}

/// `RT_TABLE_MAIN` (`linux/rtnetlink.h`).
pub const MAIN_TABLE: u32 = 254;

/// What the choice of desired routes needs to know of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Every address of this node, and the name of the link that holds it.
    pub local_addresses: BTreeMap<IpAddr, String>,
    /// Connected prefixes of links that are not pods', and the links' names.
    pub on_link_prefixes: Vec<(IpNet, String)>,
    /// Next hops of our routes now, by destination: the present holder of a pod CIDR.
    pub holders: BTreeMap<IpNet, Vec<IpAddr>>,
    /// Our guards now: this node's pod CIDRs as it last knew them.
    pub guards: Vec<IpNet>,
    /// The runtime was given a CNI configuration: pods may have addresses of the guarded CIDRs.
    pub announced: bool,
}
