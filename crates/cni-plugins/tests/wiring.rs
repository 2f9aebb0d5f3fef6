//! Links made by the one engine, tried with packets in namespaces of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use cni_plugins::wiring::{BridgePlan, LinkPlan, PodAddress, Step, Wiring, attach, delete_link, plan_link};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;
use kernel::{address, link, route};
use link_name::LinkName;
use support::{enter_new_node, new_pod, one_datagram, udp};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod_addresses(number: u8) -> Vec<PodAddress> {
    [
        (format!("10.244.1.{number}/24"), "10.244.1.1"),
        (format!("fd00:10:244:1::{number}/64"), "fd00:10:244:1::1"),
    ]
    .map(|(subnet, gateway)| PodAddress {
        subnet: subnet.parse().unwrap(),
        gateway: ip(gateway),
        node_address: None,
    })
    .to_vec()
}

fn plan(number: u8, wiring: Wiring) -> LinkPlan {
    let routes = [
        cni_spec::Route::new("0.0.0.0/0".parse().unwrap(), Some(ip("10.244.1.1"))),
        cni_spec::Route::new("::/0".parse().unwrap(), Some(ip("fd00:10:244:1::1"))),
    ];
    let names = (LinkName::new(format!("hgw{number}")).unwrap(), LinkName::new("eth0").unwrap());
    plan_link(names, None, 1500, wiring, &pod_addresses(number), &routes)
}

fn bridge() -> Wiring {
    Wiring::Bridge { bridge: LinkName::new("cni0").unwrap(), hairpin: true }
}

fn bridge_plan() -> BridgePlan {
    BridgePlan {
        name: LinkName::new("cni0").unwrap(),
        gateways: vec!["10.244.1.1/24".parse().unwrap(), "fd00:10:244:1::1/64".parse().unwrap()],
        mtu: 1500,
        leads_to_lan: false,
    }
}

fn add(number: u8, wiring: &Wiring, node: &NetNs, pod: &NetNs) -> cni_plugins::wiring::Wired {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let bridge = matches!(wiring, Wiring::Bridge { .. }).then(|| bridge_plan().ensure(&mut socket).unwrap());
    attach(&plan(number, wiring.clone()), bridge.as_ref(), node, pod, &mut socket).unwrap()
}

/// What a pod of one family has of the plan: without IPv6 there is no address event to wait for, so nothing else
/// covers for a link that is not ready.
fn of_family(mut plan: LinkPlan, v4: bool) -> LinkPlan {
    let other = |step: &Step| match step {
        Step::Address(ip) => ip.addr().is_ipv4() != v4,
        Step::Route(route) => route.destination.addr().is_ipv4() != v4,
        Step::Neighbour(ip, _) => ip.is_ipv4() != v4,
        _ => false,
    };
    plan.pod_steps.retain(|step| !other(step));
    plan.host_steps.retain(|step| !other(step));
    if v4 {
        plan.pod_awaits.clear();
        plan.host_awaits.clear();
    }
    plan
}

/// One datagram from a pod to its gateway at once after it was attached, then between two pods, then from the node.
fn first_packets(wiring: &Wiring, (gateway, five, six): (&str, &str, &str), alone: bool) {
    let node = enter_new_node();
    let (one, two) = (new_pod(), new_pod());
    let any = if gateway.contains(':') { "::" } else { "0.0.0.0" };
    let mut host = Socket::open(Protocol::Route).unwrap();
    let mut attach_pod = |number, pod: &NetNs| {
        let plan = plan(number, wiring.clone());
        let plan = if alone { of_family(plan, any == "0.0.0.0") } else { plan };
        let bridge =
            matches!(wiring, Wiring::Bridge { .. }).then(|| bridge_plan().ensure(&mut host).unwrap());
        attach(&plan, bridge.as_ref(), &node, pod, &mut host).unwrap();
    };
    let send = |from: &NetNs, at: &NetNs, to: &str| {
        let (at, from) = (udp(at, ip(to), 7000), udp(from, ip(any), 0));
        one_datagram(&from, SocketAddr::new(ip(to), 7000), &at)
    };
    attach_pod(5, &one);
    send(&one, &node, gateway);
    attach_pod(6, &two);
    let seen = send(&two, &one, five);
    assert_eq!(seen.ip(), ip(six), "{wiring:?}");
    send(&node, &two, six);
}

#[test]
fn the_first_packet_gets_through_in_each_direction_family_and_mode() {
    let v4 = ("10.244.1.1", "10.244.1.5", "10.244.1.6");
    let v6 = ("fd00:10:244:1::1", "fd00:10:244:1::5", "fd00:10:244:1::6");
    for wiring in [Wiring::Ptp, bridge()] {
        for addresses in [v4, v6] {
            for alone in [false, true] {
                for _ in 0..20 {
                    first_packets(&wiring, addresses, alone);
                }
            }
        }
    }
}

