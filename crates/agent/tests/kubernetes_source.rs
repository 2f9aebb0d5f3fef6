//! The agent on the Kubernetes API: it follows the Nodes, and whatever happens to the API server, routes stay.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::api_server::{ApiServer, Fault, cluster, dual_object, node_object};
use support::{Node, routed, routes, wait_until};

fn problem(node: &Node) -> String {
    node.state().and_then(|state| state.source_problem).unwrap_or_default()
}

#[test]
fn nodes_that_come_move_and_go_are_followed() {
    let (node, server) = cluster(&[1, 2]);
    let _agent = node.start_with(node.options_for(&server));
    wait_until("node2 is routed", || routed("10.244.2.0/24", "192.0.2.12"));
    server.apply(dual_object(3));
    wait_until("node3 is routed", || routed("fd00:10:244:3::/64", "2001:db8::13"));
    server.apply(node_object("node3", &["10.244.3.0/24"], &["192.0.2.33"]));
    wait_until("node3 is routed by its new address", || routed("10.244.3.0/24", "192.0.2.33"));
    server.delete("node3");
    wait_until("node3 is gone", || !routes(true).iter().any(|route| route.starts_with("10.244.3.0")));
    assert!(routed("10.244.2.0/24", "192.0.2.12"));
    node.wait_until_converged();
}

#[test]
fn a_thousand_nodes_that_are_deleted_at_once_take_their_routes_with_them_and_nobody_elses() {
    const MANY: usize = 1_000;
    let (node, server) = cluster(&[1, 2]);
    node.add_address("10.9.0.1/16");
    for n in 0..MANY {
        let (high, low) = (n / 250, n % 250 + 2);
        let (cidr, address) = (format!("10.{}.{low}.0/24", 100 + high), format!("10.9.{high}.{low}"));
        server.apply(node_object(&format!("many{n}"), &[&cidr], &[&address]));
    }
    let foreign = support::foreign_route("10.99.0.0/24", "192.0.2.77", 5, 4);
    support::change(|batch, _| kernel::route::add(batch, &foreign));
    let _agent = node.start_with(node.options_for(&server));
    node.wait_until_converged();
    let count = || routes(true).iter().filter(|route| route.contains(" via 10.9.")).count();
    assert_eq!(count(), MANY);
    let passes = || node.state().unwrap().passes;
    let before = passes();
    server.delete_all(|name| name.starts_with("many"));
    wait_until("their routes are gone", || count() == 0);
    node.wait_until_converged();
    assert!(routed("10.244.2.0/24", "192.0.2.12") && routed("fd00:10:244:2::/64", "2001:db8::12"));
    assert!(routes(false).iter().any(|route| route.starts_with("10.99.0.0/24")));
    let passes = passes() - before;
    assert!(passes <= 100, "{passes} passes for {MANY} events");
}

#[test]
fn a_server_without_streaming_lists_is_asked_for_pages() {
    let (node, server) = cluster(&[1]);
    for n in 0..450_u16 {
        let (high, low) = (n / 250, n % 250);
        server.apply(node_object(
            &format!("n{n}"),
            &[&format!("10.{}.{low}.0/24", 10 + high)],
            &[&format!("192.0.2.{}", 12 + n % 200)],
        ));
    }
    server.forget_streaming();
    let state = agent::run_once(&node.options_for(&server)).unwrap();
    assert_eq!((state.nodes, state.synced), (451, true));
    let pages = server.requests().iter().filter(|request| *request == "GET /api/v1/nodes").count();
    assert!(pages >= 4, "one refused stream, three pages, one watch at most: {pages}");
}

#[test]
fn a_stream_that_is_cut_within_the_list_is_followed_by_pages() {
    let (node, server) = cluster(&[1, 2, 3]);
    server.cut_streams();
    let _agent = node.start_with(node.options_for(&server));
    wait_until("node3 is routed", || routed("10.244.3.0/24", "192.0.2.13"));
    wait_until("nothing is wrong", || problem(&node).is_empty());
}

