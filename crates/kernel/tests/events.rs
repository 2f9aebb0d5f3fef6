//! Events: what happens is heard, and what was lost is known to be lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use kernel::events::{Events, Group, Heard};
use kernel::link::{self, Link};
use kernel::netlink::{Batch, Protocol};
use kernel::route::{self, Hop, Route};
use support::{PATIENCE, apply, enter_fresh_netns, route_socket, veth_pair};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWROUTE: u16 = 24;

#[test]
fn a_link_that_comes_and_goes_is_heard_and_nothing_else_is() {
    enter_fresh_netns();
    let mut socket = route_socket();
    let mut events = Events::subscribe(Protocol::Route, &[Group::Links], None).unwrap();
    let mut routes =
        Events::subscribe(Protocol::Route, &[Group::Ipv4Routes, Group::Ipv4Rules], None).unwrap();
    let (one, _) = veth_pair(&mut socket, "one", "other");
    apply(&mut socket, |batch| link::delete(batch, one));
    assert!(events.wait(PATIENCE).unwrap());
    let mut heard = Vec::new();
    let mut note = |kind, payload: &[u8]| heard.extend(Link::parse(payload).map(|link| (kind, link.name)));
    while events.read(&mut note).unwrap() != Heard::Nothing {}
    assert!(heard.contains(&(RTM_NEWLINK, "one".to_owned())), "{heard:?}");
    assert!(heard.contains(&(RTM_DELLINK, "other".to_owned())), "{heard:?}");
    assert_eq!(routes.read(|_, _| {}).unwrap(), Heard::Nothing);
}

#[test]
fn a_wait_for_nothing_ends_with_its_time() {
    enter_fresh_netns();
    let events = Events::subscribe(Protocol::Route, &[Group::Links], None).unwrap();
    let begun = Instant::now();
    assert!(!events.wait(Duration::from_millis(20)).unwrap());
    assert!(begun.elapsed() >= Duration::from_millis(20));
}

#[test]
fn more_events_than_fit_are_reported_as_lost_and_later_ones_are_heard_again() {
    enter_fresh_netns();
    let mut socket = route_socket();
    let (one, _) = veth_pair(&mut socket, "one", "other");
    let mut events = Events::subscribe(Protocol::Route, &[Group::Ipv4Routes], Some(4096)).unwrap();
    let route = |number: u8| {
        let destination = ipnet::IpNet::new([10, 0, number, 0].into(), 24).unwrap();
        Route { hops: vec![Hop { index: Some(one), ..Hop::default() }], ..Route::to(destination) }
    };
    let mut batch = Batch::new();
    (0..200).for_each(|number| route::add(&mut batch, &route(number)));
    socket.execute_all(&mut batch).unwrap();
    let mut outcomes = Vec::new();
    loop {
        match events.read(|_, _| {}).unwrap() {
            Heard::Nothing => break,
            heard => outcomes.push(heard),
        }
    }
    assert!(outcomes.contains(&Heard::Lost), "{outcomes:?}");
    apply(&mut socket, |batch| route::add(batch, &route(250)));
    let mut kinds = Vec::new();
    assert_eq!(events.read(|kind, _| kinds.push(kind)).unwrap(), Heard::Something);
    assert_eq!(kinds, [RTM_NEWROUTE]);
}
