//! What this node's network must be, decided from the cluster and the settings.

mod address_ranges;
mod census;
mod claimed;
mod cni_conflist;
mod forwarding;
mod lan_slices;
mod masquerade;
mod nft_table;
mod node_addresses;
mod own_clash;
mod precedence;
mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cni_spec::MIN_MTU_V6;
use ipnet::IpNet;

use census::Census;
pub use cni_conflist::{Conflist, GENERATED_BY, GENERATOR};
pub use forwarding::{Direction, ForwardAccept, Sysctl, WantedSysctl};
pub use lan_slices::SliceFault;
pub use nft_table::{BaseChain, ChainKind, Hook, Match, NftTable, Rule, SetName, TABLE_NAME, Verdict};
pub use own_clash::OwnClash;
pub use routes::{DesiredRoute, GUARD_METRIC};

use crate::cluster::{ClusterNode, ClusterSnapshot, Freshness, NodeName};
use crate::condition::{Condition, LanCondition, MtuCondition};
use crate::family::{Family, PerFamily, host_prefix};
use crate::observed::{HostFacts, ObservedRoute};
use crate::settings::{Chain, Mode, Settings};

/// Everything that the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct DesiredInputs<'a> {
    /// The node on which this runs.
    pub this_node: &'a NodeName,
    /// The cluster.
    pub snapshot: &'a ClusterSnapshot,
    /// What the operator chose; validated.
    pub settings: &'a Settings,
    /// What this node holds that bears on the choice ([`crate::ObservedNode::host_facts`]).
    pub host: &'a HostFacts,
    /// The routes that it holds; only ours count.
    pub routes: &'a [ObservedRoute],
    /// Addresses of the pods attached to this node, from their records.
    pub attached: &'a BTreeSet<IpAddr>,
    /// Paths that the plugin is told.
    pub paths: &'a PluginPaths,
}

/// Paths that the plugin is told, absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginPaths {
    /// Folder of the attachment records.
    pub data_dir: String,
    /// The file without which STATUS fails.
    pub ready_file: String,
    /// Folder of the leases.
    pub lease_dir: String,
}

impl Default for PluginPaths {
    fn default() -> Self {
        Self {
            data_dir: "/run/hostgw/ipam".to_owned(),
            ready_file: "/run/hostgw/ready".to_owned(),
            lease_dir: "/var/lib/hostgw/leases".to_owned(),
        }
    }
}

/// What this node's network must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredNode {
    /// One route a destination.
    pub routes: BTreeMap<IpNet, DesiredRoute>,
    /// Peers' CIDRs that get no route; the conditions say why.
    pub refused: Vec<(NodeName, IpNet)>,
    /// Routes of ours may be deleted: the source was read whole, lists this node, and its CIDRs can be read.
    pub may_delete: bool,
    /// Families in which routes that seem to be nobody's may belong to a node that cannot be told.
    pub kept_orphans: BTreeSet<Family>,
    /// This node's internal addresses, one a family.
    pub internal_ips: PerFamily<IpAddr>,
    /// What depends on this node's own Node object; `None` while that is not known for certain, and then nothing of
    /// it is touched.
    pub own: Option<OwnNetwork>,
    /// What an operator should know.
    pub conditions: Vec<Condition>,
}

/// What depends on this node's own Node object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnNetwork {
    /// The pod CIDR of each family.
    pub pod_cidrs: PerFamily<IpNet>,
    /// Prefixes of pods on this node: its CIDRs, and living pods outside of them.
    pub pod_prefixes: Vec<IpNet>,
    /// Sysctls, in the order in which they must be set.
    pub sysctls: Vec<WantedSysctl>,
    /// The table `inet hostgw`.
    pub nft: NftTable,
    /// What iptables' FORWARD chains must accept where they drop by policy.
    pub forward_accepts: BTreeSet<ForwardAccept>,
    /// The CNI configuration; none without a pod CIDR, or where pods could not start by it.
    pub conflist: Option<Conflist>,
    /// The node may be announced for the first time. An announced node is never withdrawn.
    pub announce: bool,
    /// Pods cannot be connected before there is a bridge: since the boot, the node has no data path yet.
    pub awaits_bridge: bool,
}

