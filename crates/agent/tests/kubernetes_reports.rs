//! What the agent writes to the API: the Node's condition and address, Events, the `NodeNetwork`; and that it writes
//! nothing while nothing changes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use kernel::{address, route};
use serde_json::{Value, json};
use support::api_server::{ApiServer, cluster, dual_object, node_object};
use support::pod::attach_pod;
use support::{change, foreign_route, index_of, routed, routes, run, wait_until};

const NETWORK: &str = "/apis/hostgw.io/v1alpha1/nodenetworks/node1";
const NETWORKS: &str = "/apis/hostgw.io/v1alpha1/nodenetworks";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events/";

fn node1(server: &ApiServer) -> Value {
    server.object("/api/v1/nodes/node1").unwrap()
}

fn unavailable(server: &ApiServer) -> Option<Value> {
    let node = node1(server);
    let conditions = node["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == "NetworkUnavailable").cloned()
}

fn is_unavailable(server: &ApiServer, status: &str) -> bool {
    unavailable(server).is_some_and(|condition| condition["status"] == status)
}

fn network_status(server: &ApiServer) -> Value {
    server.object(NETWORK).map(|mut network| network["status"].take()).unwrap_or_default()
}

fn event(server: &ApiServer, reason: &str) -> Option<Value> {
    server.objects_below(EVENTS).into_iter().find(|event| event["reason"] == reason)
}

#[test]
fn what_is_well_is_written_once_and_not_again_for_heartbeats_and_peers() {
    let (node, server) = cluster(&[1, 2]);
    let _agent = node.start_with(node.options_for(&server));
    wait_until("the network is available", || is_unavailable(&server, "False"));
    wait_until("the node's network is told", || network_status(&server)["converged"] == true);
    let status = network_status(&server);
    assert_eq!(status["podCIDRs"], json!(["10.244.1.0/24", "fd00:10:244:1::/64"]));
    assert_eq!((&status["announced"], &status["unrouted"]), (&json!(true), &json!(0)));
    let owner = server.object(NETWORK).unwrap()["metadata"]["ownerReferences"][0].clone();
    assert_eq!((&owner["kind"], &owner["uid"]), (&json!("Node"), &json!("uid-node1")));
    assert!(node1(&server)["status"]["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "Ready"));
    let writes = server.writes();
    for beat in 0..20 {
        let mut heartbeat = node1(&server);
        heartbeat["status"]["conditions"][0]["lastHeartbeatTime"] = json!(beat.to_string());
        server.apply(heartbeat);
    }
    for n in 3..=6 {
        server.apply(dual_object(n));
        wait_until("it is routed", || routed(&format!("10.244.{n}.0/24"), &format!("192.0.2.1{n}")));
    }
    server.delete("node6");
    wait_until("node6 is gone", || !routed("10.244.6.0/24", "192.0.2.16"));
    assert_eq!(server.writes(), writes, "{:?}", server.requests());
}

#[test]
fn a_node_without_a_pod_cidr_waits_with_the_remedy_as_its_condition() {
    let (node, server) = cluster(&[2]);
    server.apply(node_object("node1", &[], &["192.0.2.11", "2001:db8::11"]));
    let _agent = node.start_with(node.options_for(&server));
    wait_until("the network is unavailable", || is_unavailable(&server, "True"));
    let message = unavailable(&server).unwrap()["message"].to_string();
    assert!(message.contains("spec.podCIDRs") && message.contains("hostgw podcidr assign"), "{message}");
    wait_until("it is an Event too", || event(&server, "NoPodCidr").is_some());
    let told = event(&server, "NoPodCidr").unwrap();
    assert_eq!((&told["type"], &told["regarding"]["name"]), (&json!("Warning"), &json!("node1")));
    let mut with_cidr = node1(&server);
    with_cidr["spec"]["podCIDRs"] = json!(["10.244.1.0/24", "fd00:10:244:1::/64"]);
    server.apply(with_cidr);
    wait_until("the network is available", || is_unavailable(&server, "False"));
}

#[test]
fn where_the_cloud_writes_the_condition_it_is_left_alone() {
    let (mut node, server) = cluster(&[1, 2]);
    node.settings.kubernetes.network_unavailable = false;
    node.settings.kubernetes.node_networks = false;
    node.settings.kubernetes.events = false;
    let _agent = node.start_with(node.options_for(&server));
    node.wait_until_converged();
    server.apply(dual_object(3));
    wait_until("node3 is routed", || routed("10.244.3.0/24", "192.0.2.13"));
    assert_eq!((server.writes(), unavailable(&server)), (0, None));
}

#[test]
fn a_repair_is_an_event_and_a_clash_another() {
    let (node, server) = cluster(&[1, 2]);
    let _agent = node.start_with(node.options_for(&server));
    node.wait_until_converged();
    change(|batch, _| route::delete(batch, &foreign_route("10.244.2.0/24", "192.0.2.12", 104, 104)));
    wait_until("the repair is told", || event(&server, "NetworkRepaired").is_some());
    assert!(event(&server, "NetworkRepaired").unwrap()["note"].to_string().contains("10.244.2.0/24"));
    server.apply(thief());
    wait_until("the overlap is told", || event(&server, "OverlappingPodCidr").is_some());
    wait_until("and stands in the node's network", || network_status(&server)["converged"] == false);
    assert!(network_status(&server)["problems"][0].to_string().contains("node3"));
}

#[test]
fn a_pod_cidr_without_a_free_address_is_an_event() {
    let (node, server) = cluster(&[2]);
    server.apply(node_object("node1", &["10.244.1.0/30"], &["192.0.2.11"]));
    let _pod = attach_pod(&node, "only");
    let _agent = node.start_with(node.options_for(&server));
    wait_until("it is told", || event(&server, "PodCidrExhausted").is_some());
    let told = event(&server, "PodCidrExhausted").unwrap();
    assert_eq!((&told["type"], &told["regarding"]["name"]), (&json!("Warning"), &json!("node1")));
    assert!(told["note"].to_string().contains("10.244.1.0/30"), "{told}");
    // Its pods run: that no other can start is no reason to evict them.
    wait_until("the network is available", || is_unavailable(&server, "False"));
}

#[test]
fn a_link_that_went_down_and_came_back_is_no_repair() {
    let (node, server) = cluster(&[1, 2]);
    let _agent = node.start_with(node.options_for(&server));
    node.wait_until_converged();
    run("ip", &["link", "set", "eth0", "down"]);
    assert!(!routed("10.244.2.0/24", "192.0.2.12"));
    run("ip", &["link", "set", "eth0", "up"]);
    wait_until("node2 is routed again", || routed("10.244.2.0/24", "192.0.2.12"));
    // Events are written one after the other: what comes later proves that none was on its way.
    server.apply(thief());
    wait_until("the overlap is told", || event(&server, "OverlappingPodCidr").is_some());
    assert_eq!(event(&server, "NetworkRepaired"), None);
}

#[test]
fn an_address_that_the_settings_choose_is_told_and_followed() {
    let (mut node, server) = cluster(&[1, 2]);
    node.settings.node_address.cidrs = vec!["192.0.2.64/26".parse().unwrap()];
    node.add_address("192.0.2.77/24");
    let _agent = node.start_with(node.options_for(&server));
    let annotation = || node1(&server)["metadata"]["annotations"]["hostgw.io/internal-ip"].clone();
    wait_until("the address is told", || annotation() == "192.0.2.77");
    wait_until("it is the source of routes to peers", || {
        routes(true)
            .iter()
            .any(|route| route.starts_with("10.244.2.0/24") && route.contains("src 192.0.2.77"))
    });
    node.add_address("192.0.2.88/24");
    change(|batch, _| address::delete(batch, index_of("eth0"), "192.0.2.77/24".parse().unwrap()));
    wait_until("the new address is told", || annotation() == "192.0.2.88");
    change(|batch, _| address::delete(batch, index_of("eth0"), "192.0.2.88/24".parse().unwrap()));
    wait_until("that there is none is told", || {
        node.state().is_some_and(|state| state.conditions.iter().any(|c| c.code == "no-chosen-address"))
    });
    assert_eq!(annotation(), "192.0.2.88");
}

#[test]
fn an_api_server_that_refuses_every_write_costs_the_node_nothing() {
    for code in [403, 404, 500] {
        let (node, server) = cluster(&[1, 2]);
        server.refuse_writes("/", code);
        let _agent = node.start_with(node.options_for(&server));
        node.wait_until_converged();
        wait_until("a write was tried", || server.writes() > 0);
        server.apply(dual_object(3));
        wait_until("node3 is routed", || routed("10.244.3.0/24", "192.0.2.13"));
    }
}

/// node3 with a pod CIDR of node2, of which an Event tells.
fn thief() -> Value {
    let mut thief = dual_object(3);
    thief["spec"]["podCIDRs"] = json!(["10.244.2.0/24"]);
    thief["metadata"]["creationTimestamp"] = json!("2026-02-01T00:00:00Z");
    thief
}

#[test]
fn each_verb_that_is_forbidden_is_told_and_keeps_nothing_else_from_being_written() {
    let status = format!("{NETWORK}/status");
    let rights = [
        ("PATCH", "/api/v1/nodes/node1", "hostgw.io/internal-ip"),
        ("PATCH", "/api/v1/nodes/node1/status", "NetworkUnavailable"),
        ("GET", NETWORK, "NodeNetwork"),
        ("POST", NETWORKS, "NodeNetwork"),
        ("PATCH", &status, "NodeNetwork"),
        ("POST", EVENTS.trim_end_matches('/'), "Event"),
    ];
    // Each in a namespace of its own, all at once: what is refused is tried again after ever longer waits.
    std::thread::scope(|scope| {
        for (method, path, what) in rights {
            scope.spawn(move || one_verb_is_forbidden(method, path, what));
        }
    });
}

fn one_verb_is_forbidden(method: &'static str, path: &str, what: &str) {
    let (mut node, server) = cluster(&[1, 2]);
    node.settings.node_address.cidrs = vec!["192.0.2.0/24".parse().unwrap()];
    node.settings.resync_interval = serde_json::from_value(json!("1s")).unwrap();
    server.forbid(method, path);
    let _agent = node.start_with(node.options_for(&server));
    let refused = || {
        let conditions = node.state().map(|state| state.conditions).unwrap_or_default();
        conditions.into_iter().find(|condition| condition.code == "report-refused")
    };
    let annotated = || node1(&server)["metadata"]["annotations"]["hostgw.io/internal-ip"] == "192.0.2.11";
    let available = || is_unavailable(&server, "False");
    let network = || network_status(&server)["announced"] == true;
    let lacks = |name: &str| what == name;
    wait_until("the annotation is written", || annotated() || lacks("hostgw.io/internal-ip"));
    wait_until("the condition is written", || available() || lacks("NetworkUnavailable"));
    wait_until("the node's network is told", || network() || lacks("NodeNetwork"));
    server.apply(thief());
    wait_until("an Event is written", || event(&server, "OverlappingPodCidr").is_some() || lacks("Event"));
    wait_until(&format!("{method} {path} is told"), || refused().is_some());
    let message = refused().unwrap().message;
    assert!(
        message.contains(what) && message.contains("403") && message.contains("ClusterRole"),
        "{message}"
    );
    assert!(routed("fd00:10:244:2::/64", "2001:db8::12"));
    server.allow_all();
    server.delete("node3");
    wait_until("the annotation is written", annotated);
    wait_until("the condition is written", available);
    wait_until("the node's network is told", network);
    // What was refused is of the past; the next one is written.
    node.wait_until_converged();
    change(|batch, _| route::delete(batch, &foreign_route("10.244.2.0/24", "192.0.2.12", 104, 104)));
    wait_until("the repair is told", || event(&server, "NetworkRepaired").is_some());
    wait_until("nothing is refused any more", || refused().is_none());
}

#[test]
fn an_event_that_could_not_be_written_is_written_later_and_holds_up_nothing() {
    let (node, server) = cluster(&[1, 2]);
    server.refuse_writes(EVENTS.trim_end_matches('/'), 500);
    server.apply(thief());
    let _agent = node.start_with(node.options_for(&server));
    wait_until("the network is available", || is_unavailable(&server, "False"));
    let tries = || server.requests().iter().filter(|request| request.contains("/events")).count();
    wait_until("the Event was tried again", || tries() > 2);
    server.allow_all();
    wait_until("the Event is written", || event(&server, "OverlappingPodCidr").is_some());
}
