use proptest::prelude::*;

use super::*;
use crate::condition::{MtuCondition, Severity};
use crate::settings::Mode;
use crate::three_nodes::{ThreeNodes, link, node, route};

/// The first of three nodes, `eth0` with this MTU, and its dual-stack pods with these.
fn told(cluster: &ThreeNodes, pods: &[u32]) -> Vec<Condition> {
    told_of(cluster, pods, &Family::BOTH, false)
}

fn told_of(cluster: &ThreeNodes, pods: &[u32], families: &[Family], leased: bool) -> Vec<Condition> {
    let links: Vec<ObservedLink> =
        pods.iter().map(|mtu| ObservedLink { mtu: *mtu, ..link(9, "hgw1", LinkKind::Veth, &[]) }).collect();
    let pods = links.iter().enumerate().map(|(number, link)| {
        let mut of_pod = PerFamily::default();
        for family in families {
            of_pod.insert(*family, ());
        }
        PodLink { name: format!("default/pod{number}"), link, families: of_pod, leased }
    });
    judge(pods, &cluster.observed, &node(1).internal_ips, &cluster.settings)
}

fn with_uplink(mtu: u32) -> ThreeNodes {
    let mut cluster = ThreeNodes::new();
    cluster.observed.links.get_mut(&2).unwrap().mtu = mtu;
    cluster
}

fn shown(conditions: &[Condition]) -> String {
    conditions.iter().map(|told| format!("{:?}: {told}\n", told.severity())).collect()
}

