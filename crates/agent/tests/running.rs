//! The agent as it runs: it follows the source and the kernel, and puts back what others take away.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use kernel::netlink::{Protocol, Socket};
use kernel::nftables::{Family, TableName, Transaction};
use kernel::{address, link, route};
use support::pod::attach_pod;
use support::{Node, change, dual, foreign_route, index_of, node, routed, routes, run, wait_until};

fn flush_ruleset() {
    let mut socket = Socket::open(Protocol::Netfilter).unwrap();
    for table in kernel::nftables::tables(&mut socket, None).unwrap() {
        let mut transaction = Transaction::new();
        transaction.delete_table(&table.name);
        transaction.commit(&mut socket).unwrap();
    }
}

fn has_table(name: &str) -> bool {
    let mut socket = Socket::open(Protocol::Netfilter).unwrap();
    let name = TableName::new(Family::Inet, name);
    kernel::nftables::tables(&mut socket, None).unwrap().iter().any(|table| table.name == name)
}

fn get(path: &str) -> String {
    let mut stream = TcpStream::connect("127.0.0.1:9104").unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn nodes_that_come_move_and_go_are_followed() {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2)]);
    let _agent = node.start();
    wait_until("node2 is routed", || routed("10.244.2.0/24", "192.0.2.12"));
    node.write_nodes(&[dual(1), dual(2), dual(3)]);
    wait_until("node3 is routed", || routed("fd00:10:244:3::/64", "2001:db8::13"));
    let moved =
        support::node("node3", &["10.244.3.0/24", "fd00:10:244:3::/64"], &["192.0.2.33", "2001:db8::33"]);
    node.write_nodes(&[dual(1), dual(2), moved]);
    wait_until("node3 is routed by its new addresses", || {
        routed("10.244.3.0/24", "192.0.2.33") && routed("fd00:10:244:3::/64", "2001:db8::33")
    });
    node.write_nodes(&[dual(1), dual(2)]);
    wait_until("node3 is gone", || {
        !routes(true).iter().any(|route| route.contains(":3::") || route.contains(".3.0"))
    });
    assert!(routed("10.244.2.0/24", "192.0.2.12"));
}

#[test]
fn what_somebody_deletes_is_put_back() {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2)]);
    let _agent = node.start();
    node.wait_until_converged();
    let conflist = node.path("etc/cni/net.d/10-hostgw.conflist");
    let good = (routes(true), std::fs::read(&conflist).unwrap());
    change(|batch, _| {
        route::delete(batch, &foreign_route("10.244.2.0/24", "192.0.2.12", 104, 104));
        route::delete(batch, &foreign_route("fd00:10:244:2::/64", "2001:db8::12", 104, 104));
    });
    wait_until("the routes are back", || routes(true) == good.0);
    flush_ruleset();
    wait_until("the table is back", || has_table("hostgw"));
    std::fs::remove_file(&conflist).unwrap();
    wait_until("the conflist is back", || std::fs::read(&conflist).is_ok_and(|bytes| bytes == good.1));
    std::fs::write(&conflist, "half").unwrap();
    wait_until("the conflist is whole", || std::fs::read(&conflist).is_ok_and(|bytes| bytes == good.1));
}

#[test]
fn a_link_that_flaps_and_an_address_that_comes_back_bring_the_routes_back() {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2)]);
    let _agent = node.start();
    node.wait_until_converged();
    let good = routes(true);
    let eth0 = index_of("eth0");
    change(|batch, _| link::set_down(batch, eth0));
    wait_until("the routes went with the link", || !routed("10.244.2.0/24", "192.0.2.12"));
    change(|batch, _| link::set_up(batch, eth0));
    node.add_address("2001:db8::11/64");
    wait_until("the routes are back", || routes(true) == good);
    change(|batch, _| address::delete(batch, eth0, "192.0.2.11/24".parse().unwrap()));
    node.add_address("192.0.2.11/24");
    wait_until("the routes are back again", || routes(true) == good);
}

#[test]
fn what_somebody_puts_in_the_way_is_told_at_once_and_forgotten_when_it_goes() {
    let mut node = Node::new();
    node.settings.resync_interval = "1h".to_owned().try_into().unwrap();
    node.write_nodes(&[dual(1), dual(2)]);
    let _agent = node.start();
    node.wait_until_converged();
    let tells = |code: &str| {
        node.state().is_some_and(|state| state.conditions.iter().any(|condition| condition.code == code))
    };
    let in_the_way = [
        (foreign_route("10.244.2.0/25", "192.0.2.77", 0, 4), "route-shadowed"),
        (foreign_route("10.244.2.0/24", "192.0.2.77", 50, 4), "route-not-effective"),
        (foreign_route("192.0.2.12/32", "192.0.2.77", 0, 4), "no-next-hop"),
    ];
    for (foreign, code) in &in_the_way {
        change(|batch, _| route::add(batch, foreign));
        wait_until(code, || tells(code));
        change(|batch, _| route::delete(batch, foreign));
        wait_until("nothing is in the way", || !tells(code));
    }
    assert!(routed("10.244.2.0/24", "192.0.2.12"));
}

