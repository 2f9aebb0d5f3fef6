//! Single passes of the real agent on a real kernel: what they make, and what they leave alone.

mod support;

use std::net::IpAddr;

use agent::AgentError;
use kernel::netlink::{Protocol, Socket};
use kernel::route::{self, Hop};
use node_network::plan::PeerState;
use node_network::settings::OnLinkPrefix;
use support::{Node, change, dual, foreign_route, node, routed, routes, run, run_with_input};

#[test]
fn a_first_pass_makes_everything_and_a_second_nothing() {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2), dual(3)]);
    let state = node.pass();
    assert!(state.converged, "{state}");
    assert_eq!(
        routes(true),
        [
            "10.244.2.0/24 via 192.0.2.12 link 2 table 254 metric 104 proto 104 src 192.0.2.11",
            "10.244.3.0/24 via 192.0.2.13 link 2 table 254 metric 104 proto 104 src 192.0.2.11",
            "fd00:10:244:2::/64 via 2001:db8::12 link 2 table 254 metric 104 proto 104 src 2001:db8::11",
            "fd00:10:244:3::/64 via 2001:db8::13 link 2 table 254 metric 104 proto 104 src 2001:db8::11",
            "unreachable 10.244.1.0/24 table 254 metric 104000 proto 104",
            "unreachable fd00:10:244:1::/64 link 1 table 254 metric 104000 proto 104",
        ]
    );
    assert_eq!(node.conflist()["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.1.0/24");
    assert!(node.path("run/hostgw/ready").exists());
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "1\n");
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").unwrap(), "1\n");
    node.assert_nothing_to_change();
    let again = node.pass();
    assert_eq!(again.last_change, None);
}

#[test]
fn the_table_that_nft_lists_is_the_table_that_was_wanted() {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2)]);
    node.pass();
    let listed = run("nft", &["list", "table", "inet", "hostgw"]);
    for expected in [
        "ip saddr @pod_cidrs4 ip daddr != @never_masquerade4 oifname \"eth0\" snat ip to 192.0.2.11",
        "ip6 saddr @pod_cidrs6 ip6 daddr != @never_masquerade6 oifname \"eth0\" snat ip6 to 2001:db8::11",
        "iifname \"hgw*\" icmpv6 type nd-router-advert drop",
        "iifname \"hgw*\" fib saddr . iif oif missing drop",
        "type filter hook prerouting priority raw; policy accept;",
    ] {
        assert!(listed.contains(expected), "{expected} is not in {listed}");
    }
}

#[test]
fn a_changed_rule_set_or_element_is_put_right() {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2)]);
    node.pass();
    let good = run("nft", &["list", "table", "inet", "hostgw"]);
    let handle = run("nft", &["-a", "list", "chain", "inet", "hostgw", "postrouting"]);
    let masquerade = handle.lines().find(|line| line.contains("snat ip to")).unwrap();
    let (_, number) = masquerade.rsplit_once("handle ").unwrap();
    let comment = masquerade.split('"').nth(3).unwrap();
    let tampered = format!(
        "replace rule inet hostgw postrouting handle {number} ip saddr 10.0.0.0/8 accept comment \"{comment}\""
    );
    for damage in [
        "delete element inet hostgw pod_cidrs4 { 10.244.1.0/24 }",
        "add element inet hostgw never_masquerade4 { 8.8.8.0-8.8.8.5 }",
        "add rule inet hostgw postrouting drop",
        "insert rule inet hostgw prerouting accept",
        "flush chain inet hostgw prerouting",
        "add set inet hostgw other { type ipv4_addr; }",
        "delete table inet hostgw",
        &tampered,
    ] {
        run_with_input("nft", &["-f", "-"], damage);
        assert!(node.plan().contains("nftables table inet hostgw"), "{damage}: {}", node.plan());
        node.pass();
        assert_eq!(run("nft", &["list", "table", "inet", "hostgw"]), good, "{damage}");
        node.assert_nothing_to_change();
    }
}