#[test]
fn a_pod_hears_no_router_advertisements_and_has_one_link_local_address() {
    for wiring in [Wiring::Ptp, bridge()] {
        for crowded in [false, true] {
            let node = enter_new_node();
            let pod = new_pod();
            if crowded {
                number(&pod, 1_000);
            }
            add(5, &wiring, &node, &pod);
            let accept_ra = |link: &str| {
                kernel::sysctl::Sysctls::default().read(&format!("net/ipv6/conf/{link}/accept_ra")).unwrap()
            };
            let (heard, addresses) = pod
                .run(|| {
                    (accept_ra("eth0"), address::dump(&mut Socket::open(Protocol::Route).unwrap()).unwrap())
                })
                .unwrap();
            assert_eq!(heard.as_deref(), Some("0"), "{wiring:?}, crowded: {crowded}");
            if wiring == Wiring::Ptp {
                assert_eq!(accept_ra("hgw5").as_deref(), Some("0"), "crowded: {crowded}");
            }
            let link_local =
                |a: &&address::Address| matches!(a.ip.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local());
            assert_eq!(addresses.iter().filter(link_local).count(), 1);
            assert!(addresses.iter().all(|a| a.flags & address::TENTATIVE == 0), "{addresses:?}");
        }
    }
}

/// Has this namespace know the pod's by a number (`RTM_NEWNSID`, linux/net_namespace.h), as the last of a crowd.
fn number(pod: &NetNs, id: u32) {
    const RTM_NEWNSID: u16 = 88;
    const NETNSA_NSID: u16 = 1;
    const NETNSA_FD: u16 = 3;
    let mut batch = Batch::new();
    let mut message = batch.message("number a namespace", RTM_NEWNSID, 0, &[0; 4]);
    message.u32(NETNSA_NSID, id);
    message.u32(NETNSA_FD, pod.as_fd().as_raw_fd().cast_unsigned());
    drop(message);
    Socket::open(Protocol::Route).unwrap().execute_all(&mut batch).unwrap();
}

#[test]
fn a_deleted_link_takes_its_peer_addresses_and_routes_with_it_and_deleting_again_is_well() {
    let node = enter_new_node();
    let pod = new_pod();
    let wired = add(5, &Wiring::Ptp, &node, &pod);
    let mut socket = Socket::open(Protocol::Route).unwrap();
    delete_link(&mut socket, wired.host_index, None).unwrap();
    assert_eq!(link::dump(&mut socket).unwrap().len(), 1);
    assert_eq!(
        pod.run(|| link::dump(&mut Socket::open(Protocol::Route).unwrap()).unwrap().len()).unwrap(),
        1
    );
    for family in [route::Family::V4, route::Family::V6] {
        let filter = route::Filter { protocol: Some(105), ..Default::default() };
        assert!(route::dump(&mut socket, family, filter).unwrap().is_empty());
    }
    delete_link(&mut socket, wired.host_index, None).unwrap();
}

#[test]
fn an_interface_that_exists_already_is_named_and_nothing_is_left() {
    let node = enter_new_node();
    let pod = new_pod();
    add(5, &Wiring::Ptp, &node, &pod);
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let before = link::dump(&mut socket).unwrap();
    let error = attach(&plan(6, Wiring::Ptp), None, &node, &pod, &mut socket).unwrap_err();
    assert!(error.to_string().starts_with("interface `eth0` exists already"), "{error}");
    assert_eq!(link::dump(&mut socket).unwrap(), before);
}

#[test]
fn a_link_in_the_place_of_the_bridge_is_refused() {
    let node = enter_new_node();
    add(5, &Wiring::Ptp, &node, &new_pod());
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let mistaken = BridgePlan { name: LinkName::new("hgw5").unwrap(), ..bridge_plan() };
    let error = mistaken.ensure(&mut socket).unwrap_err();
    assert!(error.to_string().contains("is a veth, not a bridge"), "{error}");
}

#[test]
fn twenty_first_pods_at_once_make_one_bridge() {
    let node = enter_new_node();
    let pods: Vec<NetNs> = (0..20).map(|_| new_pod()).collect();
    std::thread::scope(|scope| {
        for (number, pod) in pods.iter().enumerate() {
            let node = &node;
            scope.spawn(move || {
                node.enter().unwrap();
                add(u8::try_from(number + 2).unwrap(), &bridge(), node, pod);
            });
        }
    });
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let bridges = link::dump_kind(&mut socket, "bridge").unwrap();
    assert_eq!(bridges.len(), 1);
    let held: Vec<_> =
        address::dump(&mut socket).unwrap().into_iter().filter(|a| a.index == bridges[0].index).collect();
    assert_eq!(held.len(), 3, "two gateways and a link-local address: {held:?}");
}

#[derive(Debug, PartialEq, Eq)]
struct Bridge {
    up: bool,
    mtu: u32,
    ipv6: Option<link::Ipv6Settings>,
    addresses: Vec<String>,
}

fn bridge_as_it_is() -> Bridge {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let found = link::by_name(&mut socket, "cni0").unwrap().unwrap();
    let mut addresses: Vec<_> = address::dump(&mut socket)
        .unwrap()
        .iter()
        .filter(|held| held.index == found.index)
        .map(|held| held.ip.to_string())
        .collect();
    addresses.sort();
    Bridge { up: found.is_up(), mtu: found.mtu, ipv6: found.ipv6, addresses }
}