#[test]
fn a_route_that_was_none_of_our_business_is_told_of_once_a_node_comes_to_whose_pods_it_leads() {
    let mut node = Node::new();
    node.settings.resync_interval = "1h".to_owned().try_into().unwrap();
    let tells = |node: &Node, prefix: &str| {
        let told = |message: &str| message.contains(prefix) && message.contains("10.244.3.0/24");
        node.state().is_some_and(|state| state.conditions.iter().any(|condition| told(&condition.message)))
    };
    change(|batch, _| {
        route::add(batch, &foreign_route("198.18.0.0/15", "192.0.2.77", 0, 4));
        route::add(batch, &foreign_route("10.244.3.0/25", "192.0.2.77", 0, 4));
    });
    node.write_nodes(&[dual(1), dual(2)]);
    let _agent = node.start();
    node.wait_until_converged();
    // One that stood before the agent came, and one that it heard of.
    change(|batch, _| route::add(batch, &foreign_route("10.244.3.128/26", "192.0.2.77", 0, 4)));
    node.write_nodes(&[dual(1), dual(2), dual(3)]);
    wait_until("the first is told of", || tells(&node, "10.244.3.0/25"));
    change(|batch, _| route::delete(batch, &foreign_route("10.244.3.0/25", "192.0.2.77", 0, 4)));
    wait_until("the second is told of", || tells(&node, "10.244.3.128/26"));
    assert!(routed("10.244.3.0/24", "192.0.2.13"));
}

#[test]
fn a_broken_file_changes_nothing_and_is_told() {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2)]);
    let _agent = node.start();
    node.wait_until_converged();
    let good = routes(true);
    for broken in ["", "kind: List\nitems: [", "kind: List\nitems: []\n", "{", "kind: Pod\n"] {
        std::fs::write(node.path("nodes.yaml"), broken).unwrap();
        wait_until("the problem is told", || {
            node.state()
                .is_some_and(|state| state.source_problem.is_some() && state.synced && !state.converged)
        });
        assert_eq!(routes(true), good);
        node.write_nodes(&[dual(1), dual(2)]);
        wait_until("the problem is gone", || node.state().is_some_and(|state| state.converged));
    }
}

#[test]
fn each_change_costs_few_passes_and_quiet_none() {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2)]);
    let _agent = node.start();
    node.wait_until_converged();
    let passes = || node.state().map_or(0, |state| state.passes);
    let before = passes();
    for _ in 0..10 {
        change(|batch, _| route::delete(batch, &foreign_route("10.244.2.0/24", "192.0.2.12", 104, 104)));
        wait_until("the route is back", || routed("10.244.2.0/24", "192.0.2.12"));
    }
    // One for the damage, one to hear of the own repair, and one that was under way.
    assert!(passes() <= before + 3 * 10, "{} passes for 10 repairs", passes() - before);
}

#[test]
fn a_nodes_file_beside_the_agents_state_brings_no_passes_of_its_own() {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2)]);
    std::fs::create_dir_all(node.path("run/hostgw")).unwrap();
    std::fs::rename(node.path("nodes.yaml"), node.path("run/hostgw/nodes.yaml")).unwrap();
    let mut options = node.options();
    options.source = agent::source::SourceAddress::File("/run/hostgw/nodes.yaml".into());
    let _agent = node.start_with(options);
    node.wait_until_converged();
    let passes = || node.state().map_or(0, |state| state.passes);
    let before = passes();
    // Each repair is one more state written beside the file; one pass for it, and few for what it brings about.
    for round in 0_u64..20 {
        change(|batch, _| route::delete(batch, &foreign_route("10.244.2.0/24", "192.0.2.12", 104, 104)));
        wait_until("the route is back", || routed("10.244.2.0/24", "192.0.2.12"));
        wait_until("the state tells of it", || passes() > before + round);
    }
    assert!(passes() <= before + 3 * 20, "{} passes for 20 repairs", passes() - before);
}