/// Decides what this node's network must be.
#[must_use]
pub fn desired(inputs: &DesiredInputs<'_>) -> DesiredNode {
    let DesiredInputs { this_node, snapshot, .. } = *inputs;
    let mut conditions: Vec<_> = snapshot.problems.iter().cloned().map(Condition::BadNodeObject).collect();
    let this = snapshot.nodes.get(this_node);
    if this.is_none() {
        conditions.push(Condition::ThisNodeMissing { node: this_node.clone(), nodes: snapshot.nodes.len() });
    }
    if this.is_some_and(|this| this.unreadable_pod_cidr) {
        conditions.push(Condition::OwnPodCidrUnreadable { node: this_node.clone() });
    }
    if snapshot.left_out > 0 {
        conditions.push(Condition::ObjectsLeftOut { objects: snapshot.left_out });
    }
    if let Freshness::Cached { age_seconds } = snapshot.freshness {
        conditions.push(Condition::CachedSource { age_seconds });
    }
    let certain = routes::known_for_certain(this_node, snapshot);
    let census = Census::of(this_node, snapshot);
    let choice = if inputs.settings.mode.is_of_lan() {
        // Pods are on link, or answered for by their nodes.
        routes::RouteChoice::default()
    } else {
        routes::desired_routes(inputs, &census)
    };
    conditions.extend(choice.conditions);
    let undisputed = choice.lost_own.is_empty() && choice.clashing_own.is_empty();
    let own = certain.map(|this| own_network(inputs, this, &census, undisputed, &mut conditions));
    DesiredNode {
        routes: choice.routes,
        refused: choice.refused,
        may_delete: certain.is_some(),
        kept_orphans: Family::BOTH
            .into_iter()
            .filter(|family| snapshot.left_out > 0 || has_untold(&census.unreadable, *family))
            .collect(),
        internal_ips: this.map(|this| this.internal_ips.clone()).unwrap_or_default(),
        own,
        conditions,
    }
}

/// A node of which neither the pod CIDR nor the next hop of this family is known, so that none of the installed routes
/// can be said not to be its.
fn has_untold(unreadable: &[&ClusterNode], family: Family) -> bool {
    unreadable
        .iter()
        .any(|node| node.pod_cidrs.get(family).is_none() && node.internal_ips.get(family).is_none())
}

fn own_network(
    inputs: &DesiredInputs<'_>,
    this: &ClusterNode,
    census: &Census<'_>,
    undisputed: bool,
    conditions: &mut Vec<Condition>,
) -> OwnNetwork {
    let DesiredInputs { snapshot, settings, host, attached, paths, .. } = *inputs;
    let (pod_cidrs, mut faults) = if settings.mode.is_of_lan() {
        lan_slices::own_slices(this, snapshot, settings, host)
    } else {
        (this.pod_cidrs.clone(), Vec::new())
    };
    if pod_cidrs.is_empty() && !settings.mode.is_of_lan() {
        conditions.push(Condition::NoPodCidr { node: this.name.clone() });
    }
    let mut reachable = false;
    for (family, _) in pod_cidrs.iter() {
        match this.internal_ips.get(family) {
            Some(ip) if host.usable_addresses.contains(ip) => reachable = true,
            None => conditions.push(Condition::NoInternalIp { node: this.name.clone(), family }),
            Some(ip) if !host.local_addresses.contains_key(ip) => {
                conditions.push(Condition::InternalIpNotLocal { address: *ip });
            }
            Some(ip) => conditions.push(Condition::InternalIpNotUsable { address: *ip }),
        }
    }
    if pod_cidrs.get(Family::Ipv6).is_some() {
        conditions.extend(uplinks_without_ipv6(this, host));
    }
    let own_cidrs: Vec<IpNet> = pod_cidrs.values().copied().collect();
    conditions.extend(own_cidrs.iter().filter_map(|cidr| exhausted(*cidr, attached)));
    let strays = attached.iter().filter(|address| !own_cidrs.iter().any(|cidr| cidr.contains(*address)));
    let pod_prefixes =
        IpNet::aggregate(&own_cidrs.iter().copied().chain(strays.copied().map(host_prefix)).collect());
    let nft = masquerade::nft_table(this, census, settings, host, &pod_prefixes);
    faults.extend(conflist_faults(&pod_cidrs, settings, host));
    let records = attached.len();
    if settings.cni.chain == Chain::Classic && records > 0 {
        faults.push(Condition::ChainSwitchWaits { addresses: records });
    }
    let refused = !faults.is_empty();
    conditions.extend(faults);
    let conflist =
        (!refused && !pod_cidrs.is_empty()).then(|| Conflist::new(this, &pod_cidrs, settings, paths));
    let mut sysctls = forwarding::sysctls(&pod_prefixes, settings);
    if settings.mode == Mode::L2Routed {
        sysctls.extend(forwarding::answering(this, &pod_cidrs, settings, host));
    }
    OwnNetwork {
        pod_cidrs,
        sysctls,
        forward_accepts: forwarding::forward_accepts(&pod_prefixes, settings),
        nft,
        conflist,
        announce: undisputed && reachable && !refused,
        awaits_bridge: host.lan_bridge_missing,
        pod_prefixes,
    }
}

