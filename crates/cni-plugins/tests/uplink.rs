//! Which link is the uplink, where others could be taken for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use kernel::{address, link};
use serde_json::{Value, json};
use support::node::{NODE_ADDRESSES, Node, Pod, add, change, foreign_veth, index_of, uplink};

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