#[test]
fn what_is_deleted_while_the_watch_is_broken_goes_after_the_next_list() {
    let (node, server) = cluster(&[1, 2, 3]);
    let _agent = node.start_with(node.options_for(&server));
    wait_until("node3 is routed", || routed("10.244.3.0/24", "192.0.2.13"));
    server.set_fault(Fault::Down);
    wait_until("the silence is told", || problem(&node).contains("API server 127.0.0.1"));
    assert!(node.state().unwrap().synced);
    server.delete("node3");
    server.apply(dual_object(4));
    assert!(routed("10.244.3.0/24", "192.0.2.13"));
    server.compact();
    server.set_fault(Fault::None);
    wait_until("node4 is routed", || routed("10.244.4.0/24", "192.0.2.14"));
    wait_until("node3 is gone", || !routed("10.244.3.0/24", "192.0.2.13"));
    wait_until("nothing is wrong", || problem(&node).is_empty());
    assert!(routed("10.244.2.0/24", "192.0.2.12"));
}

#[test]
fn routes_stay_through_every_fault_of_the_server_and_it_is_told() {
    let (node, server) = cluster(&[1, 2]);
    let good = agent_routes(&node, &server);
    let faults = [
        (Fault::Refuses(403, "nodes is forbidden"), "ClusterRole"),
        (Fault::Refuses(401, "Unauthorized"), "give another"),
        (Fault::Refuses(500, "etcdserver: leader changed"), "etcdserver"),
        (Fault::Refuses(429, "too many requests"), "429"),
        (Fault::Says("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{x}"), "nodes"),
        (
            Fault::Says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n\n\r\n"),
            "event cannot be read",
        ),
        (Fault::Says("SSH-2.0-OpenSSH_9.9\r\n"), "GET /api/v1/nodes"),
        (Fault::Down, "GET /api/v1/nodes"),
    ];
    for (fault, told) in faults {
        // An agent of its own for each: one that has failed for long tries again ever more rarely.
        let _agent = node.start_with(node.options_for(&server));
        node.wait_until_converged();
        server.set_fault(fault.clone());
        wait_until(&format!("{fault:?} is told as {told:?}"), || problem(&node).contains(told));
        assert_eq!(routes(true), good, "{fault:?}");
        server.set_fault(Fault::None);
        node.wait_until_converged();
        assert_eq!(routes(true), good, "{fault:?}");
    }
}

fn agent_routes(node: &Node, server: &ApiServer) -> Vec<String> {
    let _agent = node.start_with(node.options_for(server));
    node.wait_until_converged();
    routes(true)
}

#[test]
fn a_server_that_answers_empty_or_from_another_history_deletes_nothing() {
    let (node, server) = cluster(&[1, 2, 3]);
    let _agent = node.start_with(node.options_for(&server));
    node.wait_until_converged();
    let good = routes(true);
    server.restore(2000, &[]);
    wait_until("the empty list is told", || problem(&node).contains("lists no node"));
    assert_eq!(routes(true), good);
    server.apply(dual_object(1));
    wait_until("this node is listed", || node.state().is_some_and(|state| state.nodes == 1));
    assert_eq!(routes(true), good);
    // A backup from before node2 and node3 joined.
    server.restore(500, &[dual_object(1), dual_object(4)]);
    wait_until("node4 is routed", || routed("10.244.4.0/24", "192.0.2.14"));
    wait_until("the way back is told", || problem(&node).contains("went back from version"));
    assert!(good.iter().all(|route| routes(true).contains(route)));
}

#[test]
fn a_list_without_this_node_deletes_nothing_also_when_it_is_back_before_the_others() {
    let (node, server) = cluster(&[1, 2, 3]);
    let _agent = node.start_with(node.options_for(&server));
    node.wait_until_converged();
    let good = routes(true);
    for n in 1..=3 {
        server.delete(&format!("node{n}"));
    }
    wait_until("nobody is listed", || node.state().is_some_and(|state| state.nodes == 0));
    assert_eq!(routes(true), good);
    server.apply(dual_object(1));
    wait_until("this node is back", || node.state().is_some_and(|state| state.nodes == 1));
    assert_eq!(routes(true), good);
}

