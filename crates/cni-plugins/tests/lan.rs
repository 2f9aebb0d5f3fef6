//! Pods on the node's own LAN: hosts there reach them, and they reach those, from the first packet on, whether the pods
//! are on a bridge or behind routed links.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use kernel::link::Mac;
use kernel::neighbour::{self, Neighbour};
use kernel::netlink::{CREATE, Protocol, Socket};
use kernel::netns::NetNs;
use kernel::nftables::{
    BaseChain, Chain, ChainKind, Family, Hook, NatFlags, NatKind, NatTarget, Policy, Rule, Selector,
    Statement, Table, Transaction, Transport, Value as Nft, priority,
};
use kernel::route::{Filter, Hop, Route};
use kernel::sysctl::Sysctls;
use kernel::{address, link, route};
use serde_json::{Value, json};
use support::node::{
    NODE_ADDRESSES, Node, Pod, ROUTER_ADDRESSES, add, addresses_of, change, check, del, host_link, index_of,
    ip, uplink,
};
use support::plugin::Call;
use support::{assert_first_packets, one_datagram, udp};

/// The first addresses of the node's slices of the LAN.
const FIRST: [&str; 2] = ["192.0.2.128", "2001:db8:1::1:0"];

/// A node, a LAN, and a host there.
struct Lan {
    node: Node,
    host: NetNs,
}

impl Lan {
    /// As the agent leaves the node: it answers for others at once.
    fn enter() -> Self {
        let node = Node::enter();
        let host = uplink(1500);
        speak_at_once("up0");
        host.run(|| speak_at_once("lan0")).unwrap();
        let sysctls = Sysctls::default();
        for (key, value) in [
            ("net/ipv4/neigh/up0/proxy_delay", "0"),
            ("net/ipv6/neigh/up0/proxy_delay", "0"),
            ("net/ipv6/conf/up0/proxy_ndp", "1"),
        ] {
            sysctls.write(key, value).unwrap();
        }
        Self { node, host }
    }

    /// The same with the node's addresses on a bridge that has the uplink as a port.
    fn enter_bridged() -> Self {
        let lan = Self::enter();
        change(|batch, socket| {
            let up = index_of("up0");
            for family in [route::Family::V4, route::Family::V6] {
                for found in route::dump(socket, family, Filter::default()).unwrap() {
                    if found.destination.prefix_len() == 0
                        && found.hops.iter().any(|hop| hop.index == Some(up))
                    {
                        route::delete(batch, &found);
                    }
                }
            }
            for held in address::dump(socket).unwrap().iter().filter(|held| held.index == up) {
                address::delete(batch, up, held.ip);
            }
            link::create_bridge(batch, &support::node::name("br0"), [2, 0, 0, 0, 0, 7], 1500, true);
        });
        let (up, bridge) = (index_of("up0"), index_of("br0"));
        change(|batch, _| {
            link::set_master(batch, up, bridge);
            for (held, length) in NODE_ADDRESSES.into_iter().zip([24, 64]) {
                address::add(batch, bridge, format!("{held}/{length}").parse().unwrap(), address::NODAD);
            }
            link::request(batch, bridge);
        });
        speak_at_once("br0");
        change(|batch, _| {
            for (any, gateway) in ["0.0.0.0/0", "::/0"].into_iter().zip(ROUTER_ADDRESSES) {
                let hop = Hop { gateway: Some(ip(gateway)), index: Some(bridge), ..Hop::default() };
                route::add(batch, &Route { hops: vec![hop], ..Route::to(any.parse().unwrap()) });
            }
        });
        lan
    }

    /// What is on the node, but for the kernel's own routes to it, which come in the kernel's own time.
    fn state(&self) -> Vec<String> {
        let mut state = self.node.state();
        state.retain(|line| !line.contains(" table 255 "));
        state
    }

