//! Links: made where and as they shall be, changed, and gone with all they had.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::os::fd::AsFd;

use kernel::link::{self, Veth, VethEnd};
use kernel::netlink::Batch;
use kernel::sysctl::Sysctls;
use kernel::{address, route};
use support::{another_netns, apply, enter_fresh_netns, name, route_socket, run, veth_pair, wait_until};

const HOST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
const POD_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 2];

#[test]
fn a_veth_is_born_with_its_peer_named_in_the_pods_namespace() {
    enter_fresh_netns();
    let pod = another_netns();
    let mut socket = route_socket();
    let (host, eth0) = (name("hgw0123456789ab"), name("eth0"));
    let veth = Veth {
        host: VethEnd { name: &host, mac: Some(HOST_MAC), netns: None },
        peer: VethEnd { name: &eth0, mac: Some(POD_MAC), netns: Some(pod.as_fd()) },
        mtu: 1400,
        master: None,
        up: true,
    };
    apply(&mut socket, |batch| link::create_veth(batch, &veth));

    let ours = link::by_name(&mut socket, "hgw0123456789ab").unwrap().unwrap();
    assert!(ours.is_up());
    assert_eq!((ours.mac, ours.mtu, ours.kind.as_deref()), (Some(HOST_MAC), 1400, Some("veth")));
    assert!(ours.peer_netns.is_some(), "the peer is elsewhere");
    assert_eq!(link::by_name(&mut socket, "eth0").unwrap(), None);
    let theirs = pod.run(|| link::by_name(&mut route_socket(), "eth0").unwrap().unwrap()).unwrap();
    assert_eq!((theirs.mac, theirs.mtu, theirs.is_up()), (Some(POD_MAC), 1400, false));
    assert_eq!(ours.peer, Some(theirs.index));

    let mut again = Batch::new();
    link::create_veth(&mut again, &veth);
    let failures = socket.execute(&mut again).unwrap();
    assert!(failures[0].error.is_present(), "{failures:?}");
    assert!(failures[0].error.to_string().starts_with("failed to create a veth pair: file exists"));
}

#[test]
fn a_dump_that_was_not_read_to_its_end_does_not_keep_the_socket_from_the_next() {
    /// `RTM_GETLINK` with `NLM_F_REQUEST | NLM_F_DUMP` (`linux/rtnetlink.h`).
    const HEAD: [u16; 2] = [18, 0x301];
    enter_fresh_netns();
    let mut socket = route_socket();
    for number in 0..60 {
        veth_pair(&mut socket, &format!("one{number}"), &format!("other{number}"));
    }
    let mut request = 32_u32.to_ne_bytes().to_vec();
    request.extend(HEAD.iter().flat_map(|word| word.to_ne_bytes()));
    request.resize(32, 0);
    rustix::net::send(&socket, &request, rustix::net::SendFlags::empty()).unwrap();
    assert_eq!(link::dump(&mut socket).unwrap().len(), 121);
}

#[test]
fn netlink_tells_of_forwarding_what_the_files_say() {
    enter_fresh_netns();
    let mut socket = route_socket();
    for (ipv6, key) in [(false, "net/ipv4/ip_forward"), (true, "net/ipv6/conf/all/forwarding")] {
        for (value, told) in [("1", true), ("0", false)] {
            Sysctls::default().write(key, value).unwrap();
            assert_eq!(link::forwarding(&mut socket, ipv6).unwrap(), Some(told), "{key} = {value}");
        }
    }
}

