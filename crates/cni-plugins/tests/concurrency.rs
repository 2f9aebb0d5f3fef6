//! A hundred pods at once, as when a node starts or is drained.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;

use kernel::link;
use kernel::netlink::{Protocol, Socket};
use serde_json::Value;
use support::assert_first_packets;
use support::node::{GATEWAYS, Node, Pod, addresses_of, ip};
use support::plugin::{Call, Outcome, Running};

const PODS: usize = 100;

/// Runs a verb for every pod at the same time.
fn all_at_once(verb: &str, pods: &[Pod], conf: &Value) -> Vec<Outcome> {
    let running: Vec<Running> = pods.iter().map(|pod| Call::about(verb, pod, conf).start()).collect();
    running.into_iter().map(Running::finish).collect()
}

fn a_hundred_come_and_go(mode: &str) {
    let node = Node::enter();
    let conf = node.conf(mode);
    let pods: Vec<Pod> = (0..PODS).map(|number| Pod::new(format!("pod{number}"))).collect();
    for _ in 0..2 {
        // The first round makes the folders and the bridge; the second finds both.
        let results: Vec<Value> = all_at_once("ADD", &pods, &conf).iter().map(Outcome::result).collect();
        let held: BTreeSet<_> = results.iter().flat_map(addresses_of).collect();
        assert_eq!(held.len(), 2 * PODS);
        let some: Vec<_> =
            [0, PODS / 2, PODS - 1].map(|pod| (&pods[pod].ns, addresses_of(&results[pod]))).into();
        assert_first_packets(&node.ns, &GATEWAYS.map(ip), &some);
        for done in all_at_once("DEL", &pods, &conf) {
            done.silent();
        }
        assert_eq!(node.kept(), [""; 0]);
        let left = link::dump_kind(&mut Socket::open(Protocol::Route).unwrap(), "veth").unwrap();
        assert_eq!(left, []);
    }
}

#[test]
fn a_hundred_routed_pods_come_and_go_at_once() {
    a_hundred_come_and_go("ptp");
}

#[test]
fn a_hundred_bridged_pods_come_and_go_at_once() {
    a_hundred_come_and_go("bridge");
}

#[test]
fn of_many_adds_of_one_attachment_one_succeeds_and_the_others_say_why() {
    let node = Node::enter();
    let conf = node.conf("ptp");
    for _ in 0..5 {
        let pod = Pod::new("first");
        let running: Vec<Running> = (0..10).map(|_| Call::about("ADD", &pod, &conf).start()).collect();
        let done: Vec<_> = running.into_iter().map(Running::finish).collect();
        let (succeeded, failed): (Vec<_>, Vec<_>) = done.iter().partition(|outcome| outcome.is_ok());
        assert_eq!(succeeded.len(), 1);
        for outcome in failed {
            // In progress, or there.
            let (code, msg) = outcome.error();
            assert!([11, 105].contains(&code) && msg.contains("attachment first:eth0"), "{code} {msg}");
        }
        let result = succeeded[0].result();
        assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&pod.ns, addresses_of(&result))]);
        support::node::del(&pod, &conf);
        assert_eq!(node.kept(), [""; 0]);
    }
}
