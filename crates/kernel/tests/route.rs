//! Routes: the kernel's keys, filters and look-ups are what the code that plans them believes they are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;
use kernel::netlink::{Batch, Socket};
use kernel::netns::NetNs;
use kernel::route::Family::{V4, V6};
use kernel::route::{self, Filter, Hop, ONLINK, Route, RouteKind, TABLE_LOCAL};
use kernel::{address, link};
use rustix::io::Errno;
use support::{apply, enter_fresh_netns, route_socket, veth_pair, wait_until};

const OURS: u8 = 104;
const STATIC: u8 = 4;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A namespace with one uplink (`192.0.2.1/24`, `2001:db8::1/64`) and a second; gives the socket and both indices.
fn node() -> (Socket, u32, u32) {
    enter_fresh_netns();
    let mut socket = route_socket();
    let (uplink, other) = veth_pair(&mut socket, "uplink", "other");
    let loopback = link::by_name(&mut socket, "lo").unwrap().unwrap().index;
    apply(&mut socket, |batch| {
        link::set_up(batch, loopback);
        address::add(batch, uplink, net("192.0.2.1/24"), 0);
        address::add(batch, uplink, net("2001:db8::1/64"), address::NODAD);
        address::add(batch, other, net("2001:db8:1::1/64"), address::NODAD);
    });
    // The kernel makes an IPv6 address local a moment after it has accepted it, even without duplicate detection.
    for own in ["2001:db8::1", "2001:db8:1::1"] {
        wait_until("the address is local", || {
            route::look_up(&mut socket, ip(own), None).is_ok_and(|route| route.kind == RouteKind::Local)
        });
    }
    (socket, uplink, other)
}

fn via(destination: &str, gateway: &str, index: u32) -> Route {
    let hop = Hop { gateway: Some(ip(gateway)), index: Some(index), ..Hop::default() };
    Route { protocol: OURS, metric: 77, hops: vec![hop], ..Route::to(net(destination)) }
}

fn ours(socket: &mut Socket, family: route::Family) -> Vec<Route> {
    let mut found =
        route::dump(socket, family, Filter { protocol: Some(OURS), ..Filter::default() }).unwrap();
    found.iter_mut().flat_map(|route| &mut route.hops).for_each(|hop| hop.flags = 0);
    found
}

fn refused(socket: &mut Socket, write: impl FnOnce(&mut Batch)) -> Errno {
    let mut batch = Batch::new();
    write(&mut batch);
    socket.execute(&mut batch).unwrap().remove(0).error.errno
}

#[test]
fn a_route_is_added_replaced_and_deleted_by_its_whole_key() {
    let (mut socket, uplink, _) = node();
    for (destination, before, after) in
        [("10.244.1.0/24", "192.0.2.9", "192.0.2.10"), ("fd00:1::/64", "2001:db8::9", "2001:db8::10")]
    {
        let family = if destination.contains(':') { V6 } else { V4 };
        let old = via(destination, before, uplink);
        let new = via(destination, after, uplink);
        apply(&mut socket, |batch| route::add(batch, &old));
        assert_eq!(ours(&mut socket, family), std::slice::from_ref(&old));
        assert_eq!(refused(&mut socket, |batch| route::add(batch, &new)), Errno::EXIST);
        let foreign = Route { protocol: STATIC, ..new.clone() };
        assert_eq!(
            refused(&mut socket, |batch| route::add(batch, &foreign)),
            Errno::EXIST,
            "the protocol is no part of the key"
        );
        apply(&mut socket, |batch| route::replace(batch, &new));
        assert_eq!(ours(&mut socket, family), std::slice::from_ref(&new));

        for other in [
            Route { protocol: STATIC, ..new.clone() },
            Route { metric: 78, ..new.clone() },
            Route { table: 100, ..new.clone() },
            old.clone(),
        ] {
            assert_eq!(refused(&mut socket, |batch| route::delete(batch, &other)), Errno::SRCH, "{other:?}");
        }
        apply(&mut socket, |batch| route::delete(batch, &new));
        assert_eq!(ours(&mut socket, family), []);
        assert_eq!(refused(&mut socket, |batch| route::delete(batch, &new)), Errno::SRCH);
        assert_eq!(refused(&mut socket, |batch| route::replace(batch, &new)), Errno::NOENT, "{destination}");
    }
}

