//! CHECK names each thing that somebody changes after ADD, and is content again when it is put back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::process::Command;

use kernel::traffic_control::ingress_redirects;
use serde_json::{Value, json};
use support::node::{Node, Pod, add, check, host_link, index_of, uplink};

/// Where a change is made.
#[derive(Clone, Copy, Debug)]
enum At {
    Pod,
    Node,
}

/// A change, how it is put back, and what CHECK says between. HOST is the pod's link on the node, IFB what shapes it.
type Damage = (At, &'static str, &'static str, &'static str);

/// Runs a line of shell in the calling thread's namespace.
fn shell(line: &str) {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn each_is_named_and_forgiven(pod: &Pod, conf: &Value, result: &Value, shaping: &str, damages: &[Damage]) {
    check(pod, conf, result).silent();
    for (at, damage, repair, said) in damages {
        let fill = |line: &str| line.replace("HOST", host_link(result)).replace("IFB", shaping);
        let run = |line: &str| match at {
            At::Pod => pod.ns.run(|| shell(&fill(line))).unwrap(),
            At::Node => shell(&fill(line)),
        };
        run(damage);
        let (code, msg) = check(pod, conf, result).error();
        assert_eq!(code, 107, "{damage}: {msg}");
        assert!(msg.contains(&fill(said)), "{damage}: {msg}");
        run(repair);
        let outcome = check(pod, conf, result);
        assert!(outcome.is_ok(), "{damage}; {repair}: {}", outcome.error().1);
    }
}

fn shaping_link(result: &Value) -> String {
    let mut socket = kernel::netlink::Socket::open(kernel::netlink::Protocol::Route).unwrap();
    let index = ingress_redirects(&mut socket, index_of(host_link(result))).unwrap()[0];
    kernel::link::by_index(&mut socket, index).unwrap().unwrap().name
}

#[rustfmt::skip]
const ROUTED: &[Damage] = &[
    (At::Pod, "ip -6 addr del fd00:10:244:1::2/128 dev eth0",
        "ip -6 addr add fd00:10:244:1::2/128 dev eth0 nodad",
        "address fd00:10:244:1::2/128 is gone from `eth0`"),
    (At::Pod, "ip -6 addr del fe80::858:aff:fef4:102/64 dev eth0",
        "ip -6 addr add fe80::858:aff:fef4:102/64 dev eth0 nodad",
        "address fe80::858:aff:fef4:102/64 is gone from `eth0`"),
    (At::Pod, "echo 1000 > /proc/sys/net/ipv6/conf/eth0/dad_transmits; ip -6 addr del fd00:10:244:1::2/128 dev eth0; \
               ip -6 addr add fd00:10:244:1::2/128 dev eth0",
        "ip -6 addr del fd00:10:244:1::2/128 dev eth0; ip -6 addr add fd00:10:244:1::2/128 dev eth0 nodad",
        "address fd00:10:244:1::2/128 on `eth0` is tentative"),
    (At::Pod, "ip -6 addr change fd00:10:244:1::2/128 dev eth0 valid_lft forever preferred_lft 0",
        "ip -6 addr change fd00:10:244:1::2/128 dev eth0 valid_lft forever preferred_lft forever",
        "address fd00:10:244:1::2/128 on `eth0` is deprecated"),
    (At::Pod, "ip route del 10.244.1.1 dev eth0", "ip route add 10.244.1.1 dev eth0 scope link",
        "route 10.244.1.1/32 is gone from the pod"),
    (At::Pod, "ip -6 route del fd00:10:244:1::1 dev eth0", "ip -6 route add fd00:10:244:1::1 dev eth0",
        "route fd00:10:244:1::1/128 is gone from the pod"),
    (At::Pod, "ip route del default; ip route add default via 10.244.1.1 dev eth0 metric 5",
        "ip route del default; ip route add default via 10.244.1.1 dev eth0",
        "route 0.0.0.0/0 in the pod has metric 5, not 0"),
    (At::Pod, "ip route change default dev eth0 scope link", "ip route change default via 10.244.1.1 dev eth0",
        "route 0.0.0.0/0 in the pod has gateway none, not 10.244.1.1"),
    (At::Pod, "ip -6 route del default; ip -6 route add default via fd00:10:244:1::1 dev eth0 metric 7",
        "ip -6 route del default; ip -6 route add default via fd00:10:244:1::1 dev eth0",
        "route ::/0 in the pod has metric 7, not 1024"),
    (At::Pod, "ip route del 198.51.100.0/24 table 100",
        "ip route add 198.51.100.0/24 via 10.244.1.1 dev eth0 table 100 metric 50 mtu 1400 advmss 1300",
        "route 198.51.100.0/24 in table 100 is gone from the pod"),
    (At::Pod, "ip route change 198.51.100.0/24 via 10.244.1.1 dev eth0 table 100 metric 50 mtu 1350 advmss 1200",
        "ip route change 198.51.100.0/24 via 10.244.1.1 dev eth0 table 100 metric 50 mtu 1400 advmss 1300",
        "route 198.51.100.0/24 in table 100 in the pod has MTU 1350, not 1400, MSS 1200, not 1300"),
    (At::Pod, "ip neigh del 10.244.1.1 dev eth0",
        "ip neigh replace 10.244.1.1 lladdr 0e:58:0a:f4:01:02 dev eth0 nud permanent",
        "the permanent neighbour 10.244.1.1 is gone from `eth0`"),
    (At::Pod, "ip neigh replace fd00:10:244:1::1 lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
        "ip neigh replace fd00:10:244:1::1 lladdr 0e:58:0a:f4:01:02 dev eth0 nud permanent",
        "neighbour fd00:10:244:1::1 on `eth0` is at 02:00:00:00:00:09, not 0e:58:0a:f4:01:02"),
    (At::Pod, "ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500", "interface `eth0` has MTU 1400, not 1500"),
    (At::Node, "ip route change 10.244.1.2 dev HOST proto 105 scope link",
        "ip route change 10.244.1.2 dev HOST proto 105 scope link src 192.0.2.11",
        "the node's route to 10.244.1.2 has source none, not 192.0.2.11"),
    (At::Node, "ip -6 route change fd00:10:244:1::2 dev HOST proto 105",
        "ip -6 route change fd00:10:244:1::2 dev HOST proto 105 src 2001:db8:1::11",
        "the node's route to fd00:10:244:1::2 has source none, not 2001:db8:1::11"),
    (At::Node, "ip route change 10.244.1.2 dev HOST proto static scope link src 192.0.2.11",
        "ip route change 10.244.1.2 dev HOST proto 105 scope link src 192.0.2.11",
        "the node's route to 10.244.1.2 has protocol 4, not 105"),
    (At::Node, "ip route del 10.244.1.2 dev HOST; ip route add 10.244.1.2 dev HOST proto 105 metric 9 src 192.0.2.11",
        "ip route del 10.244.1.2 dev HOST; ip route add 10.244.1.2 dev HOST proto 105 scope link src 192.0.2.11",
        "the node's route to 10.244.1.2 has metric 9, not 0"),
    (At::Node, "ip neigh del 10.244.1.2 dev HOST",
        "ip neigh replace 10.244.1.2 lladdr 0a:58:0a:f4:01:02 dev HOST nud permanent",
        "the permanent neighbour 10.244.1.2 is gone from `HOST`"),
    (At::Node, "ip -6 addr del fd00:10:244:1::1/128 dev HOST", "ip -6 addr add fd00:10:244:1::1/128 dev HOST nodad",
        "address fd00:10:244:1::1/128 is gone from `HOST`"),
    (At::Node, "ip link set HOST mtu 1400", "ip link set HOST mtu 1500", "link `HOST` has MTU 1400, not 1500"),
    (At::Node, "ip link set HOST address 02:00:00:00:00:09",
        "ip link set HOST address 0e:58:0a:f4:01:02; \
         for ip in 10.244.1.2 fd00:10:244:1::2; do \
         ip neigh replace $ip lladdr 0a:58:0a:f4:01:02 dev HOST nud permanent; done",
        "link `HOST` has another Ethernet address than 0e:58:0a:f4:01:02"),
    (At::Node, "tc qdisc del dev HOST root", "tc qdisc add dev HOST root handle 1: tbf rate 8mbit burst 62500 limit 87500",
        "what the pod receives is not limited"),
    (At::Node, "tc qdisc change dev HOST root handle 1: tbf rate 4mbit burst 62500 limit 87500",
        "tc qdisc change dev HOST root handle 1: tbf rate 8mbit burst 62500 limit 87500",
        "what the pod receives is limited to 500000 B/s"),
    (At::Node, "tc qdisc change dev IFB root handle 1: tbf rate 16mbit burst 625000 limit 675000",
        "tc qdisc change dev IFB root handle 1: tbf rate 16mbit burst 62500 limit 112500",
        "what the pod sends is limited to 2000000 B/s"),
    (At::Node, "tc qdisc del dev IFB root", "tc qdisc add dev IFB root handle 1: tbf rate 16mbit burst 62500 limit 112500",
        "what the pod sends is not limited"),
    (At::Node, "tc qdisc del dev HOST ingress",
        "tc qdisc add dev HOST ingress; tc filter add dev HOST parent ffff: protocol all u32 match u32 0 0 \
         action mirred egress redirect dev IFB",
        "what the pod sends is not led through link `IFB`"),
    (At::Node, "ip link set IFB down", "ip link set IFB up", "link `IFB`, which shapes what the pod sends, is down"),
];

#[test]
fn of_a_routed_pod() {
    let node = Node::enter();
    let _router = uplink(1500);
    let pod = Pod::new("first");
    let conf = node.conf_with(json!({
        "mode": "ptp",
        "routes": [
            {"dst": "0.0.0.0/0"}, {"dst": "::/0"},
            {"dst": "198.51.100.0/24", "table": 100, "priority": 50, "mtu": 1400, "advmss": 1300},
        ],
        "runtimeConfig": {"bandwidth": {
            "ingressRate": 8_000_000, "ingressBurst": 500_000, "egressRate": 16_000_000, "egressBurst": 500_000,
        }},
    }));
    let result = add(&pod, &conf);
    let shaping = shaping_link(&result);
    each_is_named_and_forgiven(&pod, &conf, &result, &shaping, ROUTED);
    shell(&format!("ip link del {shaping}"));
    let (_, msg) = check(&pod, &conf, &result).error();
    assert!(msg.contains(&format!("link `{shaping}`, which shapes what the pod sends, is gone")), "{msg}");
}

#[rustfmt::skip]
const BRIDGED: &[Damage] = &[
    (At::Pod, "ip -6 route del default", "ip -6 route add default via fd00:10:244:1::1 dev eth0",
        "route ::/0 is gone from the pod"),
    (At::Node, "bridge link set dev HOST hairpin off", "bridge link set dev HOST hairpin on",
        "port `HOST` sends no frame back to where it came from"),
    (At::Node, "ip link set HOST nomaster", "ip link set HOST master cni0; bridge link set dev HOST hairpin on",
        "link `HOST` is no port of bridge `cni0`"),
    (At::Node, "ip addr del 10.244.1.1/24 dev cni0", "ip addr add 10.244.1.1/24 dev cni0",
        "address 10.244.1.1/24 is gone from `cni0`"),
    (At::Node, "ip -6 addr del fd00:10:244:1::1/64 dev cni0", "ip -6 addr add fd00:10:244:1::1/64 dev cni0 nodad",
        "address fd00:10:244:1::1/64 is gone from `cni0`"),
    (At::Node, "ip link set cni0 down", "ip link set cni0 up; ip -6 addr add fd00:10:244:1::1/64 dev cni0 nodad",
        "link `cni0` is down"),
    (At::Node, "ip link set HOST down", "ip link set HOST up", "link `HOST` is down"),
];

#[test]
fn of_a_bridged_pod() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let conf = node.conf_with(json!({"mode": "bridge", "hairpin": true}));
    let result = add(&pod, &conf);
    each_is_named_and_forgiven(&pod, &conf, &result, "", BRIDGED);
}

#[test]
fn what_a_later_plugin_says_that_it_changed_is_no_difference() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let conf = node.conf_with(json!({"mode": "bridge"}));
    let mut result = add(&pod, &conf);
    pod.ns.run(|| shell("ip link set eth0 address 02:00:00:00:00:09 mtu 1400")).unwrap();
    check(&pod, &conf, &result).error();
    let interfaces = result["interfaces"].as_array_mut().unwrap();
    let inside = interfaces.iter_mut().find(|interface| interface["name"] == "eth0").unwrap();
    inside["mac"] = json!("02:00:00:00:00:09");
    inside["mtu"] = json!(1400);
    check(&pod, &conf, &result).silent();
}
