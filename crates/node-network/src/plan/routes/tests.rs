//! Plans as people see them.

use super::*;
use crate::cluster::Freshness;
use crate::observed::{LinkKind, PublicKey, WireguardPeer};
use crate::plan::Change;
use crate::three_nodes::{ThreeNodes, found, ip, name, route};

fn converged() -> ThreeNodes {
    let mut cluster = ThreeNodes::new();
    for number in 2..=3 {
        let peers = [
            route(&format!("10.244.{number}.0/24"), 104, 104, &format!("192.0.2.1{number}")),
            route(&format!("fd00:10:244:{number}::/64"), 104, 104, &format!("2001:db8::1{number}")),
        ];
        cluster.observed.routes.extend(peers);
    }
    for cidr in ["10.244.1.0/24", "fd00:10:244:1::/64"] {
        let mut guard = route(cidr, GUARD_METRIC, 104, "192.0.2.1");
        (guard.kind, guard.legs, guard.prefsrc) = (RouteKind::Unreachable, Vec::new(), None);
        cluster.observed.routes.push(guard);
    }
    assert_eq!(cluster.routes_shown(), "");
    cluster
}

fn find<'a>(cluster: &'a mut ThreeNodes, dst: &str) -> &'a mut ObservedRoute {
    let dst = dst.parse().unwrap();
    cluster.observed.routes.iter_mut().find(|route| route.key.dst == dst).unwrap()
}

#[test]
fn a_fresh_node() {
    let mut cluster = ThreeNodes::new();
    cluster.observed.links.get_mut(&2).unwrap().learns_from_router_advertisements = true;
    let accept_ra = crate::desired::Sysctl::AcceptRa("eth0".parse().unwrap());
    cluster.observed.sysctls.insert(accept_ra, "1".to_owned());
    insta::assert_snapshot!(cluster.shown());
    let document = crate::plan::PlanDocument::new("node1", &cluster.plan());
    insta::assert_json_snapshot!(document);
}

#[test]
fn node_changing_its_address_is_one_replace_and_no_delete() {
    let mut cluster = converged();
    cluster.change("node2", |node| {
        node.internal_ips.insert(Family::Ipv4, ip("192.0.2.22"));
    });
    cluster.observed.next_hops.insert(ip("192.0.2.22"), found("192.0.2.0/24", 2, None, 2));
    insta::assert_snapshot!(cluster.routes_shown(), @"~ route 10.244.2.0/24 table 254 metric 104 via 192.0.2.22 dev eth0 src 192.0.2.11 proto 104  (pods of node `node2`; was 10.244.2.0/24 table 254 metric 104 via 192.0.2.12)");
}