#[test]
fn routes_of_others_are_left_alone_and_reported() {
    let node = Node::new();
    let mut multipath = foreign_route("fd00:10:244:3::/64", "2001:db8::98", 104, 4);
    multipath
        .hops
        .push(Hop { gateway: Some("2001:db8::99".parse::<IpAddr>().unwrap()), ..multipath.hops[0].clone() });
    change(|batch, _| {
        route::add(batch, &foreign_route("10.244.2.0/24", "192.0.2.77", 104, 4));
        route::add(batch, &foreign_route("10.244.3.0/24", "192.0.2.78", 50, 186));
        route::add(batch, &multipath);
        route::add(batch, &foreign_route("198.18.0.0/15", "192.0.2.1", 0, 4));
    });
    node.write_nodes(&[dual(1), dual(2), dual(3)]);
    let before = routes(false);
    let state = node.pass();
    assert_eq!(routes(false), before);
    let codes: Vec<_> = state.conditions.iter().map(|condition| condition.code.as_str()).collect();
    for code in ["route-clash", "route-shadowed", "route-not-effective"] {
        assert!(codes.contains(&code), "{code} is not in {state}");
    }
    assert!(!state.converged);
    assert_eq!(state.exit_code(), 1);
    let peers: Vec<_> = state.peers.iter().map(|peer| (peer.pod_cidr.to_string(), peer.state)).collect();
    assert!(peers.contains(&("10.244.3.0/24".to_owned(), PeerState::Shadowed)), "{peers:?}");
    assert!(routed("10.244.3.0/24", "192.0.2.13") && routed("fd00:10:244:2::/64", "2001:db8::12"));
    node.assert_nothing_to_change();
    assert_eq!(agent::uninstall(&node.settings, &node.paths(), false).unwrap().left, Vec::<String>::new());
    assert_eq!(routes(false), before);
}

#[test]
fn a_leg_that_somebody_appended_to_our_route_is_left_and_goes_without_harm() {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2)]);
    node.pass();
    run(
        "ip",
        &[
            "-6",
            "route",
            "append",
            "fd00:10:244:2::/64",
            "via",
            "2001:db8::99",
            "dev",
            "eth0",
            "metric",
            "104",
        ],
    );
    let shown = run("ip", &["-6", "route", "show", "fd00:10:244:2::/64"]);
    assert_eq!(shown.matches("nexthop").count(), 2, "{shown}");
    let state = node.pass();
    assert!(state.conditions.iter().any(|condition| condition.code == "multipath-clash"), "{state}");
    assert_eq!(run("ip", &["-6", "route", "show", "fd00:10:244:2::/64"]), shown);
    run(
        "ip",
        &["-6", "route", "del", "fd00:10:244:2::/64", "via", "2001:db8::99", "dev", "eth0", "metric", "104"],
    );
    assert!(node.pass().converged);
}

#[test]
fn orphans_of_a_former_life_are_deleted_and_only_they() {
    let node = Node::new();
    change(|batch, _| {
        route::add(batch, &foreign_route("10.244.9.0/24", "192.0.2.19", 104, 104));
        route::add(batch, &foreign_route("10.244.9.0/24", "192.0.2.20", 105, 4));
        route::add(batch, &foreign_route("10.244.2.0/24", "192.0.2.12", 90, 104));
        route::add(
            batch,
            &route::Route { table: 1_000, ..foreign_route("10.244.8.0/24", "192.0.2.18", 104, 104) },
        );
    });
    node.write_nodes(&[dual(1), dual(2)]);
    let before = routes(false);
    assert!(node.pass().converged);
    assert_eq!(routes(false), before);
    let ours = routes(true).join("\n");
    assert!(
        !ours.contains("10.244.9.0") && !ours.contains("10.244.8.0") && !ours.contains("metric 90"),
        "{ours}"
    );
}

