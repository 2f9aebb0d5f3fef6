//! `tuning` behind a routed link.

use serde_json::{Value, json};

use super::{network, routed, single, with};
use crate::case::{Case, Step, add, check, del, shell};

pub(super) fn cases() -> Vec<Case> {
    let plain = || vec![add("a"), check("a"), del("a")];
    let all =
        json!({"mac": "02:00:00:00:00:55", "mtu": 1280, "promisc": true, "allmulti": true, "txQLen": 77});
    vec![
        case(
            "sysctls",
            json!({"sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1", "net.core.somaxconn": "500"}}),
            plain(),
        ),
        case("sysctls-with-slashes", json!({"sysctl": {"net/ipv4/conf/IFNAME/rp_filter": "2"}}), plain()),
        case("link", all.clone(), plain()),
        case("folder", with(all.clone(), &json!({"dataDir": "/run/cni/elsewhere"})), plain()),
        case("twice", all.clone(), vec![add("a"), del("a"), del("a")]),
        case("mac-by-argument", json!({"args": {"cni": {"mac": "02:00:00:00:00:56"}}}), plain()),
        case(
            "all-by-argument",
            json!({
                "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "0"}, "mtu": 1290,
                "args": {"cni": {
                    "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"}, "mac": "02:00:00:00:00:59", "promisc": true,
                    "mtu": 1300, "allmulti": true, "txQLen": 88,
                }},
            }),
            plain(),
        ),
        case(
            "mac-by-variable",
            json!({}),
            vec![add("a").args("IgnoreUnknown=1;MAC=02:00:00:00:00:57"), check("a"), del("a")],
        ),
        case(
            "mac-by-capability",
            json!({"mac": "02:00:00:00:00:01", "capabilities": {"mac": true}}),
            vec![add("a").runtime(json!({"mac": "02:00:00:00:00:58"})), del("a")],
        ),
        case(
            "check-sysctl",
            json!({"sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"}}),
            vec![
                add("a"),
                shell("a", "echo 0 >/proc/sys/net/ipv4/conf/eth0/arp_notify"),
                check("a"),
                del("a"),
            ],
        ),
        case(
            "check-mtu",
            all.clone(),
            vec![add("a"), shell("a", "ip link set eth0 mtu 1300"), check("a"), del("a")],
        ),
        case(
            "check-mac",
            all.clone(),
            vec![add("a"), shell("a", "ip link set eth0 address 02:00:00:00:00:66"), check("a"), del("a")],
        ),
        case(
            "check-promisc",
            all.clone(),
            vec![add("a"), shell("a", "ip link set eth0 promisc off"), check("a"), del("a")],
        ),
        case(
            "check-allmulti",
            all.clone(),
            vec![add("a"), shell("a", "ip link set eth0 allmulticast off"), check("a"), del("a")],
        ),
        case(
            "check-queue",
            all.clone(),
            vec![add("a"), shell("a", "ip link set eth0 txqlen 5"), check("a"), del("a")],
        ),
        case("sysctl-of-nothing", json!({"sysctl": {"net.ipv4.no_such": "1"}}), vec![add("a"), del("a")]),
        case("sysctl-of-the-node", json!({"sysctl": {"kernel.panic": "1"}}), vec![add("a"), del("a")]),
        case("sysctl-escapes", json!({"sysctl": {"net/../kernel/panic": "1"}}), vec![add("a"), del("a")]),
        case(
            "value-refused",
            json!({"sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "words"}, "mtu": 1290}),
            vec![add("a"), del("a")],
        ),
        case("mtu-refused", json!({"mtu": 999_999}), vec![add("a"), del("a")]),
        case(
            "file-is-damaged",
            all.clone(),
            vec![
                add("a"),
                shell("node", "for file in /run/cni/tuning/*; do echo '{' >$file; done"),
                check("a"),
                del("a"),
            ],
        ),
        case("nonsense-mac", json!({"mac": "pods"}), vec![add("a"), del("a")]),
        case("allowed", json!({"sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"}}), {
            let mut steps = vec![shell(
                "node",
                "mkdir -p /etc/cni/tuning; printf '^net.ipv4.conf.IFNAME.arp_[a-z]*$\\n' >/etc/cni/tuning/allowlist.conf",
            )];
            steps.extend(plain());
            steps
        }),
        case("not-allowed", json!({"sysctl": {"net.ipv4.conf.IFNAME.rp_filter": "1"}}), {
            let mut steps = vec![shell(
                "node",
                "mkdir -p /etc/cni/tuning; printf '^net.ipv4.conf.IFNAME.arp_[a-z]*$\\n' >/etc/cni/tuning/allowlist.conf",
            )];
            steps.extend(plain());
            steps
        }),
    ]
}

fn case(name: &str, conf: Value, steps: Vec<Step>) -> Case {
    let tuning = with(json!({"type": "tuning"}), &conf);
    let link = routed(single(), &json!({}));
    Case::new(format!("tuning-{name}"), network(json!([link["plugins"][0], tuning])), steps)
}
