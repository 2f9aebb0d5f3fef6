//! Slices of the LAN: whose they are, and which are refused.

use proptest::prelude::*;

use super::*;
use crate::desired::Sysctl;
use crate::observed::LinkKind;
use crate::settings::Mode;
use crate::three_nodes::{ThreeNodes, ip, link, set_cidr};
use ipnet::IpNet;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Three nodes on 192.0.2.0/24 and 2001:db8::/64, each with a slice of it.
fn flat() -> ThreeNodes {
    let mut cluster = ThreeNodes::new();
    cluster.settings.mode = Mode::L2Routed;
    cluster.settings.lan.subnets = vec![net("192.0.2.0/24"), net("2001:db8::/64")];
    for number in 1..=3 {
        cluster.change(&format!("node{number}"), |node| {
            set_cidr(node, &format!("192.0.2.{}/28", 128 + 16 * number));
            set_cidr(node, &format!("2001:db8::{number}:0/112"));
        });
    }
    let uplink: link_name::LinkName = "eth0".parse().unwrap();
    for family in Family::BOTH {
        cluster.observed.sysctls.insert(Sysctl::ProxyDelay(family, uplink.clone()), "80".to_owned());
    }
    cluster.observed.sysctls.insert(Sysctl::ProxyNdp(uplink), "0".to_owned());
    cluster
}

/// The same with pods on a bridge to the LAN, which holds nothing yet.
fn bridged() -> ThreeNodes {
    let mut cluster = flat();
    (cluster.settings.mode, cluster.settings.bridge) = (Mode::L2, Some("br0".parse().unwrap()));
    cluster.observed.links.insert(9, link(9, "br0", LinkKind::Bridge, &[]));
    cluster
}

fn codes(cluster: &ThreeNodes) -> Vec<&'static str> {
    let mut codes: Vec<_> = cluster.desired().conditions.iter().map(Condition::code).collect();
    codes.dedup();
    codes
}

#[test]
fn a_node_on_a_flat_network_routes_to_no_peer_and_hands_out_its_slice() {
    let cluster = flat();
    let desired = cluster.desired();
    assert!(desired.routes.is_empty(), "{:?}", desired.routes);
    assert_eq!(desired.conditions, []);
    let own = desired.own.unwrap();
    assert!(own.announce);
    insta::assert_snapshot!(own.conflist.unwrap().render());
}

#[test]
fn the_link_to_the_lan_answers_at_once() {
    let shown = flat().shown();
    for sysctl in
        ["net/ipv4/neigh/eth0/proxy_delay", "net/ipv6/neigh/eth0/proxy_delay", "net/ipv6/conf/eth0/proxy_ndp"]
    {
        assert!(shown.contains(sysctl), "{shown}");
    }
}

#[test]
fn nothing_is_masqueraded_towards_the_lan() {
    let own = flat().desired().own.unwrap();
    let never = &own.nft.sets[&crate::desired::SetName::NeverMasquerade(Family::Ipv4)];
    assert!(never.iter().any(|kept| kept.contains(&net("192.0.2.0/24"))), "{never:?}");
}

#[test]
fn on_a_bridge_chains_that_drop_let_through_what_hosts_of_a_link_say_to_each_other() {
    let mut cluster = flat();
    let accepted = |cluster: &ThreeNodes| -> Vec<String> {
        let own = cluster.desired().own.unwrap();
        own.forward_accepts.iter().map(ToString::to_string).filter(|line| !line.contains("2.")).collect()
    };
    assert!(!accepted(&cluster).iter().any(|line| line.contains("fe80")));
    (cluster.settings.mode, cluster.settings.bridge) = (Mode::L2, Some("br0".parse().unwrap()));
    let found = accepted(&cluster);
    for wanted in ["accept to ff02::/16", "accept from fe80::/10", "accept to fe80::/10"] {
        assert!(found.iter().any(|line| line == wanted), "{found:?}");
    }
    cluster.settings.forwarding.foreign_rules = false;
    assert_eq!(accepted(&cluster), [""; 0]);
}

