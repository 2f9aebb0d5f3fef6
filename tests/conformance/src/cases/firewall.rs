//! `firewall` behind a bridge, on a node that forwards nothing else.

use serde_json::{Value, json};

use super::{bridge_with, dual, network, with};
use crate::case::{Case, Step, add, check, del, shell, tcp};

const DROP: &str = "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP";

pub(super) fn cases() -> Vec<Case> {
    let everywhere = || {
        vec![
            shell("node", DROP),
            add("a"),
            add("b").after_switch(),
            tcp("a", "192.0.2.1:80", "outside", 80),
            tcp("a", "[2001:db8:1::1]:80", "outside", 80),
            tcp("outside", "10.1.2.2:80", "a", 80),
            tcp("a", "10.1.2.3:80", "b", 80),
            check("a"),
            del("a"),
            tcp("a", "192.0.2.1:80", "outside", 80),
            tcp("b", "192.0.2.1:80", "outside", 80),
            del("b"),
        ]
    };
    vec![
        case("accepts", json!({}), everywhere()),
        case("iptables", json!({"backend": "iptables"}), everywhere()),
        case("admin-chain", json!({"iptablesAdminChainName": "ADMIN"}), {
            let mut steps = everywhere();
            steps.insert(
                2,
                shell("node", "iptables -N ADMIN || true; iptables -A ADMIN -d 192.0.2.1 -j REJECT"),
            );
            steps
        }),
        case("open", json!({"ingressPolicy": "open"}), everywhere()),
        case("same-bridge", json!({"ingressPolicy": "same-bridge"}), same_bridge())
            .and(second_bridge("same-bridge")),
        case("isolated", json!({"ingressPolicy": "isolated"}), same_bridge()).and(second_bridge("isolated")),
        case("unknown-policy", json!({"ingressPolicy": "closed"}), vec![add("a"), del("a")]),
        case("unknown-backend", json!({"backend": "pf"}), vec![add("a"), check("a"), del("a")]),
        case(
            "check",
            json!({}),
            vec![add("a"), shell("node", "iptables -F CNI-FORWARD"), check("a"), del("a")],
        ),
        case(
            "twice",
            json!({}),
            vec![add("a"), del("a"), del("a"), del("a").without_netns().without_prev_result()],
        ),
        Case::new(
            "firewall-alone",
            network(json!([{"type": "firewall"}])),
            vec![add("a"), check("a"), del("a")],
        ),
    ]
}

fn same_bridge() -> Vec<Step> {
    vec![
        add("a"),
        add("b").after_switch(),
        add("c").on(1).after_switch(),
        tcp("a", "10.1.2.3:80", "b", 80),
        tcp("a", "10.7.7.2:80", "c", 80),
        tcp("c", "10.1.2.2:80", "a", 80),
        tcp("outside", "10.1.2.2:80", "a", 80),
        tcp("a", "192.0.2.1:80", "outside", 80),
        check("a"),
        del("a"),
        del("b"),
        del("c").on(1),
    ]
}

fn second_bridge(policy: &str) -> Value {
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.7.7.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]});
    let bridge = bridge_with(ipam, &json!({"bridge": "cni1"}));
    let mut network = network(json!([bridge, {"type": "firewall", "ingressPolicy": policy}]));
    network["name"] = json!("other");
    network
}

fn case(name: &str, conf: Value, steps: Vec<Step>) -> Case {
    let firewall = with(json!({"type": "firewall"}), &conf);
    Case::new(format!("firewall-{name}"), network(json!([bridge_with(dual(), &json!({})), firewall])), steps)
}
