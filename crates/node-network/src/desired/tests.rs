//! When this node is announced, and with what.

use crate::observed::LinkKind;
use crate::plan::{Change, Plan};
use crate::settings::Mode;
use crate::three_nodes::{ThreeNodes, link};

fn kinds(plan: &Plan) -> Vec<&'static str> {
    plan.changes().map(|change| change.line().kind).collect()
}

fn announces(plan: &Plan) -> bool {
    kinds(plan).iter().any(|kind| matches!(*kind, "ready-file" | "conflist"))
}

fn announced() -> ThreeNodes {
    let mut cluster = ThreeNodes::new();
    cluster.observed.conflist = Some(b"the last good one".to_vec());
    cluster.observed.ready_file = true;
    cluster
}

#[test]
fn the_first_announcement_waits_for_a_usable_internal_address() {
    let mut cluster = ThreeNodes::new();
    assert!(announces(&cluster.plan()));
    cluster.observed.links.get_mut(&2).unwrap().up = false;
    assert!(!announces(&cluster.plan()), "{}", cluster.shown());
    assert!(cluster.shown().contains("InternalIP 192.0.2.11 cannot be used"), "{}", cluster.shown());
    assert!(cluster.shown().contains("error: this node is not announced"), "{}", cluster.shown());
    let eth0 = cluster.observed.links.get_mut(&2).unwrap();
    (eth0.up, eth0.addresses[0].usable) = (true, false);
    assert!(announces(&cluster.plan()), "one family is enough: {}", cluster.shown());
    cluster.observed.links.get_mut(&2).unwrap().addresses.clear();
    assert!(!announces(&cluster.plan()), "{}", cluster.shown());
}

#[test]
fn an_announced_node_is_kept_up_to_date_without_its_internal_address() {
    let mut cluster = announced();
    cluster.observed.links.get_mut(&2).unwrap().addresses.clear();
    assert!(announces(&cluster.plan()), "{}", cluster.shown());
}

fn only_ipv4(node: &mut crate::ClusterNode) {
    let v4 = *node.pod_cidrs.get(crate::Family::Ipv4).unwrap();
    node.pod_cidrs = crate::PerFamily::default();
    node.pod_cidrs.insert(crate::Family::Ipv4, v4);
}

#[test]
fn an_mtu_that_cannot_carry_ipv6_leaves_the_last_good_conflist() {
    for (mtu, good) in [(1_279, false), (1_280, true), (0, true)] {
        for mut cluster in [ThreeNodes::new(), announced()] {
            cluster.settings.mtu = mtu;
            assert_eq!(announces(&cluster.plan()), good, "{}", cluster.shown());
            assert_eq!(cluster.shown().contains("error: setting mtu is"), !good, "{}", cluster.shown());
        }
    }
    let mut cluster = ThreeNodes::new();
    cluster.settings.mtu = 1_000;
    cluster.change("node1", only_ipv4);
    assert!(announces(&cluster.plan()), "{}", cluster.shown());
}

#[test]
fn an_uplink_too_small_for_ipv6_is_named_where_pods_have_ipv6() {
    for (mtu, small) in [(1_279, true), (1_280, false)] {
        let mut cluster = announced();
        cluster.observed.links.get_mut(&2).unwrap().mtu = mtu;
        let told = format!("warning: link eth0 has MTU {mtu}, and the kernel takes IPv6 off");
        assert_eq!(cluster.shown().contains(&told), small, "{}", cluster.shown());
        assert!(announces(&cluster.plan()), "{}", cluster.shown());
        cluster.change("node1", only_ipv4);
        assert!(!cluster.shown().contains("has MTU"), "{}", cluster.shown());
    }
}

#[test]
fn after_a_boot_the_last_good_conflist_is_made_ready() {
    let mut cluster = announced();
    (cluster.observed.ready_file, cluster.settings.mtu) = (false, 1_000);
    let kinds = kinds(&cluster.plan());
    assert!(kinds.contains(&"ready-file") && !kinds.contains(&"conflist"), "{kinds:?}");
}

#[test]
fn a_bridge_with_an_uplink_in_it_is_not_the_pods() {
    let mut cluster = ThreeNodes::new();
    cluster.settings.mode = Mode::Bridge;
    cluster.settings.bridge = Some("br0".parse().unwrap());
    cluster.observed.links.insert(7, link(7, "br0", LinkKind::Bridge, &["10.244.1.1/24"]));
    let port = |name: &str| {
        let mut port = link(8, name, LinkKind::Veth, &[]);
        port.master = Some(7);
        port
    };
    let spoof_rules =
        |cluster: &ThreeNodes| cluster.desired().own.unwrap().nft.to_string().contains("\"br0\"");
    cluster.observed.links.insert(8, port("hgw1"));
    assert!(announces(&cluster.plan()) && spoof_rules(&cluster), "{}", cluster.shown());
    cluster.observed.links.insert(8, port("eth1"));
    assert!(!announces(&cluster.plan()) && !spoof_rules(&cluster), "{}", cluster.shown());
    assert!(
        cluster.shown().contains("`br0`, which has port `eth1`, which is no pod's"),
        "{}",
        cluster.shown()
    );
    cluster.settings.bridge = Some("eth0".parse().unwrap());
    assert!(cluster.shown().contains("`eth0`, which is a link and no bridge"), "{}", cluster.shown());
}

#[test]
fn forwarding_goes_on_after_what_restricts_it_and_what_keeps_the_uplinks() {
    let mut cluster = ThreeNodes::new();
    cluster.observed.links.get_mut(&2).unwrap().learns_from_router_advertisements = true;
    let accept_ra = crate::desired::Sysctl::AcceptRa("eth0".parse().unwrap());
    cluster.observed.sysctls.insert(accept_ra, "1".to_owned());
    for restrict in [true, false] {
        cluster.settings.forwarding.restrict_to_pods = restrict;
        let plan = cluster.plan();
        let changes: Vec<Change<'_>> = plan.changes().collect();
        assert_eq!(kinds(&plan)[..4], ["sysctl", "nftables", "sysctl", "sysctl"]);
        let [accept_ra, nft, v4, v6] = &changes[..4] else { panic!("{}", cluster.shown()) };
        assert_eq!((v4.waits_for(nft), v6.waits_for(nft)), (restrict, restrict));
        assert_eq!((v4.waits_for(accept_ra), v6.waits_for(accept_ra)), (false, true));
        let conflist = changes.last().unwrap();
        let needed = [accept_ra, nft, v4, v6].map(|earlier| conflist.waits_for(earlier));
        assert_eq!(needed, [false, true, true, true]);
    }
}

#[test]
fn a_pod_cidr_without_a_free_address_is_told() {
    let mut cluster = announced();
    cluster.change("node1", |node| crate::three_nodes::set_cidr(node, "10.244.1.0/29"));
    cluster.attached = (2..=5).map(|n| crate::three_nodes::ip(&format!("10.244.1.{n}"))).collect();
    assert!(!cluster.shown().contains("is taken"), "{}", cluster.shown());
    cluster.attached.insert(crate::three_nodes::ip("10.244.1.6"));
    assert!(
        cluster
            .shown()
            .contains("every address of this node's pod CIDR 10.244.1.0/29 is taken by its 5 pods")
    );
}
