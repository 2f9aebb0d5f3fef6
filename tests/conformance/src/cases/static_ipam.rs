//! `static`, executed by itself.

use serde_json::{Value, json};

use super::{network, with};
use crate::case::{Case, Step, add, check, del};

pub(super) fn cases() -> Vec<Case> {
    let addresses = json!({"addresses": [
        {"address": "10.1.2.5/24", "gateway": "10.1.2.1"}, {"address": "fd00:1:2::5/64"}]});
    let plain = || vec![add("a"), check("a"), del("a")];
    vec![
        case("addresses", addresses.clone(), json!({}), plain()),
        case(
            "routes-and-dns",
            with(
                addresses.clone(),
                &json!({
                    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.8.0.0/16", "gw": "10.1.2.7"}],
                    "dns": {"nameservers": ["10.0.0.53"], "domain": "d.test", "search": ["a.test"], "options": ["ndots:5"]},
                }),
            ),
            json!({}),
            plain(),
        ),
        case(
            "routes-of-every-kind",
            with(
                addresses.clone(),
                &json!({"routes": [
                    {"dst": "10.8.0.0/16", "gw": "10.1.2.7", "mtu": 1400, "advmss": 1300, "priority": 7},
                    {"dst": "10.9.0.0/16", "table": 77, "scope": 253},
                ]}),
            ),
            json!({}),
            plain(),
        ),
        case(
            "asked-by-variable",
            json!({}),
            json!({}),
            vec![add("a").args("IgnoreUnknown=1;IP=10.1.2.6/24,fd00::6/64;GATEWAY=10.1.2.1"), del("a")],
        ),
        case("asked-without-length", json!({}), json!({}), vec![add("a").args("IP=10.1.2.6"), del("a")]),
        case(
            "asked-by-argument",
            json!({}),
            json!({"args": {"cni": {"ips": ["10.1.2.7/24"]}}}),
            vec![add("a"), del("a")],
        ),
        case(
            "asked-by-capability",
            addresses,
            json!({"capabilities": {"ips": true}}),
            vec![add("a").runtime(json!({"ips": ["10.1.2.8/24"]})), del("a")],
        ),
        case("no-address", json!({}), json!({}), vec![add("a"), del("a")]),
        case("nonsense", json!({"addresses": [{"address": "ten"}]}), json!({}), vec![add("a"), del("a")]),
        case(
            "without-length",
            json!({"addresses": [{"address": "10.1.2.5"}]}),
            json!({}),
            vec![add("a"), del("a")],
        ),
    ]
}

fn case(name: &str, ipam: Value, conf: Value, steps: Vec<Step>) -> Case {
    let ipam = with(json!({"type": "static"}), &ipam);
    let conf = with(json!({"type": "static", "ipam": ipam}), &conf);
    Case::new(format!("static-{name}"), network(json!([conf])), steps)
}