#[test]
fn heartbeats_bring_about_no_pass() {
    let (node, server) = cluster(&[1, 2]);
    let _agent = node.start_with(node.options_for(&server));
    node.wait_until_converged();
    for beat in 0..50 {
        let mut heartbeat = dual_object(2);
        heartbeat["status"]["conditions"][0]["lastHeartbeatTime"] = serde_json::json!(beat.to_string());
        server.apply(heartbeat);
    }
    let before = node.state().unwrap().passes;
    server.apply(dual_object(3));
    wait_until("node3 is routed", || routed("10.244.3.0/24", "192.0.2.13"));
    let passes = node.state().unwrap().passes - before;
    assert!(passes <= 6, "{passes} passes for one node and 50 heartbeats");
}

#[test]
fn one_pass_without_an_api_server_says_why_and_changes_nothing() {
    let (node, server) = cluster(&[1, 2]);
    let options = node.options_for(&server);
    server.set_fault(Fault::Refuses(403, "nodes is forbidden"));
    let error = agent::run_once(&options).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("403 nodes is forbidden"), "{error}");
    assert_eq!(routes(true), Vec::<String>::new());
}

#[test]
fn an_agent_that_starts_without_the_api_server_routes_to_the_peers_it_knew() {
    let (node, server) = cluster(&[1, 2]);
    let kept = node.path("var/lib/hostgw/peers.json");
    {
        let _agent = node.start_with(node.options_for(&server));
        node.wait_until_converged();
        wait_until("the peers are kept", || kept.exists());
    }
    server.set_fault(Fault::Down);
    // A reboot: nothing is left of the kernel's state and of /run.
    flush_node_routes();
    std::fs::remove_dir_all(node.path("run")).unwrap();
    std::fs::remove_file(node.path("etc/cni/net.d/10-hostgw.conflist")).unwrap();
    let _agent = node.start_with(node.options_for(&server));
    wait_until("node2 is routed", || routed("10.244.2.0/24", "192.0.2.12"));
    let state = || node.state().unwrap();
    // An earlier pass, without what was kept, may have written one before.
    let told =
        |state: &agent::StateDocument| state.conditions.iter().any(|told| told.code == "cached-source");
    wait_until("the state is written", || node.state().is_some_and(|state| told(&state)));
    assert!(!state().synced && !state().ready && !node.path("run/hostgw/ready").exists());
    assert!(!node.path("etc/cni/net.d/10-hostgw.conflist").exists());
    assert!(
        !routes(true).iter().any(|route| route.starts_with("unreachable")),
        "own CIDRs are not confirmed"
    );
    assert_eq!(agent::plan(&node.options_for(&server)).unwrap_err().exit_code(), 3);
    server.set_fault(Fault::None);
    wait_until("the node is announced", || state().ready && state().converged);
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
    assert_eq!(kept["items"].as_array().unwrap().len(), 2);
}

#[test]
fn an_agent_that_was_down_while_the_api_server_went_back_deletes_nothing() {
    let (node, server) = cluster(&[1, 2]);
    {
        let _agent = node.start_with(node.options_for(&server));
        node.wait_until_converged();
        wait_until("the peers are kept", || node.path("var/lib/hostgw/peers.json").exists());
    }
    let good = routes(true);
    server.restore(500, &[dual_object(1)]);
    let state = agent::run_once(&node.options_for(&server)).unwrap();
    assert!(state.source_problem.unwrap().contains("went back"));
    assert_eq!(routes(true), good);
}

fn flush_node_routes() {
    use kernel::netlink::{Protocol, Socket};
    use kernel::route::{self, Family, Filter};
    let mut socket = Socket::open(Protocol::Route).unwrap();
    for family in [Family::V4, Family::V6] {
        for found in route::dump(&mut socket, family, Filter::default()).unwrap() {
            if found.protocol == 104 {
                support::change(|batch, _| route::delete(batch, &found));
            }
        }
    }
}