#[test]
fn a_node_that_left_takes_its_routes_along() {
    let mut cluster = converged();
    cluster.snapshot.nodes.remove(&name("node3"));
    insta::assert_snapshot!(cluster.routes_shown(), @r"
    - route 10.244.3.0/24 table 254 metric 104 via 192.0.2.13  (no node holds it by right)
    - route fd00:10:244:3::/64 table 254 metric 104 via 2001:db8::13  (no node holds it by right)
    ");
}

#[test]
fn neither_a_cache_nor_a_list_without_this_node_deletes() {
    let mut cluster = converged();
    cluster.snapshot.nodes.remove(&name("node3"));
    cluster.snapshot.freshness = Freshness::Cached { age_seconds: 60 };
    assert!(cluster.plan().is_empty(), "{}", cluster.shown());
    let mut cluster = converged();
    cluster.snapshot.nodes.clear();
    assert!(cluster.plan().is_empty(), "{}", cluster.shown());
}

#[test]
fn a_failed_look_up_holds_the_last_route() {
    let mut cluster = converged();
    cluster.observed.next_hops.insert(ip("192.0.2.12"), Err("network is unreachable".to_owned()));
    cluster.observed.next_hops.insert(ip("192.0.2.13"), found("0.0.0.0/0", 3, Some("192.0.2.1"), 2));
    insta::assert_snapshot!(cluster.routes_shown(), @"
    warning: no route to pod CIDR 10.244.2.0/24 of node `node2` via 192.0.2.12 can be confirmed; the last one is kept: the kernel has no route to it (network is unreachable): check that the link towards it is up and has its address
    warning: no route to pod CIDR 10.244.3.0/24 of node `node3` via 192.0.2.13 can be confirmed; the last one is kept: only the default route leads to it, so that it is not on link: put the nodes on one network, or name the prefix in routes.onLinkPrefixes if it is on link after all
    ");
}

#[test]
fn a_peer_that_moved_off_link_loses_its_old_route() {
    let mut cluster = converged();
    cluster.change("node2", |node| {
        node.internal_ips.insert(Family::Ipv4, ip("198.51.100.2"));
    });
    cluster.observed.next_hops.insert(ip("198.51.100.2"), found("0.0.0.0/0", 3, Some("192.0.2.1"), 2));
    assert!(cluster.routes_shown().contains("- route 10.244.2.0/24"), "{}", cluster.routes_shown());
}

#[test]
fn a_foreign_route_in_our_place_is_reported_and_left() {
    let mut cluster = converged();
    find(&mut cluster, "10.244.2.0/24").protocol = 4;
    find(&mut cluster, "10.244.2.0/24").legs[0].via = Some(ip("192.0.2.77"));
    cluster.observed.routes.push(route("10.244.3.0/24", 50, 186, "192.0.2.78"));
    cluster.observed.routes.push(route("fd00:10:244:3::8/128", 1024, 3, "2001:db8::78"));
    insta::assert_snapshot!(cluster.routes_shown(), @r"
    error: a route of protocol 4 holds 10.244.2.0/24 table 254 metric 104, where ours belongs, and is left alone: remove it, or set routes.metric
    error: a route of protocol 186 to 10.244.3.0/24 table 254 metric 50 wins over ours to 10.244.3.0/24: remove it, or set routes.metric below its metric
    error: a route of protocol 3 to fd00:10:244:3::8/128 table 254 metric 1024 wins over ours to fd00:10:244:3::/64: remove it, or set routes.metric below its metric
    ");
}

#[test]
fn a_multipath_set_with_a_foreign_leg_is_never_replaced() {
    let mut cluster = converged();
    let foreign = Leg { via: Some(ip("2001:db8::99")), link: 2 };
    find(&mut cluster, "fd00:10:244:2::/64").legs.push(foreign);
    find(&mut cluster, "fd00:10:244:3::/64").legs = vec![foreign, foreign];
    let shown = cluster.routes_shown();
    assert_eq!(shown.matches("multipath set").count(), 2, "{shown}");
    assert_eq!(shown.lines().count(), 2, "{shown}");
}

#[test]
fn another_metric_adds_first_and_then_removes() {
    let mut cluster = converged();
    cluster.settings.routes.metric = 90;
    let shown = cluster.routes_shown();
    assert!(shown.contains("+ route 10.244.2.0/24 table 254 metric 90"), "{shown}");
    assert!(shown.contains("then without 10.244.2.0/24 table 254 metric 104"), "{shown}");
}

#[test]
fn a_secondary_address_is_never_the_source() {
    let mut cluster = converged();
    find(&mut cluster, "10.244.2.0/24").prefsrc = None;
    assert!(cluster.routes_shown().starts_with("~ route 10.244.2.0/24"), "{}", cluster.routes_shown());
    // A tentative address cannot be a source yet.
    cluster.observed.links.get_mut(&2).unwrap().addresses[0].usable = false;
    assert!(!cluster.routes_shown().contains("~ route 10.244.2.0/24"), "{}", cluster.routes_shown());
}

/// Peers 2 and 3 are reached through WireGuard; node 2's peer has its pods, node 3's has not.
fn behind_wireguard() -> ThreeNodes {
    let mut cluster = ThreeNodes::new();
    cluster.observed.links.get_mut(&2).unwrap().kind = LinkKind::Wireguard;
    let peer = |number: u8, allowed: &[&str]| WireguardPeer {
        public_key: PublicKey([number; 32]),
        allowed_ips: allowed.iter().map(|net| net.parse().unwrap()).collect(),
    };
    let of_node2 = ["192.0.2.12/32", "10.244.2.0/24", "2001:db8::12/128", "fd00:10:244:2::/64"];
    let peers =
        vec![peer(2, &of_node2), peer(3, &["192.0.2.13/32", "2001:db8::13/128", "fd00:10:244:3::/64"])];
    cluster.observed.wireguard.insert(2, Ok(peers));
    cluster
}

fn allowed_ips(cluster: &ThreeNodes) -> (Vec<String>, usize) {
    let plan = cluster.plan();
    let lines = plan.changes().filter(|change| matches!(change, Change::AllowedIps(_)));
    let lines = lines.map(|change| change.line().to_string()).collect();
    (lines, plan.conditions.iter().filter(|condition| condition.code() == "wireguard-next-hop").count())
}

#[test]
fn pods_that_wireguard_drops_are_reported_and_allowed_where_the_settings_say_so() {
    let mut cluster = behind_wireguard();
    assert_eq!(allowed_ips(&cluster), (Vec::new(), 1));
    cluster.settings.routes.maintain_allowed_ips = true;
    let key = PublicKey([3; 32]);
    let line = format!("+ allowed-ips 10.244.3.0/24 of peer {key} on eth0  (pods of node `node3`)");
    assert_eq!(allowed_ips(&cluster), (vec![line], 0));
    cluster.observed.wireguard.insert(2, Err("no such family".to_owned()));
    assert_eq!(allowed_ips(&cluster), (Vec::new(), 4), "what cannot be read is not changed");
}
