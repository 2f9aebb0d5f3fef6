//! Tracked flows: a real UDP flow through a translation is found, told from others, and forgotten.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::net::{IpAddr, UdpSocket};

use kernel::conntrack::{self, Filter, Flow, UDP};
use kernel::nftables::{
    BaseChain, Chain, ChainKind, Family, Hook, NatFlags, NatKind, NatTarget, Policy, Rule, Selector,
    Statement, Table, Transaction, Transport, Value, priority,
};
use kernel::route::Family::{V4, V6};
use kernel::{address, link};
use support::{apply, enter_fresh_netns, netfilter_socket, route_socket, wait_until};

const ANSWERER: &str = "192.0.2.2";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `192.0.2.1:53` is translated to `192.0.2.2:5353`, both addresses of the loopback link.
fn translate() {
    enter_fresh_netns();
    let mut socket = route_socket();
    let loopback = link::by_name(&mut socket, "lo").unwrap().unwrap().index;
    apply(&mut socket, |batch| {
        link::set_up(batch, loopback);
        for ip in ["192.0.2.1/32", "192.0.2.2/32"] {
            address::add(batch, loopback, ip.parse().unwrap(), 0);
        }
    });
    let to = NatTarget::AddressPort(ip(ANSWERER), 5353);
    let table = Table {
        chains: vec![Chain::base(
            "output",
            BaseChain {
                kind: ChainKind::Nat,
                hook: Hook::Output,
                priority: priority::DSTNAT,
                policy: Policy::Accept,
            },
            vec![Rule::new([
                Statement::is(Selector::Dport(Transport::Udp), Value::Port(53)),
                Statement::Nat { kind: NatKind::Destination, target: to, flags: NatFlags::default() },
            ])],
        )],
        ..Table::new(Family::Inet, "t")
    };
    let mut transaction = Transaction::new();
    transaction.declare(&table);
    transaction.commit(&mut netfilter_socket()).unwrap();
}

/// One datagram from a port, received and answered by who is behind the translation.
fn exchange(client: &UdpSocket, answerer: &UdpSocket) {
    client.send_to(b"?", "192.0.2.1:53").unwrap();
    let (_, from) = answerer.recv_from(&mut [0; 8]).unwrap();
    answerer.send_to(b"!", from).unwrap();
    client.recv_from(&mut [0; 8]).unwrap();
}

fn flows() -> Vec<Flow> {
    conntrack::dump(&mut netfilter_socket(), &Filter::protocol(V4, UDP)).unwrap()
}

#[test]
fn a_translated_flow_is_found_by_port_and_by_answerer_and_forgotten() {
    translate();
    let answerer = UdpSocket::bind("192.0.2.2:5353").unwrap();
    let client = UdpSocket::bind("192.0.2.1:4000").unwrap();
    exchange(&client, &answerer);
    let mut socket = netfilter_socket();

    let found = flows();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].original.destination, found[0].original.destination_port), (ip("192.0.2.1"), 53));
    assert_eq!((found[0].reply.source, found[0].reply.source_port), (ip(ANSWERER), 5353));
    assert_ne!(found[0].status & kernel::nftables::ct_status::DNAT, 0);

    assert_eq!(conntrack::delete_to_port(&mut socket, V4, UDP, 54, |_| true).unwrap(), 0);
    assert_eq!(conntrack::delete_to_port(&mut socket, V4, UDP, 53, |to| to == ip("192.0.2.7")).unwrap(), 0);
    assert_eq!(conntrack::delete_to_port(&mut socket, V4, conntrack::SCTP, 53, |_| true).unwrap(), 0);
    assert_eq!(flows().len(), 1);
    assert_eq!(conntrack::delete_to_port(&mut socket, V4, UDP, 53, |to| to == ip("192.0.2.1")).unwrap(), 1);
    assert_eq!(flows(), []);

    exchange(&client, &answerer);
    assert_eq!(conntrack::delete_replies_from(&mut socket, ip(ANSWERER), UDP, 53).unwrap(), 0);
    assert_eq!(conntrack::delete_replies_from(&mut socket, ip("192.0.2.1"), UDP, 5353).unwrap(), 0);
    assert_eq!(conntrack::delete_replies_from(&mut socket, ip(ANSWERER), UDP, 5353).unwrap(), 1);
    assert_eq!(flows(), []);
}

#[test]
fn many_flows_are_forgotten_at_once_and_others_stay() {
    translate();
    let answerer = UdpSocket::bind("192.0.2.2:5353").unwrap();
    let clients: Vec<UdpSocket> = (0..300).map(|_| UdpSocket::bind("192.0.2.1:0").unwrap()).collect();
    for client in &clients {
        exchange(client, &answerer);
    }
    let other = UdpSocket::bind("192.0.2.1:0").unwrap();
    other.send_to(b"?", "192.0.2.2:5353").unwrap();
    wait_until("every flow is tracked", || flows().len() == 301);
    assert_eq!(conntrack::delete_to_port(&mut netfilter_socket(), V4, UDP, 53, |_| true).unwrap(), 300);
    let left = flows();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].original.destination, ip(ANSWERER));
}

#[test]
fn every_part_of_a_filter_is_one_that_the_kernel_takes_in_both_families() {
    enter_fresh_netns();
    for (family, address) in [(V4, "192.0.2.1"), (V6, "fd00::1")] {
        let filter = Filter {
            original_destination: Some(ip(address)),
            original_destination_port: Some(53),
            reply_source: Some(ip(address)),
            reply_source_port: Some(53),
            ..Filter::protocol(family, UDP)
        };
        assert_eq!(conntrack::dump(&mut netfilter_socket(), &filter).unwrap(), []);
    }
}
