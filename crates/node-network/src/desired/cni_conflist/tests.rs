//! The conflist as the runtime finds it.

use crate::settings::Mode;
use crate::three_nodes::ThreeNodes;

#[test]
fn a_dual_stack_node_with_routed_pods() {
    let conflist = ThreeNodes::new().desired().own.unwrap().conflist.unwrap();
    insta::assert_snapshot!(conflist.render());
}

#[test]
fn every_option_in_bridge_mode() {
    let mut cluster = ThreeNodes::new();
    cluster.settings.mode = Mode::Bridge;
    cluster.settings.mtu = 1400;
    cluster.settings.cni.disable_gc = true;
    cluster.settings.cni.log_file = Some("/var/log/hostgw.log".to_owned());
    let conflist = cluster.desired().own.unwrap().conflist.unwrap();
    insta::assert_snapshot!(conflist.render());
}

#[test]
fn a_node_without_pod_cidr_has_none() {
    let mut cluster = ThreeNodes::new();
    cluster.change("node1", |node| node.pod_cidrs = crate::PerFamily::default());
    assert_eq!(cluster.desired().own.unwrap().conflist, None);
    assert!(cluster.shown().contains("--allocate-node-cidrs"));
}
