//! Addresses by DHCP: of pods of type `hostgw` on a bridge, and by the IPAM plugin `dhcp`, with servers right and wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use dhcp_client::{Kind, Message, code};
use kernel::link::{self, Veth, VethEnd};
use kernel::netns::NetNs;
use kernel::{address, netlink};
use serde_json::{Value, json};
use support::dhcp_server::{BRIDGE, SERVER, lan, right};
use support::node::{Node, Pod, add, addresses_of, change, check, del, index_of, ip, name};
use support::plugin::Call;
use support::{one_datagram, udp};

#[expect(clippy::needless_pass_by_value, reason = "json! makes values")]
fn conf(node: &Node, ipam: Value) -> Value {
    let mut conf = node.conf_with(json!({
        "mode": "bridge", "bridge": BRIDGE,
        "ipam": {"type": "dhcp", "ranges": null, "leaseDir": node.folder().join("leases"), "timeout": 3},
    }));
    for (key, value) in ipam.as_object().unwrap() {
        conf["ipam"][key] = value.clone();
    }
    conf
}

fn leases(node: &Node) -> Vec<String> {
    let files = std::fs::read_dir(node.folder().join("leases/pods")).into_iter().flatten();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".json")).collect()
}

fn assert_nothing_left(node: &Node) {
    assert_eq!(node.kept(), [""; 0]);
    assert_eq!(leases(node), [""; 0]);
    let mut socket = netlink::Socket::open(netlink::Protocol::Route).unwrap();
    let links = link::dump(&mut socket).unwrap();
    assert!(links.iter().all(|link| !link.name.starts_with("hgw")), "{links:?}");
}

#[test]
fn a_pod_gets_its_address_of_the_lan_and_gives_it_back() {
    let node = Node::enter();
    let lan = lan(right);
    let (pod, conf) = (Pod::new("pod"), conf(&node, json!({})));
    let result = Call::about("ADD", &pod, &conf)
        .with("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-0")
        .run()
        .result();
    assert_eq!(result["ips"][0]["address"], "198.51.100.10/24");
    assert_eq!(result["ips"][0]["gateway"], SERVER.to_string());
    assert_eq!(result["dns"]["nameservers"][0], "198.51.100.53");
    let discover = lan.hears(Kind::Discover);
    assert_eq!(discover.options.get(code::HOST_NAME), Some(&b"web-0"[..]));
    let request = lan.hears(Kind::Request);
    assert_eq!(request.options.get(code::CLIENT_ID), Some(&b"\0pod/pods/eth0"[..]));
    check(&pod, &conf, &result).silent();

    // A host of the LAN and the pod reach each other by their own addresses, with the first packet.
    let address = addresses_of(&result)[0];
    let (at_lan, at_pod) = (udp(&lan.ns, SERVER.into(), 0), udp(&pod.ns, address, 0));
    assert_eq!(one_datagram(&at_lan, at_pod.local_addr().unwrap(), &at_pod).ip(), IpAddr::from(SERVER));
    assert_eq!(one_datagram(&at_pod, at_lan.local_addr().unwrap(), &at_lan).ip(), address);

    del(&pod, &conf);
    let release = lan.hears(Kind::Release);
    assert_eq!(IpAddr::from(release.client_address), address);
    assert_nothing_left(&node);
    del(&pod, &conf);
}

#[test]
fn a_pod_of_a_name_gets_its_address_again_without_a_search() {
    let node = Node::enter();
    let lan = lan(right);
    let conf = conf(&node, json!({"clientID": "pod"}));
    let life = |id: &str| {
        let pod = Pod::new(id);
        let call = |verb| {
            Call::about(verb, &pod, &conf).with("CNI_ARGS", "K8S_POD_NAMESPACE=prod;K8S_POD_NAME=db-0")
        };
        let address = addresses_of(&call("ADD").run().result())[0];
        call("DEL").run().silent();
        address
    };
    let first = life("one");
    assert_eq!(lan.heard(), [Kind::Discover, Kind::Request]);
    assert_eq!(life("two"), first);
    assert_eq!(lan.heard(), [Kind::Request]);
}