/// The links with this node's internal addresses on which there can be no IPv6. Its IPv6 address has gone with it.
fn uplinks_without_ipv6(this: &ClusterNode, host: &HostFacts) -> Vec<Condition> {
    let uplinks: BTreeSet<&String> =
        this.internal_ips.values().filter_map(|ip| host.local_addresses.get(ip)).collect();
    let small = uplinks.into_iter().filter_map(|link| host.links_without_ipv6.get_key_value(link));
    let told = small.map(|(link, mtu)| MtuCondition::UplinkWithoutIpv6 { link: link.clone(), mtu: *mtu });
    told.map(Condition::Mtu).collect()
}

/// Whether a pod CIDR has no address left for another pod.
fn exhausted(pod_cidr: IpNet, attached: &BTreeSet<IpAddr>) -> Option<Condition> {
    let host_bits = u32::from(pod_cidr.max_prefix_len() - pod_cidr.prefix_len());
    // The network's address and the gateway's are no pod's, nor is IPv4's broadcast address.
    let reserved = if pod_cidr.network().is_ipv4() { 3 } else { 2 };
    let usable = 1_usize.checked_shl(host_bits)?.saturating_sub(reserved);
    let pods = attached.range(pod_cidr.network()..=pod_cidr.broadcast()).count();
    (pods > 0 && pods >= usable).then_some(Condition::PodCidrExhausted { pod_cidr, pods })
}

/// Why pods could not start by the conflist that the settings ask for; the last good one stays.
fn conflist_faults(pod_cidrs: &PerFamily<IpNet>, settings: &Settings, host: &HostFacts) -> Vec<Condition> {
    let mut faults = Vec::new();
    if pod_cidrs.get(Family::Ipv6).is_some() && (1..MIN_MTU_V6).contains(&settings.mtu) {
        faults.push(Condition::Mtu(MtuCondition::MtuTooSmall { mtu: settings.mtu }));
    }
    if let (Some(bridge), Some(fault)) = (settings.pod_bridge(), &host.bridge_fault) {
        faults.push(Condition::BridgeNotOfPods { bridge: bridge.to_owned(), fault: fault.clone() });
    }
    if let Some(bridge) = settings.lan_bridge().filter(|_| host.lan_bridge_missing) {
        faults.push(Condition::Lan(LanCondition::NoLanBridge { bridge: bridge.to_owned() }));
    }
    faults
}

impl OwnNetwork {
    /// Whether this node has pods of a family.
    #[must_use]
    pub fn has_pods_of(&self, family: Family) -> bool {
        self.pod_prefixes.iter().any(|prefix| Family::of_net(prefix) == family)
    }
}

#[cfg(test)]
mod tests;
