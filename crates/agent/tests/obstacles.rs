//! What stands in the way of pods' packets is told, with what to do about it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use agent::AgentError;
use support::pod::{attach_bridged, attach_pod};
use support::{Node, dual, run, run_with_input, wait_until};

fn codes(node: &Node) -> Vec<String> {
    let mut state = agent::run_once(&node.options());
    // A program that a test beside this one starts holds every lock of this process for a moment.
    wait_until("no other agent holds the lock", || {
        if matches!(state, Err(AgentError::AnotherAgent(_))) {
            state = agent::run_once(&node.options());
        }
        !matches!(state, Err(AgentError::AnotherAgent(_)))
    });
    let state = state.unwrap();
    let mut codes: Vec<_> = state.conditions.iter().map(|condition| condition.code.clone()).collect();
    codes.sort();
    codes
}

fn node() -> Node {
    let node = Node::new();
    node.write_nodes(&[dual(1), dual(2)]);
    assert_eq!(codes(&node), Vec::<String>::new());
    node
}

#[test]
fn a_rule_of_iptables_that_rejects_all_counts_like_a_policy_that_drops() {
    let node = node();
    run("iptables", &["-A", "FORWARD", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"]);
    run("iptables", &["-A", "FORWARD", "-j", "REJECT", "--reject-with", "icmp-host-prohibited"]);
    run("ip6tables", &["-A", "FORWARD", "-j", "DROP"]);
    assert_eq!(codes(&node), Vec::<String>::new());
    for iptables in ["iptables", "ip6tables"] {
        let rules = run(iptables, &["-S", "FORWARD"]);
        assert_eq!(rules.matches("hostgw").count(), 2, "{rules}");
    }
    node.assert_nothing_to_change();
}

#[test]
fn a_chain_to_which_everything_is_sent_counts_and_one_for_a_part_does_not() {
    let node = node();
    for chain in ["DOCKER-USER", "mine", "inner"] {
        run("iptables", &["-N", chain]);
    }
    run("iptables", &["-A", "inner", "-j", "DROP"]);
    run("iptables", &["-A", "FORWARD", "-i", "eth7", "-j", "mine"]);
    run("iptables", &["-A", "mine", "-j", "inner"]);
    assert_eq!(codes(&node), Vec::<String>::new());
    assert!(!run("iptables", &["-S"]).contains("hostgw"));
    // The administrator's own drop in Docker's chain, behind a jump.
    run("iptables", &["-A", "FORWARD", "-j", "DOCKER-USER"]);
    run("iptables", &["-A", "DOCKER-USER", "-j", "inner"]);
    assert_eq!(codes(&node), Vec::<String>::new());
    let rules = run("iptables", &["-S", "DOCKER-USER"]);
    let lines: Vec<&str> = rules.lines().collect();
    assert!(lines[1].contains("hostgw") && lines[2].contains("hostgw"), "{rules}");
    assert!(lines[3].ends_with("-j inner"), "{rules}");
    node.assert_nothing_to_change();
}

#[test]
fn an_input_chain_that_sends_everything_to_a_rejection_is_reported() {
    let node = node();
    run("iptables", &["-N", "reject-input"]);
    run("iptables", &["-A", "reject-input", "-j", "REJECT"]);
    run("iptables", &["-A", "INPUT", "-i", "lo", "-j", "ACCEPT"]);
    run("iptables", &["-A", "INPUT", "-j", "reject-input"]);
    assert_eq!(codes(&node), ["foreign-chain-may-drop"]);
}

#[test]
fn a_rule_that_rejects_a_part_is_no_obstacle() {
    let node = node();
    run("iptables", &["-A", "FORWARD", "-p", "tcp", "--dport", "25", "-j", "REJECT"]);
    assert_eq!(codes(&node), Vec::<String>::new());
    assert!(!run("iptables", &["-S", "FORWARD"]).contains("hostgw"));
}

#[test]
fn native_chains_that_end_in_a_rejection_are_reported() {
    let node = node();
    let ruleset = "table ip firewalld { chain filter_FORWARD { type filter hook forward priority 10; \
                   ct state established accept; reject with icmp admin-prohibited; }; }\n\
                   table inet mine { chain input { type filter hook input priority 0; policy drop; iif lo accept; }; }\n";
    run_with_input("nft", &["-f", "-"], ruleset);
    assert_eq!(codes(&node), ["foreign-chain-may-drop"; 3]);
    assert!(node.pass().converged);
}

#[test]
fn a_chain_of_iptables_legacy_is_reported_until_it_accepts_the_pods() {
    let node = node();
    run("iptables-legacy", &["-P", "FORWARD", "DROP"]);
    assert_eq!(codes(&node), ["legacy-forward-drops"]);
    let said = node.pass().to_string();
    for option in ["-s", "-d"] {
        assert!(
            said.contains(&format!("iptables-legacy -I FORWARD {option} 10.244.1.0/24 -j ACCEPT")),
            "{said}"
        );
        run("iptables-legacy", &["-I", "FORWARD", option, "10.244.1.0/24", "-j", "ACCEPT"]);
    }
    assert_eq!(codes(&node), Vec::<String>::new());
}

#[test]
fn a_link_that_does_not_forward_is_reported_and_left() {
    let node = node();
    let pod = attach_pod(&node, "pod1");
    for link in ["eth0", pod.host_link.as_str()] {
        let sysctl = format!("/proc/sys/net/ipv4/conf/{link}/forwarding");
        std::fs::write(&sysctl, "0").unwrap();
        // The look-up for a pod's packets fails as well where it is the pod's own link.
        assert!(codes(&node).contains(&"link-not-forwarding".to_owned()), "{link}");
        assert_eq!(std::fs::read_to_string(&sysctl).unwrap(), "0\n");
        std::fs::write(&sysctl, "1").unwrap();
    }
    assert_eq!(codes(&node), Vec::<String>::new());
}

#[test]
fn a_policy_rule_that_takes_pods_packets_elsewhere_is_reported() {
    for bridged in [false, true] {
        let node = node();
        let _pod = if bridged { attach_bridged(&node, "pod1") } else { attach_pod(&node, "pod1") };
        let state = node.pass();
        assert!(state.conditions.is_empty(), "{state}");
        run("ip", &["rule", "add", "from", "10.244.1.0/24", "lookup", "100"]);
        run("ip", &["route", "add", "blackhole", "default", "table", "100"]);
        run("ip", &["-6", "rule", "add", "from", "fd00:10:244:1::/64", "lookup", "100"]);
        run("ip", &["-6", "route", "add", "blackhole", "default", "table", "100"]);
        assert_eq!(codes(&node), ["route-not-effective"; 2]);
        let state = node.pass();
        assert!(state.to_string().contains("for packets of pod 10.244.1."), "{state}");
        assert!(state.peers.iter().all(|peer| peer.state.as_str() == "shadowed"), "{state}");
    }
}