#[test]
fn routes_to_one_destination_live_beside_each_other_by_metric() {
    let (mut socket, uplink, _) = node();
    let ours_ = via("10.244.1.0/24", "192.0.2.9", uplink);
    let foreign = Route { metric: 5, protocol: STATIC, ..via("10.244.1.0/24", "192.0.2.8", uplink) };
    apply(&mut socket, |batch| {
        route::add(batch, &foreign);
        route::add(batch, &ours_);
    });
    let winner = route::look_up(&mut socket, ip("10.244.1.1"), None).unwrap();
    assert_eq!((winner.protocol, winner.metric), (STATIC, 5), "the lower metric shadows ours");
    apply(&mut socket, |batch| route::delete(batch, &ours_));
    assert_eq!(route::look_up(&mut socket, ip("10.244.1.1"), None).unwrap().metric, 5);
}

#[test]
fn a_multipath_route_keeps_its_legs_in_both_families() {
    let (mut socket, uplink, other) = node();
    let leg = |gateway: &str, index, weight| Hop {
        gateway: Some(ip(gateway)),
        index: Some(index),
        flags: 0,
        weight,
    };
    let v4 = Route {
        hops: vec![leg("192.0.2.9", uplink, 0), leg("192.0.2.10", uplink, 2)],
        ..via("10.244.1.0/24", "192.0.2.9", uplink)
    };
    let v6 = Route {
        hops: vec![leg("2001:db8::9", uplink, 0), leg("2001:db8:1::9", other, 1)],
        ..via("fd00:1::/64", "2001:db8::9", uplink)
    };
    apply(&mut socket, |batch| {
        route::add(batch, &v4);
        route::add(batch, &v6);
    });
    assert_eq!(ours(&mut socket, V4), [v4]);
    assert_eq!(ours(&mut socket, V6), [v6]);
}

#[test]
fn an_ipv4_route_may_go_through_an_ipv6_gateway() {
    let (mut socket, uplink, _) = node();
    let route = via("10.244.1.0/24", "2001:db8::9", uplink);
    apply(&mut socket, |batch| route::add(batch, &route));
    assert_eq!(ours(&mut socket, V4), [route]);
}

#[test]
fn a_route_keeps_its_source_mtu_and_segment_size() {
    let (mut socket, uplink, _) = node();
    let hop = Hop { index: Some(uplink), ..Hop::default() };
    let route = Route {
        source: Some(ip("192.0.2.1")),
        mtu: Some(1400),
        advmss: Some(1360),
        scope: 253,
        hops: vec![hop],
        ..via("10.244.1.7/32", "192.0.2.9", uplink)
    };
    apply(&mut socket, |batch| route::add(batch, &route));
    assert_eq!(ours(&mut socket, V4), [route]);
}

#[test]
fn a_dump_gives_only_what_the_filter_names() {
    let (mut socket, uplink, other) = node();
    let mut batch = Batch::new();
    for number in 0..1000u32 {
        let destination =
            IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + number * 256).into(), 24).unwrap();
        let protocol = if number % 100 == 0 { OURS } else { STATIC };
        let table = if number % 200 == 0 { 100 } else { 254 };
        route::add(
            &mut batch,
            &Route { destination, protocol, table, ..via("0.0.0.0/0", "192.0.2.9", uplink) },
        );
    }
    socket.execute_all(&mut batch).unwrap();
    let mut count = |filter| route::dump(&mut socket, V4, filter).unwrap().len();
    assert_eq!(count(Filter { protocol: Some(OURS), ..Filter::default() }), 10);
    assert_eq!(count(Filter { protocol: Some(OURS), table: Some(100), index: None }), 5);
    assert_eq!(count(Filter { table: Some(4242), ..Filter::default() }), 0, "a table that nobody has used");
    assert_eq!(count(Filter { protocol: Some(OURS), table: None, index: Some(other) }), 0);
    assert!(count(Filter::default()) > 1000);
    assert!(count(Filter { table: Some(TABLE_LOCAL), ..Filter::default() }) > 0);
}

