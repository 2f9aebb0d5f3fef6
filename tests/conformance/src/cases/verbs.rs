//! The verbs in the orders that runtimes get wrong, and those that are new in 1.1.0.

use serde_json::{Value, json};

use super::{bridge_with, bridged, network, routed, single};
use crate::case::{Case, add, check, del, gc, shell, status, version};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let routed = || routed(single(), &json!({}));
    for (kind, conf) in [("bridge", bridged(&json!({}))), ("ptp", routed())] {
        let case = |name: &str, steps| Case::new(format!("verbs-{kind}-{name}"), conf.clone(), steps);
        cases.extend([
            case("add-twice", vec![add("a"), add("a").after_switch(), del("a")]),
            case("del-twice", vec![add("a"), del("a"), del("a")]),
            case("del-before-add", vec![del("a"), add("a"), del("a")]),
            case("del-without-netns", vec![add("a"), del("a").without_netns(), del("a")]),
            case("del-without-result", vec![add("a"), del("a").without_prev_result()]),
            case(
                "del-without-either",
                vec![add("a"), del("a").without_netns().without_prev_result(), del("a")],
            ),
            case(
                "del-of-a-gone-namespace",
                vec![
                    add("a"),
                    shell("node", "umount /run/netns/a; rm /run/netns/a; touch /run/netns/a"),
                    del("a"),
                ],
            ),
            case(
                "add-over-a-link",
                vec![
                    shell("a", "ip link add eth0 type veth peer name other"),
                    add("a"),
                    del("a").ifname("net1"),
                ],
            ),
            case("check-without-result", vec![add("a"), check("a").without_prev_result(), del("a")]),
            case("check-before-add", vec![check("a")]),
            case(
                "gc",
                vec![
                    add("a"),
                    add("b"),
                    gc(&["a", "b"]),
                    gc(&["a"]),
                    check("a"),
                    gc(&[]),
                    del("a"),
                    del("b"),
                ],
            ),
            case("status", vec![status(), add("a"), status(), del("a")]),
            case("version", vec![version()]),
        ]);
    }
    // Route through a gateway that is on no link: the last step fails, and nothing stays.
    let unreachable = json!({"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}]],
        "routes": [{"dst": "10.7.0.0/16", "gw": "192.0.2.77"}]});
    cases.push(Case::new(
        "verbs-bridge-add-fails",
        network(json!([bridge_with(unreachable.clone(), &json!({}))])),
        vec![add("a"), del("a")],
    ));
    cases.push(Case::new(
        "verbs-ptp-add-fails",
        network(json!([{"type": "ptp", "ipam": unreachable}])),
        vec![add("a"), del("a")],
    ));
    for (kind, conf) in alone() {
        let case = |name: &str, steps| {
            Case::new(format!("verbs-{kind}-{name}"), network(json!([conf.clone()])), steps).whole()
        };
        cases.push(case("status", vec![status()]));
        cases.push(case("version", vec![version()]));
        cases.push(case("gc-of-nothing", vec![gc(&[])]));
        cases.push(case("del-before-add", vec![del("a"), del("a").without_netns()]));
    }
    cases
}

/// The plugins that no link is made by.
fn alone() -> Vec<(&'static str, Value)> {
    vec![
        ("loopback", json!({"type": "loopback"})),
        ("host-local", json!({"type": "host-local", "ipam": single()})),
        (
            "static",
            json!({"type": "static", "ipam": {"type": "static", "addresses": [{"address": "10.1.2.5/24"}]}}),
        ),
        ("portmap", json!({"type": "portmap", "capabilities": {"portMappings": true}})),
        ("firewall", json!({"type": "firewall"})),
        ("tuning", json!({"type": "tuning", "mtu": 1400})),
        ("bandwidth", json!({"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 800_000})),
    ]
}