const OUR_MAC: link::Mac = [0x0e, 0x58, 10, 244, 1, 1];

fn whole_bridge() -> Bridge {
    Bridge {
        up: true,
        mtu: 1500,
        ipv6: Some(link::Ipv6Settings {
            link_local: link::LinkLocal::NotAutomatic,
            accept_ra: 0,
            disabled: false,
        }),
        addresses: ["10.244.1.1/24", "fd00:10:244:1::1/64", "fe80::c58:aff:fef4:101/64"]
            .map(str::to_owned)
            .to_vec(),
    }
}

#[test]
fn a_bridge_that_was_half_made_is_completed_by_the_next_pod() {
    type Half = fn(&mut Batch, u32);
    let nothing: Half = |_, _| {};
    let silent: Half = |batch, index| link::set_no_automatic_link_local(batch, index);
    let addressed: Half = |batch, index| {
        link::set_no_automatic_link_local(batch, index);
        address::add(batch, index, "10.244.1.1/24".parse().unwrap(), 0);
    };
    let up: Half = |batch, index| {
        link::set_no_automatic_link_local(batch, index);
        link::set_up(batch, index);
    };
    // Too small for IPv6, which is on no such link.
    let small: Half = |batch, index| link::set_mtu(batch, index, 1279);
    for half in [nothing, silent, addressed, up, small] {
        enter_new_node();
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::new();
        let name = LinkName::new("cni0").unwrap();
        link::create_bridge(&mut batch, &name, OUR_MAC, 1500, false);
        socket.execute_all(&mut batch).unwrap();
        let index = link::by_name(&mut socket, "cni0").unwrap().unwrap().index;
        let mut batch = Batch::new();
        half(&mut batch, index);
        socket.execute_all(&mut batch).unwrap();
        assert_ne!(bridge_as_it_is(), whole_bridge());
        bridge_plan().ensure(&mut socket).unwrap();
        assert_eq!(bridge_as_it_is(), whole_bridge());
        let (_, repairs) = bridge_plan().restore(&mut socket).unwrap();
        assert_eq!(repairs, [""; 0]);
    }
}

#[test]
fn a_bridge_keeps_its_mtu_but_for_repairs_so_that_the_kernel_goes_on_to_adjust_it() {
    enter_new_node();
    let mut socket = Socket::open(Protocol::Route).unwrap();
    bridge_plan().ensure(&mut socket).unwrap();
    for other in [1300, 9000] {
        BridgePlan { mtu: other, ..bridge_plan() }.ensure(&mut socket).unwrap();
        assert_eq!(bridge_as_it_is(), whole_bridge());
    }
    for (wanted, repaired) in [(1300, 1300), (1200, 1280), (1500, 1500)] {
        let plan = BridgePlan { mtu: wanted, ..bridge_plan() };
        let (_, repairs) = plan.restore(&mut socket).unwrap();
        assert_eq!(repairs, [format!("set the MTU to {repaired}")]);
        assert_eq!(bridge_as_it_is(), Bridge { mtu: repaired, ..whole_bridge() });
    }
}

#[test]
fn a_bridge_whose_ipv6_was_switched_off_or_opened_to_routers_is_made_as_it_was() {
    for (key, value) in [("accept_ra", "2"), ("disable_ipv6", "1"), ("addr_gen_mode", "0")] {
        enter_new_node();
        let mut socket = Socket::open(Protocol::Route).unwrap();
        bridge_plan().ensure(&mut socket).unwrap();
        assert_eq!(bridge_as_it_is(), whole_bridge());
        let sysctls = kernel::sysctl::Sysctls::default();
        sysctls.write(&format!("net/ipv6/conf/cni0/{key}"), value).unwrap();
        assert_ne!(bridge_as_it_is(), whole_bridge(), "{key}");
        let (_, repairs) = bridge_plan().restore(&mut socket).unwrap();
        assert!(!repairs.is_empty(), "{key}");
        assert_eq!(bridge_as_it_is(), whole_bridge(), "{key}");
    }
}

#[test]
fn somebody_elses_bridge_gets_gateways_and_is_set_up_and_keeps_all_else() {
    enter_new_node();
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let mut batch = Batch::new();
    let name = LinkName::new("cni0").unwrap();
    link::create_bridge(&mut batch, &name, [2, 0, 0, 0, 0, 9], 9000, false);
    socket.execute_all(&mut batch).unwrap();
    let before = bridge_as_it_is();
    bridge_plan().ensure(&mut socket).unwrap();
    let after = bridge_as_it_is();
    assert_eq!((after.up, after.mtu, after.ipv6), (true, 9000, before.ipv6));
    let given = ["10.244.1.1/24", "fd00:10:244:1::1/64"];
    assert!(given.iter().all(|gateway| after.addresses.iter().any(|held| held == gateway)), "{after:?}");
}
