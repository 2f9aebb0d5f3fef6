//! For tests: a cluster of three dual-stack nodes on one network, seen from the first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{ClusterNode, ClusterSnapshot, Freshness, NodeName, SourceKind};
use crate::desired::{DesiredInputs, DesiredNode, PluginPaths, Sysctl, desired};
use crate::family::{Family, PerFamily};
use crate::observed::{
    FibLookup, FibMatch, Leg, LinkKind, ObservedAddress, ObservedLink, ObservedNode, ObservedRoute, RouteKey,
    RouteKind,
};
use crate::plan::{Plan, PlanDocument, plan};
use crate::settings::Settings;

#[derive(Debug)]
pub(crate) struct ThreeNodes {
    pub(crate) snapshot: ClusterSnapshot,
    pub(crate) settings: Settings,
    pub(crate) observed: ObservedNode,
    pub(crate) attached: BTreeSet<IpAddr>,
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// `node2`: 192.0.2.12, 2001:db8::12, pods in 10.244.2.0/24 and fd00:10:244:2::/64, created at second 2.
pub(crate) fn node(number: u8) -> ClusterNode {
    let mut node = ClusterNode {
        name: name(&format!("node{number}")),
        uid: format!("uid-{number}"),
        created: Some(i64::from(number)),
        terminating: false,
        internal_ips: PerFamily::default(),
        further_internal_ips: Vec::new(),
        pod_cidrs: PerFamily::default(),
        unreadable_pod_cidr: false,
        lan_slices: PerFamily::default(),
        unreadable_lan_slice: false,
    };
    node.internal_ips.insert(Family::Ipv4, ip(&format!("192.0.2.1{number}")));
    node.internal_ips.insert(Family::Ipv6, ip(&format!("2001:db8::1{number}")));
    set_cidr(&mut node, &format!("10.244.{number}.0/24"));
    set_cidr(&mut node, &format!("fd00:10:244:{number}::/64"));
    node
}

pub(crate) fn set_cidr(node: &mut ClusterNode, cidr: &str) {
    let cidr = cidr.parse().unwrap();
    node.pod_cidrs.insert(Family::of_net(&cidr), cidr);
}

pub(crate) fn link(index: u32, link_name: &str, kind: LinkKind, addresses: &[&str]) -> ObservedLink {
    let held = |text: &&str| ObservedAddress { address: text.parse().unwrap(), usable: true, stable: true };
    ObservedLink {
        index,
        name: link_name.to_owned(),
        kind,
        up: true,
        mtu: 1500,
        master: None,
        addresses: addresses.iter().map(held).collect(),
        learns_from_router_advertisements: false,
    }
}

pub(crate) fn found(dst: &str, protocol: u8, via: Option<&str>, link: u32) -> FibLookup {
    let legs = vec![Leg { via: via.map(ip), link }];
    Ok(Arc::new(FibMatch {
        dst: dst.parse().unwrap(),
        table: 254,
        protocol,
        kind: RouteKind::Unicast,
        metric: 0,
        legs,
    }))
}

pub(crate) fn route(dst: &str, metric: u32, protocol: u8, via: &str) -> ObservedRoute {
    ObservedRoute {
        key: RouteKey { dst: dst.parse().unwrap(), table: 254, metric, tos: 0 },
        protocol,
        kind: RouteKind::Unicast,
        legs: vec![Leg { via: Some(ip(via)), link: 2 }],
        prefsrc: Some(ip(if via.contains(':') { "2001:db8::11" } else { "192.0.2.11" })),
        uses_nexthop_object: false,
    }
}

impl ThreeNodes {
    pub(crate) fn new() -> Self {
        let links = [
            link(1, "lo", LinkKind::Loopback, &["127.0.0.1/8", "::1/128"]),
            link(2, "eth0", LinkKind::Other, &["192.0.2.11/24", "2001:db8::11/64"]),
        ];
        let mut next_hops = BTreeMap::new();
        for number in 2..=3 {
            next_hops.insert(ip(&format!("192.0.2.1{number}")), found("192.0.2.0/24", 2, None, 2));
            next_hops.insert(ip(&format!("2001:db8::1{number}")), found("2001:db8::/64", 2, None, 2));
        }
        let zero = |sysctl| (sysctl, "0".to_owned());
        Self {
            snapshot: ClusterSnapshot {
                source: SourceKind::Kubernetes,
                freshness: Freshness::Synced,
                nodes: (1..=3).map(node).map(|node| (node.name.clone(), node)).collect(),
                problems: Vec::new(),
                left_out: 0,
            },
            settings: Settings::default(),
            observed: ObservedNode {
                links: links.into_iter().map(|link| (link.index, link)).collect(),
                next_hops,
                sysctls: BTreeMap::from([zero(Sysctl::Ipv4Forward), zero(Sysctl::Ipv6Forwarding)]),
                ..ObservedNode::default()
            },
            attached: BTreeSet::new(),
        }
    }

    pub(crate) fn change(&mut self, node: &str, change: impl FnOnce(&mut ClusterNode)) {
        change(self.snapshot.nodes.get_mut(&name(node)).unwrap());
    }

    pub(crate) fn desired(&self) -> DesiredNode {
        desired(&DesiredInputs {
            this_node: &name("node1"),
            snapshot: &self.snapshot,
            settings: &self.settings,
            host: &self.observed.host_facts(&self.settings),
            routes: &self.observed.routes,
            attached: &self.attached,
            paths: &PluginPaths::default(),
        })
    }

    pub(crate) fn plan(&self) -> Plan {
        plan(&self.desired(), &self.observed, &self.settings)
    }

    /// The plan as people see it.
    pub(crate) fn shown(&self) -> String {
        PlanDocument::new("node1", &self.plan()).to_string()
    }

    /// Only the lines about routes, and the conditions.
    pub(crate) fn routes_shown(&self) -> String {
        let shown = self.shown();
        let wanted =
            |line: &&str| line.contains(" route ") || !line.starts_with(' ') && !line.starts_with("node ");
        shown.lines().filter(wanted).map(str::trim).collect::<Vec<_>>().join("\n")
    }
}
