//! Host ports opened by the real program: reached by packets, owned by one, and closed again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use kernel::netlink::{Protocol, Socket};
use kernel::netns::NetNs;
use kernel::nftables::{self, Element, Existing, Family, TableName, Transaction};
use kernel::{address, conntrack, route};
use rustix::fd::OwnedFd;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto, socket_with,
};
use serde_json::{Value, json};
use support::node::{
    NODE_ADDRESSES, Node, Pod, ROUTER_ADDRESSES, add, addresses_of, change, check, del, ip, open_host_ports,
    uplink,
};
use support::plugin::{Call, Outcome, Running};
use support::ports::{any, ask, conf, connect, is_closed, listen, web, web_on};
use support::{PATIENCE, udp};

#[test]
fn a_port_works_from_outside_the_node_its_pods_and_the_pod_itself_in_each_family_and_mode() {
    for mode in ["ptp", "bridge"] {
        let node = Node::enter();
        let router = uplink(1500);
        let (pod, other) = (Pod::new("web"), Pod::new("other"));
        let web_conf = conf(&node, mode, &web());
        let result = add(&pod, &web_conf);
        let others = addresses_of(&add(&other, &conf(&node, mode, &json!([]))));
        check(&pod, &web_conf, &result).silent();
        for (family, own) in addresses_of(&result).into_iter().enumerate() {
            let node_address = ip(NODE_ADDRESSES[family]);
            let (tcp, udp_server) = (listen(&pod, own, 80), udp(&pod.ns, own, 53));
            let seen_by_pod = |client: &NetNs| {
                let by_tcp = connect(client, SocketAddr::new(node_address, 8080), &tcp);
                let socket = udp(client, any(NODE_ADDRESSES[family]), 0);
                let by_udp = ask(&socket, SocketAddr::new(node_address, 8053), &udp_server);
                assert_eq!(by_tcp, by_udp);
                by_tcp
            };
            assert_eq!(seen_by_pod(&router), ip(ROUTER_ADDRESSES[family]), "{mode}");
            assert_eq!(seen_by_pod(&node.ns), node_address, "{mode}");
            assert_eq!(seen_by_pod(&pod.ns), node_address, "{mode}: by hairpin");
            // A neighbour on a bridge may have to be shown as the node, for the answer to come back.
            let seen = seen_by_pod(&other.ns);
            assert!(seen == others[family] || mode == "bridge" && seen == node_address, "{mode}: {seen}");
        }
        del(&pod, &web_conf);
        assert_eq!(open_host_ports(), [""; 0]);
        for address in NODE_ADDRESSES {
            assert!(is_closed(&router, SocketAddr::new(ip(address), 8080)), "{mode}: {address}");
        }
    }
}

#[test]
fn a_port_in_containerds_spelling_is_opened() {
    let node = Node::enter();
    let port = json!({"HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": ""});
    add(&Pod::new("web"), &conf(&node, "ptp", &json!([port])));
    assert!(!open_host_ports().is_empty());
}

#[test]
fn a_port_of_one_address_is_on_that_address_only_and_loopback_is_none() {
    let node = Node::enter();
    let router = uplink(1500);
    change(|batch, _| address::add(batch, 1, "192.0.2.77/32".parse().unwrap(), 0));
    let pod = Pod::new("web");
    let mapping = json!([{"hostPort": 8080, "containerPort": 80, "hostIP": "192.0.2.77"}]);
    let own = addresses_of(&add(&pod, &conf(&node, "ptp", &mapping)));
    let server = listen(&pod, own[0], 80);
    connect(&node.ns, SocketAddr::new(ip("192.0.2.77"), 8080), &server);
    for (client, address) in [
        (&router, NODE_ADDRESSES[0]),
        (&router, NODE_ADDRESSES[1]),
        (&node.ns, "127.0.0.1"),
        (&node.ns, "::1"),
    ] {
        assert!(is_closed(client, SocketAddr::new(ip(address), 8080)), "{address}");
    }
}