#[test]
fn further_networks_stand_beside_the_default_routes() {
    let mut cluster = bridged();
    let route = |dst, gw| crate::settings::LanRoute { dst: net(dst), gw: ip(gw) };
    cluster.settings.lan.routes = vec![route("198.51.100.0/24", "192.0.2.254")];
    let rendered = cluster.desired().own.unwrap().conflist.unwrap().render();
    let list: serde_json::Value = serde_json::from_str(&rendered).unwrap();
    assert_eq!(
        list["plugins"][0]["routes"],
        serde_json::json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "198.51.100.0/24", "gw": "192.0.2.254"}])
    );
}

#[test]
fn without_its_bridge_a_node_is_not_announced_for_pods_of_the_lan() {
    let mut cluster = bridged();
    assert!(cluster.desired().own.unwrap().announce);
    for kind in [Some(LinkKind::Veth), None] {
        cluster.observed.links.remove(&9);
        cluster.observed.links.extend(kind.map(|kind| (9, link(9, "br0", kind, &[]))));
        let own = cluster.desired().own.unwrap();
        assert!(!own.announce && own.awaits_bridge && own.conflist.is_none());
        assert!(codes(&cluster).contains(&"no-lan-bridge"));
    }
    cluster.settings.mode = Mode::L2Routed;
    assert!(!cluster.desired().own.unwrap().awaits_bridge);
}

#[test]
fn a_slice_that_is_not_the_nodes_alone_announces_nothing_and_is_named() {
    type Change = fn(&mut ThreeNodes);
    let cases: [(Change, &str); 6] = [
        (
            |flat| flat.change("node2", |node| set_cidr(node, "192.0.2.144/29")),
            "slice 192.0.2.144/29 of node `node2`",
        ),
        (
            |flat| flat.change("node1", |node| set_cidr(node, "192.0.2.0/28")),
            "address 192.0.2.11 of node `node1`",
        ),
        (|flat| flat.change("node1", |node| set_cidr(node, "10.244.1.0/24")), "no part of the LAN"),
        (
            |flat| flat.settings.lan.reserved = vec![net("192.0.2.128/25")],
            "192.0.2.128/25 of setting lan.reserved",
        ),
        (
            |flat| {
                let mut route = crate::three_nodes::route("0.0.0.0/0", 0, 3, "192.0.2.150");
                route.prefsrc = None;
                flat.observed.routes.push(route);
            },
            "192.0.2.150, a router",
        ),
        (|flat| flat.settings.lan.subnets = vec![net("192.0.2.0/24")], "no subnet"),
    ];
    for (change, said) in cases {
        let mut cluster = flat();
        change(&mut cluster);
        let desired = cluster.desired();
        let told: Vec<String> = desired.conditions.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|told| told.contains(said)), "{said}: {told:?}");
        assert!(codes(&cluster).contains(&"lan-slice-refused"));
        let own = desired.own.unwrap();
        assert!(!own.announce && own.conflist.is_none(), "{said}");
    }
}

#[test]
fn the_router_that_is_the_pods_gateway_may_be_in_a_slice() {
    let mut cluster = flat();
    let mut route = crate::three_nodes::route("0.0.0.0/0", 0, 3, "192.0.2.150");
    route.prefsrc = None;
    cluster.observed.routes.push(route);
    cluster.settings.lan.gateways = vec![ip("192.0.2.150")];
    assert_eq!(codes(&cluster), [""; 0]);
}

#[test]
fn slices_by_index_follow_each_other() {
    let mut cluster = flat();
    cluster.settings.lan.slices = Slices::Index { first: vec![net("192.0.2.128/28"), net("2001:db8::/112")] };
    let this = &cluster.snapshot.nodes[&crate::three_nodes::name("node3")];
    let found: Vec<_> = slices(this, &cluster.settings).values().copied().collect();
    assert_eq!(found, [net("192.0.2.176/28"), net("2001:db8::3:0/112")]);
    assert_eq!(nth_after(net("255.255.255.0/24"), 1), None);
    assert_eq!(
        (number_at_end("rack-4-node007"), number_at_end("node"), number_at_end("n99999999999")),
        (Some(7), None, None)
    );
}