#[test]
fn forwarding_that_somebody_turns_off_is_turned_on_at_once() {
    let mut node = Node::new();
    node.settings.resync_interval = "1h".to_owned().try_into().unwrap();
    node.write_nodes(&[dual(1), dual(2)]);
    let _agent = node.start();
    node.wait_until_converged();
    for path in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
        std::fs::write(path, "0").unwrap();
        wait_until("it is on again", || std::fs::read_to_string(path).is_ok_and(|value| value == "1\n"));
    }
}

#[test]
fn an_agent_that_starts_before_its_file_waits_for_it() {
    let node = Node::new();
    let _agent = node.start();
    wait_until("the missing file is told", || {
        node.state().is_some_and(|state| state.source_problem.is_some())
    });
    assert_eq!(node.state().unwrap().exit_code(), 3);
    assert!(!node.path("etc/cni/net.d").exists());
    node.write_nodes(&[dual(1)]);
    node.wait_until_converged();
    assert!(node.conflist().is_object());
}

#[test]
fn stopping_the_agent_leaves_the_network_as_it_is() {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2)]);
    let agent = node.start();
    node.wait_until_converged();
    let good = (routes(true), run("nft", &["list", "ruleset"]));
    drop(agent);
    assert_eq!((routes(true), run("nft", &["list", "ruleset"])), good);
    assert!(node.path("etc/cni/net.d/10-hostgw.conflist").exists() && node.path("run/hostgw/ready").exists());
    // A child that another test forks holds the lock until it executes its program.
    wait_until("the lock is free", || !agent::is_running(&node.paths()).unwrap());
}

#[test]
fn health_and_metrics_are_served() {
    let node = Node::new();
    let _agent = node.start();
    wait_until("somebody listens", || TcpStream::connect("127.0.0.1:9104").is_ok());
    assert!(get("/healthz").starts_with("HTTP/1.1 200"));
    wait_until("the missing source is told", || {
        get("/readyz").contains("the source was not read yet: failed")
    });
    node.write_nodes(&[dual(1), dual(2)]);
    wait_until("the node is ready", || get("/readyz").starts_with("HTTP/1.1 200"));
    for metric in ["hostgw_peer_cidrs_routed 2", "hostgw_nodes 2", "hostgw_converged 1", "hostgw_announced 1"]
    {
        wait_until(metric, || get("/metrics").contains(metric));
    }
    assert!(get("/other").starts_with("HTTP/1.1 404"));
}

#[test]
fn a_living_pod_gets_back_its_routes_and_host_ports() {
    let node = Node::new();
    node.write_nodes(&[dual(1)]);
    let pod = attach_pod(&node, "pod1");
    let pod_routes =
        || routes(true).into_iter().filter(|route| route.contains("proto 105")).collect::<Vec<_>>();
    let good = pod_routes();
    assert_eq!(good.len(), 2, "{good:?}");
    let _agent = node.start();
    wait_until("the host port is served", || has_table("hostgw_hostport"));
    let served = run("nft", &["list", "table", "inet", "hostgw_hostport"]);
    assert!(served.contains("8080"), "{served}");
    flush_ruleset();
    wait_until("the host port is served again", || {
        has_table("hostgw_hostport") && run("nft", &["list", "table", "inet", "hostgw_hostport"]) == served
    });
    let host_link = index_of(pod.host_link.as_str());
    change(|batch, _| link::set_down(batch, host_link));
    wait_until("the routes are back after the link went down", || pod_routes() == good);
    let neighbours = run("ip", &["neighbour", "show", "dev", pod.host_link.as_str()]);
    assert_eq!(neighbours.matches("PERMANENT").count(), 2, "{neighbours}");
    // With the node's address go the routes that have it as their source.
    change(|batch, _| address::delete(batch, index_of("eth0"), "192.0.2.11/24".parse().unwrap()));
    wait_until("the pod is reachable from another source", || {
        pod_routes().iter().any(|route| route.starts_with("10.244.1.2/32") && !route.contains("192.0.2.11"))
    });
    node.add_address("192.0.2.11/24");
    wait_until("the source is the node's address again", || pod_routes() == good);
}

