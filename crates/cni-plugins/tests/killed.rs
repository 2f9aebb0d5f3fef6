//! `kill -9` at every system call of ADD and of DEL: whatever comes next, the same ADD or a DEL, sets it right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, reason = "how many boundaries there were is worth knowing")]

mod support;

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
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
/// the record's lock for that moment: the runtime is told to come again.
fn del_only(_: &Node, pod: &Pod, conf: &Value) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut told = false;
    loop {
        let outcome = Call::about("DEL", pod, conf).run();
        if outcome.is_ok() {
            TOLD_TO_COME_AGAIN.with(|count| count.set(count.get() + usize::from(told)));
            return outcome.silent();
        }
        let (code, msg) = outcome.error();
        assert_eq!(code, 11, "{msg}");
        assert!(Instant::now() < deadline, "{msg}");
        told = true;
    }
}

thread_local! {
    /// After how many kills, in this test.
    static TOLD_TO_COME_AGAIN: Cell<usize> = const { Cell::new(0) };
}

/// Kills `verb` at each system call, each time after `prepare`, and lets `next` follow; how many boundaries there are. A
/// routed pod has host ports as well.
fn killed_everywhere(mode: &str, verb: &str, prepare: fn(&Node, &Pod, &Value), next: Next) -> usize {
    let node = Node::enter();
    let ports = json!([{"hostPort": 8080, "containerPort": 80}, {"hostPort": 53, "containerPort": 53, "protocol": "udp"}]);
    let runtime = if mode == "ptp" { json!({"portMappings": ports}) } else { json!({}) };
    let conf = node.conf_with(json!({"mode": mode, "runtimeConfig": runtime}));
    let pod = Pod::new("victim");
    // A neighbour, and in bridge mode the bridge.
    let other = Pod::new("other");
    let neighbour = add(&other, &node.conf(mode));
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
            check(&other, &node.conf(mode), &neighbour).silent();
            assert_first_packets(&node.ns, &GATEWAYS.map(ip), &[(&other.ns, addresses_of(&neighbour))]);
            let come_again = TOLD_TO_COME_AGAIN.with(Cell::get);
            // Just behind the fork, and not for as long as the kernel takes to delete the link.
            assert!(come_again < 10, "told to come again after {come_again} kills");
            println!(
                "{verb} in mode {mode}: {boundaries} boundaries, told to come again after {come_again} kills"
            );
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
fn a_routed_del_that_is_tried_again() {
    killed_everywhere("ptp", "DEL", attached, del_only);
}

#[test]
fn a_bridged_del_that_is_tried_again() {
    killed_everywhere("bridge", "DEL", attached, del_only);
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
