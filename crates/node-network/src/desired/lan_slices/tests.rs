//! Slices of the LAN: whose they are, and which are refused.

use super::*;
use crate::desired::Sysctl;
use crate::settings::Mode;
use crate::three_nodes::{ThreeNodes, ip, set_cidr};
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
fn only_the_ends_of_the_subnet_are_no_addresses() {
    let subnet = net("10.10.0.0/16");
    let of = |slice: &str| bounds(&net(slice), &subnet);
    assert_eq!(of("10.10.1.0/24"), (ip("10.10.1.0"), ip("10.10.1.255")));
    assert_eq!(of("10.10.0.0/24"), (ip("10.10.0.1"), ip("10.10.0.255")));
    assert_eq!(of("10.10.255.0/24"), (ip("10.10.255.0"), ip("10.10.255.254")));
}
