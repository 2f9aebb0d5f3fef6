//! Addresses: usable at once without duplicate detection, refused twice, gone when deleted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use ipnet::IpNet;
use kernel::address::{self, Address, NODAD, TENTATIVE};
use kernel::events::{Events, Group, Heard};
use kernel::link::{self, Veth, VethEnd};
use kernel::netlink::{Batch, Protocol};
use link_name::LinkName;
use std::os::fd::AsFd;
use support::{apply, enter_fresh_netns, route_socket, veth_pair, wait_until};

const RTM_NEWADDR: u16 = 20;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn an_address_without_duplicate_detection_is_announced_as_usable_at_once() {
    enter_fresh_netns();
    let mut socket = route_socket();
    let (one, _) = veth_pair(&mut socket, "one", "other");
    let mut events = Events::subscribe(Protocol::Route, &[Group::Ipv6Addresses], None).unwrap();
    apply(&mut socket, |batch| {
        address::add(batch, one, net("fd00::1/64"), NODAD);
        address::add(batch, one, net("fd00::2/64"), 0);
    });
    let mut heard: Vec<Address> = Vec::new();
    wait_until("both addresses are announced as usable", || {
        let mut read = |kind, payload: &[u8]| {
            if kind == RTM_NEWADDR {
                heard.extend(Address::parse(payload));
            }
        };
        while events.read(&mut read).unwrap() != Heard::Nothing {}
        let usable =
            |ip: &str| heard.iter().any(|address| address.ip == net(ip) && address.flags & TENTATIVE == 0);
        usable("fd00::1/64") && usable("fd00::2/64")
    });
    let first = |ip: &str| heard.iter().find(|address| address.ip == net(ip)).unwrap();
    assert_eq!(first("fd00::1/64").flags & TENTATIVE, 0);
    assert_ne!(first("fd00::2/64").flags & TENTATIVE, 0, "the other had to wait");
}

#[test]
fn an_address_is_added_once_and_deleted_once() {
    enter_fresh_netns();
    let mut socket = route_socket();
    let (one, _) = veth_pair(&mut socket, "one", "other");
    for ip in ["10.244.1.1/24", "10.244.2.1/32", "169.254.1.1/16", "fd00::1/128"] {
        let ip = net(ip);
        let mut batch = Batch::new();
        address::add(&mut batch, one, ip, NODAD);
        address::add(&mut batch, one, ip, NODAD);
        let failures = socket.execute(&mut batch).unwrap();
        assert_eq!(failures.len(), 1);
        assert!(failures[0].index == 1 && failures[0].error.is_present(), "{failures:?}");
        let found = address::dump(&mut socket).unwrap();
        let of_link: Vec<_> = found.iter().filter(|address| address.index == one).cloned().collect();
        assert_eq!(address::dump_of(&mut socket, one).unwrap(), of_link);
        let found = found.iter().find(|address| address.ip == ip).unwrap();
        assert_eq!((found.index, found.peer, found.valid_lifetime), (one, None, u32::MAX));
        assert!(found.is_stable());

        let mut batch = Batch::new();
        address::delete(&mut batch, one, ip);
        address::delete(&mut batch, one, ip);
        let failures = socket.execute(&mut batch).unwrap();
        assert_eq!(failures.len(), 1);
        assert!(failures[0].index == 1 && failures[0].error.is_absent(), "{failures:?}");
    }
}

#[test]
fn the_addresses_of_a_links_peer_in_another_namespace_are_read_from_here() {
    let pod = {
        enter_fresh_netns();
        kernel::netns::NetNs::current().unwrap()
    };
    enter_fresh_netns();
    let mut socket = route_socket();
    let (host, peer) = (LinkName::new("hgw0").unwrap(), LinkName::new("eth0").unwrap());
    let veth = Veth {
        host: VethEnd { name: &host, mac: None, netns: None },
        peer: VethEnd { name: &peer, mac: None, netns: Some(pod.as_fd()) },
        mtu: 1500,
        master: None,
        up: true,
    };
    apply(&mut socket, |batch| link::create_veth(batch, &veth));
    let found = link::by_name(&mut socket, "hgw0").unwrap().unwrap();
    let (netns, index) = (found.peer_netns.unwrap(), found.peer.unwrap());
    assert_eq!(address::dump_in(&mut socket, netns, index).unwrap(), []);
    pod.run(|| {
        apply(&mut route_socket(), |batch| {
            address::add(batch, index, net("10.0.0.5/24"), 0);
            address::add(batch, index, net("fd00::5/64"), NODAD);
            address::add(batch, 1, net("10.9.9.9/32"), 0);
        });
    })
    .unwrap();
    let mut held: Vec<IpNet> =
        address::dump_in(&mut socket, netns, index).unwrap().iter().map(|held| held.ip).collect();
    held.sort();
    assert_eq!(held, [net("10.0.0.5/24"), net("fd00::5/64")]);
}