#[test]
fn an_attachment_whose_link_is_gone_is_freed() {
    let node = Node::new();
    node.write_nodes(&[dual(1)]);
    let pod = attach_pod(&node, "pod1");
    let living = attach_living(&node);
    let _agent = node.start();
    wait_until("two pods are known", || node.state().is_some_and(|state| state.attachments == 2));
    change(|batch, _| link::delete(batch, index_of(pod.host_link.as_str())));
    let records = node.path("run/hostgw/ipam/hostgw/records");
    wait_until("the record is gone", || !records.join(pod.attachment.to_string()).exists());
    assert!(records.join(living.attachment.to_string()).exists());
    let claims = node.path("run/hostgw/ipam/hostgw/claims");
    wait_until("its addresses and port are free", || {
        std::fs::read_dir(&claims).unwrap().count() == living.addresses.len()
    });
    wait_until("its host port is closed", || {
        !run("nft", &["list", "table", "inet", "hostgw_hostport"]).contains("8080")
    });
}

/// A second pod, without host ports: those of the first are taken.
fn attach_living(node: &Node) -> support::pod::Pod {
    support::pod::attach_with_ports(node, "pod2", &[])
}

#[test]
fn uninstall_refuses_living_pods_and_otherwise_leaves_nothing() {
    let node = Node::new();
    let foreign = (routes(false), run("nft", &["list", "ruleset"]));
    node.write_nodes(&[dual(1), dual(2)]);
    let pod = attach_pod(&node, "pod1");
    node.pass();
    let error = agent::uninstall(&node.settings, &node.paths(), false).unwrap_err();
    assert!(
        error.to_string().contains(pod.host_link.as_str()) && error.to_string().contains("--force"),
        "{error}"
    );
    assert!(routed("10.244.2.0/24", "192.0.2.12"));
    let report = agent::uninstall(&node.settings, &node.paths(), true).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(routes(true), Vec::<String>::new());
    assert_eq!((routes(false), run("nft", &["list", "ruleset"])), foreign);
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "0\n");
    for path in ["run/hostgw", "var/lib/hostgw", "etc/cni/net.d/10-hostgw.conflist"] {
        assert!(!node.path(path).exists(), "{path}");
    }
    assert!(agent::uninstall(&node.settings, &node.paths(), false).unwrap().is_clean());
}

#[test]
fn a_node_with_a_new_cidr_keeps_its_old_pods() {
    let node = Node::new();
    node.write_nodes(&[dual(1)]);
    let pod = attach_pod(&node, "pod1");
    let _agent = node.start();
    node.wait_until_converged();
    node.write_nodes(&[renumbered()]);
    wait_until("the guard follows", || {
        routes(true).iter().any(|route| route.starts_with("unreachable 10.244.7.0/24"))
    });
    wait_until("the conflist follows", || node.conflist().to_string().contains("10.244.7.0/24"));
    assert!(
        routes(true).iter().any(|route| route.starts_with("10.244.1.2/32") && route.contains("proto 105"))
    );
    let set = run("nft", &["list", "set", "inet", "hostgw", "pod_cidrs4"]);
    assert!(set.contains("10.244.1.2") && set.contains("10.244.7.0/24"), "{set}");
    assert!(index_of(pod.host_link.as_str()) > 0);
}

fn renumbered() -> String {
    node("node1", &["10.244.7.0/24", "fd00:10:244:7::/64"], &["192.0.2.11", "2001:db8::11"])
}

/// The addresses of the node that pods see when they use their own host ports.
fn ways_back() -> Vec<String> {
    let mut socket = Socket::open(Protocol::Netfilter).unwrap();
    let name = TableName::new(Family::Inet, "hostgw_hostport");
    let table = kernel::nftables::observe(&mut socket, &name).unwrap();
    let sets = table.into_iter().flat_map(|table| table.sets);
    let hairpins = sets.filter(|observed| observed.set.name.starts_with("hairpin"));
    let mut found: Vec<_> = hairpins
        .flat_map(|observed| observed.set.elements)
        .map(|element| format!("{:?}", element.data))
        .collect();
    found.sort();
    found
}

#[test]
fn a_pod_that_uses_its_own_host_port_sees_the_address_that_its_node_has_now() {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2)]);
    let _pod = attach_pod(&node, "pod1");
    let _agent = node.start();
    wait_until("the first address is seen", || ways_back().iter().any(|way| way.contains("192.0.2.11")));
    node.add_address("192.0.2.31/24");
    node.add_address("2001:db8::31/64");
    let moved =
        support::node("node1", &["10.244.1.0/24", "fd00:10:244:1::/64"], &["192.0.2.31", "2001:db8::31"]);
    node.write_nodes(&[moved, dual(2)]);
    wait_until("the new addresses are seen, and no other", || {
        let ways = ways_back();
        let seen = |ip: &str| ways.iter().filter(|way| way.contains(ip)).count();
        (ways.len(), seen("192.0.2.31"), seen("2001:db8::31")) == (2, 1, 1)
    });
}
