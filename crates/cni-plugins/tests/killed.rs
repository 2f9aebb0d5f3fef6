//! `kill -9` at every system call of ADD and of DEL: whatever comes next, the same ADD or a DEL, sets it right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::assert_first_packets;
use support::killer::{End, run_and_kill};
use support::node::{GATEWAYS, Node, Pod, add, addresses_of, check, del, ip, observe};
use support::plugin::Call;

/// What the runtime does after the kill; afterwards nothing of the pod may be left.
type Next = fn(&Node, &Pod, &Value);

fn retry_add(node: &Node, pod: &Pod, conf: &Value) {
    let result = add(pod, conf);
    assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&pod.ns, addresses_of(&result))]);
    check(pod, conf, &result).silent();
    del(pod, conf);
}

/// DEL until it succeeds. A child that the killed process had forked to delete the link, and that did not run yet, has
/// the record's lock for that moment: the runtime is told to come again, at one boundary and no other.
fn del_only(_: &Node, pod: &Pod, conf: &Value) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let outcome = Call::about("DEL", pod, conf).run();
        if outcome.is_ok() {
            return outcome.silent();
        }
        let (code, msg) = outcome.error();
        assert_eq!(code, 11, "{msg}");
        assert!(Instant::now() < deadline, "{msg}");
        TOLD_TO_COME_AGAIN.with(|told| told.set(told.get() + 1));
    }
}

thread_local! {
    /// How often, in this test.
    static TOLD_TO_COME_AGAIN: Cell<usize> = const { Cell::new(0) };
}

/// The pod may have been attached or may still be: ADD works after DEL.
fn del_and_add(node: &Node, pod: &Pod, conf: &Value) {
    del_only(node, pod, conf);
    retry_add(node, pod, conf);
}

/// Kills `verb` at each system call, each time after `prepare`, and lets `next` follow; how many boundaries there are.
fn killed_everywhere(mode: &str, verb: &str, prepare: fn(&Node, &Pod, &Value), next: Next) -> usize {
    let node = Node::enter();
    let conf = node.conf(mode);
    let pod = Pod::new("victim");
    // A neighbour, and in bridge mode the bridge.
    let other = Pod::new("other");
    let neighbour = add(&other, &conf);
    let clean = (node.state(), pod.ns.run(names).unwrap());
    // To be killed before a call is to be killed after the one before it: every other boundary will do.
    for kill_at in (0..).step_by(2) {
        prepare(&node, &pod, &conf);
        let call = Call::about(verb, &pod, &conf);
        let end = run_and_kill(&call, kill_at);
        next(&node, &pod, &conf);
        let left = (node.state(), pod.ns.run(names).unwrap());
        assert_eq!(left, clean, "{verb} in mode {mode} was killed at boundary {kill_at}");
        if let End::Done { boundaries } = end {
            assert!(boundaries > 100, "only {boundaries} boundaries: was it traced?");
            check(&other, &conf, &neighbour).silent();
            assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&other.ns, addresses_of(&neighbour))]);
            let come_again = TOLD_TO_COME_AGAIN.with(Cell::get);
            println!("{verb} in mode {mode}: {boundaries} boundaries, told to come again {come_again} times");
            return boundaries;
        }
    }
    unreachable!("boundaries end")
}

/// The links of a pod. Its loopback link stays up.
fn names() -> Vec<String> {
    observe().into_iter().filter(|line| line.starts_with("link") && !line.starts_with("link 1 ")).collect()
}

fn nothing(_: &Node, _: &Pod, _: &Value) {}

fn attached(_: &Node, pod: &Pod, conf: &Value) {
    add(pod, conf);
}

#[test]
fn a_routed_add_that_is_tried_again() {
    killed_everywhere("ptp", "ADD", nothing, |node, pod, conf| {
        // A call that was killed at its very end has succeeded: that is for the runtime to know, by its answer.
        let again = Call::about("ADD", pod, conf).run();
        if again.is_ok() {
            let result = again.result();
            assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&pod.ns, addresses_of(&result))]);
            check(pod, conf, &result).silent();
        } else {
            assert_eq!(again.error().0, 105);
        }
        del(pod, conf);
    });
}

#[test]
fn a_routed_add_that_is_given_up() {
    killed_everywhere("ptp", "ADD", nothing, del_only);
}

#[test]
fn a_bridged_add_that_is_given_up_and_made_anew() {
    killed_everywhere("bridge", "ADD", nothing, del_and_add);
}

#[test]
fn a_routed_del_that_is_tried_again() {
    killed_everywhere("ptp", "DEL", attached, del_only);
}

#[test]
fn a_bridged_del_that_is_tried_again_before_a_new_pod() {
    killed_everywhere("bridge", "DEL", attached, del_and_add);
}

#[test]
fn the_first_add_on_a_node() {
    for kill_at in (0..).step_by(2) {
        let node = Node::enter();
        let conf = node.conf("bridge");
        let pod = Pod::new("victim");
        let end = run_and_kill(&Call::about("ADD", &pod, &conf), kill_at);
        del(&pod, &conf);
        assert_eq!(node.kept(), [""; 0]);
        retry_add(&node, &pod, &conf);
        if let End::Done { boundaries } = end {
            println!("the first ADD in mode bridge: {boundaries} boundaries");
            return;
        }
    }
}
