//! Pods on a bridge that has the node's uplink as a port: hosts of the LAN like any other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;

use kernel::netlink::{Protocol, Socket};
use kernel::nftables::{self, Family};
use kernel::route::Filter;
use kernel::sysctl::Sysctls;
use kernel::{address, link, route};
use serde_json::json;
use support::lan::{FIRST, Lan, declare_services, socket};
use support::node::{
    NODE_ADDRESSES, Pod, ROUTER_ADDRESSES, add, addresses_of, change, check, del, index_of, ip,
};
use support::{assert_first_packets, one_datagram, udp};

#[test]
fn on_a_bridge_the_answer_to_a_service_comes_back_translated_only_by_br_netfilter() {
    const FILTERED: &str = "net/bridge/bridge-nf-call-iptables";
    let lan = Lan::enter_bridged();
    let sysctls = Sysctls::default();
    assert!(sysctls.read(FILTERED).unwrap().is_some(), "this test needs the module br_netfilter");
    let conf = lan.conf(&json!({"mode": "l2", "bridge": "br0"}));
    let pod = Pod::new("client");
    let asks = addresses_of(&add(&pod, &conf))[0];
    let elsewhere = ip(ROUTER_ADDRESSES[0]);
    declare_services(&[(8001, elsewhere), (8002, elsewhere)]);
    // Each question is the first of its flow: what conntrack knows of an earlier one would answer too.
    for (port, filtered, answered_by) in [(8001, "1", ip("10.96.0.10")), (8002, "0", elsewhere)] {
        sysctls.write(FILTERED, filtered).unwrap();
        let (backend, frontend) = (udp(&lan.host, elsewhere, port), udp(&pod.ns, asks, 0));
        let service = SocketAddr::new(ip("10.96.0.10"), port);
        assert_eq!(one_datagram(&frontend, service, &backend).ip(), asks);
        backend.send_to(b"answer", frontend.local_addr().unwrap()).unwrap();
        frontend.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let (_, from) = frontend.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(from, SocketAddr::new(answered_by, port), "{FILTERED}={filtered}");
    }
}

#[test]
fn pods_on_the_bridge_are_hosts_of_the_lan_and_the_bridge_stays_as_it_was() {
    let lan = Lan::enter_bridged();
    let before = lan.state();
    let conf = lan.conf(&json!({"mode": "l2", "bridge": "br0"}));
    let pod = Pod::new("pod");
    let result = add(&pod, &conf);
    assert_eq!(result["ips"][0]["address"], format!("{}/24", FIRST[0]));
    assert_eq!(result["ips"][0]["gateway"], NODE_ADDRESSES[0]);
    lan.prove(&pod, &result);
    assert_first_packets(&lan.node.ns, &NODE_ADDRESSES.map(ip), &[(&pod.ns, FIRST.map(ip).to_vec())]);
    check(&pod, &conf, &result).silent();
    del(&pod, &conf);
    assert_eq!(lan.state(), before);
}

#[test]
fn the_lans_router_may_be_the_gateway_and_is_never_held_here() {
    let lan = Lan::enter_bridged();
    let range = json!([[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.128", "rangeEnd": "192.0.2.143",
        "gateway": ROUTER_ADDRESSES[0]}]]);
    let conf = lan.node.conf_with(json!({"mode": "l2", "bridge": "br0", "isGateway": false,
        "promiscMode": true, "ipam": {"ranges": range}}));
    let pod = Pod::new("pod");
    let result = add(&pod, &conf);
    let by = pod.ns.run(|| {
        let routes = route::dump(&mut socket(), route::Family::V4, Filter::default()).unwrap();
        routes
            .iter()
            .find(|route| route.destination.prefix_len() == 0)
            .and_then(|route| route.hops[0].gateway)
    });
    assert_eq!(by.unwrap(), Some(ip(ROUTER_ADDRESSES[0])));
    let bridge = link::by_name(&mut socket(), "br0").unwrap().unwrap();
    assert_eq!(bridge.flags & link::PROMISCUOUS, link::PROMISCUOUS);
    let held = address::dump(&mut socket()).unwrap();
    assert!(held.iter().all(|held| held.ip.addr() != ip(ROUTER_ADDRESSES[0])));
    check(&pod, &conf, &result).silent();
}

#[test]
fn a_further_network_is_reached_through_its_router_past_the_node() {
    let lan = Lan::enter_bridged();
    let further = ip("198.51.100.1");
    lan.host
        .run(|| {
            change(|batch, _| address::add(batch, index_of("lan0"), "198.51.100.1/24".parse().unwrap(), 0));
        })
        .unwrap();
    let conf = lan.conf(&json!({"mode": "l2", "bridge": "br0", "routes": [
        {"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "198.51.100.0/24", "gw": ROUTER_ADDRESSES[0]}]}));
    let pod = Pod::new("pod");
    let result = add(&pod, &conf);
    // The node would drop what it were to forward.
    Sysctls::default().write("net/ipv4/ip_forward", "0").unwrap();
    let (asked, asks) = (udp(&lan.host, further, 0), udp(&pod.ns, addresses_of(&result)[0], 0));
    let seen = one_datagram(&asks, asked.local_addr().unwrap(), &asked);
    assert_eq!(seen.ip(), addresses_of(&result)[0]);
    check(&pod, &conf, &result).silent();
}

#[test]
fn a_guarded_pod_cannot_speak_as_another_on_the_lan_and_an_unguarded_one_can() {
    for guarded in [false, true] {
        let lan = Lan::enter_bridged();
        let conf = lan.conf(&json!({"mode": "l2", "bridge": "br0", "antiSpoof": guarded}));
        let pod = Pod::new("pod");
        let result = add(&pod, &conf);
        lan.prove(&pod, &result);
        check(&pod, &conf, &result).silent();
        for (foreign, length, router) in
            [("192.0.2.77", 24, ROUTER_ADDRESSES[0]), ("2001:db8:1::77", 64, ROUTER_ADDRESSES[1])]
        {
            pod.ns
                .run(|| {
                    change(|batch, _| {
                        let held = format!("{foreign}/{length}").parse().unwrap();
                        address::add(batch, index_of("eth0"), held, address::NODAD);
                    });
                })
                .unwrap();
            let (asked, own) = (udp(&lan.host, ip(router), 0), ip(&foreign.replace("77", "80")));
            let asks = udp(&pod.ns, ip(foreign), 0);
            let to = asked.local_addr().unwrap();
            asks.send_to(b"as another", to).unwrap();
            // What comes through first: the forged one, or what the pod says as itself behind it.
            let itself =
                addresses_of(&result).into_iter().find(|held| held.is_ipv4() == own.is_ipv4()).unwrap();
            udp(&pod.ns, itself, 0).send_to(b"as itself", to).unwrap();
            asked.set_read_timeout(Some(support::PATIENCE)).unwrap();
            let (_, from) = asked.recv_from(&mut [0; 16]).unwrap();
            assert_eq!(from.ip(), if guarded { itself } else { ip(foreign) }, "guarded {guarded}");
            let told = lan.remembered(ip(foreign)).and_then(|known| known.mac);
            assert!(!guarded || told.is_none(), "the LAN was told of {foreign} at {told:?}");
        }
        del(&pod, &conf);
        let mut netfilter = Socket::open(Protocol::Netfilter).unwrap();
        let left = nftables::chains(&mut netfilter, Some(Family::Netdev)).unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}
