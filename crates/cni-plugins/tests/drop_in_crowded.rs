//! The plugin `bridge` on a node with many pods: what it asks of the kernel, and when it lets the kernel be loud.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Instant;

use ipnet::IpNet;
use kernel::link::{Ipv6Settings, LinkLocal, Veth, VethEnd};
use kernel::netlink::{Protocol, Socket};
use kernel::netns::NetNs;
use kernel::sysctl::Sysctls;
use kernel::{address, link};
use serde_json::{Value, json};
use support::drop_in_host::Host;
use support::new_pod;
use support::node::{Pod, change, index_of, name};
use support::tracer::{SPARED, survey};

/// One family, as in most of today's configurations.
fn conf(host: &Host) -> Value {
    let mut conf = host.conf("bridge", &json!({"hairpinMode": true}));
    conf["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.0/16"}]]);
    conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
    conf
}

/// Pods of the reference, as far as the plugin sees them: ports of the bridge, and files of `host-local`.
fn crowd(host: &Host, pods: &NetNs, numbers: Range<u32>) {
    let bridge = index_of("cni0");
    for number in numbers {
        let (port, pod) = (name(&format!("vethref{number}")), name(&format!("eth{number}")));
        let veth = Veth {
            host: VethEnd { name: &port, mac: None, netns: None },
            peer: VethEnd { name: &pod, mac: None, netns: Some(pods.as_fd()) },
            mtu: 1500,
            master: Some(bridge),
            up: true,
        };
        change(|batch, _| link::create_veth(batch, &veth));
        let file = format!("10.1.{}.{}", 100 + number / 250, 1 + number % 250);
        std::fs::write(host.networks().join("net").join(file), format!("reference{number}\r\neth0")).unwrap();
    }
}

/// How often ADD and DEL of one pod make each system call, by its number.
fn system_calls(host: &Host, conf: &Value) -> [BTreeMap<i64, usize>; 2] {
    let pod = Pod::new("counted");
    ["ADD", "DEL"].map(|verb| {
        let (boundaries, outcome) = survey(&host.call(verb, &pod, conf));
        outcome.answer();
        let mut calls = BTreeMap::new();
        let made = boundaries.into_iter().filter(|boundary| boundary.before).filter_map(|made| made.call);
        for call in made.filter(|call| !SPARED.contains(call)) {
            *calls.entry(call).or_default() += 1;
        }
        calls
    })
}

#[test]
fn add_and_del_make_as_many_system_calls_among_a_thousand_pods_as_among_ten() {
    let host = Host::enter();
    let conf = conf(&host);
    // The bridge is there, and the index is whole again after others wrote to the folder.
    let settle = || {
        let pod = Pod::new("settling");
        host.add(&pod, &conf);
        host.del(&pod, &conf);
    };
    settle();
    let pods = new_pod();
    crowd(&host, &pods, 0..10);
    settle();
    let few = system_calls(&host, &conf);
    crowd(&host, &pods, 10..1_000);
    settle();
    assert_eq!(system_calls(&host, &conf), few);
}

/// What IPv6 does on the pod's interface, and its link-local address.
fn link_local(pod: &Pod) -> (Ipv6Settings, Option<IpNet>) {
    let found = pod.ns.run(|| {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let eth0 = link::by_name(&mut socket, "eth0").unwrap().unwrap();
        let held = address::dump_of(&mut socket, eth0.index).unwrap();
        let own = held.into_iter().map(|held| held.ip).find(|ip| ip.addr().is_ipv6());
        (eth0.ipv6.unwrap(), own)
    });
    found.unwrap()
}

fn link_local_once_it_is_there(pod: &Pod) -> IpNet {
    let deadline = Instant::now() + support::PATIENCE;
    loop {
        match link_local(pod).1 {
            Some(own) => return own,
            None => assert!(Instant::now() < deadline, "the kernel gives no link-local address"),
        }
        std::thread::yield_now();
    }
}

/// A pod whose runtime has set this for each link to come.
fn pod_with(key: &str, value: &str) -> Pod {
    let pod = Pod::new(format!("{key}-{value}"));
    let key = format!("net/ipv6/conf/default/{key}");
    pod.ns.run(|| Sysctls::default().write(&key, value)).unwrap().unwrap();
    pod
}

/// The link-local address of the Ethernet address in a result.
fn from_mac(result: &Value) -> IpNet {
    let interfaces = result["interfaces"].as_array().unwrap();
    let mac: Vec<u16> = interfaces.last().unwrap()["mac"]
        .as_str()
        .unwrap()
        .split(':')
        .map(|byte| u16::from_str_radix(byte, 16).unwrap())
        .collect();
    let own = std::net::Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        (mac[0] ^ 2) << 8 | mac[1],
        mac[2] << 8 | 0xff,
        0xfe00 | mac[3],
        mac[4] << 8 | mac[5],
    );
    IpNet::new(own.into(), 64).unwrap()
}

#[test]
fn a_pod_without_ipv6_addresses_has_the_kernels_link_local_one_and_gets_it_again() {
    let host = Host::enter();
    let pod = Pod::new("usual");
    let result = host.add(&pod, &conf(&host));
    let (ipv6, own) = link_local(&pod);
    assert_eq!((ipv6.link_local, own), (LinkLocal::FromMac, Some(from_mac(&result))));
    let eth0 = pod.ns.run(|| index_of("eth0")).unwrap();
    pod.change(|batch, _| link::set_down(batch, eth0));
    pod.change(|batch, _| link::set_up(batch, eth0));
    assert_eq!(link_local_once_it_is_there(&pod), from_mac(&result));
}

#[test]
fn a_pod_whose_links_make_their_link_local_addresses_by_chance_has_such_a_one() {
    let host = Host::enter();
    let pod = pod_with("addr_gen_mode", "3");
    let result = host.add(&pod, &conf(&host));
    assert_ne!(link_local_once_it_is_there(&pod), from_mac(&result));
    assert_eq!(link_local(&pod).0.link_local, LinkLocal::Other(3));
}

#[test]
fn a_pod_whose_links_are_to_have_no_ipv6_or_no_link_local_address_has_none() {
    let host = Host::enter();
    for (key, value) in [("addr_gen_mode", "1"), ("disable_ipv6", "1")] {
        let pod = pod_with(key, value);
        host.add(&pod, &conf(&host));
        let (ipv6, own) = link_local(&pod);
        assert_eq!((own, ipv6.disabled), (None, key == "disable_ipv6"), "{key}");
        assert_eq!(ipv6.link_local == LinkLocal::NotAutomatic, key == "addr_gen_mode", "{key}");
    }
}