#[test]
fn a_file_without_this_node_changes_nothing() {
    let node = Node::new();
    change(|batch, _| route::add(batch, &foreign_route("10.244.9.0/24", "192.0.2.19", 104, 104)));
    node.write_nodes(&[dual(2)]);
    let error = agent::run_once(&node.options()).unwrap_err();
    assert!(matches!(error, AgentError::NotSynced(_)));
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("not this one, `node1`"), "{error}");
    assert_eq!(routes(true), ["10.244.9.0/24 via 192.0.2.19 link 2 table 254 metric 104 proto 104"]);
    assert!(!node.path("etc/cni/net.d/10-hostgw.conflist").exists());
}

#[test]
fn a_file_cut_short_just_now_deletes_nothing_on_a_first_pass() {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2), dual(3)]);
    node.pass();
    let good = routes(true);
    let written = std::fs::read_to_string(node.path("nodes.yaml")).unwrap();
    let end = written.find("- {kind: Node, metadata: {name: node3}").unwrap();
    std::fs::write(node.path("nodes.yaml"), &written[..end]).unwrap();
    // However long the agent takes to look, it was written just now.
    let file = std::fs::File::open(node.path("nodes.yaml")).unwrap();
    let touch = || file.set_modified(std::time::SystemTime::now()).unwrap();
    let agent = node.start();
    support::wait_until("the file is said to be unfinished", || {
        touch();
        node.state()
            .and_then(|state| state.source_problem)
            .is_some_and(|problem| problem.contains("waiting for the rest"))
    });
    touch();
    assert_eq!(routes(true), good);
    support::wait_until("the file was left alone and counts", || routes(true).len() == good.len() - 2);
    drop(agent);
    // A child that another test forks holds the lock until it executes its program.
    support::wait_until("the lock is free", || !agent::is_running(&node.paths()).unwrap());
    std::fs::write(node.path("nodes.yaml"), &written).unwrap();
    // A single pass waits it out.
    assert!(node.pass().converged);
    assert_eq!(routes(true), good);
}

#[test]
fn peers_at_host_addresses_are_on_link_where_a_setting_says_so() {
    let mut node = Node::new();
    let far = support::node("node2", &["10.244.2.0/24"], &["198.51.100.2"]);
    node.write_nodes(&[dual(1), far]);
    change(|batch, _| route::add(batch, &foreign_route("0.0.0.0/0", "192.0.2.1", 0, 3)));
    let state = node.pass();
    assert!(state.to_string().contains("only the default route leads to it"), "{state}");
    assert_eq!(state.peers[0].state, PeerState::Refused);
    let prefix = "198.51.100.0/24".parse().unwrap();
    node.settings.routes.on_link_prefixes = vec![OnLinkPrefix { prefix, link: None }];
    assert!(node.pass().converged);
    assert!(run("ip", &["route", "show", "10.244.2.0/24"]).contains("via 198.51.100.2 dev eth0"));
    node.assert_nothing_to_change();
}

#[test]
fn an_iptables_policy_that_drops_gets_accepts_on_top_which_survive_a_save_and_restore() {
    let node = Node::new();
    for iptables in ["iptables", "ip6tables"] {
        run(iptables, &["-P", "FORWARD", "DROP"]);
        run(iptables, &["-A", "FORWARD", "-j", "DROP"]);
    }
    node.write_nodes(&[dual(1), dual(2)]);
    assert!(node.pass().converged);
    let saved = run("iptables-save", &["-t", "filter"]);
    assert!(
        saved.contains(
            "-A FORWARD -s 10.244.1.0/24 -m comment --comment \"hostgw: pods from 10.244.1.0/24\" -j ACCEPT"
        ),
        "{saved}"
    );
    let drop_at = saved.find("-A FORWARD -j DROP").unwrap();
    assert!(saved.rfind("hostgw").unwrap() < drop_at, "{saved}");
    run_with_input("iptables-restore", &[], &saved);
    run_with_input("ip6tables-restore", &[], &run("ip6tables-save", &["-t", "filter"]));
    node.assert_nothing_to_change();
    run("iptables", &["-I", "FORWARD", "-j", "DROP"]);
    assert!(node.pass().converged);
    let rules = run("iptables", &["-S", "FORWARD"]);
    assert_eq!(rules.matches("hostgw").count(), 2, "{rules}");
    assert!(rules.rfind("hostgw").unwrap() < rules.find("-j DROP").unwrap(), "{rules}");
    node.assert_nothing_to_change();
}

