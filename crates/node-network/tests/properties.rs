//! What holds of every plan, whatever the cluster and the kernel hold.

mod model;

use std::collections::BTreeSet;

use model::{any_world, apply};
use node_network::cluster::{Freshness, SourceKind};
use node_network::desired::{DesiredRoute, SetName};
use node_network::family::overlaps;
use node_network::observed::{ObservedRoute, RouteKind};
use node_network::plan::{NftChange, RouteChange};
use node_network::{Change, Family, NODE_ROUTE_PROTOCOL, Plan};
use proptest::prelude::*;

fn route_changes(plan: &Plan, family: Family) -> Vec<RouteChange> {
    let changes = plan.changes().filter_map(|change| match change {
        Change::Route(change) => Some(change.clone()),
        _ => None,
    });
    changes.filter(|change| Family::of_net(&destinations(change)[0]) == family).collect()
}

fn destinations(change: &RouteChange) -> Vec<ipnet::IpNet> {
    match change {
        RouteChange::Add { route, .. } | RouteChange::Replace { route, .. } => vec![route.key.dst],
        RouteChange::Delete { routes, .. } => routes.iter().map(|route| route.key.dst).collect(),
    }
}

fn deleted(change: &RouteChange) -> usize {
    match change {
        RouteChange::Add { superseded, .. } | RouteChange::Replace { superseded, .. } => superseded.len(),
        RouteChange::Delete { routes, .. } => routes.len(),
    }
}

fn foreign(routes: &[ObservedRoute]) -> Vec<&ObservedRoute> {
    routes.iter().filter(|route| !route.is_ours_alone()).collect()
}