    /// One slice of the LAN a family.
    fn conf(&self, patch: &Value) -> Value {
        let mut conf = self.node.conf_with(json!({"mode": "l2-routed", "ipam": {"ranges": [
            [{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.128", "rangeEnd": "192.0.2.143"}],
            [{"subnet": "2001:db8:1::/64", "rangeStart": "2001:db8:1::1:0", "rangeEnd": "2001:db8:1::1:ff"}],
        ]}}));
        for (key, value) in patch.as_object().unwrap() {
            conf[key] = value.clone();
        }
        conf
    }

    /// The first packet each way between the LAN's host and a pod.
    fn prove(&self, pod: &Pod, result: &Value) {
        let own = addresses_of(result);
        assert_first_packets(&self.host, &[], &[(&pod.ns, own.clone())]);
        assert_first_packets(&self.host, &ROUTER_ADDRESSES.map(ip), &[(&pod.ns, own)]);
    }

    fn remembered(&self, address: IpAddr) -> Option<Neighbour> {
        let known = self.host.run(|| neighbour::dump(&mut socket(), false).unwrap()).unwrap();
        known.into_iter().find(|known| known.ip == address)
    }
}

/// A link without a link-local address asks nobody where an address is, and that of a new link is tentative for a
/// second: here it is made anew without the wait.
fn speak_at_once(name: &str) {
    let index = index_of(name);
    change(|batch, socket| {
        let of_link =
            |held: &&address::Address| held.index == index && held.ip.to_string().starts_with("fe80");
        for held in address::dump(socket).unwrap().iter().filter(of_link) {
            address::delete(batch, index, held.ip);
        }
        address::add(batch, index, format!("fe80::{index}:1/64").parse().unwrap(), address::NODAD);
    });
}

fn socket() -> Socket {
    Socket::open(Protocol::Route).unwrap()
}

fn proxied() -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> =
        neighbour::dump(&mut socket(), true).unwrap().into_iter().map(|proxied| proxied.ip).collect();
    found.sort();
    found
}

fn mac_of(name: &str) -> Mac {
    link::by_name(&mut socket(), name).unwrap().unwrap().mac.unwrap()
}

#[test]
fn a_host_of_the_lan_and_a_routed_pod_reach_each_other_with_their_first_packets() {
    let lan = Lan::enter();
    let before = lan.state();
    let (pod, conf) = (Pod::new("pod"), lan.conf(&json!({})));
    let result = add(&pod, &conf);
    assert_eq!(addresses_of(&result), FIRST.map(ip));
    assert_eq!(proxied(), FIRST.map(ip));
    let by: Vec<u8> =
        neighbour::dump(&mut socket(), true).unwrap().iter().map(|proxied| proxied.protocol).collect();
    assert_eq!(by, [105, 105]);
    lan.prove(&pod, &result);
    assert_first_packets(&lan.node.ns, &NODE_ADDRESSES.map(ip), &[(&pod.ns, FIRST.map(ip).to_vec())]);
    check(&pod, &conf, &result).silent();
    del(&pod, &conf);
    assert_eq!(proxied(), Vec::<IpAddr>::new());
    assert_eq!(lan.state(), before);
}

#[test]
fn pods_of_one_node_reach_each_other_by_their_lan_addresses() {
    for mode in ["l2-routed", "l2"] {
        let lan = if mode == "l2" { Lan::enter_bridged() } else { Lan::enter() };
        let conf = lan.conf(&json!({"mode": mode, "bridge": "br0"}));
        let (one, other) = (Pod::new("one"), Pod::new("other"));
        let results = [add(&one, &conf), add(&other, &conf)].map(|result| addresses_of(&result));
        let [first, second] = results;
        assert_first_packets(&lan.node.ns, &[], &[(&one.ns, first), (&other.ns, second)]);
    }
}

#[test]
fn whoever_remembers_an_earlier_holder_is_told_of_the_new_one() {
    for mode in ["l2-routed", "l2"] {
        let lan = if mode == "l2" { Lan::enter_bridged() } else { Lan::enter() };
        lan.host.run(remember_another_holder).unwrap();
        let pod = Pod::new("pod");
        let result = add(&pod, &lan.conf(&json!({"mode": mode, "bridge": "br0"})));
        let wanted = match mode {
            "l2" => pod.ns.run(|| mac_of("eth0")).unwrap(),
            _ => mac_of("up0"),
        };
        for held in FIRST.map(ip) {
            assert_eq!(lan.remembered(held).and_then(|known| known.mac), Some(wanted), "{mode} {held}");
        }
        lan.prove(&pod, &result);
    }
}

/// What a host knows that spoke with an earlier holder a while ago (`NUD_STALE`, `linux/neighbour.h`).
fn remember_another_holder() {
    const RTM_NEWNEIGH: u16 = 28;
    const NDA_DST: u16 = 1;
    const NDA_LLADDR: u16 = 2;
    const STALE: u8 = 4;
    let index = index_of("lan0");
    change(|batch, _| {
        for held in FIRST.map(ip) {
            let mut header = [0; 12];
            header[0] = if held.is_ipv4() { 2 } else { 10 };
            header[4..8].copy_from_slice(&index.to_ne_bytes());
            header[8] = STALE;
            let octets = match held {
                IpAddr::V4(held) => held.octets().to_vec(),
                IpAddr::V6(held) => held.octets().to_vec(),
            };
            batch
                .message("remember a neighbour", RTM_NEWNEIGH, CREATE, &header)
                .attribute(NDA_DST, &octets)
                .attribute(NDA_LLADDR, &[2, 0, 0, 0, 0, 0x66]);
        }
    });
}

#[test]
fn the_gateway_may_be_the_first_address_of_the_slice() {
    let lan = Lan::enter();
    let slice = json!([[{"subnet": "192.0.0.0/16", "rangeStart": "192.0.1.0", "rangeEnd": "192.0.1.255",
        "gateway": "192.0.1.0"}]]);
    let conf = lan.node.conf_with(json!({"mode": "l2-routed", "ipam": {"ranges": slice}}));
    let pod = Pod::new("pod");
    let result = add(&pod, &conf);
    assert_eq!(addresses_of(&result), [ip("192.0.1.1")]);
    assert_eq!(result["ips"][0]["gateway"], "192.0.1.0");
    assert_first_packets(&lan.node.ns, &[ip("192.0.1.0")], &[(&pod.ns, vec![ip("192.0.1.1")])]);
    check(&pod, &conf, &result).silent();
}

#[test]
fn an_address_that_a_host_of_the_lan_has_goes_to_no_pod() {
    for mode in ["l2-routed", "l2"] {
        let lan = if mode == "l2" { Lan::enter_bridged() } else { Lan::enter() };
        lan.host
            .run(|| {
                change(|batch, _| {
                    for (held, length) in FIRST.into_iter().zip([24, 64]) {
                        let held = format!("{held}/{length}").parse().unwrap();
                        address::add(batch, index_of("lan0"), held, address::NODAD);
                    }
                });
            })
            .unwrap();
        let conf = lan.conf(&json!({"mode": mode, "bridge": "br0", "conflictProbeMs": 150}));
        let (code, message) = refused(
            &Call::about("ADD", &Pod::new("asks"), &conf).with("CNI_ARGS", format!("IP={}", FIRST[0])),
        );
        assert!(message.contains(FIRST[0]) && message.contains("in use on the LAN"), "{code} {message}");
        let pod = Pod::new("pod");
        let result = add(&pod, &conf);
        assert!(addresses_of(&result).iter().all(|given| !FIRST.map(ip).contains(given)), "{result}");
        lan.prove(&pod, &result);
    }
}

fn refused(call: &Call) -> (u64, String) {
    call.run().error()
}

#[test]
fn a_service_address_leads_to_pods_and_back_through_the_node() {
    let lan = Lan::enter();
    let conf = lan.conf(&json!({}));
    let (client, server) = (Pod::new("client"), Pod::new("server"));
    let (client_is, server_is) = (add(&client, &conf), add(&server, &conf));
    let [asks, answers] = [client_is, server_is].map(|result| addresses_of(&result)[0]);
    let elsewhere = ip(ROUTER_ADDRESSES[0]);
    declare_services(&[(8001, answers), (8002, elsewhere)]);
    for (port, at, behind) in [(8001, &server.ns, answers), (8002, &lan.host, elsewhere)] {
        let backend = udp(at, behind, port);
        let frontend = udp(&client.ns, asks, 0);
        let service = SocketAddr::new(ip("10.96.0.10"), port);
        assert_eq!(one_datagram(&frontend, service, &backend).ip(), asks);
        // What comes back is from whom was asked.
        frontend.connect(service).unwrap();
        frontend.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        backend.send_to(b"answer", frontend.local_addr().unwrap()).unwrap();
        assert_eq!(frontend.recv(&mut [0; 16]).unwrap(), 6, "port {port}");
    }
}

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
        frontend.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let (_, from) = frontend.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(from, SocketAddr::new(answered_by, port), "{FILTERED}={filtered}");
    }
}

