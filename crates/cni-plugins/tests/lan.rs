//! Pods on the node's own LAN: hosts there reach them, and they reach those, from the first packet on, whether the pods
//! are on a bridge or behind routed links.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{IpAddr, SocketAddr};

use kernel::netlink::CREATE;
use kernel::{address, link, neighbour};
use serde_json::json;
use support::lan::{FIRST, Lan, declare_services, mac_of, socket};
use support::node::{
    NODE_ADDRESSES, Pod, ROUTER_ADDRESSES, add, addresses_of, change, check, del, host_link, index_of, ip,
};
use support::plugin::Call;
use support::{assert_first_packets, one_datagram, udp};

fn proxied() -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> =
        neighbour::dump(&mut socket(), true).unwrap().into_iter().map(|proxied| proxied.ip).collect();
    found.sort();
    found
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
        let (code, message) = Call::about("ADD", &Pod::new("asks"), &conf)
            .with("CNI_ARGS", format!("IP={}", FIRST[0]))
            .run()
            .error();
        assert!(message.contains(FIRST[0]) && message.contains("in use on the LAN"), "{code} {message}");
        let pod = Pod::new("pod");
        let result = add(&pod, &conf);
        assert!(addresses_of(&result).iter().all(|given| !FIRST.map(ip).contains(given)), "{result}");
        lan.prove(&pod, &result);
    }
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
        frontend.set_read_timeout(Some(support::PATIENCE)).unwrap();
        backend.send_to(b"answer", frontend.local_addr().unwrap()).unwrap();
        assert_eq!(frontend.recv(&mut [0; 16]).unwrap(), 6, "port {port}");
    }
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
        let (code, message) = Call::about("ADD", &Pod::new("pod"), &conf).run().error();
        assert!(code == 11 && message.contains("no address of a /64 in 2001:db8:7::/48"), "{code} {message}");
        assert_eq!(lan.state(), before);
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
        let (code, message) = Call::about("ADD", &Pod::new("pod"), &lan.conf(&patch)).run().error();
        assert_eq!(code, 7, "{message}");
        assert!(message.contains(said), "{message}");
        assert_eq!(lan.state(), before, "{said}");
    }
}