#[test]
fn pods_with_more_than_the_uplink_carries_are_a_warning_and_smaller_ones_a_notice() {
    insta::assert_snapshot!(shown(&told(&with_uplink(1400), &[1400, 1500, 1300, 9000])), @r"
    Warning: pods of this node have a larger MTU than the uplink (2, such as default/pod1 with 1500): link `eth0` carries 1400 bytes; recreate them, or let it carry as much
    Notice: pods of this node have a smaller MTU than a new pod would (1, such as default/pod2 with 1300): recreate them for 1400 bytes
    ");
    assert_eq!(told(&with_uplink(1500), &[1500, 1500]), []);
}

#[test]
fn what_a_new_pod_would_have_too_is_remedied_by_the_setting() {
    let mut cluster = with_uplink(1400);
    cluster.settings.mtu = 1500;
    insta::assert_snapshot!(shown(&told(&cluster, &[1500])), @"Warning: pods of this node have a larger MTU than the uplink (1, such as default/pod0 with 1500): link `eth0` carries 1400 bytes; set mtu to 1400 and recreate them, or let it carry as much");
    cluster.settings.mtu = 1300;
    assert_eq!(told(&cluster, &[1300, 1400]), []);
}

#[test]
fn the_port_of_the_bridge_to_the_lan_counts_and_pods_and_machines_there_do_not() {
    let mut cluster = with_uplink(1500);
    cluster.settings.mode = Mode::L2;
    cluster.observed.links.get_mut(&2).unwrap().kind = LinkKind::Bridge;
    for (index, kind, mtu) in
        [(3, LinkKind::Other, 1450), (4, LinkKind::Tun, 1300), (5, LinkKind::Veth, 1300)]
    {
        let port = ObservedLink { mtu, master: Some(2), ..link(index, &format!("port{index}"), kind, &[]) };
        cluster.observed.links.insert(index, port);
    }
    insta::assert_snapshot!(shown(&told(&cluster, &[1500])), @"Warning: pods of this node have a larger MTU than the uplink (1, such as default/pod0 with 1500): link `port3` carries 1450 bytes; set mtu to 1450 and recreate them, or let it carry as much");
}

#[test]
fn a_pod_is_judged_by_the_uplinks_of_its_families() {
    let mut cluster = ThreeNodes::new();
    let v6 = cluster.observed.links.get_mut(&2).unwrap().addresses.pop().unwrap();
    let mut tunnel = ObservedLink { mtu: 1420, ..link(3, "wg0", LinkKind::Wireguard, &[]) };
    tunnel.addresses.push(v6);
    cluster.observed.links.insert(3, tunnel);
    assert_eq!(told_of(&cluster, &[1500], &[Family::Ipv4], false), []);
    assert_eq!(told_of(&cluster, &[1420], &Family::BOTH, false), []);
    let both = told(&cluster, &[1500]);
    assert!(shown(&both).contains("link `wg0` carries 1420"), "{}", shown(&both));
}

#[test]
fn where_a_dummy_holds_the_nodes_address_the_default_routes_link_counts() {
    let mut cluster = with_uplink(1400);
    cluster.observed.links.get_mut(&2).unwrap().addresses.clear();
    let dummy = link(3, "dummy0", LinkKind::Dummy, &["192.0.2.11/32"]);
    cluster.observed.links.insert(3, dummy);
    let of_ipv4 = |cluster: &ThreeNodes| told_of(cluster, &[1500], &[Family::Ipv4], false);
    assert_eq!(of_ipv4(&cluster), []);
    cluster.observed.routes.push(route("0.0.0.0/0", 0, 4, "192.0.2.1"));
    assert!(shown(&of_ipv4(&cluster)).contains("link `eth0` carries 1400"), "{}", shown(&of_ipv4(&cluster)));
}

#[test]
fn below_1280_only_what_ipv6_does_not_ask_for_is_too_much() {
    let cluster = with_uplink(1200);
    assert_eq!(told(&cluster, &[1280]), []);
    assert_eq!(told(&cluster, &[1281]).len(), 1);
    assert_eq!(told_of(&cluster, &[1280], &[Family::Ipv4], false).len(), 1);
    // A bridge is not made small for it.
    let mut bridged = with_uplink(1200);
    bridged.settings.mode = Mode::Bridge;
    bridged.observed.links.insert(3, link(3, "cni0", LinkKind::Bridge, &[]));
    assert!(
        shown(&told(&bridged, &[1500])).contains("set mtu to 1280"),
        "{}",
        shown(&told(&bridged, &[1500]))
    );
}

#[test]
fn a_server_may_lend_less_and_a_node_that_is_not_known_says_nothing() {
    let cluster = with_uplink(1500);
    assert_eq!(told_of(&cluster, &[1300], &Family::BOTH, true), []);
    assert_eq!(told_of(&cluster, &[1501], &Family::BOTH, true).len(), 1);
    let large = ObservedLink { mtu: 9000, ..link(9, "hgw1", LinkKind::Veth, &[]) };
    let mut families = PerFamily::default();
    families.insert(Family::Ipv4, ());
    let pod = PodLink { name: "default/pod".to_owned(), link: &large, families, leased: false };
    assert_eq!(judge([pod], &cluster.observed, &PerFamily::default(), &cluster.settings), []);
}

proptest! {
    #[test]
    fn each_pod_is_told_of_once_at_most_and_the_remedy_ends_it(
        uplink in 68_u32..=70_000, setting in prop_oneof![Just(0), 1280_u32..=65_535],
        pods in prop::collection::vec(68_u32..=65_535, 0..8), both in any::<bool>(),
    ) {
        let families = if both { &Family::BOTH[..] } else { &[Family::Ipv4] };
        let mut cluster = with_uplink(uplink);
        cluster.settings.mtu = setting;
        let conditions = told_of(&cluster, &pods, families, false);
        let mut counted = 0;
        let mut new = if setting == 0 { uplink.min(MAX_MTU).max(if both { 1280 } else { 0 }) } else { setting };
        for condition in &conditions {
            match condition {
                Condition::Mtu(MtuCondition::PodsAboveUplink { pods, mtu, link_mtu, setting, .. }) => {
                    prop_assert!(mtu > link_mtu && condition.severity() == Severity::Warning);
                    counted += pods;
                    new = setting.unwrap_or(new);
                    cluster.settings.mtu = setting.unwrap_or(cluster.settings.mtu);
                }
                Condition::Mtu(MtuCondition::PodsBelowUplink { pods, mtu, new, .. }) => {
                    prop_assert!(mtu < new && condition.severity() == Severity::Notice);
                    counted += pods;
                }
                other => prop_assert!(false, "{other}"),
            }
        }
        prop_assert!(counted <= pods.len());
        // Recreated, all have what a new pod gets.
        let recreated = told_of(&cluster, &vec![new; pods.len()], families, false);
        let had_remedy = conditions.iter().any(|told| matches!(told, Condition::Mtu(MtuCondition::PodsAboveUplink { .. })));
        prop_assert!(recreated.is_empty() || !had_remedy, "{}", shown(&recreated));
    }
}