/// As kube-proxy does: one rule a port of a service.
fn declare_services(backends: &[(u16, IpAddr)]) {
    let rules = backends.iter().map(|(port, backend)| {
        Rule::new([
            Statement::is(Selector::Daddr(route::Family::V4), Nft::Ip(ip("10.96.0.10"))),
            Statement::is(Selector::Dport(Transport::Udp), Nft::Port(*port)),
            Statement::Nat {
                kind: NatKind::Destination,
                target: NatTarget::Address(*backend),
                flags: NatFlags::default(),
            },
        ])
    });
    let base = BaseChain {
        kind: ChainKind::Nat,
        hook: Hook::Prerouting,
        priority: priority::DSTNAT,
        policy: Policy::Accept,
    };
    let table = Table {
        chains: vec![Chain::base("services", base, rules.collect())],
        ..Table::new(Family::Ip, "services")
    };
    let mut transaction = Transaction::new();
    transaction.declare(&table);
    transaction.commit(&mut Socket::open(Protocol::Netfilter).unwrap()).unwrap();
}

#[test]
fn what_a_pod_lost_on_the_lan_is_told_by_check() {
    let lan = Lan::enter();
    let (pod, conf) = (Pod::new("pod"), lan.conf(&json!({})));
    let result = add(&pod, &conf);
    change(|batch, _| neighbour::delete_proxy(batch, index_of("up0"), ip(FIRST[0])));
    let (_, message) = check(&pod, &conf, &result).error();
    assert!(message.contains("does not answer for 192.0.2.128 on `up0`"), "{message}");
    // What is gone already does not keep DEL.
    del(&pod, &conf);
    assert_eq!(proxied(), Vec::<IpAddr>::new());
}

