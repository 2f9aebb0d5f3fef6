//! What configurations and runtimes may ask for, and what the kernel and the peers then see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use kernel::netlink::{Protocol, Socket};
use kernel::netns::NetNs;
use kernel::route::{Family, Filter, RouteKind};
use kernel::{address, link, route};
use serde_json::{Value, json};
use support::node::{
    FIRST, GATEWAYS, NODE_ADDRESSES, Node, Pod, add, addresses_of, change, check, del, ip, pod_routes, uplink,
};
use support::plugin::Call;
use support::{assert_first_packets, one_datagram, udp};

fn link_in(pod: &Pod) -> link::Link {
    let look_up = || link::by_name(&mut Socket::open(Protocol::Route).unwrap(), "eth0").unwrap().unwrap();
    pod.ns.run(look_up).unwrap()
}

/// Which source the pod sees when the node sends to each of its addresses.
fn seen_sources(node: &Node, pod: &Pod, addresses: &[IpAddr]) -> Vec<IpAddr> {
    let seen = |to: &IpAddr| {
        let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
        let at = udp(&pod.ns, *to, 0);
        let to = SocketAddr::new(*to, at.local_addr().unwrap().port());
        one_datagram(&udp(&node.ns, ip(any), 0), to, &at).ip()
    };
    addresses.iter().map(seen).collect()
}

#[test]
fn without_more_the_mtu_is_the_uplinks_and_the_node_speaks_from_its_address_there() {
    let node = Node::enter();
    let _router = uplink(1400);
    let pod = Pod::new("first");
    let conf = node.conf("ptp");
    let result = add(&pod, &conf);
    let mtus: Vec<u64> =
        result["interfaces"].as_array().unwrap().iter().map(|link| link["mtu"].as_u64().unwrap()).collect();
    assert_eq!(mtus, [1400, 1400]);
    assert_eq!(link_in(&pod).mtu, 1400);
    assert_eq!(seen_sources(&node, &pod, &FIRST.map(ip)), NODE_ADDRESSES.map(ip));
    check(&pod, &conf, &result).silent();
}

#[test]
fn a_configured_mtu_and_configured_node_addresses_win() {
    let node = Node::enter();
    let _router = uplink(1400);
    change(|batch, _| {
        address::add(batch, 1, "192.0.2.77/32".parse().unwrap(), 0);
        address::add(batch, 1, "2001:db8:1::77/128".parse().unwrap(), address::NODAD);
    });
    let internal = ["192.0.2.77", "2001:db8:1::77"];
    // The kernel makes an IPv6 address local from a work queue.
    let deadline = Instant::now() + support::PATIENCE;
    while route::look_up(&mut Socket::open(Protocol::Route).unwrap(), ip(internal[1]), None)
        .map_or(true, |found| found.kind != RouteKind::Local)
    {
        assert!(Instant::now() < deadline, "{} did not become local", internal[1]);
        std::thread::yield_now();
    }
    let pod = Pod::new("first");
    let conf = node.conf_with(json!({"mtu": 1300, "nodeAddresses": internal}));
    add(&pod, &conf);
    assert_eq!(link_in(&pod).mtu, 1300);
    assert_eq!(seen_sources(&node, &pod, &FIRST.map(ip)), internal.map(ip));
}

#[test]
fn a_node_address_that_the_node_does_not_have_any_more_is_passed_over_and_logged() {
    let node = Node::enter();
    let _router = uplink(1500);
    let log = node.folder().join("log");
    let pod = Pod::new("first");
    let conf = node.conf_with(json!({"logFile": log, "nodeAddresses": ["192.0.2.99", "2001:db8:1::99"]}));
    let result = add(&pod, &conf);
    assert_eq!(seen_sources(&node, &pod, &FIRST.map(ip)), NODE_ADDRESSES.map(ip));
    check(&pod, &conf, &result).silent();
    let told = std::fs::read_to_string(log).unwrap();
    assert!(told.contains("`nodeAddresses`: 192.0.2.99 is no address of this node"), "{told}");
}

