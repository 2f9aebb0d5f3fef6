//! What an uninstall finds on a node, whoever or whatever left it there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use kernel::link;
use kernel::netlink::{Protocol, Socket};
use link_name::LinkName;
use support::{Node, change, dual, run, run_with_input};

#[test]
fn uninstall_deletes_the_pods_bridge_and_not_one_that_somebody_made() {
    let mut node = Node::new();
    node.settings.mode = node_network::settings::Mode::Bridge;
    node.write_nodes(&[dual(1)]);
    for (mac, stays) in [([0x0e, 0x58, 10, 244, 1, 1], false), ([0x02, 0, 0, 0, 0, 1], true)] {
        assert!(node.pass().converged);
        change(|batch, _| link::create_bridge(batch, &LinkName::new("cni0").unwrap(), mac, 1500, true));
        assert!(agent::uninstall(&node.settings, &node.paths(), false).unwrap().is_clean());
        let mut socket = Socket::open(Protocol::Route).unwrap();
        assert_eq!(link::by_name(&mut socket, "cni0").unwrap().is_some(), stays);
    }
}

#[test]
fn uninstall_finds_what_earlier_settings_made() {
    let mut node = Node::new();
    node.settings.mode = node_network::settings::Mode::Bridge;
    node.settings.cni.conf_file = "/etc/cni/net.d/05-pods.conflist".to_owned();
    run("iptables", &["-N", "DOCKER-USER"]);
    run("iptables", &["-P", "FORWARD", "DROP"]);
    run("iptables", &["-A", "FORWARD", "-j", "DOCKER-USER"]);
    node.write_nodes(&[dual(1)]);
    node.pass();
    run("iptables", &["-D", "FORWARD", "-j", "DOCKER-USER"]);
    std::fs::write(node.path("etc/cni/net.d/.hostgw-05-pods.conflist.new"), "{").unwrap();
    let mac = [0x0e, 0x58, 10, 244, 1, 1];
    change(|batch, _| link::create_bridge(batch, &LinkName::new("cni0").unwrap(), mac, 1500, true));
    run("ip", &["link", "add", "other", "type", "veth", "peer", "name", "other1"]);
    run("ip", &["link", "set", "other", "master", "cni0"]);
    // A link that shapes what a pod sent is no living pod.
    run("ip", &["link", "add", "hgi0123456789ab", "type", "ifb"]);
    node.settings = node_network::Settings::default();
    let report = agent::uninstall(&node.settings, &node.paths(), false).unwrap();
    assert!(!report.is_clean() && report.failed.is_empty(), "{report:?}");
    assert_eq!(report.left.len(), 1, "{report:?}");
    assert!(report.left[0].contains("cni0") && report.left[0].contains("other"), "{report:?}");
    assert_eq!(std::fs::read_dir(node.path("etc/cni/net.d")).unwrap().count(), 0);
    assert!(!run("iptables", &["-S"]).contains("hostgw"));
    run("ip", &["link", "set", "other", "nomaster"]);
    let report = agent::uninstall(&node.settings, &node.paths(), false).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let mut socket = Socket::open(Protocol::Route).unwrap();
    assert!(link::by_name(&mut socket, "cni0").unwrap().is_none());
}

#[test]
fn uninstall_names_a_configuration_of_our_plugin_that_somebody_else_wrote() {
    let node = Node::new();
    node.write_nodes(&[dual(1)]);
    node.pass();
    let theirs = node.path("etc/cni/net.d/20-theirs.conflist");
    std::fs::write(&theirs, r#"{"name":"x","plugins":[{"type":"hostgw"}]}"#).unwrap();
    std::fs::write(node.path("etc/cni/net.d/30-other.conflist"), r#"{"plugins":[{"type":"bridge"}]}"#)
        .unwrap();
    let report = agent::uninstall(&node.settings, &node.paths(), false).unwrap();
    assert_eq!(report.left, [theirs.display().to_string()]);
    assert!(theirs.exists());
}

#[test]
fn uninstall_deletes_the_tables_of_drop_in_plugins_unless_pods_are_in_them() {
    let node = Node::new();
    node.write_nodes(&[dual(1)]);
    let tables = "table inet hostgw_masquerade {\n map pods4 { type ipv4_addr : verdict; }\n}\n\
                  table inet hostgw_firewall {\n set pods4 { type ipv4_addr; \
                  elements = { 10.9.0.2 comment \"net c1:eth0\" }\n }\n}\n\
                  table inet hostgwx {\n}\n";
    let names = || run("nft", &["list", "tables"]);
    for force in [false, true] {
        node.pass();
        run_with_input("nft", &["-f", "-"], tables);
        let report = agent::uninstall(&node.settings, &node.paths(), force).unwrap();
        assert_eq!(report.is_clean(), force, "{report:?}");
        assert!(!names().contains("hostgw_masquerade"), "{}", names());
        assert!(names().contains("table inet hostgwx"), "somebody else's: {}", names());
        assert_eq!(names().contains("hostgw_firewall"), !force, "{}", names());
        if !force {
            assert!(
                report.left[0].contains("inet hostgw_firewall") && report.left[0].contains("1 "),
                "{report:?}"
            );
        }
        run("nft", &["delete", "table", "inet", "hostgwx"]);
    }
}