#[test]
fn a_slice_by_annotation_is_what_the_node_says_and_nothing_without_it() {
    let mut cluster = flat();
    cluster.settings.lan.slices = Slices::Annotation;
    assert!(codes(&cluster).contains(&"no-lan-slice"));
    cluster.change("node1", |node| {
        node.lan_slices.insert(Family::Ipv4, net("192.0.2.64/27"));
    });
    assert_eq!(codes(&cluster), [""; 0]);
    let own = cluster.desired().own.unwrap();
    assert_eq!(own.pod_cidrs.values().copied().collect::<Vec<_>>(), [net("192.0.2.64/27")]);
    let rendered = own.conflist.unwrap().render();
    assert!(rendered.contains("192.0.2.64") && rendered.contains("192.0.2.95"), "{rendered}");
}

#[test]
fn an_annotation_that_cannot_be_read_leaves_the_last_configuration() {
    let mut cluster = flat();
    cluster.settings.lan.slices = Slices::Annotation;
    cluster.change("node1", |node| {
        node.lan_slices.insert(Family::Ipv4, net("192.0.2.64/27"));
        node.unreadable_lan_slice = true;
    });
    assert!(codes(&cluster).contains(&"lan-slice-unreadable"));
    let own = cluster.desired().own.unwrap();
    assert!(!own.announce && own.conflist.is_none());
    cluster.settings.lan.slices = Slices::PodCidr;
    assert_eq!(codes(&cluster), [""; 0]);
}

/// A part of the LAN of `any_flat`, in either family.
fn any_slice() -> impl Strategy<Value = IpNet> {
    let v4 = (0_u32..0x1_0000, 18_u8..=30).prop_map(|(host, length)| (0x0a0a_0000 + host, length));
    let v4 =
        v4.prop_map(|(bits, length)| IpNet::new(IpAddr::from(bits.to_be_bytes()), length).unwrap().trunc());
    let v6 = (0_u128..0x1_0000, 114_u8..=126);
    let v6 = v6.prop_map(|(host, length)| {
        let bits = 0x2001_0db8_u128 << 96 | host;
        IpNet::new(IpAddr::from(bits.to_be_bytes()), length).unwrap().trunc()
    });
    prop_oneof![v4, v6]
}

/// Nodes whose annotations, addresses, routers and reserved prefixes lie anywhere on one LAN.
fn any_flat() -> impl Strategy<Value = ThreeNodes> {
    let slices = prop::collection::vec((any_slice(), any_slice()), 3);
    let held = prop::collection::vec(any_slice(), 0..3);
    (slices, held, prop::collection::vec(any_slice(), 0..2), prop::option::of(any_slice())).prop_map(
        |(slices, held, reserved, router)| {
            let mut cluster = flat();
            cluster.settings.lan.subnets = vec![net("10.10.0.0/16"), net("2001:db8::/64")];
            cluster.settings.lan.slices = Slices::Annotation;
            cluster.settings.lan.reserved = reserved;
            for (number, (one, other)) in (1..).zip(slices) {
                cluster.change(&format!("node{number}"), |node| {
                    for slice in [one, other] {
                        node.lan_slices.insert(Family::of_net(&slice), slice);
                    }
                });
            }
            for (number, address) in (1..).zip(held) {
                cluster.change(&format!("node{number}"), |node| {
                    node.further_internal_ips.push(address.addr());
                });
            }
            if let Some(router) = router {
                let mut route = crate::three_nodes::route("0.0.0.0/0", 0, 3, &router.addr().to_string());
                route.prefsrc = None;
                cluster.observed.routes.push(route);
            }
            cluster
        },
    )
}

