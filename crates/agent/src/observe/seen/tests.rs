//! What each event of the kernel puts in doubt.

use std::sync::Arc;

use super::*;
use kernel::netlink::Batch;
use kernel::route::{add, delete};
use node_network::desired::DesiredRoute;
use node_network::observed::{FibMatch, RouteKind};
use node_network::{NodeName, PerFamily};

fn route(destination: &str, protocol: u8, via: Option<&str>) -> Route {
    let hop = Hop { gateway: via.map(|via| via.parse().unwrap()), index: Some(2), ..Hop::default() };
    Route { protocol, hops: vec![hop], ..Route::to(destination.parse().unwrap()) }
}

fn desired() -> DesiredNode {
    let next_hop = "192.0.2.12".parse().unwrap();
    let peer = DesiredRoute::Peer { node: NodeName::new("node2").unwrap(), next_hop };
    DesiredNode {
        routes: [("10.244.2.0/24".parse().unwrap(), peer)].into(),
        refused: Vec::new(),
        may_delete: true,
        kept_orphans: BTreeSet::new(),
        internal_ips: PerFamily::default(),
        own: None,
        conditions: Vec::new(),
    }
}

fn seen(foreign: Vec<Route>) -> Seen {
    let mut seen = Seen::default();
    seen.hold_foreign(foreign);
    seen.sift_foreign(&desired());
    let on_link = FibMatch {
        dst: "192.0.2.0/24".parse().unwrap(),
        table: 254,
        protocol: 2,
        kind: RouteKind::Unicast,
        metric: 0,
        legs: Vec::new(),
    };
    seen.next_hops.insert("192.0.2.12".parse().unwrap(), Ok(Arc::new(on_link)));
    seen.hop_links.insert(2);
    seen
}

/// Somebody's.
const AUTHOR: u32 = 4242;

fn doubt_of(seen: &mut Seen, route: &Route) -> Doubt {
    let (mut made, mut gone) = (Batch::new(), Batch::new());
    add(&mut made, route);
    delete(&mut gone, route);
    let event = |kind, payload| Event { author: AUTHOR, kind, flags: 0, payload };
    let told = seen.hear(event(RTM_NEWROUTE, &made.bytes()[16..]));
    assert_eq!(seen.hear(event(RTM_DELROUTE, &gone.bytes()[16..])), told);
    told
}

#[test]
fn of_others_routes_those_stay_that_could_matter() {
    let apart = |number: u8| route(&format!("30.0.0.{number}/32"), 4, Some("192.0.2.1"));
    let mut foreign: Vec<Route> = (0..100).map(apart).collect();
    foreign.push(route("10.244.2.128/25", 4, None));
    foreign.push(route("10.0.0.0/8", 4, None));
    foreign.push(route("0.0.0.0/0", 4, None));
    foreign.push(route("31.0.0.0/8", ROUTER_ADVERTISEMENT, None));
    foreign.push(route("32.0.0.0/8", 4, None));
    let kept: Vec<String> =
        seen(foreign).foreign.unwrap().iter().map(|route| route.destination.to_string()).collect();
    assert_eq!(kept, ["30.0.0.0/32", "10.244.2.128/25", "10.0.0.0/8", "0.0.0.0/0", "31.0.0.0/8"]);
}

/// What is desired once there is another node.
fn with_another(pod_cidr: &str) -> DesiredNode {
    let mut desired = desired();
    let next_hop = "192.0.2.13".parse().unwrap();
    let peer = DesiredRoute::Peer { node: NodeName::new("node3").unwrap(), next_hop };
    desired.routes.insert(pod_cidr.parse().unwrap(), peer);
    desired
}

#[test]
fn others_routes_are_listed_again_only_where_one_of_them_may_lead_to_a_new_nodes_pods() {
    let foreign = || vec![route("30.0.0.0/24", 4, None), route("10.244.128.0/17", 4, None)];
    for (pod_cidr, expected) in [
        ("10.244.2.0/24", false),
        ("10.244.3.0/24", false),
        ("10.244.200.0/24", true),
        ("10.244.0.0/15", true),
        ("30.0.0.7/32", true),
        ("fd00:10:244:3::/64", false),
    ] {
        assert_eq!(seen(foreign()).lacks(&with_another(pod_cidr)), expected, "{pod_cidr}");
    }
}

