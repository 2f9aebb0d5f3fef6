//! A node whose pods the reference plugins attach: the agent writes their chain, and leaves their links, addresses and
//! files alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::pod::attach_bridged;
use support::{Node, change, dual, index_of, run};

use kernel::netlink::{Protocol, Socket};
use kernel::{address, link};
use node_network::settings::{Chain, Mode};

fn classic_node() -> Node {
    let mut node = Node::new();
    node.settings.mode = Mode::Bridge;
    node.settings.cni.chain = Chain::Classic;
    node.settings.validate().unwrap();
    node.write_nodes(&[dual(1), dual(2)]);
    node
}

fn types(node: &Node) -> Vec<String> {
    let plugins = node.conflist()["plugins"].as_array().unwrap().clone();
    plugins.iter().map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_classic_chain_is_announced_and_uninstalled() {
    let node = classic_node();
    let state = node.pass();
    assert!(state.converged && node.path("run/hostgw/ready").exists(), "{state:?}");
    assert_eq!(types(&node), ["bridge", "portmap"]);
    node.assert_nothing_to_change();
    assert!(agent::uninstall(&node.settings, &node.paths(), false).unwrap().is_clean());
    assert!(!node.path("etc/cni/net.d/10-hostgw.conflist").exists());
}

#[test]
fn uninstall_knows_a_classic_list_that_earlier_settings_wrote() {
    let mut node = classic_node();
    node.settings.cni.conf_file = "/etc/cni/net.d/05-pods.conflist".to_owned();
    node.pass();
    let report = agent::uninstall(&node_network::Settings::default(), &node.paths(), false).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(!node.path("etc/cni/net.d/05-pods.conflist").exists());
}

#[test]
fn what_the_reference_made_is_left_alone() {
    let node = classic_node();
    assert!(node.pass().converged);
    run("ip", &["link", "add", "cni0", "type", "bridge"]);
    run("ip", &["link", "add", "veth1a2b3c4d", "type", "veth", "peer", "name", "pod"]);
    run("ip", &["link", "set", "veth1a2b3c4d", "master", "cni0", "up"]);
    change(|batch, _| {
        address::add(batch, index_of("cni0"), "10.244.1.1/24".parse().unwrap(), 0);
        link::set_up(batch, index_of("cni0"));
    });
    let held = node.path("run/cni-ipam-state/hostgw/10.244.1.5");
    std::fs::create_dir_all(held.parent().unwrap()).unwrap();
    std::fs::write(&held, "gone\r\neth0").unwrap();
    let links = || link::dump(&mut Socket::open(Protocol::Route).unwrap()).unwrap();
    let addresses = || address::dump(&mut Socket::open(Protocol::Route).unwrap()).unwrap();
    let before = (links().len(), addresses().len());
    let state = node.pass();
    assert!(state.converged && node.path("run/hostgw/ready").exists(), "{state:?}");
    assert_eq!((links().len(), addresses().len()), before);
    assert!(held.exists());
    node.assert_nothing_to_change();
}

#[test]
fn a_node_with_pods_of_type_hostgw_keeps_its_list_until_they_are_gone() {
    let mut node = classic_node();
    node.settings.cni.chain = Chain::Hostgw;
    assert!(node.pass().converged);
    let pod = attach_bridged(&node, "pod1");
    node.settings.cni.chain = Chain::Classic;
    let state = node.pass();
    assert!(state.conditions.iter().any(|condition| condition.code == "chain-switch-waits"), "{state:?}");
    assert_eq!(types(&node), ["hostgw"]);
    run("ip", &["link", "del", pod.host_link.as_str()]);
    // The first pass frees what the pod held, the second sees that.
    node.pass();
    node.pass();
    assert_eq!(types(&node), ["bridge", "portmap"]);
}