/// What a node hands out as it sees the cluster; none where that is refused.
fn handed_out(cluster: &ThreeNodes, node: &str) -> Option<PerFamily<IpNet>> {
    let host = cluster.observed.host_facts(&cluster.settings);
    let this = &cluster.snapshot.nodes[&crate::three_nodes::name(node)];
    let (slices, faults) = own_slices(this, &cluster.snapshot, &cluster.settings, &host);
    faults.is_empty().then_some(slices)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn what_is_handed_out_is_of_the_lan_and_nobody_elses(cluster in any_flat()) {
        let given: Vec<_> =
            ["node1", "node2", "node3"].into_iter().map(|node| handed_out(&cluster, node)).collect();
        let all: Vec<IpNet> = given.iter().flatten().flat_map(PerFamily::values).copied().collect();
        for (at, slice) in all.iter().enumerate() {
            prop_assert!(!all[at + 1..].iter().any(|other| overlaps(slice, other)), "{all:?}");
            let subnet = cluster.settings.lan.subnet(Family::of_net(slice)).unwrap();
            prop_assert!(subnet.contains(slice));
            prop_assert!(!cluster.settings.lan.reserved.iter().any(|reserved| overlaps(slice, reserved)));
            let nodes = cluster.snapshot.nodes.values();
            let mut addresses = nodes.flat_map(ClusterNode::all_internal_ips);
            prop_assert!(!addresses.any(|address| slice.contains(&address)));
            let host = cluster.observed.host_facts(&cluster.settings);
            prop_assert!(!host.gateways.iter().any(|router| slice.contains(router)));
        }
    }

    #[test]
    fn what_is_refused_is_refused_for_a_reason_that_is_true(cluster in any_flat()) {
        let host = cluster.observed.host_facts(&cluster.settings);
        let this = &cluster.snapshot.nodes[&crate::three_nodes::name("node1")];
        let (_, faults) = own_slices(this, &cluster.snapshot, &cluster.settings, &host);
        for condition in faults {
            let Condition::Lan(LanCondition::LanSliceRefused { slice, fault }) = condition else {
                return Err(TestCaseError::fail(condition.to_string()));
            };
            let told = match &fault {
                SliceFault::OtherNode { slice: other, node } => {
                    *node != this.name && overlaps(&slice, other)
                        && cluster.snapshot.nodes[node].lan_slices.values().any(|held| held == other)
                }
                SliceFault::NodeAddress { address, node } => {
                    slice.contains(address)
                        && cluster.snapshot.nodes[node].all_internal_ips().any(|held| held == *address)
                }
                SliceFault::Router(router) => slice.contains(router) && host.gateways.contains(router),
                SliceFault::Reserved(reserved) => {
                    overlaps(&slice, reserved) && cluster.settings.lan.reserved.contains(reserved)
                }
                SliceFault::NotOfLan(_) | SliceFault::NoSubnet => false,
            };
            prop_assert!(told, "{slice} {fault}");
        }
    }

    #[test]
    fn slices_by_index_are_disjoint_and_of_one_size(first in any_slice(), one in 0_u32..300, other in 0_u32..300) {
        let [one_is, other_is] = [one, other].map(|number| nth_after(first, number));
        if let (Some(one_is), Some(other_is)) = (one_is, other_is) {
            prop_assert_eq!(one_is.prefix_len(), first.prefix_len());
            prop_assert_eq!(overlaps(&one_is, &other_is), one == other);
        }
    }

    #[test]
    fn the_bounds_of_a_slice_are_its_ends_but_for_those_of_the_subnet(slice in any_slice()) {
        let subnet = if slice.addr().is_ipv4() { net("10.10.0.0/16") } else { net("2001:db8::/64") };
        let (first, last) = bounds(&slice, &subnet);
        prop_assert!(slice.contains(&first) && slice.contains(&last) && first <= last);
        prop_assert_eq!(first == slice.network(), slice.network() != subnet.network());
        prop_assert_eq!(last == slice.broadcast(), slice.broadcast() != subnet.broadcast() || last.is_ipv6());
    }
}

#[test]
fn only_the_ends_of_the_subnet_are_no_addresses() {
    let subnet = net("10.10.0.0/16");
    let of = |slice: &str| bounds(&net(slice), &subnet);
    assert_eq!(of("10.10.1.0/24"), (ip("10.10.1.0"), ip("10.10.1.255")));
    assert_eq!(of("10.10.0.0/24"), (ip("10.10.0.1"), ip("10.10.0.255")));
    assert_eq!(of("10.10.255.0/24"), (ip("10.10.255.0"), ip("10.10.255.254")));
}
