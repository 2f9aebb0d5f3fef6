//! `bridge`: every key, both families, what CHECK must find.

use serde_json::{Value, json};

use super::{bridge_with, bridged, dual, network, single};
use crate::case::{Case, Step, add, check, del, shell, tcp, udp};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new(
            "bridge-gateway",
            bridged(&json!({})),
            vec![
                add("a"),
                tcp("a", "10.1.2.1:80", "node", 80),
                tcp("node", "10.1.2.2:80", "a", 80),
                add("b").after_switch(),
                tcp("a", "10.1.2.3:80", "b", 80),
                tcp("b", "10.1.2.2:80", "a", 80),
                udp("a", "192.0.2.1:53", "outside", 53),
                check("a"),
                check("b"),
                del("a"),
                tcp("b", "10.1.2.1:80", "node", 80),
                del("b"),
            ],
        ),
        Case::new(
            "bridge-dual",
            network(json!([bridge_with(dual(), &json!({}))])),
            vec![
                add("a"),
                add("b").after_switch(),
                tcp("a", "[fd00:1:2::1]:80", "node", 80),
                tcp("a", "[fd00:1:2::3]:80", "b", 80),
                tcp("outside", "[fd00:1:2::2]:80", "a", 80),
                check("a"),
                del("a"),
                del("b"),
            ],
        ),
        Case::new(
            "bridge-other-address",
            bridged(&json!({})),
            vec![add("a"), del("a"), add("b").on(1), del("b").on(1)],
        )
        .and(other_subnet(&json!({}))),
        Case::new(
            "bridge-force-address",
            bridged(&json!({})),
            vec![add("a"), del("a"), add("b").on(1), check("b").on(1), del("b").on(1)],
        )
        .and(other_subnet(&json!({"forceAddress": true}))),
        Case::new(
            "bridge-isolated",
            bridged(&json!({"portIsolation": true})),
            vec![
                add("a"),
                add("b").after_switch(),
                tcp("a", "10.1.2.3:80", "b", 80),
                tcp("a", "10.1.2.1:80", "node", 80),
                check("a"),
                del("a"),
                del("b"),
            ],
        ),
        Case::new(
            "bridge-spoof",
            bridged(&json!({"macspoofchk": true})),
            vec![
                add("a"),
                tcp("a", "10.1.2.1:80", "node", 80),
                check("a"),
                shell(
                    "a",
                    "ip link set eth0 address 02:00:00:00:00:99; ip route replace default via 10.1.2.1",
                ),
                udp("a", "10.1.2.1:53", "node", 53),
                del("a"),
            ],
        ),
        Case::new(
            "bridge-layer-2",
            network(json!([{"type": "bridge", "bridge": "cni0", "ipam": {}}])),
            vec![add("a"), check("a"), del("a")],
        ),
        Case::new(
            "bridge-disabled-interface",
            network(json!([{"type": "bridge", "bridge": "cni0", "disableContainerInterface": true}])),
            vec![add("a"), check("a"), del("a")],
        ),
        Case::new(
            "bridge-that-exists",
            bridged(&json!({})),
            vec![
                shell("node", "ip link add cni0 mtu 1400 address 02:00:00:00:00:42 type bridge"),
                add("a"),
                check("a"),
                del("a"),
            ],
        ),
        Case::new(
            "bridge-two-interfaces",
            bridged(&json!({})),
            vec![
                add("a"),
                add("a").ifname("net1").after_switch(),
                del("a").ifname("net1"),
                check("a"),
                del("a"),
            ],
        ),
        Case::new(
            "bridge-mac-asked-for",
            bridged(&json!({"capabilities": {"mac": true}})),
            vec![add("a").runtime(json!({"mac": "02:00:00:00:00:07"})), check("a"), del("a")],
        ),
        Case::new(
            "bridge-mac-by-arguments",
            bridged(&json!({"args": {"cni": {"mac": "02:00:00:00:00:08"}}})),
            vec![add("a").args("IgnoreUnknown=1;MAC=02:00:00:00:00:09"), check("a"), del("a")],
        ),
    ];
    cases.extend(keys().map(|(name, patch)| {
        let network = bridged(&patch);
        Case::new(
            format!("bridge-{name}"),
            network,
            vec![add("a"), check("a"), add("b").after_switch(), del("a"), del("b")],
        )
    }));
    cases.extend(masquerades());
    cases.extend(differences());
    cases
}