#[test]
fn a_route_that_was_heard_of_and_let_pass_is_remembered_for_a_later_node() {
    let mut seen = seen(Vec::new());
    assert!(!seen.lacks(&with_another("10.244.3.0/24")));
    assert_eq!(doubt_of(&mut seen, &route("10.244.3.128/25", 4, None)), Doubt::Nothing);
    assert!(seen.lacks(&with_another("10.244.3.0/24")));
}

#[test]
fn a_route_to_a_new_nodes_pods_matters_from_the_first_pass_that_knows_the_node() {
    let mut seen = seen(Vec::new());
    let desired = with_another("10.244.3.0/24");
    assert!(!seen.lacks(&desired));
    seen.sift_foreign(&desired);
    assert_eq!(doubt_of(&mut seen, &route("10.244.3.128/25", 4, None)), Doubt::Everything);
}

#[test]
fn somebodys_route_far_from_ours_is_none_of_our_business() {
    let mut seen = seen(vec![route("30.0.0.0/32", 4, Some("192.0.2.1"))]);
    assert_eq!(doubt_of(&mut seen, &route("198.18.0.0/24", 4, Some("192.0.2.1"))), Doubt::Nothing);
    assert_eq!(doubt_of(&mut seen, &route("198.18.0.0/24", 4, None)), Doubt::Nothing);
}

#[test]
fn a_route_that_could_change_what_was_seen_puts_everything_in_doubt() {
    let mut seen = seen(vec![route("30.0.0.0/32", 4, Some("192.0.2.1"))]);
    let clashing =
        ["10.244.2.0/24", "10.244.2.7/32", "10.244.0.0/16", "0.0.0.0/0", "192.0.2.12/32", "30.0.0.0/32"];
    for destination in clashing {
        assert_eq!(doubt_of(&mut seen, &route(destination, 4, None)), Doubt::Everything, "{destination}");
    }
    let by_another_gateway = route("198.18.0.0/24", 4, Some("192.0.2.2"));
    assert_eq!(doubt_of(&mut seen, &by_another_gateway), Doubt::Everything);
    let mut nothing_is_known = Seen::default();
    assert_eq!(doubt_of(&mut nothing_is_known, &route("198.18.0.0/24", 4, None)), Doubt::Everything);
}

#[test]
fn our_own_routes_and_pods_links_are_looked_at_in_each_pass_anyway() {
    let mut seen = seen(Vec::new());
    assert_eq!(doubt_of(&mut seen, &route("10.244.2.0/24", NODE_ROUTE_PROTOCOL, None)), Doubt::Ours);
    assert_eq!(doubt_of(&mut seen, &route("10.244.1.7/32", POD_ROUTE_PROTOCOL, None)), Doubt::Ours);
    // RTM_NEWRULE
    assert_eq!(seen.hear(Event { author: AUTHOR, kind: 32, flags: 0, payload: &[0; 12] }), Doubt::Everything);
}

fn heard(seen: &mut Seen, author: u32, kind: u16, write: impl FnOnce(&mut Batch)) -> Doubt {
    let mut batch = Batch::new();
    write(&mut batch);
    seen.hear(Event { author, kind, flags: 0, payload: &batch.bytes()[16..] })
}

#[test]
fn what_this_agent_writes_brings_no_pass_and_is_known_all_the_same() {
    let mut seen = seen(Vec::new());
    seen.ports.route = 7;
    seen.own.hold(Vec::new());
    let ours = route("10.244.2.0/24", NODE_ROUTE_PROTOCOL, Some("192.0.2.12"));
    assert_eq!(heard(&mut seen, 7, RTM_NEWROUTE, |batch| add(batch, &ours)), Doubt::Nothing);
    assert_eq!(seen.own.take(), Some(vec![observed_route(&ours)]));
}

#[test]
fn somebodys_route_in_the_place_of_ours_has_ours_listed_anew() {
    let mut seen = seen(Vec::new());
    let pods = route("10.244.1.7/32", POD_ROUTE_PROTOCOL, None);
    seen.own.hold(vec![observed_route(&pods)]);
    let theirs = route("10.244.1.7/32", 4, None);
    assert_eq!(heard(&mut seen, AUTHOR, RTM_NEWROUTE, |batch| add(batch, &theirs)), Doubt::Ours);
    assert_eq!(seen.own.take(), None);
}

