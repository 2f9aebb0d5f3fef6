//! Addresses by DHCP for pods of mode `l2-routed`: asked for over the node's link to the LAN, by the node's Ethernet
//! address alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use dhcp_client::{Kind, SERVER_PORT, code};
use kernel::link::{self, Link};
use kernel::netlink::{Protocol, Socket};
use kernel::packet::{EtherType, PacketSocket};
use kernel::route::RouteKind;
use kernel::sysctl::Sysctls;
use kernel::{address, neighbour, route};
use serde_json::{Value, json};
use support::assert_first_packets;
use support::dhcp_server::{BRIDGE, NODE, SERVER, lan, right};
use support::node::{Node, Pod, add, addresses_of, change, check, del, index_of, ip};
use support::plugin::Call;

fn conf(node: &Node, patch: &Value) -> Value {
    let mut conf = node.conf_with(json!({
        "mode": "l2-routed", "uplink": BRIDGE, "nodeAddresses": ["198.51.100.2"],
        "ipam": {"type": "dhcp", "ranges": null, "leaseDir": node.folder().join("leases"), "timeout": 3},
    }));
    for (key, value) in patch.as_object().unwrap() {
        conf["ipam"][key] = value.clone();
    }
    conf
}

/// As the agent leaves the node: it answers for others at once.
fn answer_at_once() {
    Sysctls::default().write(&format!("net/ipv4/neigh/{BRIDGE}/proxy_delay"), "0").unwrap();
}

fn proxied() -> Vec<IpAddr> {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    neighbour::dump(&mut socket, true).unwrap().into_iter().map(|proxied| proxied.ip).collect()
}

#[test]
fn the_lan_sees_the_nodes_ethernet_address_alone_and_reaches_the_pod_by_its_own_address() {
    let node = Node::enter();
    let lan = lan(right);
    answer_at_once();
    let before = node.state();
    let listen = || PacketSocket::open(index_of("lan0"), EtherType::Ipv4, &[]).unwrap();
    let seen = lan.ns.run(listen).unwrap();
    let (pod, conf) = (Pod::new("pod"), conf(&node, &json!({})));
    let result = add(&pod, &conf);
    assert_eq!(result["ips"][0]["address"], "198.51.100.10/32");
    assert_eq!(result["ips"][0]["gateway"], NODE.strip_suffix("/24").unwrap());
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "198.51.100.2"}]));
    check(&pod, &conf, &result).silent();

    let discover = lan.hears(Kind::Discover);
    assert!(discover.broadcast, "nobody but the node hears what is sent to the pod's Ethernet address");
    let held = pod.ns.run(|| link_of("eth0")).unwrap().mac.unwrap();
    assert_eq!(discover.mac, held);

    let own = addresses_of(&result);
    assert_eq!(proxied(), own);
    assert_first_packets(&lan.ns, &[], &[(&pod.ns, own.clone())]);
    assert_first_packets(&lan.ns, &[SERVER.into()], &[(&pod.ns, own.clone())]);

    del(&pod, &conf);
    assert_eq!(lan.hears(Kind::Release).client_address, Ipv4Addr::new(198, 51, 100, 10));
    assert_eq!(proxied(), [] as [IpAddr; 0]);
    assert_eq!(node.state(), before);

    let mut frame = [0; 1514];
    let mut asked = BTreeSet::new();
    while seen.receive(&mut frame).unwrap().is_some() {
        assert_ne!(frame[6..12], held, "a frame from the pod's own Ethernet address");
        // UDP over IPv4, to the port of servers.
        if (frame[23], &frame[36..38]) == (17, &SERVER_PORT.to_be_bytes()[..]) {
            asked.insert(frame[6..12].to_vec());
        }
    }
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), [link_of(BRIDGE).mac.unwrap().to_vec()]);
    del(&pod, &conf);
}

fn is_local(address: &str) -> bool {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    route::look_up(&mut socket, ip(address), None).is_ok_and(|route| route.kind == RouteKind::Local)
}

fn link_of(name: &str) -> Link {
    link::by_name(&mut Socket::open(Protocol::Route).unwrap(), name).unwrap().unwrap()
}

#[test]
fn a_hundred_routed_pods_at_once_each_get_an_address() {
    let node = Node::enter();
    let _lan = lan(right);
    let conf = conf(&node, &json!({"timeout": 60}));
    let pods: Vec<Pod> = (0..100).map(|number| Pod::new(format!("pod{number}"))).collect();
    let calls: Vec<_> = pods.iter().map(|pod| Call::about("ADD", pod, &conf).start()).collect();
    let given: BTreeSet<_> =
        calls.into_iter().flat_map(|call| addresses_of(&call.finish().result())).collect();
    assert_eq!(given.len(), 100);
    assert_eq!(proxied().into_iter().collect::<BTreeSet<_>>(), given);
    for pod in &pods {
        del(pod, &conf);
    }
    assert_eq!(proxied(), [] as [IpAddr; 0]);
}

