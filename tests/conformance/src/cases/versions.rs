//! Results in every version of the specification.

use serde_json::{Value, json};

use super::{bridge_with, dual, single};
use crate::case::{Case, add, check, del};

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in VERSIONS {
        let case = |name: &str, plugins: Value| {
            let network = json!({"cniVersion": version, "name": "net", "plugins": plugins});
            Case::new(format!("version-{version}-{name}"), network, vec![add("a"), check("a"), del("a")])
                .whole()
        };
        let ports = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
        let link = || bridge_with(single(), &json!({}));
        cases.extend([
            case("bridge", json!([bridge_with(dual(), &json!({}))])),
            case("ptp", json!([{"type": "ptp", "ipam": dual()}])),
            case("loopback", json!([{"type": "loopback"}])),
            case("host-local", json!([{"type": "host-local", "ipam": dual()}])),
            case("static", json!([{"type": "static", "ipam": {"type": "static", "addresses": [{"address": "10.1.2.5/24"}]}}])),
            case("portmap", json!([link(), {"type": "portmap", "runtimeConfig": ports}])),
            case("firewall", json!([link(), {"type": "firewall"}])),
            case("tuning", json!([link(), {"type": "tuning", "mtu": 1400}])),
            case("bandwidth", json!([link(), {"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 800_000}])),
        ]);
    }
    for version in ["", "0.9.9", "2.0.0", "one"] {
        let network =
            json!({"cniVersion": version, "name": "net", "plugins": [bridge_with(single(), &json!({}))]});
        cases
            .push(Case::new(format!("version-unknown-{version}"), network, vec![add("a"), del("a")]).whole());
    }
    cases
}
