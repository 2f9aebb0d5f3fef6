//! The table as `nft` would list it.

use super::*;
use crate::settings::Mode;
use crate::three_nodes::{ThreeNodes, ip};

fn table(cluster: &ThreeNodes) -> String {
    cluster.desired().own.unwrap().nft.to_string()
}

#[test]
fn the_default_table() {
    let mut cluster = ThreeNodes::new();
    cluster.attached.insert(ip("10.244.9.7"));
    insta::assert_snapshot!(table(&cluster));
}

#[test]
fn every_option_in_bridge_mode() {
    let mut cluster = ThreeNodes::new();
    cluster.settings.mode = Mode::Bridge;
    cluster.settings.forwarding.restrict_to_pods = true;
    cluster.settings.masquerade.cluster_cidrs = vec!["10.244.0.0/16".parse().unwrap()];
    cluster.settings.masquerade.never_masquerade = vec!["198.51.100.0/24".parse().unwrap()];
    insta::assert_snapshot!(table(&cluster));
}

#[test]
fn a_node_without_its_internal_address_on_a_link_masquerades_as_the_kernel_chooses() {
    let mut cluster = ThreeNodes::new();
    cluster.observed.links.get_mut(&2).unwrap().addresses.clear();
    let table = table(&cluster);
    assert!(!table.contains("snat"), "{table}");
    assert!(table.contains("masquerade"), "{table}");
}

#[test]
fn switched_off_means_absent() {
    let mut cluster = ThreeNodes::new();
    cluster.settings.anti_spoof = false;
    cluster.settings.masquerade.enabled = false;
    assert_eq!(cluster.desired().own.unwrap().nft.chains, []);
}

#[test]
fn a_changed_rule_has_another_comment_and_an_equal_one_the_same() {
    let rule = |verdict| Rule { name: "x", matches: vec![Match::Established], verdict };
    assert_eq!(rule(Verdict::Accept).comment(), rule(Verdict::Accept).comment());
    assert_ne!(rule(Verdict::Accept).comment(), rule(Verdict::Drop).comment());
}