fn elements(plan: &Plan, set: SetName) -> Option<Vec<ipnet::IpNet>> {
    plan.changes().find_map(|change| match change {
        Change::Nft(NftChange::Create(table) | NftChange::Rebuild(table)) => table.sets.get(&set).cloned(),
        _ => None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_plan_carried_out_leaves_nothing_to_plan(world in any_world()) {
        // In a file the present holder of a contested CIDR wins, and a first pass may have unseated one.
        let passes = if world.snapshot.source == SourceKind::File { 2 } else { 1 };
        let mut converged = world;
        for _ in 0..passes {
            converged.observed = apply(&converged.observed, &converged.plan());
        }
        let again = converged.plan();
        prop_assert!(again.is_empty(), "{:?}", again.changes().map(|c| c.line().to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn no_destination_is_changed_twice(world in any_world()) {
        let plan = world.plan();
        let mut seen = BTreeSet::new();
        for change in Family::BOTH.into_iter().flat_map(|family| route_changes(&plan, family)) {
            let of_change: BTreeSet<_> = destinations(&change).into_iter().collect();
            prop_assert_eq!(of_change.len(), 1);
            prop_assert!(of_change.into_iter().all(|dst| seen.insert(dst)));
        }
    }

    #[test]
    fn routes_that_are_not_ours_alone_stay_as_they_are(world in any_world()) {
        let after = apply(&world.observed, &world.plan());
        prop_assert_eq!(foreign(&world.observed.routes), foreign(&after.routes));
    }

    #[test]
    fn nothing_is_deleted_unless_a_synced_source_lists_this_node(world in any_world()) {
        let desired = world.desired();
        let listed = world.snapshot.nodes.contains_key(&world.this_node);
        let synced = world.snapshot.freshness == Freshness::Synced;
        let nodes = &world.snapshot.nodes;
        let readable = nodes.get(&world.this_node).is_some_and(|this| !this.unreadable_pod_cidr);
        prop_assert_eq!(desired.may_delete, listed && synced && readable);
        prop_assert_eq!(desired.own.is_some(), listed && synced && readable);
        if !desired.may_delete {
            let plan = world.plan();
            let changes: Vec<_> = Family::BOTH.into_iter().flat_map(|f| route_changes(&plan, f)).collect();
            prop_assert_eq!(changes.iter().map(deleted).sum::<usize>(), 0);
            prop_assert!(plan.changes().all(|change| matches!(change, Change::Route(_))));
        }
    }

    #[test]
    fn own_pods_are_never_routed_to_a_peer(world in any_world()) {
        let after = apply(&world.observed, &world.plan());
        let desired = world.desired();
        let Some(own) = desired.own else { return Ok(()) };
        // A CIDR that was lost before it was ever announced holds no pods of this node.
        if !own.announce && world.observed.conflist.is_none() {
            return Ok(());
        }
        for route in after.routes.iter().filter(|route| route.is_ours_alone() && !route.legs.is_empty()) {
            for cidr in own.pod_cidrs.values() {
                prop_assert!(!overlaps(cidr, &route.key.dst), "{} goes to a peer", route.key);
            }
        }
    }

    #[test]
    fn while_an_object_cannot_be_told_only_what_a_known_node_holds_is_deleted(mut world in any_world()) {
        world.snapshot.left_out = 1;
        let plan = world.plan();
        let known: Vec<_> = world.snapshot.nodes.values().flat_map(|node| node.pod_cidrs.values()).collect();
        for change in Family::BOTH.into_iter().flat_map(|family| route_changes(&plan, family)) {
            let dst = destinations(&change)[0];
            prop_assert!(deleted(&change) == 0 || known.iter().any(|cidr| overlaps(cidr, &dst)), "{dst}");
        }
    }

    #[test]
    fn a_guard_never_stands_on_addresses_of_the_nodes_networks(world in any_world()) {
        for (cidr, route) in &world.desired().routes {
            if *route != DesiredRoute::Guard {
                continue;
            }
            for (link, held) in world.observed.addresses().filter(|(link, _)| !link.is_pod_link()) {
                let network = held.address.trunc();
                prop_assert!(!overlaps(&network, cidr), "{cidr} guards {network} of {}", link.name);
            }
            for node in world.snapshot.nodes.values() {
                prop_assert!(!node.internal_ips.values().any(|address| cidr.contains(address)));
            }
        }
    }

    #[test]
    fn routes_to_a_peer_with_an_unreadable_cidr_stay(world in any_world()) {
        let plan = world.plan();
        let unreadable = |hop| world.snapshot.nodes.values().any(|node| {
            node.name != world.this_node
                && node.unreadable_pod_cidr
                && node.pod_cidrs.is_empty()
                && node.internal_ips.values().any(|address| *address == hop)
        });
        let desired = world.desired();
        for route in world.observed.routes.iter().filter(|route| route.is_ours_alone()) {
            let Some(hop) = route.legs.first().and_then(|leg| leg.via) else { continue };
            let dst = route.key.dst;
            let by_right = |node: &node_network::ClusterNode| node.pod_cidrs.values().any(|cidr| overlaps(cidr, &dst));
            if !unreadable(hop) || world.snapshot.nodes.values().any(by_right) {
                continue;
            }
            let held = desired.routes.get(&dst).is_some_and(|held| matches!(held, DesiredRoute::Hold { .. }));
            // Guards stand for this node's own pods while its Node object is not certain.
            let guarded = world.observed.routes.iter().any(|r| {
                r.is_ours() && r.kind == RouteKind::Unreachable && overlaps(&r.key.dst, &dst)
            });
            prop_assert!(held || guarded, "{}", route.key);
            let gone = Family::BOTH.into_iter().flat_map(|family| route_changes(&plan, family));
            prop_assert!(guarded || gone.into_iter().all(|change| destinations(&change)[0] != dst));
        }
    }

    #[test]
    fn one_family_does_not_change_what_the_other_gets(world in any_world()) {
        let both = world.plan();
        for (gone, kept) in [(Family::Ipv4, Family::Ipv6), (Family::Ipv6, Family::Ipv4)] {
            let alone = world.clone().without(gone).plan();
            prop_assert_eq!(route_changes(&both, kept), route_changes(&alone, kept));
            for set in [SetName::PodCidrs(kept), SetName::NeverMasquerade(kept), SetName::ClusterPods(kept)] {
                prop_assert_eq!(elements(&both, set), elements(&alone, set));
            }
        }
    }

    #[test]
    fn set_elements_are_disjoint(world in any_world()) {
        let Some(own) = world.desired().own else { return Ok(()) };
        for elements in own.nft.sets.values() {
            for (index, element) in elements.iter().enumerate() {
                prop_assert!(elements[index + 1..].iter().all(|other| !overlaps(element, other)));
            }
        }
    }

    #[test]
    fn the_announcement_comes_last(world in any_world()) {
        let plan = world.plan();
        let changes: Vec<_> = plan.changes().collect();
        if let Some(at) = changes.iter().position(|change| matches!(change, Change::Conflist(_))) {
            prop_assert_eq!(at, changes.len() - 1);
        }
        prop_assert!(changes.iter().all(|change| !change.line().reason.is_empty()));
    }

    #[test]
    fn every_route_of_ours_is_one_that_the_source_asks_for(world in any_world()) {
        let after = apply(&world.observed, &world.plan());
        let before: Vec<_> = world.observed.routes.iter().map(|route| route.key).collect();
        let new = after.routes.iter().filter(|route| route.protocol == NODE_ROUTE_PROTOCOL);
        for route in new.filter(|route| !before.contains(&route.key)) {
            let wanted = world.snapshot.nodes.values().any(|node| node.pod_cidrs.values().any(|cidr| *cidr == route.key.dst));
            prop_assert!(wanted, "{}", route.key);
        }
    }
}
