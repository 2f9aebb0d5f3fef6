//! Which link is the uplink, where others could be taken for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use kernel::netlink::{Protocol, Socket};
use kernel::{address, link};
use serde_json::{Value, json};
use support::node::{NODE_ADDRESSES, Node, Pod, add, change, del, foreign_veth, index_of, uplink};

fn mtus(result: &Value) -> Vec<u64> {
    result["interfaces"].as_array().unwrap().iter().map(|link| link["mtu"].as_u64().unwrap()).collect()
}

/// A link that holds a documentation prefix, as test networks do, with an MTU of its own.
fn documentation_network() {
    foreign_veth("doc0", "doc1");
    let index = index_of("doc0");
    change(|batch, _| {
        link::set_mtu(batch, index, 9000);
        for net in ["203.0.113.1/24", "2001:db8:ffff::1/64"] {
            address::add(batch, index, net.parse().unwrap(), address::NODAD);
        }
        link::set_up(batch, index);
    });
}

#[test]
fn a_link_with_a_documentation_prefix_is_not_taken_for_the_uplink() {
    let node = Node::enter();
    let _router = uplink(1400);
    documentation_network();
    assert_eq!(mtus(&add(&Pod::new("pod"), &node.conf("ptp"))), [1400, 1400]);
}

#[test]
fn the_link_that_holds_the_configured_address_is_the_uplink_without_any_default_route() {
    let node = Node::enter();
    let _router = uplink(1400);
    change(|batch, socket| {
        for family in [kernel::route::Family::V4, kernel::route::Family::V6] {
            for route in kernel::route::dump(socket, family, kernel::route::Filter::default()).unwrap() {
                if route.destination.prefix_len() == 0 && !route.hops.is_empty() {
                    kernel::route::delete(batch, &route);
                }
            }
        }
    });
    let conf = node.conf_with(json!({"nodeAddresses": NODE_ADDRESSES}));
    assert_eq!(mtus(&add(&Pod::new("pod"), &conf)), [1400, 1400]);
}

#[test]
fn an_address_on_the_loopback_link_leaves_by_the_default_route() {
    let node = Node::enter();
    let _router = uplink(1400);
    change(|batch, _| address::add(batch, 1, "198.51.100.9/32".parse().unwrap(), 0));
    let conf = node.conf_with(json!({"nodeAddresses": ["198.51.100.9"]}));
    assert_eq!(mtus(&add(&Pod::new("pod"), &conf)), [1400, 1400]);
}

#[test]
fn an_ipv4_pod_may_have_a_link_too_small_for_ipv6() {
    let node = Node::enter();
    let conf = node.conf_with(json!({"mtu": 576, "ipam": {"ranges": [[{"subnet": "10.244.1.0/24"}]]}}));
    for mode in ["ptp", "bridge"] {
        let mut conf = conf.clone();
        conf["mode"] = json!(mode);
        assert!(mtus(&add(&Pod::new(mode), &conf)).iter().all(|mtu| *mtu == 576));
    }
}

#[test]
fn an_uplink_too_small_for_ipv6_keeps_no_dual_stack_pod_from_starting() {
    let node = Node::enter();
    let _router = uplink(1400);
    let set = |mtu| change(|batch, _| link::set_mtu(batch, index_of("up0"), mtu));
    let of_bridge =
        || link::by_name(&mut Socket::open(Protocol::Route).unwrap(), "cni0").unwrap().unwrap().mtu;
    let (ptp, bridge) = (node.conf("ptp"), node.conf("bridge"));
    set(1200);
    assert_eq!(mtus(&add(&Pod::new("ptp"), &ptp)), [1280, 1280]);
    let first = Pod::new("first");
    assert_eq!(mtus(&add(&first, &bridge)), [1280, 1280, 1280]);
    set(1400);
    // The bridge carries what the least of its pods takes, as long as that lives.
    let second = Pod::new("second");
    assert_eq!(mtus(&add(&second, &bridge)), [1400, 1400, 1400]);
    assert_eq!(of_bridge(), 1280);
    del(&first, &bridge);
    assert_eq!(of_bridge(), 1400);
    // What passes is not to outlast its cause: all on the bridge agree.
    set(1200);
    assert_eq!(mtus(&add(&Pod::new("third"), &bridge)), [1400, 1400, 1400]);
    assert_eq!(of_bridge(), 1400);
    let ipv4 = node.conf_with(json!({"ipam": {"ranges": [[{"subnet": "10.244.7.0/24"}]]}}));
    assert_eq!(mtus(&add(&Pod::new("ipv4"), &ipv4)), [1200, 1200]);
}

#[test]
fn a_node_that_switches_ipv6_off_on_new_links_still_serves_ipv6_pods() {
    let node = Node::enter();
    kernel::sysctl::Sysctls::default().write("net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    for mode in ["ptp", "bridge"] {
        add(&Pod::new(mode), &node.conf(mode));
    }
}

#[test]
fn no_ranges_gateway_is_handed_out() {
    let node = Node::enter();
    let ranges = json!([[
        {"subnet": "10.66.0.0/24", "rangeStart": "10.66.0.10", "rangeEnd": "10.66.0.11"},
        {"subnet": "10.66.0.0/24", "rangeStart": "10.66.0.30", "rangeEnd": "10.66.0.40", "gateway": "10.66.0.10"},
    ]]);
    let conf = node.conf_with(json!({"ipam": {"ranges": ranges, "dataDir": node.data_dir()}}));
    let result = add(&Pod::new("pod"), &conf);
    assert_eq!(support::node::addresses_of(&result), [support::node::ip("10.66.0.11")]);
}
