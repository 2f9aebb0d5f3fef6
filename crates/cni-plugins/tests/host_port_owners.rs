//! Whose a host port is: a living pod's stays, wherever its record is; a dead one's goes to who asks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;

use kernel::netlink::{Protocol, Socket};
use kernel::nftables::{Family, TableName, Transaction};
use link_name::LinkName;
use serde_json::{Value, json};
use support::node::{NODE_ADDRESSES, Node, Pod, add, addresses_of, check, del, ip, open_host_ports, uplink};
use support::plugin::Call;
use support::ports::{conf, connect, drop_links, listen, web, web_on};

/// The same configuration for another network, whose records are in another folder.
fn elsewhere(node: &Node, conf: &Value) -> Value {
    let mut conf = conf.clone();
    conf["name"] = json!("other");
    conf["bridge"] = json!("cni1");
    conf["ipam"]["dataDir"] = json!(node.folder().join("elsewhere"));
    conf["ipam"]["ranges"] = json!([[{"subnet": "10.99.0.0/24"}]]);
    conf
}

fn open_links() -> Vec<String> {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    kernel::link::dump(&mut socket).unwrap().into_iter().map(|link| link.name).collect()
}

#[test]
fn a_port_that_another_pod_has_is_refused_by_name_and_free_when_that_is_gone() {
    let node = Node::enter();
    let router = uplink(1500);
    let (pod, other) = (Pod::new("web"), Pod::new("other"));
    let conf = conf(&node, "ptp", &web());
    let first = addresses_of(&add(&pod, &conf));
    let before = node.state();
    let (code, msg) = Call::about("ADD", &other, &conf).run().error();
    assert_eq!(code, 102);
    assert!(msg.contains("8080") && msg.contains("web:eth0") && msg.contains("use another port"), "{msg}");
    assert_eq!(node.state(), before);
    // Nor can a pod of another network.
    let mut elsewhere = conf.clone();
    elsewhere["name"] = json!("other");
    elsewhere["ipam"]["ranges"] = json!([[{"subnet": "10.99.0.0/24"}]]);
    let (code, msg) = Call::about("ADD", &other, &elsewhere).run().error();
    assert_eq!(code, 102);
    assert!(msg.contains("8080") && msg.contains("web:eth0"), "{msg}");
    assert_eq!(node.state(), before);
    let to = SocketAddr::new(ip(NODE_ADDRESSES[0]), 8080);
    connect(&router, to, &listen(&pod, first[0], 80));
    del(&pod, &conf);
    let second = addresses_of(&add(&other, &conf));
    connect(&router, to, &listen(&other, second[0], 80));
}

#[test]
fn a_port_of_a_living_pod_whose_record_is_in_another_folder_is_refused_by_its_address() {
    for mode in ["ptp", "bridge"] {
        let node = Node::enter();
        let router = uplink(1500);
        let (pod, other) = (Pod::new("web"), Pod::new("other"));
        let conf = conf(&node, mode, &web());
        let own = addresses_of(&add(&pod, &conf));
        let other_conf = elsewhere(&node, &conf);
        let before = open_host_ports();
        let (code, msg) = Call::about("ADD", &other, &other_conf).run().error();
        assert_eq!(code, 102, "{mode}: {msg}");
        assert!(msg.contains("8080") && msg.contains(&own[0].to_string()), "{mode}: {msg}");
        assert_eq!(open_host_ports(), before, "{mode}");
        connect(&router, SocketAddr::new(ip(NODE_ADDRESSES[0]), 8080), &listen(&pod, own[0], 80));
        // Nobody runs DEL, but it is gone.
        drop_links();
        add(&other, &other_conf);
    }
}

#[test]
fn a_late_del_leaves_the_ports_that_another_network_has_by_now() {
    let node = Node::enter();
    let router = uplink(1500);
    let (pod, other) = (Pod::new("web"), Pod::new("other"));
    let conf = conf(&node, "ptp", &web());
    add(&pod, &conf);
    drop_links();
    let other_conf = elsewhere(&node, &conf);
    let own = addresses_of(&add(&other, &other_conf));
    del(&pod, &conf);
    connect(&router, SocketAddr::new(ip(NODE_ADDRESSES[0]), 8080), &listen(&other, own[0], 80));
}

