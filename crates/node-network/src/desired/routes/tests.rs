//! Who gets a route, who does not, and why.

use super::*;
use crate::cluster::SourceKind;
use crate::observed::LinkKind;
use crate::three_nodes::{ThreeNodes, ip, link, name, node, route, set_cidr};

fn peers(cluster: &ThreeNodes) -> String {
    let desired = cluster.desired();
    let shown = desired.routes.iter().map(|(cidr, route)| match route {
        DesiredRoute::Peer { node, next_hop } => format!("{cidr} {node} {next_hop}"),
        DesiredRoute::Hold { node } => format!("{cidr} {node} hold"),
        DesiredRoute::Guard => format!("{cidr} guard"),
    });
    shown.chain(desired.conditions.iter().map(ToString::to_string)).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_peer_has_one_route_a_family_and_own_cidrs_are_guarded() {
    insta::assert_snapshot!(peers(&ThreeNodes::new()), @"
    10.244.1.0/24 guard
    10.244.2.0/24 node2 192.0.2.12
    10.244.3.0/24 node3 192.0.2.13
    fd00:10:244:1::/64 guard
    fd00:10:244:2::/64 node2 2001:db8::12
    fd00:10:244:3::/64 node3 2001:db8::13
    ");
}

#[test]
fn a_peer_without_an_address_of_a_family_keeps_what_is_installed_there() {
    let mut cluster = ThreeNodes::new();
    cluster.change("node2", |node| {
        node.internal_ips = crate::PerFamily::default();
        node.internal_ips.insert(Family::Ipv4, ip("192.0.2.12"));
    });
    let shown = peers(&cluster);
    assert!(shown.contains("10.244.2.0/24 node2 192.0.2.12"), "{shown}");
    assert!(shown.contains("fd00:10:244:2::/64 node2 hold"), "{shown}");
    assert!(shown.contains("node `node2` has an IPv6 pod CIDR and no IPv6 InternalIP"), "{shown}");
}

#[test]
fn of_two_nodes_with_one_cidr_the_older_wins() {
    let mut cluster = ThreeNodes::new();
    cluster.change("node3", |node| set_cidr(node, "10.244.2.0/23"));
    let shown = peers(&cluster);
    assert!(shown.contains("10.244.2.0/24 node2"), "{shown}");
    assert!(
        shown.contains("pod CIDR 10.244.2.0/23 of node `node3` overlaps 10.244.2.0/24 of node `node2`"),
        "{shown}"
    );
}

#[test]
fn a_terminating_node_loses_against_a_newer_one() {
    let mut cluster = ThreeNodes::new();
    cluster.change("node2", |node| node.terminating = true);
    cluster.change("node3", |node| set_cidr(node, "10.244.2.0/24"));
    assert!(peers(&cluster).contains("10.244.2.0/24 node3"), "{}", peers(&cluster));
}

#[test]
fn nodes_of_one_age_are_told_apart_by_uid() {
    let mut cluster = ThreeNodes::new();
    cluster.change("node2", |node| (node.created, node.uid) = (None, "b".to_owned()));
    cluster.change("node3", |node| (node.created, node.uid) = (None, "a".to_owned()));
    cluster.change("node3", |node| set_cidr(node, "10.244.2.0/24"));
    assert!(peers(&cluster).contains("10.244.2.0/24 node3"), "{}", peers(&cluster));
}

#[test]
fn in_a_file_the_present_holder_wins_and_then_the_name() {
    let mut cluster = ThreeNodes::new();
    cluster.snapshot.source = SourceKind::File;
    cluster.change("node3", |node| {
        node.created = Some(-9);
        set_cidr(node, "10.244.2.0/24");
    });
    assert!(peers(&cluster).contains("10.244.2.0/24 node2"), "{}", peers(&cluster));
    cluster.observed.routes.push(route("10.244.2.0/24", 104, 104, "192.0.2.13"));
    assert!(peers(&cluster).contains("10.244.2.0/24 node3"), "{}", peers(&cluster));
}

#[test]
fn own_pods_are_never_routed_to_an_older_peer_once_announced() {
    let mut cluster = ThreeNodes::new();
    cluster.observed.conflist = Some(Vec::new());
    cluster.change("node1", |node| node.created = Some(10));
    cluster.change("node2", |node| set_cidr(node, "10.244.0.0/22"));
    let shown = peers(&cluster);
    assert!(shown.contains("10.244.1.0/24 guard"), "{shown}");
    assert!(!shown.contains("10.244.0.0/22 node2"), "{shown}");
    assert!(shown.contains("overlaps this node's own 10.244.1.0/24 and is not routed"), "{shown}");
    assert!(!cluster.desired().own.unwrap().announce);
}

#[test]
fn a_newcomer_with_a_taken_cidr_routes_to_the_holder_and_is_not_announced() {
    let mut cluster = ThreeNodes::new();
    cluster.change("node1", |node| {
        node.created = Some(10);
        set_cidr(node, "10.244.2.0/24");
    });
    let shown = peers(&cluster);
    assert!(shown.contains("10.244.2.0/24 node2 192.0.2.12"), "{shown}");
    assert!(cluster.shown().contains("this node is not announced"), "{}", cluster.shown());
    assert!(!cluster.shown().contains("conflist"), "{}", cluster.shown());
}

#[test]
fn a_list_without_this_node_respects_the_guards() {
    let mut cluster = ThreeNodes::new();
    cluster.snapshot.nodes.remove(&name("node1"));
    let mut guard = route("10.244.2.0/24", GUARD_METRIC, 104, "192.0.2.99");
    (guard.kind, guard.legs) = (RouteKind::Unreachable, Vec::new());
    cluster.observed.routes.push(guard);
    let shown = peers(&cluster);
    assert!(!shown.contains("10.244.2.0/24 node2"), "{shown}");
    assert!(shown.contains("10.244.3.0/24 node3"), "{shown}");
    assert!(shown.contains("node `node1` is not among the 2 nodes"), "{shown}");
}

#[test]
fn addresses_that_two_claim_and_networks_in_the_way_are_refused_by_name() {
    let mut cluster = ThreeNodes::new();
    cluster.observed.links.insert(4, link(4, "docker0", LinkKind::Bridge, &["172.17.0.1/16"]));
    cluster.change("node2", |node| set_cidr(node, "172.17.0.0/16"));
    cluster.change("node3", |node| {
        node.internal_ips.insert(Family::Ipv4, ip("192.0.2.11"));
        node.internal_ips.insert(Family::Ipv6, ip("2001:db8::12"));
    });
    let mut fourth = node(4);
    set_cidr(&mut fourth, "192.0.2.0/28");
    set_cidr(&mut fourth, "2001:db8::/96");
    cluster.snapshot.nodes.insert(fourth.name.clone(), fourth);
    let mut fifth = node(5);
    set_cidr(&mut fifth, "192.0.2.128/25");
    cluster.snapshot.nodes.insert(fifth.name.clone(), fifth);
    insta::assert_snapshot!(peers(&cluster));
}

/// Routes to both peers stand, as after a first pass.
fn converged() -> ThreeNodes {
    let mut cluster = ThreeNodes::new();
    for (cidr, via) in [("10.244.2.0/24", "192.0.2.12"), ("10.244.3.0/24", "192.0.2.13")] {
        cluster.observed.routes.push(route(cidr, 104, 104, via));
    }
    let mut guard = route("10.244.1.0/24", GUARD_METRIC, 104, "192.0.2.99");
    (guard.kind, guard.legs) = (RouteKind::Unreachable, Vec::new());
    cluster.observed.routes.push(guard);
    cluster
}

fn forget_cidr(node: &mut ClusterNode) {
    (node.pod_cidrs, node.unreadable_pod_cidr) = (crate::PerFamily::default(), true);
}

#[test]
fn a_peer_whose_cidr_cannot_be_read_keeps_its_route_and_others_lose_theirs() {
    let mut cluster = converged();
    cluster.change("node2", forget_cidr);
    cluster.snapshot.nodes.remove(&name("node3"));
    let shown = cluster.shown();
    assert!(peers(&cluster).contains("10.244.2.0/24 node2 hold"), "{shown}");
    assert!(!shown.contains("- route 10.244.2.0/24"), "{shown}");
    assert!(shown.contains("- route 10.244.3.0/24"), "{shown}");
}

#[test]
fn a_held_route_gives_way_to_a_node_that_holds_the_cidr_by_right() {
    let mut cluster = converged();
    cluster.change("node2", forget_cidr);
    cluster.change("node3", |node| set_cidr(node, "10.244.2.0/23"));
    let shown = peers(&cluster);
    assert!(!shown.contains("hold"), "{shown}");
    assert!(shown.contains("10.244.2.0/23 node3 192.0.2.13"), "{shown}");
}

#[test]
fn while_an_object_cannot_be_told_nothing_is_deleted() {
    let mut cluster = converged();
    cluster.snapshot.nodes.remove(&name("node3"));
    cluster.snapshot.left_out = 1;
    let shown = cluster.shown();
    assert!(!shown.contains("- route"), "{shown}");
    assert!(shown.contains("error: 1 objects of the source"), "{shown}");
}

#[test]
fn an_announced_node_whose_own_cidr_cannot_be_read_is_left_as_it_is() {
    let mut cluster = converged();
    cluster.observed.conflist = Some(b"old".to_vec());
    cluster.change("node1", forget_cidr);
    cluster.change("node3", |node| set_cidr(node, "10.244.1.0/24"));
    let desired = cluster.desired();
    assert_eq!((desired.own, desired.may_delete), (None, false));
    let shown = cluster.shown();
    assert!(shown.contains("error: a pod CIDR of this node `node1` cannot be read"), "{shown}");
    assert!(shown.contains("overlaps this node's own 10.244.1.0/24 and is not routed"), "{shown}");
    assert!(!shown.contains("10.244.1.0/24 table") && !shown.contains("nftables"), "{shown}");
}
