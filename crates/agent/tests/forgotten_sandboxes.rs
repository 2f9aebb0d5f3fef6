//! With the runtime's socket given: pods that it has forgotten are freed although their links live, and nobody is on the
//! strength of an error, of one answer, or of one that cannot be true.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use kernel::link;
use kernel::netlink::{Protocol, Socket};
use support::pod::{Pod, attach_for_kubernetes, attach_with_ports};
use support::runtime::{Answer, Runtime};
use support::{Node, dual, wait_until};

const SOCKET: &str = "run/containerd/containerd.sock";

/// A node with pods `pod1` and `pod2` of Kubernetes, whose agent asks the runtime every second.
fn node_with_pods() -> (Node, [Pod; 2]) {
    let mut node = Node::new();
    node.settings = serde_json::from_value(serde_json::json!({
        "resyncInterval": "1s", "runtime": {"socket": format!("/{SOCKET}"), "gracePeriod": "1s"}
    }))
    .unwrap();
    node.settings.validate().unwrap();
    node.write_nodes(&[dual(1)]);
    assert!(node.pass().converged);
    let pods = ["pod1", "pod2"].map(|id| attach_for_kubernetes(&node, id));
    (node, pods)
}

fn lives(pod: &Pod) -> bool {
    link::by_name(&mut Socket::open(Protocol::Route).unwrap(), pod.host_link.as_str()).unwrap().is_some()
}

fn has_record(node: &Node, pod: &Pod) -> bool {
    let records = node.path("run/hostgw/ipam/hostgw/records");
    let found = std::fs::read_dir(records).unwrap();
    found.flatten().any(|entry| entry.file_name().to_str() == Some(&pod.attachment.to_string()))
}

/// Waits until the runtime was asked so many times more, and a pass was made of what it said.
fn asked_again(node: &Node, runtime: &Runtime, times: usize) {
    let until = runtime.asked() + times;
    wait_until("the runtime was asked", || runtime.asked() >= until);
    let passes = || node.state().map(|state| state.passes);
    let before = passes();
    wait_until("another pass was made", || passes() > before);
}

fn says(node: &Node, code: &str) -> bool {
    node.state().is_some_and(|state| state.conditions.iter().any(|condition| condition.code == code))
}

#[test]
fn a_pod_that_the_runtime_has_forgotten_is_freed() {
    let (node, [kept, lost]) = node_with_pods();
    let runtime = Runtime::start(&node.path(SOCKET), Answer::sandboxes(&["pod1"]));
    let _agent = node.start();
    wait_until("the forgotten pod's link is gone", || !lives(&lost));
    wait_until("its record is gone", || !has_record(&node, &lost));
    asked_again(&node, &runtime, 2);
    assert!(lives(&kept) && has_record(&node, &kept));
}

#[test]
fn an_answer_without_any_pod_of_ours_frees_nobody() {
    let (node, pods) = node_with_pods();
    let runtime = Runtime::start(&node.path(SOCKET), Answer::sandboxes(&[]));
    let _agent = node.start();
    wait_until("the answer is doubted", || says(&node, "runtime-implausible"));
    asked_again(&node, &runtime, 2);
    assert!(pods.iter().all(lives));
    runtime.answers(Answer::sandboxes(&["of-another-runtime"]));
    asked_again(&node, &runtime, 3);
    assert!(pods.iter().all(lives));
}

#[test]
fn an_error_frees_nobody_and_is_told() {
    let (node, pods) = node_with_pods();
    let _agent = node.start();
    wait_until("the silence is told", || says(&node, "runtime-silent"));
    let runtime = Runtime::start(&node.path(SOCKET), Answer::Status(14));
    asked_again(&node, &runtime, 2);
    assert!(says(&node, "runtime-silent"));
    runtime.answers(Answer::CutShort);
    asked_again(&node, &runtime, 2);
    assert!(says(&node, "runtime-silent"));
    assert!(pods.iter().all(lives));
    runtime.answers(Answer::sandboxes(&["pod1", "pod2"]));
    wait_until("the runtime is heard again", || !says(&node, "runtime-silent"));
    assert!(pods.iter().all(lives));
}

#[test]
fn a_pod_that_was_made_for_no_kubernetes_is_none_of_this_runtimes() {
    let (node, [kept, _]) = node_with_pods();
    let other = attach_with_ports(&node, "podman1", &[]);
    let runtime = Runtime::start(&node.path(SOCKET), Answer::sandboxes(&["pod1", "pod2"]));
    let _agent = node.start();
    asked_again(&node, &runtime, 3);
    assert!(lives(&other) && lives(&kept));
}
