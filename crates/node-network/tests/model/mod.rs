//! A kernel and a cluster small enough to be generated, with every kind of trouble in them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use node_network::cluster::{ClusterNode, ClusterSnapshot, Freshness, NodeName, SourceKind};
use node_network::desired::{DesiredInputs, DesiredNode, NftTable, PluginPaths, Sysctl, desired};
use node_network::observed::{
    ChainPosition, FibLookup, FibMatch, ForwardChain, Leg, LinkKind, ObservedAccept, ObservedAddress,
    ObservedLink, ObservedNftTable, ObservedRoute, PublicKey, RouteKey, RouteKind, WireguardPeer,
};
use node_network::plan::{ForwardRuleChange, NftChange, RouteChange, WantedRoute};
use node_network::{Change, Family, NODE_ROUTE_PROTOCOL, ObservedNode, PerFamily, Plan, Settings, plan};
use proptest::prelude::*;

/// Everything that a pass starts from.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) this_node: NodeName,
    pub(crate) snapshot: ClusterSnapshot,
    pub(crate) settings: Settings,
    pub(crate) attached: BTreeSet<IpAddr>,
    pub(crate) observed: ObservedNode,
}

impl World {
    pub(crate) fn desired(&self) -> DesiredNode {
        desired(&DesiredInputs {
            this_node: &self.this_node,
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

    /// Without anything of one family.
    pub(crate) fn without(mut self, family: Family) -> Self {
        let other = |net: &IpNet| Family::of_net(net) != family;
        for node in self.snapshot.nodes.values_mut() {
            let (cidrs, ips) = (node.pod_cidrs.clone(), node.internal_ips.clone());
            node.pod_cidrs = only(&cidrs, family);
            node.internal_ips = only(&ips, family);
        }
        self.attached.retain(|address| Family::of(*address) != family);
        self.observed.routes.retain(|route| other(&route.key.dst));
        self.observed.next_hops.retain(|address, _| Family::of(*address) != family);
        self.observed.forward_chains.retain(|chain| chain.family != family);
        for link in self.observed.links.values_mut() {
            link.addresses.retain(|held| other(&held.address));
        }
        self
    }
}

fn only<T: Copy>(values: &PerFamily<T>, without: Family) -> PerFamily<T> {
    let mut kept = PerFamily::default();
    for (family, value) in values.iter().filter(|(family, _)| *family != without) {
        kept.insert(family, *value);
    }
    kept
}

/// What the kernel and the files hold after the plan was carried out.
pub(crate) fn apply(observed: &ObservedNode, plan: &Plan) -> ObservedNode {
    let mut node = observed.clone();
    for change in plan.changes() {
        match change {
            Change::Sysctl(change) => {
                assert_eq!(
                    node.sysctls.insert(change.sysctl.clone(), change.to.to_owned()),
                    Some(change.from.clone())
                );
            }
            Change::Nft(NftChange::Create(table)) => {
                assert!(node.nft.is_none());
                node.nft = Some(as_observed(table));
            }
            Change::Nft(NftChange::Rebuild(table)) => node.nft = Some(as_observed(table)),
            Change::Nft(NftChange::Elements(changes)) => {
                for change in changes {
                    let set = node.nft.as_mut().unwrap().sets.get_mut(change.set.as_str()).unwrap();
                    set.retain(|element| !change.remove.contains(element));
                    set.extend(&change.add);
                }
            }
            Change::ForwardRule(change) => apply_forward_rule(&mut node.forward_chains, change),
            Change::AllowedIps(change) => {
                let peers = node.wireguard.get_mut(&change.link).unwrap().as_mut().unwrap();
                for peer in peers.iter_mut() {
                    peer.allowed_ips.retain(|net| *net != change.pod_cidr);
                }
                let peer = peers.iter_mut().find(|peer| peer.public_key == change.peer).unwrap();
                peer.allowed_ips.push(change.pod_cidr);
            }
            Change::Route(change) => apply_route(&mut node.routes, change),
            Change::ReadyFile => node.ready_file = true,
            Change::Conflist(conflist) => node.conflist = Some(conflist.render().into_bytes()),
        }
    }
    node
}

fn as_observed(table: &NftTable) -> ObservedNftTable {
    let rules = table
        .chains
        .iter()
        .flat_map(|chain| chain.rules.iter().map(|rule| (chain.name.to_owned(), rule.comment())));
    ObservedNftTable {
        chains: table.chains.iter().map(|chain| (chain.name.to_owned(), chain.to_string())).collect(),
        rules: rules.collect(),
        sets: table.sets.iter().map(|(set, elements)| (set.as_str().to_owned(), elements.clone())).collect(),
    }
}

fn apply_forward_rule(chains: &mut [ForwardChain], change: &ForwardRuleChange) {
    let (ForwardRuleChange::Insert { place, .. } | ForwardRuleChange::Remove { place, .. }) = change;
    let chain =
        chains.iter_mut().find(|chain| chain.family == place.family && chain.table == place.table).unwrap();
    assert!(chain.owned_by_iptables, "only iptables' chains are ours to add to");
    match change {
        ForwardRuleChange::Insert { accept, .. } => {
            let handle = 1 + chain.accepts.iter().map(|seen| seen.handle).max().unwrap_or_default();
            let position = place.position;
            chain.accepts.push(ObservedAccept { position, accept: *accept, on_top: true, handle });
        }
        ForwardRuleChange::Remove { handle, .. } => {
            let before = chain.accepts.len();
            chain.accepts.retain(|seen| seen.handle != *handle);
            assert_eq!(before, chain.accepts.len() + 1);
        }
    }
}

fn apply_route(routes: &mut Vec<ObservedRoute>, change: &RouteChange) {
    let remove = |routes: &mut Vec<ObservedRoute>, key: RouteKey, leg: Option<Leg>| {
        let before = routes.len();
        routes.retain(|r| !(r.key == key && r.is_ours_alone() && r.legs.first().copied() == leg));
        assert_eq!(before, routes.len() + 1, "a delete hits exactly the route that it names");
    };
    match change {
        RouteChange::Add { route, superseded } => {
            assert!(!routes.iter().any(|r| r.key == route.key), "CREATE|EXCL over {}", route.key);
            routes.push(installed(route));
            superseded.iter().for_each(|old| remove(routes, old.key, old.leg));
        }
        RouteChange::Replace { route, old, superseded } => {
            assert_eq!(old.key, route.key);
            // As the kernel does: whoever's route it is.
            routes.retain(|r| r.key != route.key);
            routes.push(installed(route));
            superseded.iter().for_each(|old| remove(routes, old.key, old.leg));
        }
        RouteChange::Delete { routes: gone, .. } => {
            gone.iter().for_each(|old| remove(routes, old.key, old.leg));
        }
    }
}

fn installed(route: &WantedRoute) -> ObservedRoute {
    ObservedRoute {
        key: route.key,
        protocol: NODE_ROUTE_PROTOCOL,
        kind: if route.leg.is_some() { RouteKind::Unicast } else { RouteKind::Unreachable },
        legs: route.leg.iter().map(|leg| Leg { via: Some(leg.via), link: leg.link }).collect(),
        prefsrc: route.leg.as_ref().and_then(|leg| leg.prefsrc),
        uses_nexthop_object: false,
    }
}

const CIDRS4: [&str; 9] = [
    "10.244.0.0/24",
    "10.244.1.0/24",
    "10.244.2.0/24",
    "10.244.0.0/22",
    "10.244.2.128/25",
    "172.17.0.0/16",
    "172.17.5.0/24",
    "192.0.2.0/24",
    "192.0.2.128/28",
];
const CIDRS6: [&str; 5] =
    ["fd00:0:0:0::/64", "fd00:0:0:1::/64", "fd00:0:0:2::/64", "fd00::/60", "2001:db8::/64"];
const HOPS4: [&str; 4] = ["192.0.2.10", "192.0.2.11", "192.0.2.12", "10.244.1.9"];
const HOPS6: [&str; 3] = ["2001:db8::10", "2001:db8::11", "2001:db8::12"];

fn pick<T: std::str::FromStr + Clone + std::fmt::Debug + 'static>(
    from: &'static [&'static str],
) -> impl Strategy<Value = T>
where
    T::Err: std::fmt::Debug,
{
    proptest::sample::select(from).prop_map(|text| text.parse().unwrap())
}

fn any_cidr() -> impl Strategy<Value = IpNet> {
    prop_oneof![pick::<IpNet>(&CIDRS4), pick::<IpNet>(&CIDRS6)]
}

fn any_hop() -> impl Strategy<Value = IpAddr> {
    prop_oneof![pick::<IpAddr>(&HOPS4), pick::<IpAddr>(&HOPS6)]
}

fn any_node(name: &'static str) -> impl Strategy<Value = ClusterNode> {
    use proptest::option::weighted as option;
    let cidrs = (option(0.9, pick::<IpNet>(&CIDRS4)), option(0.8, pick::<IpNet>(&CIDRS6)));
    let hops = (option(0.9, pick::<IpAddr>(&HOPS4)), option(0.8, pick::<IpAddr>(&HOPS6)));
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    (cidrs, hops, "[a-c]", option(0.7, 0i64..3), flags).prop_map(
        move |(cidrs, hops, uid, created, (terminating, unreadable_pod_cidr))| {
            let (mut pod_cidrs, mut internal_ips) = (PerFamily::default(), PerFamily::default());
            [cidrs.0, cidrs.1].into_iter().flatten().for_each(|cidr| {
                pod_cidrs.insert(Family::of_net(&cidr), cidr);
            });
            [hops.0, hops.1].into_iter().flatten().for_each(|hop| {
                internal_ips.insert(Family::of(hop), hop);
            });
            let name = NodeName::new(name).unwrap();
            let further_internal_ips = Vec::new();
            ClusterNode {
                name,
                uid,
                created,
                terminating,
                internal_ips,
                further_internal_ips,
                pod_cidrs,
                unreadable_pod_cidr,
                lan_slices: PerFamily::default(),
                unreadable_lan_slice: false,
            }
        },
    )
}

fn any_snapshot() -> impl Strategy<Value = ClusterSnapshot> {
    let nodes = ["n0", "n1", "n2", "n3", "n4"].map(|name| proptest::option::weighted(0.8, any_node(name)));
    let source = prop_oneof![Just(SourceKind::Kubernetes), Just(SourceKind::File)];
    let freshness = prop_oneof![
        4 => Just(Freshness::Synced),
        1 => Just(Freshness::Cached { age_seconds: 7 }),
    ];
    let left_out = prop_oneof![9 => Just(0usize), 1 => Just(1usize)];
    (nodes, source, freshness, left_out).prop_map(|(nodes, source, freshness, left_out)| ClusterSnapshot {
        source,
        freshness,
        nodes: nodes.into_iter().flatten().map(|node| (node.name.clone(), node)).collect(),
        problems: Vec::new(),
        left_out,
    })
}

fn any_route() -> impl Strategy<Value = ObservedRoute> {
    let protocol = prop_oneof![4 => Just(104u8), 1 => Just(105u8), 1 => Just(3u8), 1 => Just(186u8)];
    let metric = prop_oneof![3 => Just(104u32), 1 => Just(0u32), 1 => Just(200u32), 1 => Just(104_000u32)];
    let table = prop_oneof![4 => Just(254u32), 1 => Just(100u32)];
    let legs = prop::collection::vec((any_hop(), 2u32..5), 1..3);
    (any_cidr(), table, metric, protocol, legs, prop::bool::weighted(0.2), prop::bool::weighted(0.1))
        .prop_map(|(dst, table, metric, protocol, legs, unreachable, uses_nexthop_object)| {
            let same_family = legs.into_iter().filter(|(hop, _)| Family::of(*hop) == Family::of_net(&dst));
            let legs = same_family.map(|(via, link)| Leg { via: Some(via), link }).collect();
            ObservedRoute {
                key: RouteKey { dst, table, metric, tos: 0 },
                protocol,
                kind: if unreachable { RouteKind::Unreachable } else { RouteKind::Unicast },
                legs: if unreachable { Vec::new() } else { legs },
                prefsrc: None,
                uses_nexthop_object,
            }
        })
}

fn any_look_up() -> impl Strategy<Value = FibLookup> {
    let found = |dst: &str, protocol, kind, via: Option<&str>, link| {
        let legs = vec![Leg { via: via.map(|via| via.parse().unwrap()), link }];
        Ok(Arc::new(FibMatch { dst: dst.parse().unwrap(), table: 254, protocol, kind, metric: 0, legs }))
    };
    prop_oneof![
        6 => Just(found("192.0.2.0/24", 2, RouteKind::Unicast, None, 2)),
        1 => Just(found("192.0.2.0/24", 2, RouteKind::Unicast, None, 3)),
        1 => Just(found("172.17.0.0/16", 2, RouteKind::Unicast, None, 4)),
        1 => Just(found("0.0.0.0/0", 3, RouteKind::Unicast, Some("192.0.2.1"), 2)),
        1 => Just(found("10.0.0.0/8", 3, RouteKind::Unicast, Some("192.0.2.1"), 2)),
        1 => Just(found("10.244.1.0/24", 104, RouteKind::Unicast, Some("192.0.2.11"), 2)),
        1 => Just(found("192.0.2.11/32", 2, RouteKind::Local, None, 1)),
        1 => Just(found("192.0.2.0/24", 2, RouteKind::Unicast, None, 99)),
        2 => Just(Err("network is unreachable".to_owned())),
    ]
}

fn links() -> BTreeMap<u32, ObservedLink> {
    let link = |index, name: &str, kind, addresses: &[&str]| {
        let held =
            |text: &&str| ObservedAddress { address: text.parse().unwrap(), usable: true, stable: true };
        let addresses = addresses.iter().map(held).collect();
        let link = ObservedLink {
            index,
            name: name.to_owned(),
            kind,
            up: true,
            mtu: 1500,
            master: None,
            addresses,
            learns_from_router_advertisements: name == "eth0",
        };
        (index, link)
    };
    BTreeMap::from([
        link(1, "lo", LinkKind::Loopback, &["127.0.0.1/8", "::1/128"]),
        link(2, "eth0", LinkKind::Other, &["192.0.2.10/24", "2001:db8::10/64"]),
        link(3, "hgw0123", LinkKind::Veth, &["10.244.0.1/32"]),
        link(4, "docker0", LinkKind::Bridge, &["172.17.0.1/16"]),
    ])
}

fn any_chain(family: Family) -> impl Strategy<Value = ForwardChain> {
    let accept = (any_cidr(), prop::bool::ANY, prop::bool::ANY, prop::bool::ANY, 1u64..50);
    let accepts = prop::collection::vec(accept, 0..4);
    (accepts, prop::bool::ANY, prop::bool::ANY, prop::bool::ANY).prop_map(
        move |(accepts, drops, owned_by_iptables, docker_user)| {
            let mut handles = BTreeSet::new();
            let accepts = accepts.into_iter().filter(|(cidr, .., handle)| {
                Family::of_net(cidr) == family && owned_by_iptables && handles.insert(*handle)
            });
            let seen = accepts.map(|(prefix, from, forward, on_top, handle)| {
                use node_network::desired::{Direction, ForwardAccept};
                let direction = if from { Direction::From } else { Direction::To };
                let position = if forward { ChainPosition::Forward } else { ChainPosition::DockerUser };
                ObservedAccept { position, accept: ForwardAccept { prefix, direction }, on_top, handle }
            });
            ForwardChain {
                family,
                table: "filter".to_owned(),
                chain: "FORWARD".to_owned(),
                drops,
                owned_by_iptables,
                docker_user,
                accepts: seen.collect(),
            }
        },
    )
}

fn one_peer_per_hop() -> Vec<WireguardPeer> {
    let hops = HOPS4.iter().chain(&HOPS6).map(|hop| IpNet::from(hop.parse::<IpAddr>().unwrap()));
    let peer = |(hop, number)| WireguardPeer { public_key: PublicKey([number; 32]), allowed_ips: vec![hop] };
    hops.zip(0..).map(peer).collect()
}

fn any_observed() -> impl Strategy<Value = ObservedNode> {
    let look_ups =
        prop::collection::vec(proptest::option::weighted(0.9, any_look_up()), HOPS4.len() + HOPS6.len());
    let sysctls = (prop::bool::ANY, prop::bool::ANY, prop::bool::weighted(0.9));
    let chains =
        (proptest::option::of(any_chain(Family::Ipv4)), proptest::option::of(any_chain(Family::Ipv6)));
    let files = (proptest::option::of(Just(b"stale".to_vec())), prop::bool::ANY, prop::bool::ANY);
    let nft = proptest::option::of(Just(ObservedNftTable::default()));
    (prop::collection::vec(any_route(), 0..12), look_ups, sysctls, chains, files, nft).prop_map(
        |(routes, look_ups, (v4, v6, readable), chains, (conflist, ready_file, behind_wireguard), nft)| {
            let mut keys = BTreeSet::new();
            let routes = routes.into_iter().filter(|route| keys.insert(route.key)).collect();
            let hops = HOPS4.iter().chain(&HOPS6).map(|hop| hop.parse().unwrap());
            let next_hops = hops.zip(look_ups).filter_map(|(hop, look_up)| Some((hop, look_up?))).collect();
            let flag = |on: bool| if on { "1" } else { "0" }.to_owned();
            let mut sysctls = BTreeMap::from([(Sysctl::Ipv4Forward, flag(v4))]);
            if readable {
                sysctls.insert(Sysctl::Ipv6Forwarding, flag(v6));
                let accept_ra = Sysctl::AcceptRa(link_name::LinkName::new("eth0").unwrap());
                sysctls.insert(accept_ra, "1".to_owned());
            }
            let forward_chains = [chains.0, chains.1].into_iter().flatten().collect();
            let links = links();
            let obstacles = Vec::new();
            let wireguard = links.keys().map(|index| (*index, Ok(one_peer_per_hop()))).collect();
            ObservedNode {
                wireguard: if behind_wireguard { wireguard } else { BTreeMap::new() },
                links,
                routes,
                next_hops,
                sysctls,
                nft,
                forward_chains,
                neighbour_limits: PerFamily::default(),
                obstacles,
                conflist,
                ready_file,
            }
        },
    )
}

pub(crate) fn any_world() -> impl Strategy<Value = World> {
    let attached = prop::collection::btree_set(
        prop_oneof![
            Just("10.9.9.9".parse().unwrap()),
            Just("10.244.1.7".parse().unwrap()),
            Just("fd99::9".parse().unwrap())
        ],
        0..3,
    );
    (any_snapshot(), any_observed(), attached, prop::bool::ANY, prop::bool::ANY).prop_map(
        |(snapshot, observed, attached, restrict, maintain)| {
            let mut settings = Settings::default();
            settings.forwarding.restrict_to_pods = restrict;
            settings.routes.maintain_allowed_ips = maintain;
            World { this_node: NodeName::new("n1").unwrap(), snapshot, settings, attached, observed }
        },
    )
}
