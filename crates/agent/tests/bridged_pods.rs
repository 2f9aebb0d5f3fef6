//! Bridged pods: they speak with their own addresses alone, and their host ports outlive the bridge.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;

use attachment::{HostPort, Protocol};
use kernel::netns::NetNs;
use node_network::settings::Mode;
use support::pod::{Pod, attach_bridged_with_ports};
use support::{Node, PATIENCE, dual, run, wait_until};

const GATEWAYS: [&str; 2] = ["10.244.1.1", "fd00:10:244:1::1"];
/// Addresses that the pod was not given, each with its prefix.
const FOREIGN: [&str; 2] = ["203.0.113.7/32", "fd00:77::7/128"];

fn bridged(anti_spoof: bool) -> (Node, Pod) {
    let mut node = Node::new();
    node.settings.mode = Mode::Bridge;
    node.settings.anti_spoof = anti_spoof;
    node.write_nodes(&[dual(1), dual(2)]);
    assert!(node.pass().converged);
    let port = |port| NonZeroU16::new(port).unwrap();
    let host_port =
        HostPort { protocol: Protocol::Tcp, host_ip: None, host_port: port(8080), container_port: port(80) };
    let pod = attach_bridged_with_ports(&node, "pod1", &[host_port]);
    let ip = |arguments: &[&str]| pod.ns.run(|| run("ip", arguments)).unwrap();
    for (gateway, foreign) in GATEWAYS.into_iter().zip(FOREIGN) {
        ip(&["route", "add", "default", "via", gateway]);
        ip(&["address", "add", foreign, "dev", "eth0", "nodad"]);
    }
    let state = node.pass();
    assert!(state.converged, "{state}");
    (node, pod)
}

fn udp(ns: &NetNs, address: IpAddr) -> UdpSocket {
    ns.run(|| UdpSocket::bind(SocketAddr::new(address, 0)).unwrap()).unwrap()
}

/// The source of the first datagram that comes to the node when the pod sends one with a foreign source, and then one
/// with its own.
fn first_source(node: &Node, pod: &Pod, family: usize) -> (IpAddr, IpAddr) {
    let gateway: IpAddr = GATEWAYS[family].parse().unwrap();
    let foreign: IpAddr = FOREIGN[family].split('/').next().unwrap().parse().unwrap();
    let own = pod.addresses[family];
    let receiver = udp(&node.ns, gateway);
    let to = receiver.local_addr().unwrap();
    for source in [foreign, own] {
        udp(&pod.ns, source).send_to(b"?", to).unwrap();
    }
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let (_, source) = receiver.recv_from(&mut [0; 8]).unwrap();
    (source.ip(), own)
}

#[test]
fn what_a_bridged_pod_sends_with_an_address_of_somebody_else_is_dropped() {
    let (node, pod) = bridged(true);
    for family in [0, 1] {
        let (seen, own) = first_source(&node, &pod, family);
        assert_eq!(seen, own);
    }
    // The same is let through where nothing looks at it, so that it is the rule that dropped it. (IPv6 has no rp_filter.)
    let (node, pod) = bridged(false);
    let (seen, own) = first_source(&node, &pod, 1);
    assert_ne!(seen, own);
}

/// From outside the node, by the host port, to what listens in the pod.
fn assert_served(node: &Node, listener: &TcpListener) {
    let connect = || TcpStream::connect_timeout(&"192.0.2.11:8080".parse().unwrap(), PATIENCE).unwrap();
    let client = node.lan.run(connect).unwrap();
    let (_, seen) = listener.accept().unwrap();
    assert_eq!(seen, client.local_addr().unwrap());
}

#[test]
fn a_host_port_of_a_bridged_pod_is_served_again_after_the_bridge_was_lost() {
    let (node, pod) = bridged(true);
    let listener = pod.ns.run(|| TcpListener::bind((pod.addresses[0], 80)).unwrap()).unwrap();
    assert_served(&node, &listener);
    run("ip", &["link", "del", "cni0"]);
    run("nft", &["delete", "table", "inet", "hostgw_hostport"]);
    let state = node.pass();
    assert!(state.converged, "{state}");
    wait_until("the port forwards", || {
        let shown = run("bridge", &["link", "show", "dev", pod.host_link.as_str()]);
        shown.contains("state forwarding")
    });
    assert_served(&node, &listener);
    node.assert_nothing_to_change();
}