#[test]
fn a_dead_pods_other_ports_are_closed_when_one_of_them_is_taken_over() {
    let node = Node::enter();
    let _router = uplink(1500);
    let port = |host_port| json!({"hostPort": host_port, "containerPort": 80, "protocol": "tcp"});
    let dead = Pod::new("dead");
    add(&dead, &conf(&node, "ptp", &json!([port(8080), port(8081)])));
    drop_links();
    let heir = Pod::new("heir");
    add(&heir, &conf(&node, "ptp", &json!([port(8080)])));
    let open = open_host_ports();
    assert!(open.iter().any(|line| line.contains("8080")), "{open:?}");
    assert!(!open.iter().any(|line| line.contains("8081")), "{open:?}");
}

#[test]
fn a_full_range_takes_back_what_the_dead_hold_with_all_that_hangs_on_it() {
    let node = Node::enter();
    let _router = uplink(1500);
    let mapping = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let mut conf = conf(&node, "ptp", &mapping);
    conf["ipam"]["ranges"] = json!([[{"subnet": "10.244.1.0/30"}]]);
    let dead = Pod::new("dead");
    let held = addresses_of(&add(&dead, &conf));
    drop_links();
    conf["runtimeConfig"] = json!({});
    let heir = Pod::new("heir");
    assert_eq!(addresses_of(&add(&heir, &conf)), held);
    assert_eq!(open_host_ports(), Vec::<String>::new());
    let (code, _) = Call::about("ADD", &Pod::new("late"), &conf).run().error();
    assert_eq!(code, 100, "the living keep what they have");
}

#[test]
fn the_agent_leaves_the_ports_of_living_pods_whose_records_are_in_another_folder() {
    for mode in ["ptp", "bridge"] {
        let node = Node::enter();
        let _router = uplink(1500);
        let (pod, other) = (Pod::new("web"), Pod::new("other"));
        add(&pod, &conf(&node, mode, &web()));
        add(&other, &elsewhere(&node, &conf(&node, mode, &web_on(9000))));
        let open = open_host_ports();
        let rebuild = || {
            let mut socket = Socket::open(Protocol::Netfilter).unwrap();
            let exists = |name: &LinkName| open_links().iter().any(|link| link == name.as_str());
            cni_plugins::host_ports::rebuild(&mut socket, &node.data_dir(), &[], &[], exists).unwrap()
        };
        assert!(rebuild().is_empty(), "{mode}");
        // Also where the whole table is to be made anew.
        let table = TableName::new(Family::Inet, "hostgw_hostport");
        let mut flush = Transaction::new();
        flush.flush_chain(&table, "output");
        flush.commit(&mut Socket::open(Protocol::Netfilter).unwrap()).unwrap();
        assert!(rebuild().declared, "{mode}");
        assert_eq!(open_host_ports(), open, "{mode}");
        drop_links();
        rebuild();
        assert_eq!(open_host_ports(), [""; 0], "{mode}");
    }
}

#[test]
fn ways_back_that_the_agent_led_over_the_nodes_new_address_are_well_and_go_with_their_pod() {
    for mode in ["ptp", "bridge"] {
        let node = Node::enter();
        let _router = uplink(1500);
        let pod = Pod::new("web");
        let conf = conf(&node, mode, &web());
        let result = add(&pod, &conf);
        let open = open_host_ports();
        let moved = ["192.0.2.99", "2001:db8::99"].map(ip);
        let exists = |name: &LinkName| open_links().iter().any(|link| link == name.as_str());
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        let rebuilt = cni_plugins::host_ports::rebuild(&mut socket, &node.data_dir(), &moved, &[], exists);
        assert!(rebuilt.unwrap().added > 0, "{mode}");
        assert_ne!(open_host_ports(), open, "{mode}: the ways back are others");
        check(&pod, &conf, &result).silent();
        del(&pod, &conf);
        assert_eq!(open_host_ports(), [""; 0], "{mode}");
        assert_eq!(node.kept(), [""; 0], "{mode}");
    }
}
