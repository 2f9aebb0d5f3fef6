//! Limits of the rate: in place both ways, effective, and gone with the pod.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kernel::link;
use kernel::netlink::{Protocol, Socket};
use kernel::netns::NetNs;
use kernel::traffic_control::{TokenBucket, ingress_redirects, qdiscs};
use serde_json::{Value, json};
use support::node::{FIRST, GATEWAYS, Node, Pod, add, addresses_of, check, del, host_link, index_of, ip};
use support::plugin::Call;
use support::{assert_first_packets, udp};

/// 10 kB a second, 10 kB at once, in bits.
const SLOW: u64 = 80_000;

fn conf(node: &Node, mode: &str, limits: &Value) -> Value {
    node.conf_with(json!({"mode": mode, "runtimeConfig": {"bandwidth": limits}}))
}

fn both_ways(rate: u64, burst: u64) -> Value {
    json!({"ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst})
}

/// The bucket that shapes what leaves a link.
fn bucket(index: u32) -> Option<TokenBucket> {
    let all = qdiscs(&mut Socket::open(Protocol::Route).unwrap(), index).unwrap();
    all.into_iter().find_map(|qdisc| qdisc.token_bucket)
}

fn redirects(index: u32) -> Vec<u32> {
    ingress_redirects(&mut Socket::open(Protocol::Route).unwrap(), index).unwrap()
}

fn shaping_links() -> usize {
    link::dump_kind(&mut Socket::open(Protocol::Route).unwrap(), "ifb").unwrap().len()
}

/// How many of fifty datagrams of 1000 bytes, sent at once, are let through. (A socket's buffer holds ninety.)
fn let_through(from: &NetNs, at: &NetNs, to: IpAddr) -> usize {
    let receiver = udp(at, to, 0);
    let to = SocketAddr::new(to, receiver.local_addr().unwrap().port());
    let any = if to.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
    let sender = udp(from, any, 0);
    for _ in 0..50 {
        // A full queue is told to a sender on the same side.
        sender.send_to(&[0; 1000], to).ok();
    }
    // Until nothing has come for longer than several of them take.
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buffer = [0; 1500];
    std::iter::from_fn(|| receiver.recv_from(&mut buffer).ok()).count()
}

#[test]
fn each_direction_has_the_bucket_that_was_asked_for() {
    for mode in ["ptp", "bridge"] {
        let node = Node::enter();
        let pod = Pod::new("first");
        let conf = conf(&node, mode, &both_ways(8_000_000, 4_000_000));
        let result = add(&pod, &conf);
        assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&pod.ns, addresses_of(&result))]);
        check(&pod, &conf, &result).silent();
        let host = index_of(host_link(&result));
        let [shaping] = redirects(host)[..] else { panic!("what the pod sends is led nowhere") };
        for index in [host, shaping] {
            let bucket = bucket(index).unwrap();
            assert_eq!(bucket.rate, 1_000_000);
            // The kernel keeps it as a time, so that it comes back rounded.
            assert!(bucket.burst.abs_diff(500_000) < 5_000, "{bucket:?}");
        }
        del(&pod, &conf);
        assert_eq!((shaping_links(), node.kept()), (0, vec![]));
    }
}

#[test]
fn one_direction_alone_and_none_leave_the_other_alone() {
    for (limits, into_pod, out_of_pod) in [
        (json!({"ingressRate": SLOW, "ingressBurst": SLOW}), true, false),
        (json!({"egressRate": SLOW, "egressBurst": SLOW}), false, true),
        (json!({"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0}), false, false),
    ] {
        let node = Node::enter();
        let clean = node.state();
        let pod = Pod::new("first");
        let conf = conf(&node, "ptp", &limits);
        let result = add(&pod, &conf);
        let host = index_of(host_link(&result));
        assert_eq!((bucket(host).is_some(), shaping_links()), (into_pod, usize::from(out_of_pod)));
        check(&pod, &conf, &result).silent();
        del(&pod, &conf);
        assert_eq!(node.state(), clean);
    }
}

#[test]
fn more_than_the_bucket_holds_is_dropped_in_each_direction() {
    let node = Node::enter();
    let pod = Pod::new("first");
    add(&pod, &conf(&node, "ptp", &both_ways(SLOW, SLOW)));
    let free = Pod::new("free");
    let unlimited = addresses_of(&add(&free, &node.conf("ptp")));
    let into_pod = let_through(&node.ns, &pod.ns, ip(FIRST[0]));
    let out_of_pod = let_through(&pod.ns, &node.ns, ip(GATEWAYS[1]));
    for passed in [into_pod, out_of_pod] {
        assert!((1..40).contains(&passed), "{passed} of 50 passed");
    }
    assert_eq!(let_through(&node.ns, &free.ns, unlimited[0]), 50);
}

#[test]
fn a_shaped_pod_is_removed_whole_without_its_record() {
    let node = Node::enter();
    let clean = node.state();
    let pod = Pod::new("first");
    let conf = conf(&node, "ptp", &both_ways(SLOW, SLOW));
    add(&pod, &conf);
    std::fs::remove_dir_all(node.data_dir()).unwrap();
    del(&pod, &conf);
    assert_eq!(node.state(), clean);
    add(&pod, &conf);
    let gc = json!({"cni.dev/valid-attachments": []});
    Call::new("GC", &node.conf_with(gc)).run().silent();
    assert_eq!(node.state(), clean);
}