fn other_subnet(patch: &Value) -> Value {
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.9.9.0/24"}]]});
    let mut network = network(json!([bridge_with(ipam, patch)]));
    network["name"] = json!("other");
    network
}

/// Keys whose effect the links show.
fn keys() -> impl Iterator<Item = (&'static str, Value)> {
    [
        ("plain", json!({"isGateway": false})),
        ("default-gateway", json!({"isGateway": false, "isDefaultGateway": true, "ipam": {
            "type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}]]}})),
        ("gateway-that-ipam-names", json!({"ipam": {
            "type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24", "gateway": "10.1.2.254"}]]}})),
        ("name", json!({"bridge": "br-pods"})),
        ("mtu", json!({"mtu": 1400})),
        ("hairpin", json!({"hairpinMode": true})),
        ("promiscuous", json!({"promiscMode": true})),
        ("vlan", json!({"vlan": 100})),
        ("vlan-alone", json!({"vlan": 100, "preserveDefaultVlan": false})),
        ("trunk", json!({"isGateway": false, "vlanTrunk": [{"minID": 10, "maxID": 12}, {"id": 20}]})),
        ("detects-duplicates", json!({"enabledad": true})),
        ("dns", json!({"dns": {"nameservers": ["10.0.0.53"], "domain": "test", "search": ["a.test"], "options": ["ndots:5"]}})),
    ]
    .into_iter()
}

/// What a pod's packets look like outside, by each backend.
fn masquerades() -> Vec<Case> {
    let mut cases = Vec::new();
    for (backend, key) in [
        ("any", json!({})),
        ("iptables", json!({"ipMasqBackend": "iptables"})),
        ("nftables", json!({"ipMasqBackend": "nftables"})),
    ] {
        let conf = super::with(json!({"ipMasq": true}), &key);
        let steps = vec![
            add("a"),
            add("b").after_switch(),
            tcp("a", "192.0.2.1:80", "outside", 80),
            tcp("a", "[2001:db8:1::1]:80", "outside", 80),
            tcp("a", "10.1.2.3:80", "b", 80),
            tcp("a", "[fd00:1:2::3]:80", "b", 80),
            tcp("outside", "10.1.2.2:80", "a", 80),
            check("a"),
            del("a"),
            tcp("b", "192.0.2.1:80", "outside", 80),
            del("b"),
        ];
        cases.push(Case::new(
            format!("bridge-masquerade-{backend}"),
            network(json!([bridge_with(dual(), &conf)])),
            steps,
        ));
    }
    cases
}

/// What CHECK must find, one thing a case.
fn differences() -> Vec<Case> {
    let planted: [(&str, &str, &str); 11] = [
        ("address", "a", "ip addr del 10.1.2.2/24 dev eth0; ip addr add 10.1.2.77/24 dev eth0"),
        ("route", "a", "ip route del default"),
        ("other-route", "a", "ip route replace default via 10.1.2.200"),
        ("link", "a", "ip link del eth0"),
        ("down", "a", "ip link set eth0 down"),
        ("mac", "a", "ip link set eth0 address 02:00:00:00:00:99"),
        ("bridge-down", "node", "ip link set cni0 down"),
        ("bridge-gone", "node", "ip link del cni0"),
        ("gateway", "node", "ip addr flush dev cni0"),
        ("master", "node", "ip link set $(ip -o link show master cni0 | cut -d: -f2 | cut -d@ -f1) nomaster"),
        ("nothing", "node", "true"),
    ];
    let case = |(name, at, line): (&str, &'static str, &str)| {
        let steps: Vec<Step> = vec![add("a"), shell(at, line), check("a"), del("a")];
        Case::new(format!("bridge-check-{name}"), network(json!([bridge_with(single(), &json!({}))])), steps)
    };
    planted.into_iter().map(case).collect()
}