#[test]
fn a_pod_may_be_the_first_and_have_a_thousand_host_ports_and_go_after_a_flush() {
    let node = Node::enter();
    let pod = Pod::new("many");
    let mapping: Vec<_> = (0..1000)
        .map(|port| json!({"hostPort": 10_000 + port, "containerPort": 80, "protocol": "tcp"}))
        .collect();
    let conf = conf(&node, "bridge", &json!(mapping));
    add(&pod, &conf);
    assert!(open_host_ports().len() >= 2000);
    let mut socket = Socket::open(Protocol::Netfilter).unwrap();
    let mut flush = Transaction::new();
    flush.delete_table(&TableName::new(Family::Inet, "hostgw_hostport"));
    flush.commit(&mut socket).unwrap();
    del(&pod, &conf);
    assert_eq!(node.kept(), Vec::<String>::new());
}

#[test]
fn a_port_on_which_the_node_listens_is_refused_or_told_or_neither() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let log = node.folder().join("log");
    let before = node.state();
    let _tcp = ["0.0.0.0:8080", "[::]:8081"].map(|address| TcpListener::bind(address).unwrap());
    let _udp = UdpSocket::bind("0.0.0.0:8082").unwrap();
    for (port, protocol) in [(8080, "tcp"), (8081, "tcp"), (8082, "udp")] {
        let mapping = json!([{"hostPort": port, "containerPort": 80, "protocol": protocol}]);
        let mut conf = conf(&node, "ptp", &mapping);
        conf["logFile"] = json!(log);
        let (code, msg) = Call::about("ADD", &pod, &conf).run().error();
        assert_eq!(code, 102, "{msg}");
        assert!(msg.contains(protocol) && msg.contains(&port.to_string()), "{msg}");
        assert!(msg.contains("listens on the node: stop it"), "{msg}");
        assert_eq!(node.state(), before);
        for check in ["warn", "off"] {
            conf["hostPortListenerCheck"] = json!(check);
            let told =
                || std::fs::read_to_string(&log).unwrap().matches("warn ADD pods web:eth0 host port").count();
            let told_before = told();
            add(&pod, &conf);
            del(&pod, &conf);
            assert_eq!(told() - told_before, usize::from(check == "warn"));
        }
    }
    add(&pod, &conf(&node, "ptp", &web_on(8083)));
}

#[test]
fn check_tells_of_ports_that_somebody_closed_and_del_does_not_mind() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let conf = conf(&node, "ptp", &web());
    let result = add(&pod, &conf);
    check(&pod, &conf, &result).silent();
    let mut transaction = Transaction::new();
    transaction.delete_table(&TableName::new(Family::Inet, "hostgw_hostport"));
    transaction.commit(&mut Socket::open(Protocol::Netfilter).unwrap()).unwrap();
    let (code, msg) = check(&pod, &conf, &result).error();
    assert_eq!(code, 107);
    assert!(msg.contains("host ports") && msg.contains("8080"), "{msg}");
    del(&pod, &conf);
    assert_eq!(node.kept(), [""; 0]);
    add(&pod, &conf);
    assert!(!open_host_ports().is_empty());
}

#[test]
fn a_flow_that_was_there_before_goes_to_the_pod_and_to_the_next_one() {
    let node = Node::enter();
    let router = uplink(1500);
    let conf = conf(&node, "ptp", &web());
    for (family, address) in NODE_ADDRESSES.into_iter().enumerate() {
        let to = SocketAddr::new(ip(address), 8053);
        let client = udp(&router, any(address), 0);
        // Nobody is there yet; what is sent makes a flow all the same once translation is on.
        let warm_up = Pod::new("warm-up");
        add(&warm_up, &conf);
        del(&warm_up, &conf);
        client.send_to(b"early", to).unwrap();
        for round in ["one", "two"] {
            let pod = Pod::new(round);
            let own = addresses_of(&add(&pod, &conf));
            ask(&client, to, &udp(&pod.ns, own[family], 53));
            del(&pod, &conf);
            client.send_to(b"between", to).unwrap();
        }
    }
}

