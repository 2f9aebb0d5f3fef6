//! Chains as people have them, and chains with plugins of others before, between and behind.

use serde_json::{Value, json};

use super::{bridge_with, bridged, dual, network, single, with};
use crate::case::{Case, Step, add, check, del, gc, tcp};

pub(super) fn cases() -> Vec<Case> {
    let link = || bridge_with(single(), &json!({}));
    let ports = || {
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000}})
    };
    let plain = || vec![add("a"), check("a"), tcp("a", "10.1.2.1:80", "node", 80), del("a")];
    let full = json!([
        bridge_with(dual(), &json!({"ipMasq": true, "hairpinMode": true})),
        {"type": "portmap", "capabilities": {"portMappings": true}},
        {"type": "firewall"},
        {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"}, "mtu": 1400},
        {"type": "bandwidth", "capabilities": {"bandwidth": true}},
    ]);
    let foreign_ipam = json!({"type": "foreign-ipam", "ranges": [[{"subnet": "10.1.2.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]});
    vec![
        Case::new(
            "chain-full",
            network(full),
            vec![
                add("a").runtime(ports()),
                tcp("outside", "192.0.2.11:8080", "a", 80),
                tcp("a", "192.0.2.1:80", "outside", 80),
                check("a").runtime(ports()),
                add("b").after_switch(),
                tcp("b", "10.1.2.2:80", "a", 80),
                del("a").runtime(ports()),
                gc(&["b"]),
                tcp("b", "192.0.2.1:80", "outside", 80),
                del("b"),
            ],
        ),
        case("foreign-ipam", json!([bridge_with(foreign_ipam.clone(), &json!({}))]), plain()),
        case("foreign-ipam-routed", json!([{"type": "ptp", "ipam": foreign_ipam}]), plain()),
        case(
            "static-ipam",
            json!([bridge_with(
                json!({"type": "static", "addresses": [{"address": "10.1.2.5/24", "gateway": "10.1.2.1"}],
            "routes": [{"dst": "0.0.0.0/0"}]}),
                &json!({})
            )]),
            plain(),
        ),
        case("foreign-behind", json!([link(), {"type": "passes"}]), plain()),
        case(
            "foreign-between",
            json!([link(), {"type": "passes"}, {"type": "tuning", "mtu": 1400}, {"type": "sbr"}]),
            plain(),
        ),
        case(
            "foreign-before",
            json!([{"type": "macvlan", "master": "up0", "ipam": single()}, {"type": "tuning", "mtu": 1400}, {"type": "firewall"}]),
            vec![add("a"), check("a"), del("a")],
        ),
        case(
            "foreign-refuses",
            json!([link(), {"type": "tuning", "mtu": 1400}, {"type": "refuses"}]),
            vec![add("a"), del("a"), del("a")],
        ),
        case(
            "last-refuses",
            json!([link(), {"type": "tuning", "mac": "nonsense"}]),
            vec![add("a"), del("a").without_prev_result()],
        ),
        Case::new(
            "chain-two-networks",
            bridged(&json!({})),
            vec![
                add("a"),
                add("a").on(1).ifname("net1").after_switch(),
                check("a"),
                del("a").on(1).ifname("net1"),
                check("a"),
                del("a"),
            ],
        )
        .and(other_network()),
        Case::new(
            "chain-two-default-routes",
            network(json!([bridge_with(dual(), &json!({}))])),
            vec![
                add("a"),
                add("a").on(1).ifname("net1").after_switch(),
                check("a"),
                check("a").on(1).ifname("net1"),
                del("a").on(1).ifname("net1"),
                check("a"),
                del("a"),
            ],
        )
        .and(with(
            other_network(),
            &json!({"plugins": [{"type": "ptp", "ipam": {"type": "host-local",
                "ranges": [[{"subnet": "10.6.6.0/24"}], [{"subnet": "fd00:6:6::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}]}),
        )),
    ]
}

fn other_network() -> Value {
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.6.6.0/24"}]]});
    let mut network = network(json!([{"type": "ptp", "ipam": ipam}]));
    network["name"] = json!("other");
    network
}

fn case(name: &str, plugins: Value, steps: Vec<Step>) -> Case {
    Case::new(format!("chain-{name}"), network(plugins), steps)
}
