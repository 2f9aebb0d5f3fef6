//! What a pod CIDR of this node must not hold.

use crate::desired::DesiredRoute;
use crate::observed::{LinkKind, ObservedLink};
use crate::settings::Mode;
use crate::three_nodes::{ThreeNodes, ip, link, route, set_cidr};

/// The conditions, and a check that nothing was guarded or announced.
fn refused(cluster: &ThreeNodes) -> String {
    let desired = cluster.desired();
    let guards = desired.routes.values().filter(|route| **route == DesiredRoute::Guard).count();
    assert_eq!(guards, 1, "only the IPv6 guard: {:?}", desired.routes);
    assert!(!desired.own.unwrap().announce);
    assert!(cluster.plan().changes().all(|change| !matches!(change.line().kind, "conflist" | "ready-file")));
    desired.conditions.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn with_own(cidr: &str) -> ThreeNodes {
    let mut cluster = ThreeNodes::new();
    cluster.change("node1", |node| set_cidr(node, cidr));
    cluster
}

#[test]
fn a_part_of_the_nodes_network_is_neither_guarded_nor_announced() {
    let shown = refused(&with_own("192.0.2.0/28"));
    assert!(shown.contains("own pod CIDR 192.0.2.0/28 holds address 192.0.2.11 of node `node1`"), "{shown}");
    let shown = refused(&with_own("192.0.2.128/28"));
    assert!(shown.contains("192.0.2.128/28 overlaps 192.0.2.0/24 on link `eth0`"), "{shown}");
}

#[test]
fn a_part_of_dockers_network_is_neither_guarded_nor_announced() {
    let mut cluster = with_own("172.17.5.0/24");
    cluster.observed.links.insert(4, link(4, "docker0", LinkKind::Bridge, &["172.17.0.1/16"]));
    let shown = refused(&cluster);
    assert!(shown.contains("172.17.5.0/24 overlaps 172.17.0.0/16 on link `docker0`"), "{shown}");
}

#[test]
fn a_gateway_is_not_cut_off() {
    let mut cluster = with_own("198.51.100.0/24");
    cluster.observed.routes.push(route("0.0.0.0/0", 0, 3, "198.51.100.1"));
    let shown = refused(&cluster);
    assert!(shown.contains("holds gateway 198.51.100.1"), "{shown}");
}

#[test]
fn the_pods_own_links_do_not_count() {
    let port = |mut port: ObservedLink| {
        port.master = Some(4);
        port
    };
    for mode in [Mode::Ptp, Mode::Bridge] {
        let mut cluster = ThreeNodes::new();
        cluster.settings.mode = mode;
        cluster.observed.links.insert(4, link(4, "cni0", LinkKind::Bridge, &["10.244.1.1/24"]));
        cluster.observed.links.insert(6, link(6, "hgw1", LinkKind::Veth, &["10.244.1.1/32"]));
        assert!(cluster.desired().own.unwrap().announce, "{}", cluster.shown());
        // The bridge of a former name, with a pod in it.
        cluster.observed.links.insert(4, link(4, "old0", LinkKind::Bridge, &["10.244.0.1/16"]));
        cluster.observed.links.insert(5, port(link(5, "hgw2", LinkKind::Veth, &[])));
        assert!(cluster.desired().own.unwrap().announce, "{}", cluster.shown());
        assert_eq!(ip("10.244.1.1"), cluster.observed.links[&6].addresses[0].address.addr());
    }
}
