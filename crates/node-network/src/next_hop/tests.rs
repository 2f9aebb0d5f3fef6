//! What counts as on link.

use super::*;
use crate::observed::{FibMatch, ObservedAddress};
use crate::settings::OnLinkPrefix;
use crate::three_nodes::{ThreeNodes, found, ip, link, route};

fn look(cluster: &ThreeNodes) -> Result<OnLink, NextHopProblem> {
    let own = cluster.desired().internal_ips;
    NextHops::new(&cluster.observed, &own, &cluster.settings).towards(ip("192.0.2.12"), None)
}

fn looked_up(answer: FibLookup) -> Result<OnLink, NextHopProblem> {
    let mut cluster = ThreeNodes::new();
    cluster.observed.links.insert(7, link(7, "hgwabc", LinkKind::Veth, &[]));
    cluster.observed.links.insert(8, link(8, "docker0", LinkKind::Bridge, &["192.0.2.1/25"]));
    cluster.observed.next_hops.insert(ip("192.0.2.12"), answer);
    look(&cluster)
}

fn of_kind(kind: RouteKind) -> FibLookup {
    found("192.0.2.0/24", 2, None, 2).map(|found| Arc::new(FibMatch { kind, ..FibMatch::clone(&found) }))
}

#[test]
fn only_a_connected_route_on_a_real_link_is_on_link() {
    use NextHopProblem as Problem;
    assert_eq!(looked_up(found("192.0.2.0/24", 2, None, 2)).unwrap().name.as_ref(), "eth0");
    assert_eq!(looked_up(found("0.0.0.0/0", 3, Some("192.0.2.1"), 2)), Err(Problem::DefaultRoute));
    assert_eq!(looked_up(found("0.0.0.0/0", 3, None, 2)), Err(Problem::DefaultRoute));
    assert_eq!(
        looked_up(found("192.0.0.0/8", 3, Some("192.0.2.1"), 2)),
        Err(Problem::ViaGateway(ip("192.0.2.1")))
    );
    assert_eq!(
        looked_up(found("192.0.2.12/32", 104, Some("192.0.2.9"), 2)),
        Err(Problem::InsidePodCidr("192.0.2.12/32".parse().unwrap()))
    );
    assert_eq!(looked_up(found("192.0.2.0/24", 2, None, 7)), Err(Problem::PodLink("hgwabc".to_owned())));
    assert_eq!(looked_up(found("192.0.2.0/25", 2, None, 8)), Err(Problem::PodLink("docker0".to_owned())));
    assert_eq!(looked_up(found("192.0.2.0/24", 2, None, 99)), Err(Problem::UnknownLink(99)));
    assert_eq!(looked_up(of_kind(RouteKind::Local)), Err(Problem::Local));
    assert_eq!(looked_up(of_kind(RouteKind::Unreachable)), Err(Problem::NotUnicast(RouteKind::Unreachable)));
    assert_eq!(looked_up(Err("down".to_owned())), Err(Problem::LookupFailed("down".to_owned())));
}

#[test]
fn a_bridge_that_carries_the_nodes_address_or_a_nic_is_an_uplink() {
    let mut cluster = ThreeNodes::new();
    cluster.observed.links.get_mut(&2).unwrap().kind = LinkKind::Bridge;
    assert_eq!(look(&cluster).unwrap().name.as_ref(), "eth0");
    cluster.observed.links.get_mut(&2).unwrap().addresses.clear();
    assert!(look(&cluster).is_err());
    let mut nic = link(9, "eno1", LinkKind::Other, &[]);
    nic.master = Some(2);
    cluster.observed.links.insert(9, nic);
    assert_eq!(look(&cluster).unwrap().name.as_ref(), "eth0");
}

#[test]
fn among_equal_links_the_installed_one_is_kept() {
    let mut cluster = ThreeNodes::new();
    cluster.observed.links.insert(3, link(3, "eth1", LinkKind::Other, &[]));
    let legs = vec![Leg { via: None, link: 2 }, Leg { via: None, link: 3 }];
    let both =
        found("192.0.2.0/24", 2, None, 2).map(|found| Arc::new(FibMatch { legs, ..FibMatch::clone(&found) }));
    cluster.observed.next_hops.insert(ip("192.0.2.12"), both);
    assert_eq!(look(&cluster).unwrap().link, 2);
    let mut installed = route("10.244.2.0/24", 104, 104, "192.0.2.12");
    installed.legs[0].link = 3;
    let own = cluster.desired().internal_ips;
    let kept =
        NextHops::new(&cluster.observed, &own, &cluster.settings).towards(ip("192.0.2.12"), Some(&installed));
    assert_eq!(kept.unwrap().link, 3);
}

#[test]
fn an_on_link_prefix_uses_the_default_routes_link_or_the_named_one() {
    let mut cluster = ThreeNodes::new();
    cluster.observed.next_hops.clear();
    cluster.settings.routes.on_link_prefixes =
        vec![OnLinkPrefix { prefix: "192.0.2.0/24".parse().unwrap(), link: None }];
    assert!(look(&cluster).unwrap_err().to_string().contains("no IPv4 default route"));
    cluster.observed.routes.push(route("0.0.0.0/0", 100, 3, "192.0.2.1"));
    let hop = look(&cluster).unwrap();
    assert_eq!((hop.name.as_ref(), hop.forced), ("eth0", true));
    cluster.settings.routes.on_link_prefixes[0].link = Some("eth7".parse().unwrap());
    assert!(look(&cluster).unwrap_err().to_string().contains("link `eth7` does not exist"));
}

#[test]
fn an_address_that_this_node_holds_is_no_peer() {
    let mut cluster = ThreeNodes::new();
    let held = ObservedAddress { address: "192.0.2.12/32".parse().unwrap(), usable: true, stable: true };
    cluster.observed.links.get_mut(&1).unwrap().addresses.push(held);
    assert_eq!(look(&cluster), Err(NextHopProblem::Local));
}