#[test]
fn requested_addresses_are_given_whoever_requests_them() {
    let by_capability = |node: &Node| {
        (node.conf_with(json!({"runtimeConfig": {"ips": ["10.244.1.77/24", "fd00:10:244:1::77"]}})), "")
    };
    let by_args_of_conf = |node: &Node| {
        (node.conf_with(json!({"args": {"cni": {"ips": ["10.244.1.77", "fd00:10:244:1::77/64"]}}})), "")
    };
    let by_both = |node: &Node| {
        let conf = node.conf_with(json!({"runtimeConfig": {"ips": ["fd00:10:244:1::77"]}}));
        (conf, "IgnoreUnknown=1;K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=shop;IP=10.244.1.77")
    };
    /// A configuration and `CNI_ARGS`.
    type Way = fn(&Node) -> (Value, &'static str);
    let ways: [Way; 3] = [by_capability, by_args_of_conf, by_both];
    for way in ways {
        let node = Node::enter();
        let (conf, args) = way(&node);
        let pod = Pod::new("first");
        let result = Call::about("ADD", &pod, &conf).with("CNI_ARGS", args).run().result();
        assert_eq!(addresses_of(&result), ["10.244.1.77", "fd00:10:244:1::77"].map(ip));
        assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&pod.ns, addresses_of(&result))]);
        // Another pod cannot have them while this one lives, and can afterwards.
        let other = Pod::new("other");
        let again = Call::about("ADD", &other, &conf).with("CNI_ARGS", args);
        let (code, msg) = again.run().error();
        assert_eq!(code, 106);
        assert!(msg.contains("10.244.1.77 is taken by first:eth0: ask for another"), "{msg}");
        del(&pod, &conf);
        again.run().result();
    }
}

#[test]
fn a_requested_ethernet_address_is_given_and_the_first_packet_still_works() {
    for mode in ["ptp", "bridge"] {
        for (patch, args) in [
            (json!({"mode": mode, "runtimeConfig": {"mac": "02:00:5e:10:00:01"}}), "MAC=02:00:5e:10:00:02"),
            (json!({"mode": mode, "args": {"cni": {"mac": "02:00:5e:10:00:01"}}}), ""),
            (json!({"mode": mode}), "MAC=02:00:5e:10:00:01"),
        ] {
            let node = Node::enter();
            let pod = Pod::new("first");
            let conf = node.conf_with(patch);
            let result = Call::about("ADD", &pod, &conf).with("CNI_ARGS", args).run().result();
            assert_eq!(link_in(&pod).mac, Some([2, 0, 0x5e, 0x10, 0, 1]));
            assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&pod.ns, addresses_of(&result))]);
            check(&pod, &conf, &result).silent();
        }
    }
}

#[test]
fn configured_routes_are_the_pods_with_all_that_they_ask_for() {
    for mode in ["ptp", "bridge"] {
        let node = Node::enter();
        let pod = Pod::new("first");
        let conf = node.conf_with(json!({"mode": mode, "routes": [
            {"dst": "10.0.0.0/8", "mtu": 1300, "advmss": 1200, "priority": 50},
            {"dst": "fd00::/8", "gw": GATEWAYS[1], "priority": 70},
            {"dst": "172.16.0.0/12", "table": 77},
        ], "ipam": {"routes": [{"dst": "0.0.0.0/0"}]}}));
        let result = add(&pod, &conf);
        let routes = pod.ns.run(|| {
            let mut socket = Socket::open(Protocol::Route).unwrap();
            let v4 = route::dump(&mut socket, Family::V4, Filter::default()).unwrap();
            let v6 = route::dump(&mut socket, Family::V6, Filter::default()).unwrap();
            [v4, v6].concat()
        });
        let routes = routes.unwrap();
        let found =
            |dst: &str| routes.iter().find(|route| route.destination == dst.parse().unwrap()).unwrap();
        let ten = found("10.0.0.0/8");
        assert_eq!((ten.mtu, ten.advmss, ten.metric), (Some(1300), Some(1200), 50));
        assert_eq!(ten.hops[0].gateway, Some(ip(GATEWAYS[0])));
        assert_eq!((found("fd00::/8").metric, found("172.16.0.0/12").table), (70, 77));
        assert_eq!(found("0.0.0.0/0").hops[0].gateway, Some(ip(GATEWAYS[0])));
        assert!(!routes.iter().any(|route| route.destination == "::/0".parse().unwrap()));
        assert_eq!(
            result["routes"],
            json!([
                {"dst": "0.0.0.0/0", "gw": GATEWAYS[0]},
                {"dst": "10.0.0.0/8", "gw": GATEWAYS[0], "mtu": 1300, "advmss": 1200, "priority": 50},
                {"dst": "fd00::/8", "gw": GATEWAYS[1], "priority": 70},
                {"dst": "172.16.0.0/12", "gw": GATEWAYS[0], "table": 77},
            ])
        );
        check(&pod, &conf, &result).silent();
        del(&pod, &conf);
    }
}