#[test]
fn dockers_chain_for_the_administrator_is_preferred() {
    let node = Node::new();
    run("iptables", &["-N", "DOCKER-USER"]);
    run("iptables", &["-P", "FORWARD", "DROP"]);
    run("iptables", &["-A", "FORWARD", "-j", "DOCKER-USER"]);
    run("iptables", &["-A", "DOCKER-USER", "-j", "RETURN"]);
    let before = run("iptables", &["-S"]);
    node.write_nodes(&[dual(1)]);
    node.pass();
    assert_eq!(run("iptables", &["-S", "FORWARD"]).matches("hostgw").count(), 0);
    assert_eq!(run("iptables", &["-S", "DOCKER-USER"]).matches("hostgw").count(), 2);
    node.assert_nothing_to_change();
    agent::uninstall(&node.settings, &node.paths(), false).unwrap();
    assert_eq!(run("iptables", &["-S"]), before);
}

#[test]
fn a_native_chain_that_drops_is_reported_and_not_changed() {
    let node = Node::new();
    run_with_input(
        "nft",
        &["-f", "-"],
        "table inet mine {\nchain forward {\ntype filter hook forward priority 0; policy drop;\n}\n}\n",
    );
    let before = run("nft", &["list", "table", "inet", "mine"]);
    node.write_nodes(&[dual(1)]);
    let state = node.pass();
    assert_eq!(state.conditions.iter().filter(|c| c.code == "foreign-chain-drops").count(), 2, "{state}");
    assert_eq!(run("nft", &["list", "table", "inet", "mine"]), before);
}

#[test]
fn an_uplink_that_learns_from_router_advertisements_goes_on_learning() {
    let node = Node::new();
    change(|batch, _| route::add(batch, &foreign_route("::/0", "2001:db8::1", 1_024, 9)));
    let accept_ra = "/proc/sys/net/ipv6/conf/eth0/accept_ra";
    assert_eq!(std::fs::read_to_string(accept_ra).unwrap(), "1\n");
    node.write_nodes(&[dual(1)]);
    let plan = node.plan();
    let position = |text: &str| plan.find(text).unwrap_or_else(|| panic!("{text} is not in {plan}"));
    assert!(position("accept_ra 1 -> 2") < position("net/ipv6/conf/all/forwarding"));
    node.pass();
    assert_eq!(std::fs::read_to_string(accept_ra).unwrap(), "2\n");
    node.assert_nothing_to_change();
    agent::uninstall(&node.settings, &node.paths(), false).unwrap();
    assert_eq!(std::fs::read_to_string(accept_ra).unwrap(), "1\n");
}

#[test]
fn a_thousand_peers_are_routed_in_one_pass() {
    let node = Node::new();
    let mut nodes = vec![dual(1)];
    for n in 0..1_000_u32 {
        let (high, low) = (n / 200, n % 200);
        nodes.push(support::node(
            &format!("peer{n}"),
            &[&format!("10.{}.{low}.0/24", 100 + high), &format!("fd00:{high:x}:{low:x}::/64")],
            &[&format!("192.0.2.{}", 20 + low), &format!("2001:db8::1:{high}:{low}")],
        ));
    }
    node.write_nodes(&nodes);
    let state = node.pass();
    // 200 IPv4 addresses for a thousand nodes: only the first of each group may keep it.
    assert_eq!(state.peers.iter().filter(|peer| peer.state == PeerState::Routed).count(), 1_200);
    assert_eq!(routes(true).len(), 1_202);
    node.assert_nothing_to_change();
}

