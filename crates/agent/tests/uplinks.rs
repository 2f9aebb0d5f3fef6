//! What a node does for its uplinks, and waits for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use kernel::link::{self, Veth, VethEnd};
use link_name::LinkName;
use support::pod::{attach_bridged, attach_for_kubernetes};
use support::{Node, change, dual, index_of, node, routed, run, wait_until};

fn accept_ra(link: &str) -> String {
    let path = format!("/proc/sys/net/ipv6/conf/{link}/accept_ra");
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// Both files are there, or neither.
fn announced(node: &Node) -> bool {
    let conflist = node.path("etc/cni/net.d/10-hostgw.conflist").exists();
    assert_eq!(node.paths().ready_file().exists(), conflist);
    conflist
}

fn announced_after_a_pass(node: &Node) -> bool {
    node.pass();
    announced(node)
}

#[test]
fn an_uplink_that_has_heard_no_router_yet_will_hear_it_and_containers_links_will_not() {
    let node = Node::new();
    let (cali1, inside) = (LinkName::new("cali1").unwrap(), LinkName::new("inside").unwrap());
    change(|batch, _| {
        let veth = Veth {
            host: VethEnd { name: &cali1, mac: None, netns: None },
            peer: VethEnd { name: &inside, mac: None, netns: Some(std::os::fd::AsFd::as_fd(&node.lan)) },
            mtu: 1500,
            master: None,
            up: true,
        };
        link::create_veth(batch, &veth);
        link::create_bridge(batch, &LinkName::new("docker0").unwrap(), [2, 0, 0, 0, 0, 1], 1500, true);
    });
    // What limits what a pod sends.
    run("ip", &["link", "add", "bwp0", "up", "type", "ifb"]);
    node.write_nodes(&[dual(1)]);
    assert!(node.pass().converged);
    assert_eq!(["eth0", "cali1", "docker0", "bwp0"].map(accept_ra), ["2", "1", "1", "1"]);
    node.assert_nothing_to_change();
    agent::uninstall(&node.settings, &node.paths(), false).unwrap();
    assert_eq!(accept_ra("eth0"), "1");
}

#[test]
fn a_node_whose_uplink_is_down_is_announced_once_it_is_up() {
    let node = Node::new();
    run("ip", &["link", "set", "eth0", "down"]);
    node.write_nodes(&[dual(1), dual(2)]);
    let state = node.pass();
    assert!(!announced(&node), "{state}");
    assert!(state.conditions.iter().any(|condition| condition.code == "not-announced"), "{state}");
    change(|batch, _| link::set_up(batch, index_of("eth0")));
    wait_until("the node is announced", || announced_after_a_pass(&node));
    // Once announced it stays so.
    run("ip", &["link", "set", "eth0", "down"]);
    assert!(announced_after_a_pass(&node));
}

#[test]
fn a_pod_cidr_inside_the_nodes_network_cuts_nothing_off() {
    let node1 = Node::new();
    let addresses = ["192.0.2.11", "2001:db8::11"];
    node1.write_nodes(&[node("node1", &["192.0.2.0/24", "fd00:10:244:1::/64"], &addresses), dual(2)]);
    let state = node1.pass();
    assert!(state.conditions.iter().any(|condition| condition.code == "own-pod-cidr-clash"), "{state}");
    assert!(!state.converged && !announced(&node1), "{state}");
    assert!(!support::routes(true).iter().any(|route| route.contains("192.0.2.0/24")));
}

#[test]
fn a_peer_whose_cidr_is_misspelt_keeps_its_route() {
    let node1 = Node::new();
    node1.write_nodes(&[dual(1), dual(2)]);
    node1.pass();
    let misspelt = node("node2", &["10.244.2.0/244"], &["192.0.2.12", "2001:db8::12"]);
    node1.write_nodes(&[dual(1), misspelt]);
    let state = node1.pass();
    assert!(routed("10.244.2.0/24", "192.0.2.12") && routed("fd00:10:244:2::/64", "2001:db8::12"), "{state}");
    assert!(!state.converged, "{state}");
    node1.write_nodes(&[dual(1)]);
    assert!(node1.pass().converged);
    assert!(!routed("10.244.2.0/24", "192.0.2.12"));
}

/// The pods' MTUs that the agent tells of, and as what.
fn told_of_mtus(state: &agent::StateDocument) -> Vec<(String, String)> {
    let of_mtus = state.conditions.iter().filter(|told| told.code.ends_with("-uplink-mtu"));
    of_mtus.map(|told| (told.code.clone(), told.message.clone())).collect()
}

#[test]
fn pods_that_kept_their_mtu_when_the_uplinks_changed_are_told_of() {
    let node = Node::new();
    node.write_nodes(&[dual(1)]);
    node.pass();
    let pod = attach_for_kubernetes(&node, "web");
    let _other = attach_bridged(&node, "other");
    let running = node.start();
    let told = || node.state().map(|state| told_of_mtus(&state)).unwrap_or_default();
    node.wait_until_converged();
    assert_eq!(told(), []);
    run("ip", &["link", "set", "eth0", "mtu", "1400"]);
    wait_until("larger pods are told of", || {
        matches!(told().as_slice(), [(code, message)] if code == "pods-above-uplink-mtu"
            && message.contains("larger MTU than the uplink (2, such as default/web with 1500)")
            && message.contains("link `eth0` carries 1400 bytes; recreate them"))
    });
    // What a recreated pod has.
    run("ip", &["link", "set", pod.host_link.as_str(), "mtu", "1400"]);
    wait_until(
        "one is left",
        || matches!(told().as_slice(), [(_, message)] if message.contains("(1, such as other:eth0 with 1500)")),
    );
    run("ip", &["link", "set", "eth0", "mtu", "1500"]);
    wait_until("the smaller pod is told of", || {
        matches!(told().as_slice(), [(code, message)] if code == "pods-below-uplink-mtu"
            && message.contains("(1, such as default/web with 1400): recreate them for 1500 bytes"))
    });
    run("ip", &["link", "set", pod.host_link.as_str(), "mtu", "1500"]);
    wait_until("all are alike", || told().is_empty());
    drop(running);
}