#[test]
fn a_look_up_tells_on_link_default_local_and_ours_apart() {
    let (mut socket, uplink, _) = node();
    apply(&mut socket, |batch| {
        route::add(batch, &Route { protocol: STATIC, ..via("0.0.0.0/0", "192.0.2.254", uplink) });
        route::add(batch, &Route { protocol: STATIC, ..via("::/0", "2001:db8::fe", uplink) });
        route::add(batch, &via("10.244.1.0/24", "192.0.2.9", uplink));
    });
    for (to, destination, gateway) in [
        ("192.0.2.9", "192.0.2.0/24", None),
        ("198.51.100.1", "0.0.0.0/0", Some("192.0.2.254")),
        ("10.244.1.5", "10.244.1.0/24", Some("192.0.2.9")),
        ("2001:db8::9", "2001:db8::/64", None),
        ("2001:db8:ffff::1", "::/0", Some("2001:db8::fe")),
    ] {
        let found = route::look_up(&mut socket, ip(to), None).unwrap();
        assert_eq!(found.destination, net(destination), "{to}");
        assert_eq!(found.hops[0].gateway, gateway.map(ip), "{to}");
        assert_eq!((found.kind, found.hops[0].index), (RouteKind::Unicast, Some(uplink)), "{to}");
    }
    for to in ["192.0.2.1", "2001:db8::1"] {
        assert_eq!(route::look_up(&mut socket, ip(to), None).unwrap().kind, RouteKind::Local, "{to}");
    }
    let resolved = route::resolve(&mut socket, ip("10.244.1.5")).unwrap();
    assert_eq!((resolved.source, resolved.hops[0].index), (Some(ip("192.0.2.1")), Some(uplink)));
}

#[test]
fn the_source_of_ipv6_packets_is_the_kernels_choice_also_where_it_is_not_asked() {
    let (mut socket, uplink, other) = node();
    apply(&mut socket, |batch| {
        route::add(batch, &Route { protocol: STATIC, ..via("::/0", "2001:db8::fe", uplink) });
        route::add(batch, &via("fd00:1::/64", "2001:db8:1::9", other));
        let preferred = Some(ip("2001:db8:1::1"));
        route::add(batch, &Route { source: preferred, ..via("fd00:2::/64", "2001:db8::9", uplink) });
    });
    let expect = |socket: &mut Socket, to: &str, (source, link): (&str, u32)| {
        let found = route::resolve(socket, ip(to)).unwrap();
        assert_eq!((found.source, found.hops[0].index), (Some(ip(source)), Some(link)), "{to}");
    };
    for (to, wanted) in [
        ("2001:db8::9", ("2001:db8::1", uplink)),
        ("fd00:1::9", ("2001:db8:1::1", other)),
        ("fd00:2::9", ("2001:db8:1::1", uplink)),
        ("2a00::1", ("2001:db8::1", uplink)),
    ] {
        expect(&mut socket, to, wanted);
    }
    // Two that are fit: the one with the longer common prefix; none on the link: another link's.
    apply(&mut socket, |batch| address::add(batch, uplink, net("2a00:1::1/64"), address::NODAD));
    expect(&mut socket, "2a00:1:2::1", ("2a00:1::1", uplink));
    expect(&mut socket, "2001:db8::9", ("2001:db8::1", uplink));
    apply(&mut socket, |batch| {
        address::delete(batch, other, net("2001:db8:1::1/64"));
        address::delete(batch, uplink, net("2a00:1::1/64"));
        route::add(
            batch,
            &Route {
                hops: vec![Hop { index: Some(other), ..Hop::default() }],
                ..via("fd00:3::/64", "::", 0)
            },
        );
    });
    expect(&mut socket, "fd00:3::9", ("2001:db8::1", other));
}