#[test]
fn fifty_first_pods_at_once_open_fifty_ports_and_close_them() {
    let node = Node::enter();
    let router = uplink(1500);
    let pods: Vec<Pod> = (0..50).map(|number| Pod::new(format!("pod{number}"))).collect();
    let confs: Vec<Value> = (0..50)
        .map(|number| conf(&node, "ptp", &json!([{"hostPort": 9000 + number, "containerPort": 80}])))
        .collect();
    let all = |verb: &str| -> Vec<_> {
        let calls = pods.iter().zip(&confs).map(|(pod, conf)| Call::about(verb, pod, conf).start());
        calls.collect::<Vec<Running>>().into_iter().map(Running::finish).collect()
    };
    for _ in 0..2 {
        let results: Vec<Value> = all("ADD").iter().map(Outcome::result).collect();
        for number in [0_usize, 25, 49] {
            let server = listen(&pods[number], addresses_of(&results[number])[0], 80);
            let port = 9000 + u16::try_from(number).unwrap();
            connect(&router, SocketAddr::new(ip(NODE_ADDRESSES[0]), port), &server);
        }
        all("DEL").iter().for_each(Outcome::silent);
        assert_eq!(open_host_ports(), [""; 0]);
        assert_eq!(node.kept(), [""; 0]);
    }
}

/// An SCTP packet with an INIT chunk (RFC 9260, sections 3.1 and 3.3.2) and a right checksum: conntrack drops others.
fn sctp_init(from: u16, to: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    // No verification tag yet; the checksum comes last.
    packet.extend([0; 8]);
    // INIT, 20 bytes: initiate tag, receive window, streams out and in, first TSN.
    packet.extend([1, 0, 0, 20]);
    packet.extend(7_u32.to_be_bytes());
    packet.extend(65_536_u32.to_be_bytes());
    packet.extend([0, 1, 0, 1]);
    packet.extend(1_u32.to_be_bytes());
    let checksum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&checksum);
    packet
}

/// CRC32c (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// A socket that sends and hears whole SCTP packets; no kernel support of SCTP is needed.
fn raw_sctp(ns: &NetNs, family: AddressFamily) -> OwnedFd {
    let open = || socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::SCTP)).unwrap();
    let socket = ns.run(open).unwrap();
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn an_sctp_association_is_led_to_the_pod() {
    for mode in ["ptp", "bridge"] {
        let node = Node::enter();
        let router = uplink(1500);
        let pod = Pod::new("web");
        let mapping = json!([{"hostPort": 3868, "containerPort": 38, "protocol": "sctp"}]);
        add(&pod, &conf(&node, mode, &mapping));
        for (address, family) in NODE_ADDRESSES.into_iter().zip([AddressFamily::INET, AddressFamily::INET6]) {
            let (client, server) = (raw_sctp(&router, family), raw_sctp(&pod.ns, family));
            // A raw socket's address has no port: those are in the packet.
            sendto(&client, &sctp_init(5000, 3868), SendFlags::empty(), &SocketAddr::new(ip(address), 0))
                .unwrap();
            let mut buffer = [0; 256];
            let (length, _) = recv(&server, &mut buffer, RecvFlags::empty()).unwrap();
            // IPv4's header comes along.
            let start = if family == AddressFamily::INET { 20 } else { 0 };
            let packet = &buffer[start..length];
            assert_eq!(
                (packet.len(), &packet[..4]),
                (32, &[5000_u16.to_be_bytes(), 38_u16.to_be_bytes()].concat()[..])
            );
        }
    }
}