#[test]
fn a_wish_for_what_is_on_the_pods_link_is_granted_by_the_link() {
    let node = Node::enter();
    let wishes = [
        ("ptp", ["10.244.1.1/32", "fd00:10:244:1::1/128"]),
        ("bridge", ["10.244.1.0/24", "fd00:10:244:1::/64"]),
    ];
    for (mode, on_link) in wishes {
        let pod = Pod::new(mode);
        let routes: Vec<Value> =
            on_link.into_iter().chain(["0.0.0.0/0", "::/0"]).map(|dst| json!({"dst": dst})).collect();
        let conf = node.conf_with(json!({"mode": mode, "routes": routes}));
        let result = add(&pod, &conf);
        assert_eq!(result["routes"].as_array().unwrap().len(), 2, "{result}");
        check(&pod, &conf, &result).silent();
        del(&pod, &conf);
    }
}

#[test]
fn a_set_of_several_ranges_goes_on_in_the_next_where_one_is_full() {
    let node = Node::enter();
    let conf = node.conf_with(json!({"ipam": {"ranges": [
        [{"subnet": "10.1.0.0/30"}, {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.9", "rangeEnd": "10.2.0.10"}],
        [{"subnet": "fd00::/64"}],
        [{"subnet": "fd01::/64", "gateway": "fe80::1"}],
    ]}}));
    let pods = ["a", "b", "c", "d"].map(Pod::new);
    let expected = [("10.1.0.2", "10.1.0.1"), ("10.2.0.9", "10.2.0.1"), ("10.2.0.10", "10.2.0.1")];
    for (pod, (address, gateway)) in pods.iter().zip(expected) {
        let result = add(pod, &conf);
        assert_eq!(addresses_of(&result)[0], ip(address));
        assert_eq!(addresses_of(&result).len(), 3);
        assert_first_packets(&node.ns, &[ip(gateway), ip("fd00::1")], &[(&pod.ns, addresses_of(&result))]);
    }
    let (code, msg) = Call::about("ADD", &pods[3], &conf).run().error();
    assert_eq!(code, 100);
    assert!(msg.contains("10.1.0.1-10.1.0.2") && msg.contains("delete pods, or give"), "{msg}");
    del(&pods[0], &conf);
    assert_eq!(addresses_of(&add(&pods[3], &conf))[0], ip("10.1.0.2"));
}

#[test]
fn the_range_may_hold_the_last_address_of_an_ipv6_subnet_and_a_gateway_that_looks_like_a_network() {
    let node = Node::enter();
    let conf = node.conf_with(json!({"ipam": {"ranges": [
        [{"subnet": "10.10.0.0/16", "rangeStart": "10.10.1.255", "gateway": "10.10.1.0"}],
        [{"subnet": "fd00::/64", "rangeStart": "fd00::ffff:ffff:ffff:ffff"}],
    ]}}));
    let pod = Pod::new("first");
    let result = add(&pod, &conf);
    assert_eq!(addresses_of(&result), ["10.10.1.255", "fd00::ffff:ffff:ffff:ffff"].map(ip));
    let gateways = ["10.10.1.0", "fd00::1"].map(ip);
    assert_first_packets(&node.ns, &gateways, &[(&pod.ns, addresses_of(&result))]);
}

#[test]
fn a_pods_routes_on_the_node_are_marked_as_such_and_nothing_else_is() {
    let node = Node::enter();
    add(&Pod::new("first"), &node.conf("ptp"));
    let mut marked: Vec<String> = pod_routes().iter().map(|route| route.destination.to_string()).collect();
    marked.sort();
    assert_eq!(marked, ["10.244.1.2/32", "fd00:10:244:1::2/128"]);
}

#[test]
fn the_nodes_own_namespace_is_a_pod_only_where_the_runtime_insists() {
    let node = Node::enter();
    let conf = node.conf("ptp");
    let pod = Pod { ns: NetNs::current().unwrap(), id: "host".to_owned() };
    let (code, msg) = Call::about("ADD", &pod, &conf).run().error();
    assert_eq!(code, 8);
    assert!(msg.contains("`CNI_NETNS`") && msg.contains("is the node's own network namespace"), "{msg}");
}
