//! `host-local`, executed by itself: who gets which address, and what stands in its folder.

use serde_json::{Value, json};

use super::{network, with};
use crate::case::{Case, Step, add, check, del, shell};

const FOLDER: &str = "/var/lib/cni/networks/net";

pub(super) fn cases() -> Vec<Case> {
    let in_turn = || {
        vec![
            add("a"),
            add("b").after_switch(),
            add("c"),
            del("b"),
            add("d").after_switch(),
            add("e"),
            del("a"),
            del("c"),
            del("d"),
            del("e"),
        ]
    };
    let range = |text: &str| json!({"ranges": [[{"subnet": text}]]});
    let mut cases = vec![
        case("turns", range("10.1.2.0/24"), in_turn()),
        case(
            "exhausted",
            json!({"ranges": [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.10", "rangeEnd": "10.1.2.11"}]]}),
            vec![add("a"), add("b"), add("c").after_switch(), del("a"), add("c"), del("b"), del("c")],
        ),
        case("tiny", range("10.1.2.0/29"), in_turn()),
        case(
            "wraps",
            json!({"ranges": [[{"subnet": "10.1.2.0/24", "rangeEnd": "10.1.2.3"}]]}),
            vec![add("a"), add("b"), del("a"), add("c").after_switch(), del("b"), del("c")],
        ),
        case(
            "old-words",
            json!({"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.20", "rangeEnd": "10.1.2.30", "gateway": "10.1.2.254",
            "routes": [{"dst": "10.0.0.0/8"}, {"dst": "0.0.0.0/0", "gw": "10.1.2.9"}]}),
            vec![add("a"), check("a"), del("a")],
        ),
        case(
            "routes",
            json!({"ranges": [[{"subnet": "10.1.2.0/24"}]], "routes": [
            {"dst": "10.8.0.0/16", "gw": "10.1.2.7", "mtu": 1400, "advmss": 1360, "priority": 7, "table": 100, "scope": 0}]}),
            vec![add("a"), del("a")],
        ),
        case(
            "gateway-in-the-range",
            json!({"ranges": [[{"subnet": "10.1.2.0/24", "gateway": "10.1.2.2"}]]}),
            vec![add("a"), del("a")],
        ),
        case(
            "two-ranges-of-a-set",
            json!({"ranges": [[
            {"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.10", "rangeEnd": "10.1.2.10"}, {"subnet": "10.1.3.0/24"}]]}),
            in_turn(),
        ),
        case(
            "both-families",
            json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1:2::/64"}]]}),
            in_turn(),
        ),
        case(
            "asked-by-variable",
            range("10.1.2.0/24"),
            vec![
                add("a").args("IgnoreUnknown=1;IP=10.1.2.50"),
                add("b").args("IP=10.1.2.50").after_switch(),
                add("c"),
                del("a"),
                del("b"),
                del("c"),
            ],
        ),
        case("asked-outside", range("10.1.2.0/24"), vec![add("a").args("IP=10.9.2.50"), del("a")]),
        case("asked-for-the-gateway", range("10.1.2.0/24"), vec![add("a").args("IP=10.1.2.1"), del("a")]),
        case(
            "twice",
            range("10.1.2.0/24"),
            vec![
                add("a"),
                add("a").after_switch(),
                add("a").ifname("net1").after_switch(),
                del("a"),
                check("a").ifname("net1"),
                del("a").ifname("net1"),
            ],
        ),
        case(
            "check-lost",
            range("10.1.2.0/24"),
            vec![add("a"), shell("node", format!("rm {FOLDER}/10.1.2.2")), check("a"), del("a")],
        ),
        case(
            "check-of-another",
            range("10.1.2.0/24"),
            vec![
                add("a"),
                shell("node", format!("printf 'other\\r\\neth0' >{FOLDER}/10.1.2.2")),
                check("a"),
                del("a"),
            ],
        ),
        case(
            "resolv-conf",
            with(range("10.1.2.0/24"), &json!({"resolvConf": "/run/resolv.conf"})),
            vec![
                shell(
                    "node",
                    "printf 'nameserver 10.0.0.53\\nnameserver fd00::53\\ndomain d.test\\nsearch a.test b.test\\noptions ndots:5 edns0\\n# no\\n' >/run/resolv.conf",
                ),
                add("a"),
                del("a"),
            ],
        ),
        case(
            "resolv-conf-lost",
            with(range("10.1.2.0/24"), &json!({"resolvConf": "/run/none"})),
            vec![add("a"), del("a")],
        ),
        case(
            "folder",
            with(range("10.1.2.0/24"), &json!({"dataDir": "/var/lib/cni/elsewhere"})),
            vec![add("a"), del("a")],
        ),
        case(
            "empty-file",
            range("10.1.2.0/24"),
            vec![
                shell("node", format!("mkdir -p {FOLDER}; : >{FOLDER}/10.1.2.2")),
                add("a"),
                add("b"),
                del("a"),
                del("b"),
            ],
        ),
        case(
            "foreign-files",
            range("10.1.2.0/24"),
            vec![
                shell(
                    "node",
                    format!(
                        "mkdir -p {FOLDER}/folder; echo x >{FOLDER}/notes; echo 10.1.2.200 >{FOLDER}/last_reserved_ip.7"
                    ),
                ),
                add("a"),
                check("a"),
                del("a"),
            ],
        ),
        case(
            "last-address-is-nonsense",
            range("10.1.2.0/24"),
            vec![
                shell("node", format!("mkdir -p {FOLDER}; echo nonsense >{FOLDER}/last_reserved_ip.0")),
                add("a"),
                del("a"),
            ],
        ),
        case(
            "last-address-is-foreign",
            range("10.1.2.0/24"),
            vec![
                shell("node", format!("mkdir -p {FOLDER}; printf 10.9.9.9 >{FOLDER}/last_reserved_ip.0")),
                add("a"),
                del("a"),
            ],
        ),
        case(
            "old-format",
            range("10.1.2.0/24"),
            vec![
                shell("node", format!("mkdir -p {FOLDER}; printf pod-a >{FOLDER}/10.1.2.2")),
                add("b"),
                del("a").without_prev_result(),
                del("b"),
            ],
        ),
    ];
    let asked = |name: &str, conf: Value, runtime: Value| {
        let conf =
            with(json!({"type": "host-local", "capabilities": {"ips": true, "ipRanges": true}}), &conf);
        Case::new(
            format!("host-local-{name}"),
            network(json!([conf])),
            vec![add("a").runtime(runtime), del("a")],
        )
    };
    let ipam = |text: &str| json!({"type": "host-local", "ranges": [[{"subnet": text}]]});
    cases.push(asked(
        "asked-by-capability",
        json!({"ipam": ipam("10.1.2.0/24")}),
        json!({"ips": ["10.1.2.60/24"]}),
    ));
    cases.push(asked(
        "asked-by-argument",
        json!({"ipam": ipam("10.1.2.0/24"), "args": {"cni": {"ips": ["10.1.2.70"]}}}),
        json!({}),
    ));
    cases.push(asked(
        "ranges-by-capability",
        json!({"ipam": ipam("10.1.2.0/24")}),
        json!({"ipRanges": [[{"subnet": "10.5.0.0/24"}]]}),
    ));
    cases.push(asked(
        "only-ranges-by-capability",
        json!({"ipam": {"type": "host-local"}}),
        json!({"ipRanges": [[{"subnet": "10.5.0.0/24"}]]}),
    ));
    for (name, ipam) in [
        ("no-range", json!({})),
        ("overlapping-ranges", json!({"ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "10.1.2.0/24"}]]})),
        ("mixed-set", json!({"ranges": [[{"subnet": "10.1.2.0/24"}, {"subnet": "fd00::/64"}]]})),
        ("start-outside", json!({"ranges": [[{"subnet": "10.1.2.0/24", "rangeStart": "10.2.2.2"}]]})),
        (
            "end-before-start",
            json!({"ranges": [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.8"}]]}),
        ),
        ("subnet-too-small", json!({"ranges": [[{"subnet": "10.1.2.0/31"}]]})),
        ("subnet-with-host-bits", json!({"ranges": [[{"subnet": "10.1.2.3/24"}]]})),
        ("nonsense", json!({"ranges": [[{"subnet": "pods"}]]})),
    ] {
        cases.push(case(name, ipam, vec![add("a"), del("a")]).whole());
    }
    cases
}

fn case(name: &str, ipam: Value, steps: Vec<Step>) -> Case {
    let ipam = with(json!({"type": "host-local"}), &ipam);
    Case::new(format!("host-local-{name}"), network(json!([{"type": "host-local", "ipam": ipam}])), steps)
}
