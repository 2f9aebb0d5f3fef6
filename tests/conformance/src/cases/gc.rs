//! GC of whole chains: what pods have that the runtime no longer knows, also where the reference attached them before the
//! node was switched.

use serde_json::{Value, json};

use super::{bridge_with, dual, network, single, with};
use crate::case::{Case, Step, add, check, del, gc, tcp};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backend in ["iptables", "nftables"] {
        let masquerade = json!({"ipMasq": true, "ipMasqBackend": backend});
        let bridge = bridge_with(dual(), &with(masquerade.clone(), &json!({"macspoofchk": true})));
        let routed = with(json!({"type": "ptp", "ipam": dual()}), &masquerade);
        for (kind, link) in [("bridge", bridge), ("ptp", routed)] {
            let chain = json!([
                link,
                {"type": "portmap", "backend": backend, "capabilities": {"portMappings": true}},
                {"type": "firewall"},
                {"type": "bandwidth", "capabilities": {"bandwidth": true}},
            ]);
            cases.push(Case::new(format!("gc-{kind}-{backend}"), network(chain), steps()));
        }
    }
    cases.push(
        Case::new("gc-two-networks", network(json!([bridge_with(single(), &json!({}))])), two_networks())
            .and(other()),
    );
    cases
}

fn asked(port: u16) -> Value {
    json!({
        "portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"egressRate": 800_000_000, "egressBurst": 8_000_000},
    })
}

fn steps() -> Vec<Step> {
    vec![
        add("a").runtime(asked(8080)),
        add("b").runtime(asked(8081)),
        gc(&["a", "b"]),
        check("a").runtime(asked(8080)),
        gc(&["b"]),
        tcp("outside", "192.0.2.11:8080", "a", 80),
        tcp("outside", "192.0.2.11:8081", "b", 80),
        check("b").runtime(asked(8081)),
        gc(&[]),
        del("a").runtime(asked(8080)),
        del("b").runtime(asked(8081)),
    ]
}

/// The second network hands out the same addresses, on the same bridge, from a folder beside.
fn other() -> Value {
    let mut network = network(json!([bridge_with(single(), &json!({}))]));
    network["name"] = json!("other");
    network
}

/// An address that two networks have handed out tells nobody whose a link is.
fn two_networks() -> Vec<Step> {
    vec![add("a"), add("b").on(1).after_switch(), gc(&[]), check("b").on(1), del("a"), del("b").on(1)]
}
