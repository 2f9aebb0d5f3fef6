//! Properties of the plan, against a small model of the kernel: whatever a link holds, and wherever the sequence is cut
//! short, nothing is lost, and nobody else's is touched.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::IpAddr;

use ipnet::IpNet;
use kernel::netlink::Batch;
use kernel::route::{Hop, Route};
use kernel::{address, neighbour, route};
use proptest::prelude::*;
use uplink::holdings::{Dumped, Holdings, Unmovable};
use uplink::object::{Kind, LinkRef, Object};
use uplink::plan::{Change, LINK_LOCAL_NONE, Observed, Place, Plan, Port, Wanted, into_bridge, onto_link};

const ETH0: u32 = 2;
const ETH1: u32 = 3;
const BR0: u32 = 9;

fn link(index: u32) -> LinkRef {
    let name = match index {
        ETH0 => "eth0",
        ETH1 => "eth1",
        _ => "br0",
    };
    LinkRef { index, name: name.to_owned() }
}

/// Objects in the kernel's order, and the little more that changes touch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    objects: Vec<Object>,
    bridge: bool,
    port: bool,
    link_local: u8,
}

impl Model {
    fn of(payloads: &[(Kind, Vec<u8>)]) -> Self {
        let mut model = Self { objects: Vec::new(), bridge: false, port: false, link_local: 0 };
        for (kind, payload) in payloads {
            model.apply(&Change::Add(Object::settle(*kind, payload).unwrap()));
        }
        model
    }

    fn dumped(&self) -> Dumped {
        Dumped {
            objects: self.objects.iter().map(|object| (object.kind(), object.bytes().to_vec())).collect(),
        }
    }

    fn observe(&self) -> Observed {
        let all = self.dumped();
        let port = Port { link: link(ETH0), master: self.port.then_some(BR0), link_local: self.link_local };
        Observed {
            port,
            bridge: self.bridge.then(|| link(BR0)),
            on_link: Holdings::of(&all, &link(ETH0)),
            on_bridge: Holdings::of(&all, &link(BR0)),
        }
    }

    /// What tells two objects of one link apart for the kernel: of addresses only the address.
    fn same(one: &Object, other: &Object) -> bool {
        match (one.address(), other.address()) {
            (Some(one), Some(other)) => (one.index, one.ip) == (other.index, other.ip),
            _ => one.identity() == other.identity(),
        }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Add(object) | Change::AddAhead(object) => {
                if self.objects.iter().any(|there| Self::same(there, object)) {
                    return;
                }
                let ahead = matches!(change, Change::AddAhead(_));
                let place = self.place_for(object, ahead);
                self.objects.insert(place, object.clone());
            }
            Change::Amend(object) => {
                let there = self.objects.iter_mut().find(|there| Self::same(there, object)).unwrap();
                *there = object.clone();
            }
            Change::Delete(object) => self.objects.retain(|there| !Self::same(there, object)),
            Change::DeleteBridge { .. } => {
                self.objects.retain(|object| object.kind() == Kind::Rule || !object.is_on(&link(BR0)));
                self.bridge = false;
                self.port = false;
            }
            Change::Enslave { .. } => {
                assert!(self.bridge, "a port of a bridge that does not exist");
                self.port = true;
            }
            Change::Free { .. } => self.port = false,
            Change::LinkLocal { mode, .. } => self.link_local = *mode,
            Change::Settle { .. } => {}
        }
    }

    fn carry_out(&mut self, plan: &Plan) {
        plan.changes().for_each(|change| self.apply(change));
    }

    fn place_for(&self, object: &Object, ahead: bool) -> usize {
        let same_key = |there: &Object| match object.kind() {
            Kind::Route => there.route_key().is_some() && there.route_key() == object.route_key(),
            kind => there.kind() == kind,
        };
        let newest_first = object.kind() == Kind::Address && object.is_ipv6();
        let same_key = |there: &Object| same_key(there) && there.is_ipv6() == object.is_ipv6();
        let place = if ahead || newest_first {
            self.objects.iter().position(same_key)
        } else {
            self.objects.iter().rposition(same_key).map(|place| place + 1)
        };
        place.unwrap_or(self.objects.len())
    }

    /// Each link's objects by themselves: how objects of several links are interleaved means nothing, but for IPv4 routes of
    /// one key.
    fn seen(&self) -> (Vec<Object>, Vec<Vec<Object>>) {
        let mut sorted = self.objects.clone();
        sorted.retain(|object| object.kind() != Kind::Address);
        sorted.sort();
        let mut ordered: Vec<Vec<Object>> = [ETH0, ETH1, BR0]
            .map(|index| {
                let on = |object: &&Object| object.kind() == Kind::Address && object.is_on(&link(index));
                let (ipv4, ipv6): (Vec<Object>, Vec<Object>) =
                    self.objects.iter().filter(on).cloned().partition(|object| !object.is_ipv6());
                [ipv4, ipv6].concat()
            })
            .to_vec();
        for key in sorted.iter().filter(|object| !object.is_ipv6()).filter_map(Object::route_key) {
            let group = self.objects.iter().filter(|object| object.route_key().as_ref() == Some(&key));
            ordered.push(group.cloned().collect());
        }
        (sorted, ordered)
    }
}