#[test]
fn the_default_route_leads_through_the_node_where_that_is_wanted() {
    let node = Node::enter();
    let _lan = lan(|_, mut answer| {
        // RFC 3442: to 203.0.113.0/24 through .7, to everywhere through .1, in the place of the router.
        answer.options.set(code::CLASSLESS_ROUTES, [24, 203, 0, 113, 198, 51, 100, 7, 0, 198, 51, 100, 1]);
        vec![answer]
    });
    let shown = |id: &str, ipam| {
        let result = add(&Pod::new(id), &conf(&node, ipam));
        let routes = result["routes"].as_array().unwrap().clone();
        routes.iter().map(|route| format!("{} {}", route["dst"], route["gw"])).collect::<Vec<_>>()
    };
    assert_eq!(
        shown("a", json!({})),
        [r#""203.0.113.0/24" "198.51.100.7""#, r#""0.0.0.0/0" "198.51.100.1""#]
    );
    assert_eq!(shown("b", json!({"defaultRoute": "node"}))[1], r#""0.0.0.0/0" "198.51.100.2""#);
}

/// An ADD that must fail within its time, and leave nothing.
fn refused(
    answers: impl Fn(&Message, Message) -> Vec<Message> + Send + 'static,
    ipam: Value,
) -> (u64, String) {
    let node = Node::enter();
    let _lan = lan(answers);
    let before = node.state();
    let error = Call::about("ADD", &Pod::new("pod"), &conf(&node, ipam)).run().error();
    assert_nothing_left(&node);
    assert_eq!(node.state(), before);
    error
}

#[test]
fn servers_that_are_silent_or_wrong_are_named_within_the_time_and_nothing_stays() {
    let (code, silent) = refused(|_, _| Vec::new(), json!({"timeout": 2}));
    assert_eq!((code, silent.contains("no DHCP server answered within 2 s")), (11, true), "{silent}");

    let outside = |_: &Message, mut answer: Message| {
        answer.your_address = Ipv4Addr::new(10, 9, 9, 9);
        vec![answer]
    };
    let (code, outside) = refused(outside, json!({"subnet": "198.51.100.0/24", "timeout": 2}));
    assert_eq!((code, outside.contains("10.9.9.9/24 is outside the subnet")), (11, true), "{outside}");

    let refusing = |_: &Message, mut answer: Message| {
        if answer.kind == Kind::Ack {
            answer.kind = Kind::Nak;
            answer.options.set(code::REASON, *b"no more addresses");
        }
        vec![answer]
    };
    let (code, refusal) = refused(refusing, json!({"timeout": 2}));
    assert_eq!((code, refusal.contains("198.51.100.1 refused: no more addresses")), (11, true), "{refusal}");

    let false_server = |_: &Message, mut answer: Message| {
        if answer.kind == Kind::Ack {
            answer.options.set(code::SERVER, [198, 51, 100, 99]);
        }
        vec![answer]
    };
    let (_, wrong) = refused(false_server, json!({"timeout": 2}));
    assert!(wrong.contains("198.51.100.99 answered what was asked of 198.51.100.1"), "{wrong}");
}

#[test]
fn of_two_servers_the_first_is_taken() {
    let node = Node::enter();
    let lan = lan(|question, answer| {
        let mut other = answer.clone();
        other.options.set(code::SERVER, [198, 51, 100, 66]);
        other.your_address = Ipv4Addr::new(198, 51, 100, 166);
        match question.kind {
            Kind::Discover => vec![answer, other],
            _ => vec![Message { kind: Kind::Nak, ..other }, answer],
        }
    });
    assert_eq!(addresses_of(&add(&Pod::new("pod"), &conf(&node, json!({})))), [ip("198.51.100.10")]);
    assert_eq!(lan.hears(Kind::Request).address(code::SERVER), Some(SERVER));
}

/// A server that gives `taken` until it hears that somebody has it.
fn gives_first(taken: Ipv4Addr) -> impl Fn(&Message, Message) -> Vec<Message> + Send {
    let given = AtomicBool::new(false);
    move |question, mut answer| {
        if !given.load(Relaxed) {
            answer.your_address = taken;
            given.store(question.kind == Kind::Request, Relaxed);
        }
        vec![answer]
    }
}

#[test]
fn an_address_that_somebody_has_is_declined_for_another() {
    for (taken, ipam, holder) in [
        ([198, 51, 100, 77], json!({"conflictProbe": true}), "on that link has"),
        ([198, 51, 100, 2], json!({}), "which this node has"),
    ] {
        let node = Node::enter();
        let lan = lan(gives_first(taken.into()));
        let own = "198.51.100.77/24".parse().unwrap();
        lan.ns.run(|| change(|batch, _| address::add(batch, index_of("lan0"), own, 0))).unwrap();
        let outcome = Call::about("ADD", &Pod::new("pod"), &conf(&node, ipam)).run();
        assert_eq!(addresses_of(&outcome.result()), [ip("198.51.100.10")]);
        assert_eq!(lan.hears(Kind::Decline).address(code::REQUESTED_ADDRESS), Some(taken.into()));
        assert!(outcome.warnings()[0].contains(holder), "{:?}", outcome.warnings());
    }
}

#[test]
fn a_pod_of_mode_l2_gets_its_address_and_its_bridge_nothing() {
    let node = Node::enter();
    let _lan = lan(right);
    let mut conf = conf(&node, json!({}));
    conf["mode"] = json!("l2");
    let before = support::node::observe();
    let pod = Pod::new("pod");
    let result = add(&pod, &conf);
    assert_eq!(addresses_of(&result), [ip("198.51.100.10")]);
    check(&pod, &conf, &result).silent();
    del(&pod, &conf);
    assert_eq!(support::node::observe(), before);
    assert_nothing_left(&node);
}

#[test]
fn a_bridge_that_is_missing_is_named_and_not_made() {
    let node = Node::enter();
    let (code, error) = Call::about("ADD", &Pod::new("pod"), &conf(&node, json!({}))).run().error();
    assert_eq!((code, error.contains("the node has no link `lan`")), (7, true), "{error}");
    assert_nothing_left(&node);
}

#[test]
fn a_hundred_pods_at_once_each_get_an_address() {
    let node = Node::enter();
    let _lan = lan(right);
    let conf = conf(&node, json!({"timeout": 60}));
    let pods: Vec<Pod> = (0..100).map(|number| Pod::new(format!("pod{number}"))).collect();
    let calls: Vec<_> = pods.iter().map(|pod| Call::about("ADD", pod, &conf).start()).collect();
    let mut given: Vec<IpAddr> =
        calls.into_iter().flat_map(|call| addresses_of(&call.finish().result())).collect();
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 100);
    for pod in &pods {
        del(pod, &conf);
    }
    assert_nothing_left(&node);
}

/// A link in the pod as `bridge` or `macvlan` of the reference leave it for their IPAM plugin.
fn link_in(pod: &NetNs) {
    let bridge = index_of(BRIDGE);
    let (host, peer) = (name("other0"), name("eth0"));
    let veth = Veth {
        host: VethEnd { name: &host, mac: None, netns: None },
        peer: VethEnd { name: &peer, mac: None, netns: Some(pod.as_fd()) },
        mtu: 1500,
        master: Some(bridge),
        up: true,
    };
    change(|batch, _| link::create_veth(batch, &veth));
}

#[test]
fn the_ipam_plugin_asks_on_the_link_that_is_in_the_pod_already() {
    let node = Node::enter();
    let lan = lan(right);
    let pod = Pod::new("pod");
    link_in(&pod.ns);
    let conf = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "macvlan",
        "ipam": {
            "type": "dhcp", "daemonSocketPath": "/run/cni/dhcp.sock", "leaseDir": node.folder().join("leases"),
            "provide": [{"option": "host-name", "fromArg": "K8S_POD_NAME"}],
            "request": [{"option": "119"}],
        },
    });
    let call = |verb| Call::about(verb, &pod, &conf).by_name("dhcp").with("CNI_ARGS", "K8S_POD_NAME=web-0");
    let result = call("ADD").run().result();
    assert_eq!(result["ips"][0], json!({"address": "198.51.100.10/24", "gateway": "198.51.100.1"}));
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "198.51.100.1"}]));
    let discover = lan.hears(Kind::Discover);
    assert_eq!(discover.options.get(code::REQUEST_LIST).unwrap()[0], 119);
    lan.hears(Kind::Request);
    // The reference gives the lease that there is to whoever asks twice.
    assert_eq!(call("ADD").run().result(), result);
    call("CHECK").run().silent();
    assert_eq!(lan.heard(), [] as [Kind; 0]);
    call("DEL").run().silent();
    lan.hears(Kind::Release);
    assert_eq!(leases(&node), [""; 0]);
    assert_eq!(call("CHECK").run().error().0, 107);
    call("DEL").run().silent();
    let held =
        pod.ns.run(|| address::dump(&mut netlink::Socket::open(netlink::Protocol::Route).unwrap())).unwrap();
    assert!(held.unwrap().iter().all(|held| held.ip.addr() != ip("198.51.100.10")));
}
