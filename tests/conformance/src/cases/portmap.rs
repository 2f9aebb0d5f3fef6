//! `portmap` behind a bridge: where packets to a node's port come out, from everywhere.

use serde_json::{Value, json};

use super::{bridge_with, dual, network, routed, single, with};
use crate::case::{Case, Step, add, check, del, shell, tcp, udp};

fn ports() -> Value {
    json!({"portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8053, "containerPort": 53, "protocol": "udp"},
    ]})
}

pub(super) fn cases() -> Vec<Case> {
    let everywhere = || {
        vec![
            add("a").runtime(ports()),
            add("b").after_switch(),
            tcp("outside", "192.0.2.11:8080", "a", 80),
            udp("outside", "192.0.2.11:8053", "a", 53),
            tcp("outside", "[2001:db8:1::11]:8080", "a", 80),
            tcp("node", "192.0.2.11:8080", "a", 80),
            tcp("node", "127.0.0.1:8080", "a", 80),
            tcp("node", "10.1.2.1:8080", "a", 80),
            tcp("b", "192.0.2.11:8080", "a", 80),
            tcp("b", "10.1.2.1:8080", "a", 80),
            tcp("a", "192.0.2.11:8080", "a", 80),
            tcp("outside", "192.0.2.11:8081", "a", 80),
            tcp("b", "192.0.2.1:8080", "outside", 8080),
            check("a").runtime(ports()),
            del("a").runtime(ports()),
            tcp("outside", "192.0.2.11:8080", "a", 80),
            add("c").runtime(ports()).after_switch(),
            tcp("outside", "192.0.2.11:8080", "c", 80),
            del("c").runtime(ports()),
            del("b"),
        ]
    };
    let mut cases = vec![
        case("ports", json!({}), everywhere()),
        case("iptables", json!({"backend": "iptables"}), everywhere()),
        case("nftables", json!({"backend": "nftables"}), everywhere()),
        case("not-near", json!({"snat": false}), everywhere()),
        case("not-near-nftables", json!({"snat": false, "backend": "nftables"}), everywhere()),
        case("masquerades-all", json!({"masqAll": true}), everywhere()),
        case("masquerades-all-nftables", json!({"masqAll": true, "backend": "nftables"}), everywhere()),
        case("mark", json!({"markMasqBit": 7}), everywhere()),
    ];
    let conditions =
        json!({"conditionsV4": ["!", "-d", "192.0.2.0/24"], "conditionsV6": ["!", "-d", "2001:db8::/32"]});
    let near = || {
        vec![
            add("a").runtime(ports()),
            tcp("outside", "192.0.2.11:8080", "a", 80),
            tcp("node", "10.1.2.1:8080", "a", 80),
            del("a").runtime(ports()),
        ]
    };
    cases.push(case("conditions", conditions, near()));
    let spoken = json!({"backend": "nftables", "conditionsV4": ["ip", "daddr", "!=", "192.0.2.0/24"]});
    cases.push(case("conditions-of-nftables", spoken, near()));
    let mut marked = vec![shell(
        "node",
        "iptables -t nat -N CNI-OTHER; iptables -t nat -A CNI-OTHER -j MARK --set-mark 0x4000; \
        iptables -t nat -A POSTROUTING -m mark --mark 0x4000 -j MASQUERADE; ip6tables -t nat -N CNI-OTHER; \
        ip6tables -t nat -A CNI-OTHER -j MARK --set-mark 0x4000; ip6tables -t nat -A POSTROUTING -m mark --mark 0x4000 -j MASQUERADE",
    )];
    marked.extend(everywhere());
    cases.push(case("mark-of-another", json!({"externalSetMarkChain": "CNI-OTHER"}), marked));
    let mapped = |ports: Value| json!({"portMappings": ports});
    let tried = |mapping: Value| {
        let runtime = mapped(json!([mapping]));
        vec![
            add("a").runtime(runtime.clone()),
            tcp("outside", "192.0.2.11:8080", "a", 80),
            tcp("node", "127.0.0.1:8080", "a", 80),
            check("a").runtime(runtime.clone()),
            del("a").runtime(runtime),
        ]
    };
    for (name, mapping) in [
        (
            "one-address",
            json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.11"}),
        ),
        (
            "another-address",
            json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.99"}),
        ),
        (
            "near-address",
            json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"}),
        ),
        (
            "any-address",
            json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "0.0.0.0"}),
        ),
        ("capitals", json!({"hostPort": 8080, "containerPort": 80, "protocol": "TCP"})),
        ("no-protocol", json!({"hostPort": 8080, "containerPort": 80})),
        ("sctp", json!({"hostPort": 8080, "containerPort": 80, "protocol": "sctp"})),
        ("no-host-port", json!({"hostPort": 0, "containerPort": 80, "protocol": "tcp"})),
        ("no-container-port", json!({"hostPort": 8080, "containerPort": 0, "protocol": "tcp"})),
        ("port-too-high", json!({"hostPort": 70000, "containerPort": 80, "protocol": "tcp"})),
        ("unknown-protocol", json!({"hostPort": 8080, "containerPort": 80, "protocol": "icmp"})),
    ] {
        cases.push(case(name, json!({}), tried(mapping)));
    }
    cases.push(case("nothing", json!({}), vec![add("a"), check("a"), del("a")]));
    let same = mapped(json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]));
    cases.push(case(
        "port-of-another",
        json!({}),
        vec![
            add("a").runtime(same.clone()),
            add("b").runtime(same.clone()).after_switch(),
            tcp("outside", "192.0.2.11:8080", "a", 80),
            del("b").runtime(same.clone()),
            del("a").runtime(same.clone()),
        ],
    ));
    cases.push(case(
        "twice",
        json!({}),
        vec![
            add("a").runtime(same.clone()),
            del("a").runtime(same.clone()),
            del("a").runtime(same.clone()),
            del("a").without_netns().without_prev_result(),
        ],
    ));
    let flush = "nft list tables | while read -r table; do nft flush $table; done";
    for backend in ["iptables", "nftables"] {
        cases.push(case(
            &format!("check-{backend}"),
            json!({"backend": backend}),
            vec![
                add("a").runtime(same.clone()),
                shell("node", flush),
                check("a").runtime(same.clone()),
                del("a").runtime(same.clone()),
            ],
        ));
    }
    let routed = routed(single(), &json!({}));
    let chain = json!([routed["plugins"][0], {"type": "portmap", "capabilities": {"portMappings": true}}]);
    cases.push(Case::new("portmap-routed", network(chain), everywhere()));
    cases
}

fn case(name: &str, conf: Value, steps: Vec<Step>) -> Case {
    let portmap = with(json!({"type": "portmap", "capabilities": {"portMappings": true}}), &conf);
    Case::new(format!("portmap-{name}"), network(json!([bridge_with(dual(), &json!({})), portmap])), steps)
}