fn payload(batch: &Batch) -> Vec<u8> {
    batch.bytes()[16..].to_vec()
}

fn address_of(index: u32, ip: IpNet, flags: u32, lifetimes: Option<(u32, u32)>) -> (Kind, Vec<u8>) {
    let mut batch = Batch::new();
    address::add(&mut batch, index, ip, flags);
    let mut bytes = payload(&batch);
    if let Some((preferred, valid)) = lifetimes {
        bytes.extend(20_u16.to_ne_bytes());
        bytes.extend(6_u16.to_ne_bytes());
        for word in [preferred, valid, 7, 8] {
            bytes.extend(word.to_ne_bytes());
        }
    }
    (Kind::Address, bytes)
}

fn route_of(route: &Route) -> (Kind, Vec<u8>) {
    let mut batch = Batch::new();
    route::add(&mut batch, route);
    (Kind::Route, payload(&batch))
}

fn rule_of(ipv6: bool, priority: u32, name: &str, outgoing: bool) -> (Kind, Vec<u8>) {
    let mut bytes = vec![if ipv6 { 10 } else { 2 }, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let mut text = name.as_bytes().to_vec();
    text.push(0);
    let mut attribute = |kind: u16, value: &[u8]| {
        bytes.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    };
    attribute(if outgoing { 17 } else { 3 }, &text);
    attribute(6, &priority.to_ne_bytes());
    attribute(15, &100_u32.to_ne_bytes());
    (Kind::Rule, bytes)
}

fn neighbour_of(index: u32, ip: IpAddr) -> (Kind, Vec<u8>) {
    let mut batch = Batch::new();
    neighbour::set_permanent(&mut batch, index, ip, [2, 0, 0, 0, 0, 5]);
    (Kind::Neighbour, payload(&batch))
}

fn ip(ipv6: bool, low: u8) -> IpAddr {
    if ipv6 { format!("2001:db8::{low:x}").parse().unwrap() } else { IpAddr::from([10, 0, 0, low]) }
}

fn net(ipv6: bool, third: u8, longer: u8) -> IpNet {
    let length = if ipv6 { 48 + longer } else { 16 + longer };
    let ip: IpAddr =
        if ipv6 { format!("2001:db8:{third:x}::").parse().unwrap() } else { IpAddr::from([10, third, 0, 0]) };
    IpNet::new(ip, length).unwrap()
}

fn any_link() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(ETH0), 1 => Just(ETH1)]
}

fn any_object() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    let addresses = (
        any_link(),
        any::<bool>(),
        1_u8..20,
        0_u8..3,
        prop_oneof![Just(None), (5_u32..50, 50_u32..90).prop_map(Some)],
    )
        .prop_map(|(index, ipv6, low, flag, lifetimes)| {
            let ip = IpNet::new(ip(ipv6, low), if ipv6 { 64 } else { 24 }).unwrap();
            let flags = [0, address::NOPREFIXROUTE, address::NODAD][usize::from(flag)];
            address_of(index, ip, if ipv6 { flags } else { flags & address::NOPREFIXROUTE }, lifetimes)
        });
    let legs = proptest::collection::vec((any_link(), proptest::option::of(1_u8..5), 0_u8..3), 1..4);
    let routes = (any::<bool>(), 0_u8..4, 0_u8..4, 1_u32..3, any::<u8>(), 1_u32..400, legs).prop_map(
        |(ipv6, third, longer, metric, protocol, table, legs)| {
            let hops = legs
                .iter()
                .map(|(index, gateway, weight)| Hop {
                    gateway: gateway.map(|low| ip(ipv6, low)),
                    index: Some(*index),
                    flags: 0,
                    weight: if legs.len() > 1 { *weight } else { 0 },
                })
                .collect();
            route_of(&Route { metric, protocol, table, hops, ..Route::to(net(ipv6, third, longer)) })
        },
    );
    let rules = (any::<bool>(), 1_u32..5, any_link(), any::<bool>())
        .prop_map(|(ipv6, priority, index, outgoing)| rule_of(ipv6, priority, &link(index).name, outgoing));
    let neighbours = (any_link(), any::<bool>(), 30_u8..40)
        .prop_map(|(index, ipv6, low)| neighbour_of(index, ip(ipv6, low)));
    prop_oneof![2 => addresses, 3 => routes, 1 => rules, 1 => neighbours]
}

