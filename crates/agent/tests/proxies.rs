//! What a node answers for on its LAN is what its pods hold: put back when lost, taken away with the pod, and nobody
//! else's is touched.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::IpAddr;

use kernel::netlink::{Protocol, Socket};
use kernel::sysctl::Sysctls;
use kernel::{link, neighbour};
use node_network::settings::Mode;
use support::pod::{Pod, attach_answered};
use support::{Node, change, dual, index_of, wait_until};

const UPLINK: &str = "eth0";

fn answered() -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = neighbour::dump(&mut Socket::open(Protocol::Route).unwrap(), true)
        .unwrap()
        .into_iter()
        .map(|proxied| proxied.ip)
        .collect();
    found.sort();
    found
}

fn node_with_pod() -> (Node, Pod) {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2)]);
    assert!(node.pass().converged);
    let pod = attach_answered(&node, "pod1", UPLINK);
    assert_eq!(answered(), pod.addresses);
    (node, pod)
}

#[test]
fn what_a_pod_has_lost_is_answered_for_again() {
    let (node, pod) = node_with_pod();
    change(|batch, _| neighbour::delete_proxy(batch, index_of(UPLINK), pod.addresses[0]));
    let state = node.pass();
    assert!(state.converged, "{state}");
    assert_eq!(answered(), pod.addresses);
    node.assert_nothing_to_change();
}

#[test]
fn a_pod_that_is_gone_takes_its_answers_along_and_leaves_those_of_others() {
    let (node, pod) = node_with_pod();
    let foreign: IpAddr = "10.244.1.77".parse().unwrap();
    change(|batch, _| neighbour::add_proxy(batch, index_of(UPLINK), foreign, 0));
    change(|batch, _| link::delete(batch, index_of(pod.host_link.as_str())));
    let state = node.pass();
    assert!(state.converged, "{state}");
    assert_eq!(answered(), [foreign]);
}

#[test]
fn a_pod_whose_record_is_lost_keeps_its_answers_as_long_as_it_lives() {
    let (node, pod) = node_with_pod();
    std::fs::remove_dir_all(node.paths().ipam_dir()).unwrap();
    node.pass();
    assert_eq!(answered(), pod.addresses);
    change(|batch, _| link::delete(batch, index_of(pod.host_link.as_str())));
    node.pass();
    assert_eq!(answered(), Vec::<IpAddr>::new());
}

#[test]
fn a_link_to_the_lan_that_is_made_anew_answers_for_the_pods_again() {
    let mut node = Node::new();
    node.settings.mode = Mode::L2Routed;
    node.settings.lan.subnets =
        ["10.244.0.0/16", "fd00:10:244::/56"].map(|net| net.parse().unwrap()).to_vec();
    node.write_nodes(&[dual(1)]);
    let agent = node.start();
    node.wait_until_converged();
    let pod = attach_answered(&node, "pod1", UPLINK);
    let before = index_of(UPLINK);
    // Its addresses, and all for whom it answered, go with it.
    change(|batch, _| link::delete(batch, before));
    assert_eq!(answered(), Vec::<IpAddr>::new());
    node.plug_in();
    assert_ne!(index_of(UPLINK), before);
    wait_until("the new link answers", || answered() == pod.addresses);
    for (key, value) in [
        ("net/ipv4/neigh/eth0/proxy_delay", "0"),
        ("net/ipv6/neigh/eth0/proxy_delay", "0"),
        ("net/ipv6/conf/eth0/proxy_ndp", "1"),
    ] {
        wait_until(key, || Sysctls::default().read(key).unwrap().as_deref() == Some(value));
    }
    drop(agent);
}