#[test]
fn an_address_that_another_pod_of_the_node_has_is_declined_for_another() {
    let node = Node::enter();
    // A server that has lost its leases gives the second what the first has, until it hears of that.
    let told = AtomicBool::new(false);
    let lan = lan(move |question, mut answer| {
        let client = question.options.get(code::CLIENT_ID).unwrap_or_default();
        if client.starts_with(b"\0second") && !told.load(Relaxed) {
            answer.your_address = Ipv4Addr::new(198, 51, 100, 10);
            told.store(question.kind == Kind::Request, Relaxed);
        }
        vec![answer]
    });
    let conf = conf(&node, &json!({}));
    // It lives: the address of one that is gone is free.
    let first = Pod::new("first");
    assert_eq!(addresses_of(&add(&first, &conf)), [ip("198.51.100.10")]);
    let outcome = Call::about("ADD", &Pod::new("second"), &conf).run();
    assert_eq!(addresses_of(&outcome.result()), [ip("198.51.100.11")]);
    let declined = lan.hears(Kind::Decline).address(code::REQUESTED_ADDRESS);
    assert_eq!(declined, Some(Ipv4Addr::new(198, 51, 100, 10)));
    assert!(outcome.warnings()[0].contains("first:eth0 of this node"), "{:?}", outcome.warnings());
}

#[test]
fn what_a_routed_pod_cannot_have_is_refused_by_name_before_any_server_is_asked() {
    let node = Node::enter();
    let lan = lan(right);
    for (patch, said) in [
        (json!({"nodeAddresses": null}), "IPv4 address is not known"),
        (json!({"uplink": "lan9"}), "`lan9` does not exist"),
        (json!({"ipam": {"type": "dhcp", "defaultRoute": "router"}}), "`defaultRoute` is `router`"),
        (json!({"mode": "ptp", "uplink": null}), "use mode `l2-routed`"),
    ] {
        let mut conf = conf(&node, &json!({}));
        for (key, value) in patch.as_object().unwrap() {
            conf[key] = value.clone();
        }
        let error = Call::about("ADD", &Pod::new("pod"), &conf).run().error();
        assert_eq!((error.0, error.1.contains(said)), (7, true), "{error:?}");
    }
    assert_eq!(lan.heard(), [] as [Kind; 0]);
    assert_eq!(node.kept(), [""; 0]);
}

#[test]
fn beside_the_servers_address_a_pod_has_one_of_an_ipv6_range() {
    let node = Node::enter();
    let lan = lan(right);
    answer_at_once();
    Sysctls::default().write(&format!("net/ipv6/conf/{BRIDGE}/proxy_ndp"), "1").unwrap();
    change(|batch, _| {
        address::add(batch, index_of(BRIDGE), "2001:db8:5::2/64".parse().unwrap(), address::NODAD);
    });
    // The kernel has its own route to an address of IPv6 a moment later.
    let deadline = Instant::now() + support::PATIENCE;
    while !is_local("2001:db8:5::2") {
        assert!(Instant::now() < deadline, "the address is no address of the node");
        std::thread::yield_now();
    }
    let range =
        json!([[{"subnet": "2001:db8:5::/64", "rangeStart": "2001:db8:5::9", "rangeEnd": "2001:db8:5::19"}]]);
    let (pod, mut conf) = (Pod::new("pod"), conf(&node, &json!({"ranges": range})));
    conf["nodeAddresses"] = json!(["198.51.100.2", "2001:db8:5::2"]);
    let result = add(&pod, &conf);
    assert_eq!(addresses_of(&result), ["198.51.100.10", "2001:db8:5::9"].map(ip));
    assert_eq!(
        result["routes"],
        json!([{"dst": "::/0", "gw": "2001:db8:5::2"}, {"dst": "0.0.0.0/0", "gw": "198.51.100.2"}])
    );
    check(&pod, &conf, &result).silent();
    let own: Vec<IpAddr> = addresses_of(&result).into_iter().filter(IpAddr::is_ipv4).collect();
    assert_first_packets(&lan.ns, &[], &[(&pod.ns, own)]);
    del(&pod, &conf);
    assert_eq!(proxied(), [] as [IpAddr; 0]);
}
