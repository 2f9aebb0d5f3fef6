//! `bandwidth` behind a bridge: the queueing disciplines that it leaves.

use serde_json::{Value, json};

use super::{bridge_with, network, single, with};
use crate::case::{Case, Step, add, check, del, shell, tcp};

pub(super) fn cases() -> Vec<Case> {
    let both = || json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 16_000_000, "egressBurst": 1_600_000});
    let plain = || vec![add("a"), tcp("a", "10.1.2.1:80", "node", 80), check("a"), del("a"), del("a")];
    vec![
        case("both", both(), plain()),
        case("into-the-pod", json!({"ingressRate": 8_000_000, "ingressBurst": 800_000}), plain()),
        case("out-of-the-pod", json!({"egressRate": 8_000_000, "egressBurst": 800_000}), plain()),
        case("nothing", json!({}), plain()),
        case(
            "asked-by-capability",
            json!({"capabilities": {"bandwidth": true}}),
            vec![add("a").runtime(json!({"bandwidth": both()})), del("a")],
        ),
        case(
            "capability-wins",
            with(both(), &json!({"capabilities": {"bandwidth": true}})),
            vec![
                add("a")
                    .runtime(json!({"bandwidth": {"ingressRate": 80_000_000, "ingressBurst": 8_000_000}})),
                del("a"),
            ],
        ),
        case("no-burst", json!({"ingressRate": 8_000_000}), plain()),
        case("no-rate", json!({"ingressBurst": 8_000_000}), plain()),
        case(
            "burst-too-large",
            json!({"ingressRate": 8_000_000, "ingressBurst": 80_000_000_000_u64}),
            plain(),
        ),
        case(
            "subnets",
            with(both(), &json!({"shapedSubnets": ["10.1.0.0/16"], "unshapedSubnets": ["10.9.0.0/16"]})),
            plain(),
        ),
        case(
            "check-queue",
            both(),
            vec![
                add("a"),
                shell(
                    "node",
                    "for link in $(ip -o link show master cni0 | cut -d: -f2 | cut -d@ -f1); do tc qdisc del dev $link root; done",
                ),
                check("a"),
                del("a"),
            ],
        ),
        case(
            "check-limit",
            both(),
            vec![
                add("a"),
                shell(
                    "node",
                    "for link in $(ip -o link show master cni0 | cut -d: -f2 | cut -d@ -f1); do tc qdisc change dev $link root tbf rate 1mbit burst 100kb latency 25ms; done",
                ),
                check("a"),
                del("a"),
            ],
        ),
        case(
            "check-link",
            both(),
            vec![
                add("a"),
                shell("node", "ip link del $(ip -o link show type ifb | cut -d: -f2)"),
                check("a"),
                del("a"),
            ],
        ),
        case("late-del", both(), vec![add("a"), del("a").without_netns().without_prev_result()]),
        Case::new(
            "bandwidth-alone",
            network(json!([with(json!({"type": "bandwidth"}), &both())])),
            vec![add("a"), del("a")],
        ),
    ]
}

fn case(name: &str, conf: Value, steps: Vec<Step>) -> Case {
    let bandwidth = with(json!({"type": "bandwidth"}), &conf);
    Case::new(
        format!("bandwidth-{name}"),
        network(json!([bridge_with(single(), &json!({})), bandwidth])),
        steps,
    )
}