#[test]
fn a_pod_that_came_to_the_address_of_a_lost_one_keeps_its_answers() {
    let lan = Lan::enter();
    let conf = lan.conf(&json!({}));
    let lost = Pod::new("lost");
    let result = add(&lost, &conf);
    let host_end = host_link(&result).to_owned();
    change(|batch, _| link::delete(batch, index_of(&host_end)));
    // Another network of the node hands out the same slice: its pod lives, when the first one's DEL comes at last.
    let mut others = conf.clone();
    others["name"] = json!("others");
    let pod = Pod::new("pod");
    let living = add(&pod, &others);
    assert_eq!(addresses_of(&living), addresses_of(&result));
    del(&lost, &conf);
    assert_eq!(proxied(), FIRST.map(ip));
    lan.prove(&pod, &living);
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
fn a_pod_forms_an_address_of_the_nodes_prefix_and_is_found_by_it() {
    for mode in ["l2-routed", "l2"] {
        let lan = if mode == "l2" { Lan::enter_bridged() } else { Lan::enter() };
        let before = lan.state();
        let ipam = |subnet| {
            json!({"slaac": subnet, "dataDir": lan.node.data_dir(),
                "ranges": [[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.128", "rangeEnd": "192.0.2.143"}]]})
        };
        let mut conf = lan.conf(&json!({"mode": mode, "ipam": ipam("2001:db8::/32"), "conflictProbeMs": 30}));
        if mode == "l2" {
            conf["bridge"] = json!("br0");
        }
        let pods = [Pod::new("one"), Pod::new("two")];
        let results = pods.each_ref().map(|pod| add(pod, &conf));
        let [first, second] = results.each_ref().map(|result| addresses_of(result)[1]);
        let prefix: ipnet::IpNet = "2001:db8:1::/64".parse().unwrap();
        assert!(prefix.contains(&first) && prefix.contains(&second) && first != second);
        assert_eq!(results[0]["ips"][1]["gateway"], NODE_ADDRESSES[1]);
        for (pod, result) in pods.iter().zip(&results) {
            lan.prove(pod, result);
            check(pod, &conf, result).silent();
        }
        // The same attachment again: what follows from who it is.
        del(&pods[0], &conf);
        assert_eq!(addresses_of(&add(&pods[0], &conf))[1], first, "{mode}");
        pods.iter().for_each(|pod| del(pod, &conf));
        assert_eq!(lan.state(), before);
        conf["ipam"] = ipam("2001:db8:7::/48");
        let (code, message) = refused(&Call::about("ADD", &Pod::new("pod"), &conf));
        assert!(code == 11 && message.contains("no address of a /64 in 2001:db8:7::/48"), "{code} {message}");
        assert_eq!(lan.state(), before);
    }
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
            asked.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let (_, from) = asked.recv_from(&mut [0; 16]).unwrap();
            assert_eq!(from.ip(), if guarded { itself } else { ip(foreign) }, "guarded {guarded}");
            let told = lan.remembered(ip(foreign)).and_then(|known| known.mac);
            assert!(!guarded || told.is_none(), "the LAN was told of {foreign} at {told:?}");
        }
        del(&pod, &conf);
        let mut netfilter = Socket::open(Protocol::Netfilter).unwrap();
        let left = kernel::nftables::chains(&mut netfilter, Some(Family::Netdev)).unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_node_that_has_no_such_lan_is_named_with_the_remedy_and_keeps_nothing() {
    let lan = Lan::enter();
    let before = lan.state();
    let holds_router = json!({"ranges": [[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.1",
        "rangeEnd": "192.0.2.9"}]], "dataDir": lan.node.data_dir()});
    for (patch, said) in [
        (json!({"mode": "l2", "bridge": "br9"}), "bridge `br9` does not exist"),
        (json!({"mode": "l2", "bridge": "up0"}), "not a bridge"),
        (json!({"uplink": "eth9"}), "link to the LAN `eth9` does not exist"),
        (json!({"ipam": holds_router}), "holds 192.0.2.1, the router"),
    ] {
        let began = Instant::now();
        let (code, message) = refused(&Call::about("ADD", &Pod::new("pod"), &lan.conf(&patch)));
        assert_eq!(code, 7, "{message}");
        assert!(message.contains(said), "{message} after {:?}", began.elapsed());
        assert_eq!(lan.state(), before, "{said}");
    }
}
