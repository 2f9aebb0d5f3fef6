//! Host ports and the node's loopback: refused there unless wanted, in nobody's way, and no way in for a pod.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{SocketAddr, TcpListener, UdpSocket};

use kernel::netlink::{Protocol, Socket};
use kernel::nftables::{Family, TableName, Transaction};
use kernel::route::{Hop, Route};
use kernel::{address, link, route};
use serde_json::{Value, json};
use support::node::{
    GATEWAYS, NODE_ADDRESSES, Node, Pod, add, addresses_of, change, check, del, index_of, ip,
    open_host_ports, uplink,
};
use support::plugin::Call;
use support::ports::{any, ask, conf, connect, is_closed, listen, web, web_on};
use support::{PATIENCE, one_datagram, udp};

fn localhost_conf(node: &Node, mappings: &Value) -> Value {
    let mut conf = conf(node, "ptp", mappings);
    conf["localhostPorts"] = json!(true);
    conf
}

#[test]
fn a_port_works_on_localhost_where_that_is_wanted_and_closes_with_the_others() {
    let node = Node::enter();
    let router = uplink(1500);
    let pod = Pod::new("web");
    let only_local = json!([{"hostPort": 8081, "containerPort": 81, "hostIP": "127.0.0.1"}]);
    for (mappings, number, server) in [(web(), 8080, 80), (only_local, 8081, 81)] {
        let conf = localhost_conf(&node, &mappings);
        let result = add(&pod, &conf);
        check(&pod, &conf, &result).silent();
        let own = addresses_of(&result);
        let localhost = SocketAddr::new(ip("127.0.0.1"), number);
        let seen = connect(&node.ns, localhost, &listen(&pod, own[0], server));
        assert_eq!(seen, ip(NODE_ADDRESSES[0]), "127.0.0.1 itself is of no use to the pod");
        if number == 8080 {
            let asked = udp(&pod.ns, own[0], 53);
            ask(&udp(&node.ns, any("127.0.0.1"), 0), SocketAddr::new(ip("127.0.0.1"), 8053), &asked);
        } else {
            assert!(is_closed(&router, SocketAddr::new(ip(NODE_ADDRESSES[0]), number)));
        }
        let (code, msg) = Call::about("ADD", &Pod::new("other"), &conf).run().error();
        assert!(code == 102 && msg.contains(&number.to_string()), "{msg}");
        del(&pod, &conf);
        assert!(is_closed(&node.ns, localhost));
        assert_eq!((open_host_ports(), node.kept()), (vec![], vec![]));
    }
}

#[test]
fn a_program_on_loopback_keeps_its_port_against_one_on_localhost() {
    let node = Node::enter();
    let _router = uplink(1500);
    let _listens = TcpListener::bind("127.0.0.1:8080").unwrap();
    let conf = localhost_conf(&node, &web_on(8080));
    let (code, msg) = Call::about("ADD", &Pod::new("web"), &conf).run().error();
    assert!(code == 102 && msg.contains("127.0.0.1:8080") && msg.contains("listens"), "{msg}");
}

#[test]
fn no_pod_reaches_what_listens_on_the_nodes_loopback_and_without_the_guard_it_would() {
    let node = Node::enter();
    let _router = uplink(1500);
    let pod = Pod::new("web");
    let own = addresses_of(&add(&pod, &localhost_conf(&node, &web())));
    // The pod sends what is for 127.0.0.1 to its gateway.
    pod.ns
        .run(|| {
            change(|batch, _| address::delete(batch, 1, "127.0.0.1/8".parse().unwrap()));
            let hop = Hop { gateway: Some(ip(GATEWAYS[0])), index: Some(index_of("eth0")), ..Hop::default() };
            let loopback = Route { hops: vec![hop], ..Route::to("127.0.0.1/32".parse().unwrap()) };
            change(|batch, _| route::add(batch, &loopback));
            change(|batch, _| link::set_route_localnet(batch, index_of("eth0")));
        })
        .unwrap();
    let private = UdpSocket::bind("127.0.0.1:9999").unwrap();
    private.set_read_timeout(Some(PATIENCE)).unwrap();
    let (attacker, neighbour) = (udp(&pod.ns, own[0], 0), UdpSocket::bind("127.0.0.1:0").unwrap());
    let public = UdpSocket::bind((NODE_ADDRESSES[0], 0)).unwrap();
    let first_heard = || {
        attacker.send_to(b"pod", private.local_addr().unwrap()).unwrap();
        // The link keeps the order: once this is here, that was judged.
        one_datagram(&attacker, public.local_addr().unwrap(), &public);
        neighbour.send_to(b"node", private.local_addr().unwrap()).unwrap();
        let mut word = [0; 4];
        let (length, _) = private.recv_from(&mut word).unwrap();
        String::from_utf8_lossy(&word[..length]).into_owned()
    };
    assert_eq!(first_heard(), "node");
    let mut unguarded = Transaction::new();
    unguarded.flush_chain(&TableName::new(Family::Inet, "hostgw_hostport"), "guard");
    unguarded.commit(&mut Socket::open(Protocol::Netfilter).unwrap()).unwrap();
    assert_eq!(first_heard(), "pod");
}

#[test]
fn a_program_that_listens_on_loopback_alone_is_in_nobodys_way_and_keeps_its_port() {
    let node = Node::enter();
    let _router = uplink(1500);
    let pod = Pod::new("dns");
    let resolver = UdpSocket::bind("127.0.0.53:53").unwrap();
    let _v6 = TcpListener::bind("[::1]:53").unwrap();
    let mapping = json!([
        {"hostPort": 53, "containerPort": 53, "protocol": "udp"},
        {"hostPort": 53, "containerPort": 53, "protocol": "tcp"},
    ]);
    add(&pod, &conf(&node, "ptp", &mapping));
    let asked = UdpSocket::bind("127.0.0.1:0").unwrap();
    one_datagram(&asked, resolver.local_addr().unwrap(), &resolver);
}

#[test]
fn a_host_port_on_loopback_is_refused() {
    let node = Node::enter();
    for host_ip in ["127.0.0.1", "::1"] {
        let mapping = json!([{"hostPort": 80, "containerPort": 80, "hostIP": host_ip}]);
        let (code, msg) = Call::about("ADD", &Pod::new("web"), &conf(&node, "ptp", &mapping)).run().error();
        assert_eq!(code, 7);
        assert!(msg.contains("hostIP") && msg.contains(host_ip) && msg.contains("another address"), "{msg}");
    }
}
