//! Neighbours: fixed, answered for, and forgotten.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::net::IpAddr;

use kernel::neighbour::{self, PERMANENT};
use support::{apply, enter_fresh_netns, route_socket, veth_pair};

const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 7];

#[test]
fn a_permanent_neighbour_is_set_again_and_deleted_in_both_families() {
    enter_fresh_netns();
    let mut socket = route_socket();
    let (one, _) = veth_pair(&mut socket, "one", "other");
    for ip in ["169.254.1.1", "fe80::1"] {
        let ip: IpAddr = ip.parse().unwrap();
        let find = || {
            neighbour::dump(&mut route_socket(), false)
                .unwrap()
                .into_iter()
                .find(|neighbour| neighbour.ip == ip && neighbour.index == one)
        };
        apply(&mut socket, |batch| neighbour::set_permanent(batch, one, ip, [0x02, 0, 0, 0, 0, 6]));
        apply(&mut socket, |batch| neighbour::set_permanent(batch, one, ip, MAC));
        let found = find().unwrap();
        assert_eq!((found.mac, found.state, found.proxy), (Some(MAC), PERMANENT, false));
        apply(&mut socket, |batch| neighbour::delete(batch, one, ip));
        assert_eq!(find().and_then(|left| left.mac), None);
    }
}

#[test]
fn an_address_that_is_answered_for_is_listed_apart() {
    enter_fresh_netns();
    let mut socket = route_socket();
    let (one, _) = veth_pair(&mut socket, "one", "other");
    for ip in ["192.0.2.7", "fd00::7"] {
        let ip: IpAddr = ip.parse().unwrap();
        let listed = |proxy| {
            neighbour::dump(&mut route_socket(), proxy)
                .unwrap()
                .iter()
                .any(|found| found.ip == ip && found.index == one && found.proxy)
        };
        apply(&mut socket, |batch| neighbour::add_proxy(batch, one, ip, 105));
        assert!(listed(true) && !listed(false));
        apply(&mut socket, |batch| neighbour::delete_proxy(batch, one, ip));
        assert!(!listed(true));
    }
}
