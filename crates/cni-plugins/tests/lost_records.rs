//! A data folder that is lost while pods live: what they hold is handed out to nobody, and their end is as any other's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;

use serde_json::json;
use support::assert_first_packets;
use support::node::{
    FIRST, GATEWAYS, NODE_ADDRESSES, Node, Pod, add, addresses_of, change, del, index_of, ip,
    open_host_ports, pod_routes, uplink,
};
use support::plugin::Call;
use support::ports::{conf, connect, drop_links, listen, web, web_on};

/// As when a tmpfs is mounted again, or somebody cleans up.
fn lose_records(node: &Node) {
    std::fs::remove_dir_all(node.data_dir()).unwrap();
}

#[test]
fn a_new_pod_gets_no_address_and_no_port_of_those_that_live() {
    for mode in ["ptp", "bridge"] {
        let node = Node::enter();
        let router = uplink(1500);
        let (web_conf, bare) = (conf(&node, mode, &web()), conf(&node, mode, &json!([])));
        let (first, second) = (Pod::new("first"), Pod::new("second"));
        let own = addresses_of(&add(&first, &web_conf));
        let others = addresses_of(&add(&second, &bare));
        lose_records(&node);
        let third = Pod::new("third");
        let (code, msg) = Call::about("ADD", &third, &web_conf).run().error();
        assert!(code == 102 && msg.contains("8080"), "{mode}: {msg}");
        let fresh = addresses_of(&add(&third, &bare));
        for address in &fresh {
            assert!(!own.contains(address) && !others.contains(address), "{mode}: {address} twice");
        }
        let pods = [(&first.ns, own.clone()), (&second.ns, others), (&third.ns, fresh)];
        assert_first_packets(&node.ns, &GATEWAYS.map(ip), &pods);
        connect(&router, SocketAddr::new(ip(NODE_ADDRESSES[0]), 8080), &listen(&first, own[0], 80));
        // Their ends are as any other's, and leave nothing.
        for pod in [&first, &second, &third] {
            del(pod, &bare);
        }
        assert_eq!((node.kept(), open_host_ports()), (vec![], vec![]), "{mode}");
    }
}

#[test]
fn a_collection_leaves_the_living_whose_names_are_lost_and_frees_the_dead() {
    let node = Node::enter();
    let conf = node.conf("ptp");
    let (first, second) = (Pod::new("first"), Pod::new("second"));
    add(&first, &conf);
    lose_records(&node);
    add(&second, &conf);
    let mut gc = conf.clone();
    gc["cni.dev/valid-attachments"] = json!([{"containerID": "first", "ifname": "eth0"}]);
    Call::new("GC", &gc).run().silent();
    assert_eq!(pod_routes().len(), 2, "the first pod lives in both families, the second is gone");
    drop_links();
    Call::new("GC", &gc).run().silent();
    assert_eq!(node.kept(), [""; 0]);
}

#[test]
fn where_the_kernel_has_a_route_to_an_address_the_next_one_is_taken() {
    let node = Node::enter();
    let conf = node.conf("ptp");
    let add_route = |destination: &str| {
        let hop = kernel::route::Hop { index: Some(index_of("up0")), ..kernel::route::Hop::default() };
        let destination = format!("{destination}/32").parse().unwrap();
        let route =
            kernel::route::Route { hops: vec![hop], scope: 253, ..kernel::route::Route::to(destination) };
        change(|batch, _| kernel::route::add(batch, &route));
    };
    let _router = uplink(1500);
    let taken = ["10.244.1.2", "10.244.1.3", "10.244.1.4"];
    assert_eq!(taken[0], FIRST[0]);
    taken.iter().for_each(|address| add_route(address));
    let pod = Pod::new("pod");
    assert_eq!(addresses_of(&add(&pod, &conf))[0], ip("10.244.1.5"));
    assert_eq!(node.kept().len(), 3);
    del(&pod, &conf);
    // One that was asked for by name has no next.
    let mut asks = conf.clone();
    asks["runtimeConfig"] = json!({"ips": [taken[1]]});
    let before = node.state();
    let (code, msg) = Call::about("ADD", &pod, &asks).run().error();
    assert!(code == 106 && msg.contains(taken[1]) && msg.contains("in use"), "{code} {msg}");
    assert_eq!(node.state(), before);
}

#[test]
fn a_new_store_on_a_node_without_pods_claims_nothing() {
    let node = Node::enter();
    let _router = uplink(1500);
    // Somebody else's pair whose end has an address of the range.
    support::node::foreign_veth("veth0", "veth1");
    change(|batch, _| kernel::address::add(batch, index_of("veth1"), "10.244.1.2/32".parse().unwrap(), 0));
    add(&Pod::new("web"), &conf(&node, "ptp", &web_on(8080)));
    assert!(!node.kept().iter().any(|kept| kept.contains("lost-")), "{:?}", node.kept());
}
