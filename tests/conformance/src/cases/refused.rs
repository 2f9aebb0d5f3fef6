//! Configurations that are wrong: what is told, and that nothing stays behind.

use serde_json::{Value, json};

use super::{bridge_with, network, single};
use crate::case::{Case, add, del};

pub(super) fn cases() -> Vec<Case> {
    let bridge = |patch: Value| bridge_with(single(), &patch);
    [
        ("unknown-ipam", bridge(json!({"ipam": {"type": "no-such-ipam"}}))),
        ("ipam-without-type", bridge(json!({"ipam": {"ranges": []}}))),
        ("vlan-too-high", bridge(json!({"vlan": 5000}))),
        ("vlan-and-trunk", bridge(json!({"vlan": 100, "vlanTrunk": [{"id": 7}]}))),
        ("trunk-backwards", bridge(json!({"vlanTrunk": [{"minID": 20, "maxID": 10}]}))),
        ("hairpin-and-promiscuous", bridge(json!({"hairpinMode": true, "promiscMode": true}))),
        ("mtu-of-words", bridge(json!({"mtu": "large"}))),
        ("mtu-negative", bridge(json!({"mtu": -5}))),
        ("mac-of-words", bridge(json!({"runtimeConfig": {"mac": "words"}}))),
        ("disabled-with-ipam", bridge(json!({"disableContainerInterface": true}))),
        ("masquerade-backend", bridge(json!({"ipMasq": true, "ipMasqBackend": "pf"}))),
        ("long-bridge-name", bridge(json!({"bridge": "a-name-of-more-than-15-bytes"}))),
        ("ptp-without-ipam", json!({"type": "ptp"})),
        ("host-local-without-ipam", json!({"type": "host-local"})),
        ("portmap-alone", json!({"type": "portmap"})),
        ("tuning-alone", json!({"type": "tuning", "mtu": 1400})),
    ]
    .into_iter()
    .map(|(name, plugin)| {
        Case::new(format!("refused-{name}"), network(json!([plugin])), vec![add("a"), del("a")]).whole()
    })
    .collect()
}
