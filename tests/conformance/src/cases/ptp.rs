//! `ptp`: every key, both families, what CHECK must find.

use serde_json::json;

use super::{dual, routed, single, with};
use crate::case::{Case, add, check, del, shell, tcp, udp};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new(
            "ptp-dual",
            routed(dual(), &json!({})),
            vec![
                add("a"),
                tcp("a", "10.1.2.1:80", "node", 80),
                tcp("node", "10.1.2.2:80", "a", 80),
                add("b").after_switch(),
                tcp("a", "10.1.2.3:80", "b", 80),
                tcp("a", "[fd00:1:2::3]:80", "b", 80),
                tcp("outside", "[fd00:1:2::2]:80", "a", 80),
                udp("a", "192.0.2.1:53", "outside", 53),
                check("a"),
                check("b"),
                del("a"),
                tcp("b", "10.1.2.1:80", "node", 80),
                del("b"),
            ],
        ),
        Case::new(
            "ptp-no-routes",
            routed(json!({"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}]]}), &json!({})),
            vec![add("a"), tcp("a", "10.1.2.1:80", "node", 80), check("a"), del("a")],
        ),
        Case::new(
            "ptp-mtu-and-dns",
            routed(
                single(),
                &json!({"mtu": 1400, "dns": {"nameservers": ["10.0.0.53"], "search": ["a.test"]}}),
            ),
            vec![add("a"), check("a"), del("a")],
        ),
        Case::new(
            "ptp-two-interfaces",
            routed(single(), &json!({})),
            vec![add("a"), add("a").ifname("net1").after_switch(), del("a").ifname("net1"), del("a")],
        ),
    ];
    for (backend, key) in [
        ("any", json!({})),
        ("iptables", json!({"ipMasqBackend": "iptables"})),
        ("nftables", json!({"ipMasqBackend": "nftables"})),
    ] {
        let steps = vec![
            add("a"),
            add("b").after_switch(),
            tcp("a", "192.0.2.1:80", "outside", 80),
            tcp("a", "[2001:db8:1::1]:80", "outside", 80),
            tcp("a", "10.1.2.3:80", "b", 80),
            tcp("outside", "10.1.2.2:80", "a", 80),
            del("a"),
            tcp("b", "192.0.2.1:80", "outside", 80),
            del("b"),
        ];
        let conf = with(json!({"ipMasq": true}), &key);
        cases.push(Case::new(format!("ptp-masquerade-{backend}"), routed(dual(), &conf), steps));
    }
    let planted = [
        ("address", "a", "ip addr del 10.1.2.2/24 dev eth0; ip addr add 10.1.2.77/24 dev eth0"),
        ("route", "a", "ip route del default"),
        ("link", "a", "ip link del eth0"),
        ("mac", "a", "ip link set eth0 address 02:00:00:00:00:99"),
        ("node-route", "node", "ip route del 10.1.2.2"),
        (
            "node-link-down",
            "node",
            "ip link set $(ip -o route get 10.1.2.2 | sed 's/.*dev //; s/ .*//') down",
        ),
    ];
    cases.extend(planted.map(|(name, at, line)| {
        let steps = vec![add("a"), shell(at, line), check("a"), del("a")];
        Case::new(format!("ptp-check-{name}"), routed(single(), &json!({})), steps)
    }));
    cases
}