/// A node's objects, as the kernel would keep them, less those that a join refuses.
fn any_node() -> impl Strategy<Value = Model> {
    proptest::collection::vec(any_object(), 0..25).prop_map(|payloads| Model::of(&payloads)).prop_filter_map(
        "a route between others' is refused",
        |mut model| {
            // The kernel keeps an IPv6 route's legs each by itself.
            let objects = std::mem::take(&mut model.objects);
            for leg in objects.iter().flat_map(Object::legs) {
                model.apply(&Change::Add(leg));
            }
            Holdings::movable(&model.dumped(), &link(ETH0)).is_ok().then_some(model)
        },
    )
}

fn wanted_on(holder: u32, before: &Holdings, held_by: u32) -> Wanted {
    Wanted { holdings: before.moved(&link(held_by), &link(holder)), link_local: 0 }
}

/// With a bridge made, as before the sequence.
fn with_bridge(model: &Model) -> Model {
    Model { bridge: true, ..model.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_join_moves_everything_and_touches_nobody_elses(node in any_node()) {
        let before = node.observe().on_link;
        let mut now = with_bridge(&node);
        let wanted = wanted_on(BR0, &before, ETH0);
        let plan = into_bridge(&now.observe(), &link(BR0), &wanted);
        now.carry_out(&plan);
        let after = now.observe();
        prop_assert_eq!(wanted.holdings.missing_from(&after.on_bridge), vec![]);
        prop_assert_eq!(after.on_link.iter().count(), 0);
        prop_assert_eq!(now.objects.len(), node.objects.len());
        prop_assert_eq!((now.port, now.link_local), (true, LINK_LOCAL_NONE));
        let foreign = |model: &Model| {
            let mut others = model.objects.clone();
            others.retain(|object| !object.is_on(&link(ETH0)) && !object.is_on(&link(BR0)));
            others
        };
        prop_assert_eq!(foreign(&now), foreign(&node));
    }

    #[test]
    fn join_then_leave_is_the_identity(node in any_node()) {
        let mut now = with_bridge(&node);
        let wanted = wanted_on(BR0, &node.observe().on_link, ETH0);
        let plan = into_bridge(&now.observe(), &link(BR0), &wanted);
        now.carry_out(&plan);
        let joined = now.observe();
        let wanted = wanted_on(ETH0, &joined.on_bridge, BR0);
        let plan = onto_link(&joined, &wanted);
        now.carry_out(&plan);
        prop_assert_eq!(now.seen(), node.seen());
        prop_assert_eq!((now.bridge, now.port, now.link_local), (false, false, 0));
    }

    #[test]
    fn a_join_cut_anywhere_is_put_back(node in any_node(), cut in any::<prop::sample::Index>()) {
        let before = node.observe().on_link;
        let mut now = with_bridge(&node);
        let wanted = wanted_on(BR0, &before, ETH0);
        let plan = into_bridge(&now.observe(), &link(BR0), &wanted);
        let changes: Vec<_> = plan.changes().collect();
        changes[..cut.index(changes.len() + 1)].iter().for_each(|change| now.apply(change));
        let back = wanted_on(ETH0, &before, ETH0);
        let plan = onto_link(&now.observe(), &back);
        now.carry_out(&plan);
        prop_assert_eq!(back.holdings.missing_from(&now.observe().on_link), vec![]);
        prop_assert_eq!(now.objects.len(), node.objects.len());
        prop_assert!(!now.bridge && !now.port && now.link_local == 0);
    }

    #[test]
    fn a_leave_cut_anywhere_is_put_back(node in any_node(), cut in any::<prop::sample::Index>()) {
        let mut now = with_bridge(&node);
        let wanted = wanted_on(BR0, &node.observe().on_link, ETH0);
        let plan = into_bridge(&now.observe(), &link(BR0), &wanted);
        now.carry_out(&plan);
        let joined = now.clone();
        let before = joined.observe().on_bridge;
        let plan = onto_link(&joined.observe(), &wanted_on(ETH0, &before, BR0));
        let changes: Vec<_> = plan.changes().collect();
        changes[..cut.index(changes.len() + 1)].iter().for_each(|change| now.apply(change));
        now.bridge = true;
        let back = wanted_on(BR0, &before, BR0);
        let plan = into_bridge(&now.observe(), &link(BR0), &back);
        now.carry_out(&plan);
        prop_assert_eq!(back.holdings.missing_from(&now.observe().on_bridge), vec![]);
        prop_assert_eq!(now.objects.len(), joined.objects.len());
        prop_assert!(now.port);
    }

    #[test]
    fn who_is_where_everything_shall_be_has_nothing_to_move(node in any_node()) {
        let wanted = wanted_on(ETH0, &node.observe().on_link, ETH0);
        prop_assert_eq!(onto_link(&node.observe(), &wanted).changes().count(), 0);
    }

    #[test]
    fn every_object_is_on_its_new_holder_before_it_leaves_the_old_one(node in any_node()) {
        let mut now = with_bridge(&node);
        let before = node.observe().on_link;
        let wanted = wanted_on(BR0, &before, ETH0);
        for change in into_bridge(&now.observe(), &link(BR0), &wanted).changes() {
            if let Change::Delete(object) = change {
                let twin = object.moved(&link(ETH0), &link(BR0)).identity();
                prop_assert!(now.objects.iter().any(|there| there.identity() == twin), "{object}");
            }
            now.apply(change);
        }
    }

    #[test]
    fn settling_twice_is_settling_once_and_the_journal_keeps_every_byte((kind, payload) in any_object()) {
        let object = Object::settle(kind, &payload).unwrap();
        prop_assert_eq!(Object::settle(kind, object.bytes()), Some(object.clone()));
        let text = serde_json::to_string(&object).unwrap();
        prop_assert_eq!(serde_json::from_str::<Object>(&text).unwrap(), object);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(kind in 0_usize..4, bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let kind = [Kind::Address, Kind::Route, Kind::Rule, Kind::Neighbour][kind];
        if let Some(object) = Object::settle(kind, &bytes) {
            let moved = object.moved(&link(ETH0), &link(BR0));
            let _ = (moved.identity(), moved.aged(5), moved.legs(), moved.without_detection(), moved.to_string());
        }
    }

    #[test]
    fn lifetimes_run_out_while_nobody_looks(valid in 2_u32..1000, elapsed in 0_u32..1000) {
        let (kind, payload) = address_of(ETH0, "2001:db8::1/64".parse().unwrap(), 0, Some((1, valid)));
        let aged = Object::settle(kind, &payload).unwrap().aged(elapsed);
        prop_assert_eq!(aged.and_then(|aged| aged.address()).map(|left| left.valid_lifetime), valid.checked_sub(elapsed).filter(|left| *left > 0));
    }
}

#[test]
fn the_first_of_several_routes_to_one_destination_stays_the_first() {
    let to = |index| {
        let hops = vec![Hop { index: Some(index), ..Hop::default() }];
        route_of(&Route { hops, ..Route::to("10.0.0.0/8".parse().unwrap()) })
    };
    for (order, winner) in [([ETH0, ETH1], BR0), ([ETH1, ETH0], ETH1)] {
        let node = Model::of(&order.map(to));
        let mut now = with_bridge(&node);
        let wanted = wanted_on(BR0, &node.observe().on_link, ETH0);
        let plan = into_bridge(&now.observe(), &link(BR0), &wanted);
        now.carry_out(&plan);
        assert_eq!(now.objects[0].route().unwrap().hops[0].index, Some(winner));
    }
}

#[test]
fn a_route_between_others_and_one_by_a_nexthop_object_are_refused_by_name() {
    let via = |index, low: u8| {
        let hops = vec![Hop { index: Some(index), gateway: Some(ip(false, low)), ..Hop::default() }];
        route_of(&Route { hops, ..Route::to("10.0.0.0/8".parse().unwrap()) })
    };
    let between = Model::of(&[via(ETH1, 1), via(ETH0, 2), via(ETH1, 3)]);
    let refused = Holdings::movable(&between.dumped(), &link(ETH0)).unwrap_err();
    assert!(matches!(refused, Unmovable::Between { .. }) && refused.to_string().contains("10.0.0.0/8"));
    let (kind, mut payload) = via(ETH0, 2);
    payload.extend([8, 0, 30, 0, 7, 0, 0, 0]);
    let all = Dumped { objects: vec![(kind, payload)] };
    let refused = Holdings::movable(&all, &link(ETH0)).unwrap_err().to_string();
    assert!(refused.contains("nexthop object 7"), "{refused}");
}

#[test]
fn places_are_named_as_the_journal_writes_them() {
    assert_eq!(serde_json::to_string(&[Place::Link, Place::Bridge]).unwrap(), r#"["link","bridge"]"#);
}