#[test]
fn a_link_puts_in_doubt_what_leads_over_it_and_nothing_else() {
    let link_event = |seen: &mut Seen, kind, index| heard(seen, 0, kind, |batch| link::set_up(batch, index));
    let mut seen = seen(vec![route("30.0.0.0/32", 4, Some("192.0.2.1"))]);
    let pods = Route {
        hops: vec![Hop { index: Some(9), ..Hop::default() }],
        ..route("10.244.1.7/32", POD_ROUTE_PROTOCOL, None)
    };
    let own = vec![observed_route(&pods)];
    seen.own.hold(own.clone());
    assert_eq!(link_event(&mut seen, RTM_NEWLINK, 2), Doubt::Everything);
    assert_eq!(link_event(&mut seen, RTM_NEWLINK, 9), Doubt::Ours);
    assert_eq!(link_event(&mut seen, RTM_DELLINK, 8), Doubt::Ours);
    assert_eq!(seen.own.take(), Some(own.clone()));
    seen.own.hold(own);
    assert_eq!(link_event(&mut seen, RTM_DELLINK, 9), Doubt::Ours);
    assert_eq!(seen.own.take(), None, "IPv4 routes go with their link without a word");
    assert_eq!(link_event(&mut Seen::default(), RTM_NEWLINK, 9), Doubt::Everything);
}

#[test]
fn an_address_that_goes_takes_the_routes_along_whose_source_it_is() {
    let mut seen = seen(Vec::new());
    let mut pods = route("10.244.1.7/32", POD_ROUTE_PROTOCOL, None);
    (pods.source, pods.hops[0].index) = (Some("192.0.2.11".parse().unwrap()), Some(9));
    let other = |batch: &mut Batch| kernel::address::add(batch, 5, "192.0.2.99/24".parse().unwrap(), 0);
    let source = |batch: &mut Batch| kernel::address::add(batch, 5, "192.0.2.11/24".parse().unwrap(), 0);
    seen.own.hold(vec![observed_route(&pods)]);
    assert_eq!(heard(&mut seen, 0, RTM_DELADDR, other), Doubt::Ours);
    assert!(seen.own.lead_over(9));
    assert_eq!(heard(&mut seen, 0, RTM_DELADDR, source), Doubt::Ours);
    assert_eq!(seen.own.take(), None);
}

#[test]
fn rules_are_read_anew_by_whose_they_are() {
    let named = |family: u8, name: &str| {
        let length = u16::try_from(4 + name.len() + 1).unwrap().to_ne_bytes();
        let mut payload = vec![family, 0, 0, 0, length[0], length[1]];
        payload.extend(1_u16.to_ne_bytes());
        payload.extend(name.bytes().chain([0]));
        payload
    };
    let (new_rule, new_element, generation) = (10 << 8 | 6, 10 << 8 | 12, 10 << 8 | 15);
    let known = || {
        let mut seen = Seen::new(OwnPorts { route: 7, netfilter: 8 });
        seen.own_table.hold(Vec::new(), None);
        seen.others_chains = Some((Vec::new(), Vec::new()));
        seen
    };
    let cases = [
        (AUTHOR, new_rule, named(1, "hostgw"), (Doubt::Ours, false, true)),
        (AUTHOR, new_element, named(1, "hostgw"), (Doubt::Ours, false, true)),
        (AUTHOR, new_element, named(1, HOST_PORTS_TABLE), (Doubt::Ours, true, true)),
        (AUTHOR, new_element, named(2, "kube-proxy"), (Doubt::Nothing, true, true)),
        (AUTHOR, new_rule, named(2, "filter"), (Doubt::Ours, true, false)),
        (AUTHOR, generation, vec![0; 4], (Doubt::Nothing, true, true)),
        (AUTHOR, new_rule, vec![0; 4], (Doubt::Ours, false, false)),
        (8, new_rule, named(1, "hostgw"), (Doubt::Nothing, true, true)),
        (8, generation, vec![0; 4], (Doubt::Nothing, true, true)),
        (8, new_element, named(1, "other"), (Doubt::Nothing, true, true)),
        // Which elements, cannot be read.
        (8, new_element, named(1, "hostgw"), (Doubt::Nothing, false, true)),
    ];
    for (author, kind, payload, expected) in cases {
        let mut seen = known();
        let doubt = seen.hear_of_rules(Event { author, kind, flags: 0, payload: &payload });
        let told = (doubt, seen.own_table.is_known(), seen.others_chains.is_some());
        assert_eq!(told, expected, "{kind:x} {payload:?}");
    }
}