#[test]
fn a_veth_can_be_born_as_a_port_and_the_bridge_keeps_its_address() {
    enter_fresh_netns();
    let mut socket = route_socket();
    let pinned = [0x0e, 0, 0, 0, 0, 9];
    apply(&mut socket, |batch| link::create_bridge(batch, &name("hgwbr0"), pinned, 1450, true));
    let bridge = link::by_name(&mut socket, "hgwbr0").unwrap().unwrap();
    assert!(bridge.is_up());
    assert_eq!((bridge.mac, bridge.mtu, bridge.kind.as_deref()), (Some(pinned), 1450, Some("bridge")));

    let (host, peer) = (name("port0"), name("peer0"));
    let veth = Veth {
        host: VethEnd { name: &host, mac: Some(HOST_MAC), netns: None },
        peer: VethEnd { name: &peer, mac: None, netns: None },
        mtu: 1450,
        master: Some(bridge.index),
        up: true,
    };
    apply(&mut socket, |batch| link::create_veth(batch, &veth));
    let port = link::by_name(&mut socket, "port0").unwrap().unwrap();
    assert_eq!((port.master, port.port_kind.as_deref()), (Some(bridge.index), Some("bridge")));
    // Its address is lower than the bridge's: an unpinned bridge would take it.
    assert_eq!(link::by_index(&mut socket, bridge.index).unwrap().unwrap().mac, Some(pinned));

    apply(&mut socket, |batch| link::set_hairpin(batch, port.index, true));
    assert!(run("bridge", &["-d", "link", "show", "dev", "port0"]).contains("hairpin on"));
    apply(&mut socket, |batch| link::set_hairpin(batch, port.index, false));
    assert!(run("bridge", &["-d", "link", "show", "dev", "port0"]).contains("hairpin off"));
    apply(&mut socket, |batch| link::set_master(batch, port.index, 0));
    assert_eq!(link::by_name(&mut socket, "port0").unwrap().unwrap().master, None);
}

#[test]
fn a_link_without_automatic_link_local_gets_none_when_it_comes_up() {
    enter_fresh_netns();
    let mut socket = route_socket();
    let (quiet, peer) = (name("quiet"), name("peer"));
    let end = |name| VethEnd { name, mac: None, netns: None };
    let veth = Veth { host: end(&quiet), peer: end(&peer), mtu: 1500, master: None, up: false };
    apply(&mut socket, |batch| link::create_veth(batch, &veth));
    let index = |name: &str| link::by_name(&mut route_socket(), name).unwrap().unwrap().index;
    let (quiet, peer) = (index("quiet"), index("peer"));
    apply(&mut socket, |batch| {
        link::set_no_automatic_link_local(batch, quiet);
        link::set_up(batch, quiet);
        link::set_up(batch, peer);
        link::request(batch, quiet);
        link::request(batch, peer);
    });
    let has_v6 = |index: u32| {
        address::dump(&mut route_socket())
            .unwrap()
            .iter()
            .any(|address| address.index == index && address.ip.addr().is_ipv6())
    };
    wait_until("the other end has its link-local address", || has_v6(peer));
    assert!(!has_v6(quiet));
}

#[test]
fn a_link_is_resized_and_readdressed() {
    enter_fresh_netns();
    let mut socket = route_socket();
    let (one, _) = veth_pair(&mut socket, "one", "other");
    apply(&mut socket, |batch| {
        link::set_down(batch, one);
        link::set_mtu(batch, one, 1280);
        link::set_mac(batch, one, HOST_MAC);
    });
    let changed = link::by_index(&mut socket, one).unwrap().unwrap();
    assert_eq!((changed.mtu, changed.mac, changed.is_up()), (1280, Some(HOST_MAC), false));
}

#[test]
fn a_deleted_link_takes_its_peer_and_its_routes_along() {
    enter_fresh_netns();
    let mut socket = route_socket();
    let (one, other) = veth_pair(&mut socket, "one", "other");
    let hop = route::Hop { index: Some(one), ..route::Hop::default() };
    let there = route::Route { hops: vec![hop], ..route::Route::to("10.9.0.0/16".parse().unwrap()) };
    apply(&mut socket, |batch| route::add(batch, &there));
    assert_eq!(link::dump_kind(&mut socket, "veth").unwrap().len(), 2);
    assert_eq!(link::dump_kind(&mut socket, "bridge").unwrap(), []);
    apply(&mut socket, |batch| link::delete(batch, one));
    assert_eq!(link::by_index(&mut socket, other).unwrap(), None);
    assert!(route::dump(&mut socket, route::Family::V4, route::Filter::default()).unwrap().is_empty());
    let mut again = Batch::new();
    link::delete(&mut again, one);
    assert!(socket.execute(&mut again).unwrap()[0].error.is_absent());
    assert!(link::dump(&mut socket).unwrap().iter().all(|link| link.name == "lo"));
}