#[test]
fn a_look_up_that_no_route_or_an_unreachable_one_answers_is_an_error() {
    let (mut socket, _, _) = node();
    let missing = route::look_up(&mut socket, ip("198.51.100.1"), None).unwrap_err();
    assert_eq!(missing.errno, Errno::NETUNREACH);
    assert!(
        missing
            .to_string()
            .starts_with("failed to look up the route to 198.51.100.1: network is unreachable")
    );
    for (guard, inside) in [("10.244.0.0/24", "10.244.0.9"), ("fd00::/64", "fd00::9")] {
        let guard = Route { kind: RouteKind::Unreachable, hops: vec![], ..via(guard, "192.0.2.9", 0) };
        apply(&mut socket, |batch| route::add(batch, &guard));
        let refused = route::look_up(&mut socket, ip(inside), None).unwrap_err();
        assert_eq!(refused.errno, Errno::HOSTUNREACH, "{refused}");
        let family = if guard.destination.addr().is_ipv4() { V4 } else { V6 };
        assert!(ours(&mut socket, family).iter().any(|route| route.kind == RouteKind::Unreachable));
        apply(&mut socket, |batch| route::delete(batch, &guard));
        assert_eq!(ours(&mut socket, family), []);
    }
}

#[test]
fn many_look_ups_at_once_answer_each_as_one_by_itself() {
    let (mut socket, uplink, _) = node();
    apply(&mut socket, |batch| {
        route::add(batch, &via("10.244.0.0/16", "192.0.2.9", uplink));
        route::add(batch, &via("fd00:1::/32", "2001:db8::9", uplink));
    });
    // More than one batch, refusals among them, both families, one asked twice.
    let asked: Vec<IpAddr> = (0..350)
        .map(|number| match number % 4 {
            0 => ip(&format!("10.244.{}.5", number % 200)),
            1 => ip("198.51.100.1"),
            2 => ip(&format!("fd00:1::{number:x}")),
            _ => ip("2001:db8:ffff::1"),
        })
        .collect();
    let found = route::look_up_all(&mut socket, &asked);
    let one_by_one: Vec<_> = asked.iter().map(|to| route::look_up(&mut socket, *to, None)).collect();
    assert_eq!(found, one_by_one);
    assert!(found.iter().any(Result::is_ok) && found.iter().any(Result::is_err));
    assert_eq!(route::look_up_all(&mut socket, &[]), []);
}

#[test]
fn an_on_link_flag_lets_a_gateway_be_one_that_no_route_reaches() {
    let (mut socket, uplink, _) = node();
    let mut route = via("10.244.1.0/24", "198.51.100.9", uplink);
    assert_eq!(refused(&mut socket, |batch| route::add(batch, &route)), Errno::NETUNREACH);
    route.hops[0].flags = ONLINK;
    apply(&mut socket, |batch| route::add(batch, &route));
    let found = route::look_up(&mut socket, ip("10.244.1.1"), None).unwrap();
    assert_eq!(found.hops[0].gateway, Some(ip("198.51.100.9")));
}

#[test]
fn a_dump_that_others_interrupt_still_gives_every_route_that_was_there_all_the_time() {
    let (mut socket, uplink, _) = node();
    let route = |number: u32| {
        let destination =
            IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + number * 256).into(), 24).unwrap();
        Route { destination, ..via("0.0.0.0/0", "192.0.2.9", uplink) }
    };
    let mut batch = Batch::new();
    (0..2000).for_each(|number| route::add(&mut batch, &route(number)));
    socket.execute_all(&mut batch).unwrap();
    let here = NetNs::current().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            here.enter().unwrap();
            let mut socket = route_socket();
            while !done.load(Ordering::Relaxed) {
                apply(&mut socket, |batch| route::add(batch, &route(5000)));
                apply(&mut socket, |batch| route::delete(batch, &route(5000)));
            }
        });
        for _ in 0..20 {
            match route::dump(&mut socket, V4, Filter { protocol: Some(OURS), ..Filter::default() }) {
                Ok(found) => {
                    let stable =
                        found.iter().filter(|found| found.destination != route(5000).destination).count();
                    assert_eq!(stable, 2000);
                }
                // Never a partial answer: too many interruptions are an error.
                Err(error) => assert_eq!(error.errno, Errno::INTR),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