#[test]
fn what_stands_in_the_place_of_the_conflist_keeps_no_route_from_being_made() {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2)]);
    let conflist = node.path("etc/cni/net.d/10-hostgw.conflist");
    std::fs::create_dir_all(&conflist).unwrap();
    let state = node.pass();
    assert!(!state.converged && routed("10.244.2.0/24", "192.0.2.12"), "{state}");
    assert!(state.to_string().contains("10-hostgw.conflist"), "{state}");
    std::fs::remove_dir(&conflist).unwrap();
    std::fs::write(&conflist, vec![b' '; 2 << 20]).unwrap();
    assert!(node.pass().converged);
    assert_eq!(node.conflist()["name"], "hostgw");
}

#[test]
fn another_name_for_the_conflist_leaves_one_conflist() {
    let mut node = Node::new();
    node.write_nodes(&[dual(1)]);
    node.pass();
    node.settings.cni.conf_file = "/etc/cni/net.d/20-pods.conflist".to_owned();
    assert!(node.pass().converged);
    let names: Vec<_> = std::fs::read_dir(node.path("etc/cni/net.d"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["20-pods.conflist"]);
    node.assert_nothing_to_change();
}

#[test]
fn one_failure_does_not_keep_routes_from_being_checked() {
    let node = Node::new();
    // Nothing can be written here, so that the ready file fails.
    std::fs::create_dir_all(node.path("run/hostgw/.hostgw-ready.new")).unwrap();
    change(|batch, _| route::add(batch, &foreign_route("10.244.2.0/24", "192.0.2.78", 50, 186)));
    node.write_nodes(&[dual(1), dual(2)]);
    let state = node.pass();
    assert!(!state.failures.is_empty());
    let states: Vec<_> =
        state.peers.iter().map(|peer| format!("{} {}", peer.pod_cidr, peer.state.as_str())).collect();
    assert_eq!(states, ["10.244.2.0/24 shadowed", "fd00:10:244:2::/64 routed"]);
}

#[test]
fn two_agents_do_not_run_at_once() {
    let node = Node::new();
    node.write_nodes(&[dual(1)]);
    let _running = node.start();
    node.wait_until_converged();
    let error = agent::run_once(&node.options()).unwrap_err();
    assert!(matches!(error, AgentError::AnotherAgent(_)), "{error}");
    assert!(agent::uninstall(&node.settings, &node.paths(), true).is_err());
    assert!(agent::is_running(&node.paths()).unwrap());
}

#[test]
fn a_duplicate_address_of_this_node_gives_no_route() {
    let node = Node::new();
    let twin = support::node("node2", &["10.244.2.0/24"], &["192.0.2.11"]);
    node.write_nodes(&[dual(1), twin]);
    let state = node.pass();
    assert!(state.to_string().contains("is held by link `eth0` of this node"), "{state}");
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let found = route::dump(
        &mut socket,
        route::Family::V4,
        route::Filter { protocol: Some(104), ..Default::default() },
    );
    assert_eq!(found.unwrap().len(), 1);
}

#[test]
fn peers_behind_a_router_get_no_route() {
    let node = Node::new();
    change(|batch, _| route::add(batch, &foreign_route("198.51.100.0/24", "192.0.2.1", 0, 4)));
    node.write_nodes(&[dual(1), node_behind_router()]);
    let state = node.pass();
    assert!(state.to_string().contains("behind gateway 192.0.2.1"), "{state}");
}

fn node_behind_router() -> String {
    node("node2", &["10.244.2.0/24"], &["198.51.100.2"])
}
