//! The bridge of bridged pods: what others take from it comes back, and a range that went takes its gateway along.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::ErrorKind;
use std::net::TcpStream;

use node_network::settings::Mode;
use support::pod::{Pod, attach_bridged};
use support::{Node, PATIENCE, change, dual, index_of, node, run, wait_until};

/// The node answers the pod in both families: it refuses what nobody listens for.
fn assert_reachable(node: &Node, pod: &Pod) {
    for gateway in ["10.244.1.1:9", "[fd00:10:244:1::1]:9"] {
        let connect = || TcpStream::connect_timeout(&gateway.parse().unwrap(), PATIENCE);
        let error = pod.ns.run(connect).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{gateway}");
    }
    node.assert_nothing_to_change();
}

fn bridged() -> (Node, Pod) {
    let mut node = Node::new();
    node.settings.mode = Mode::Bridge;
    node.write_nodes(&[dual(1), dual(2)]);
    assert!(node.pass().converged);
    let pod = attach_bridged(&node, "pod1");
    let state = node.pass();
    assert!(state.converged, "{state}");
    (node, pod)
}

fn addresses() -> String {
    let shown = run("ip", &["-o", "address", "show", "dev", "cni0", "scope", "global"])
        + &run("ip", &["-o", "address", "show", "dev", "cni0", "scope", "link"]);
    let mut words: Vec<_> = shown.split_whitespace().filter(|word| word.contains('/')).collect();
    words.sort_unstable();
    words.join(" ")
}

#[test]
fn a_bridge_that_was_damaged_is_made_whole_again() {
    let (node, pod) = bridged();
    let good = addresses();
    assert!(good.contains("fe80::") && good.contains("10.244.1.1/24"), "{good}");
    let port = pod.host_link.to_string();
    let damages: [(&str, &[&[&str]]); 8] = [
        ("flap", &[&["link", "set", "cni0", "down"], &["link", "set", "cni0", "up"]]),
        ("down", &[&["link", "set", "cni0", "down"]]),
        ("IPv4 gateway", &[&["address", "del", "10.244.1.1/24", "dev", "cni0"]]),
        ("all addresses", &[&["address", "flush", "dev", "cni0"]]),
        ("port", &[&["link", "set", &port, "nomaster"], &["link", "set", &port, "down"]]),
        ("bridge", &[&["link", "del", "cni0"]]),
        // The kernel takes IPv6 off a link so small.
        ("MTU", &[&["link", "set", "cni0", "mtu", "1000"]]),
        ("larger MTU", &[&["link", "set", "cni0", "mtu", "9000"]]),
    ];
    for (damage, commands) in damages {
        for command in commands {
            run("ip", command);
        }
        let state = node.pass();
        assert!(state.converged, "{damage}: {state}");
        assert_eq!(addresses(), good, "{damage}");
        let shown = run("ip", &["-d", "link", "show", "dev", &port]);
        assert!(shown.contains("master cni0") && shown.contains("hairpin on"), "{damage}: {shown}");
        let bridge = run("ip", &["-d", "link", "show", "dev", "cni0"]);
        assert!(bridge.contains("addrgenmode none") && bridge.contains("mtu 1500 "), "{damage}: {bridge}");
        assert_reachable(&node, &pod);
    }
}

#[test]
fn a_running_agent_hears_of_a_bridge_that_flapped() {
    let (node, _pod) = bridged();
    let good = addresses();
    let _agent = node.start();
    node.wait_until_converged();
    change(|batch, _| kernel::link::set_down(batch, index_of("cni0")));
    change(|batch, _| kernel::link::set_up(batch, index_of("cni0")));
    wait_until("the addresses are back", || addresses() == good);
}

#[test]
fn the_gateway_of_a_former_range_goes_with_the_last_pod_of_it() {
    let (node, pod) = bridged();
    let renumbered = node_of(&["10.244.9.0/24", "fd00:10:244:9::/64"]);
    node.write_nodes(&[renumbered.clone(), dual(2)]);
    node.pass();
    run("ip", &["address", "add", "198.51.100.7/24", "dev", "cni0"]);
    run("ip", &["address", "add", "10.244.9.1/24", "dev", "cni0"]);
    node.pass();
    assert!(addresses().contains("10.244.1.1/24") && addresses().contains("fd00:10:244:1::1/64"));
    let network = attachment::NetworkName::new("hostgw").unwrap();
    let store = attachment::Store::open(&node.paths().ipam_dir(), &network).unwrap();
    run("ip", &["link", "del", pod.host_link.as_str()]);
    store.detach(&pod.attachment).unwrap().unwrap().release().unwrap();
    node.pass();
    let left = addresses();
    assert!(!left.contains("10.244.1.1/24") && !left.contains("fd00:10:244:1::1/64"), "{left}");
    assert!(left.contains("10.244.9.1/24") && left.contains("198.51.100.7/24"), "{left}");
    assert!(left.contains("fe80::"), "{left}");
    node.assert_nothing_to_change();
}

fn node_of(cidrs: &[&str]) -> String {
    node("node1", cidrs, &["192.0.2.11", "2001:db8::11"])
}