#[test]
fn check_tells_of_each_chain_that_was_flushed_or_deleted_and_of_an_element_that_leads_elsewhere() {
    let node = Node::enter();
    let pod = Pod::new("web");
    let conf = conf(&node, "ptp", &web());
    let result = add(&pod, &conf);
    let table = TableName::new(Family::Inet, "hostgw_hostport");
    let in_table = |write: &dyn Fn(&mut Transaction)| {
        let mut transaction = Transaction::new();
        write(&mut transaction);
        transaction.commit(&mut Socket::open(Protocol::Netfilter).unwrap()).unwrap();
    };
    for chain in ["hostports", "prerouting", "output", "postrouting"] {
        check(&pod, &conf, &result).silent();
        in_table(&|transaction| {
            transaction.flush_chain(&table, chain);
        });
        let (code, msg) = check(&pod, &conf, &result).error();
        assert!(code == 107 && msg.contains(chain) && msg.contains("hostgw_hostport"), "{msg}");
        // The next ADD puts it right, for all.
        let next = Pod::new("next");
        let next_conf = self::conf(&node, "ptp", &web_on(9000));
        add(&next, &next_conf);
        del(&next, &next_conf);
    }
    in_table(&|transaction| {
        transaction.flush_chain(&table, "prerouting").delete_chain(&table, "prerouting");
    });
    let (_, msg) = check(&pod, &conf, &result).error();
    assert!(msg.contains("chain `prerouting` is missing"), "{msg}");
    let next = Pod::new("next");
    add(&next, &self::conf(&node, "ptp", &web_on(9000)));
    check(&pod, &conf, &result).silent();
    // Another pod's address in the place of this one's.
    let mut socket = Socket::open(Protocol::Netfilter).unwrap();
    let found = nftables::observe(&mut socket, &table).unwrap().unwrap();
    let map = &found.sets.iter().find(|observed| observed.set.name == "any4").unwrap().set;
    let mut element =
        map.elements.iter().find(|element| format!("{element:?}").contains("8080")).unwrap().clone();
    in_table(&|transaction| {
        transaction.delete_elements(&table, map, std::slice::from_ref(&element));
    });
    let target = [nftables::Value::Ip(ip("10.244.1.99")), nftables::Value::Port(80)];
    element = Element::mapping(element.key, target);
    in_table(&|transaction| {
        transaction.add_elements(&table, map, std::slice::from_ref(&element), Existing::Refuse);
    });
    let (_, msg) = check(&pod, &conf, &result).error();
    assert!(msg.contains("not all of the host ports") && msg.contains("8080"), "{msg}");
}

#[test]
fn opening_a_port_forgets_no_flow_to_another_host() {
    let node = Node::enter();
    let router = uplink(1500);
    let (pod, client) = (Pod::new("web"), Pod::new("client"));
    // Something that tracks flows, as host ports do.
    let first = Pod::new("first");
    add(&first, &conf(&node, "ptp", &web_on(9000)));
    let own = addresses_of(&add(&client, &conf(&node, "ptp", &json!([]))));
    let asks = udp(&client.ns, own[0], 0);
    asks.send_to(b"elsewhere", (ip(ROUTER_ADDRESSES[0]), 8053)).unwrap();
    let outside = udp(&router, ip(ROUTER_ADDRESSES[0]), 0);
    outside.send_to(b"here", (ip(NODE_ADDRESSES[0]), 8053)).unwrap();
    let destinations = || {
        let filter = conntrack::Filter {
            original_destination_port: Some(8053),
            ..conntrack::Filter::protocol(route::Family::V4, conntrack::UDP)
        };
        let mut socket = Socket::open(Protocol::Netfilter).unwrap();
        let flows = conntrack::dump(&mut socket, &filter).unwrap();
        let mut destinations: Vec<IpAddr> = flows.iter().map(|flow| flow.original.destination).collect();
        destinations.sort();
        destinations
    };
    assert_eq!(destinations(), [ip(ROUTER_ADDRESSES[0]), ip(NODE_ADDRESSES[0])]);
    add(&pod, &conf(&node, "ptp", &web()));
    assert_eq!(destinations(), [ip(ROUTER_ADDRESSES[0])]);
}
