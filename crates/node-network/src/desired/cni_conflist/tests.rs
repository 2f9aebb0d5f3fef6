//! The conflist as the runtime finds it.

use crate::settings::{ListenerCheck, Mode};
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
    cluster.settings.cni.host_port_listener_check = ListenerCheck::Warn;
    cluster.settings.cni.strict_status = true;
    cluster.settings.cni.log_file = Some("/var/log/hostgw.log".to_owned());
    let conflist = cluster.desired().own.unwrap().conflist.unwrap();
    insta::assert_snapshot!(conflist.render());
}

#[test]
fn host_ports_on_localhost_are_for_routed_pods() {
    let mut cluster = ThreeNodes::new();
    cluster.settings.cni.localhost_ports = true;
    assert!(cluster.desired().own.unwrap().conflist.unwrap().render().contains(r#""localhostPorts": true"#));
    cluster.settings.mode = Mode::Bridge;
    let faults = cluster.settings.validate().unwrap_err();
    assert!(faults.iter().any(|fault| fault.field == "cni.localhostPorts"), "{faults:?}");
}

#[test]
fn a_node_without_pod_cidr_has_none() {
    let mut cluster = ThreeNodes::new();
    cluster.change("node1", |node| node.pod_cidrs = crate::PerFamily::default());
    assert_eq!(cluster.desired().own.unwrap().conflist, None);
    assert!(cluster.shown().contains("--allocate-node-cidrs"));
}
