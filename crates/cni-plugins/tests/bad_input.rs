//! Whatever a runtime or an administrator gets wrong: a code, the field, its value and what to do, and nothing is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fmt::Write;

use serde_json::{Value, json};
use support::node::{Node, Pod, observe};
use support::plugin::{Call, Outcome};

/// One wrong thing: how it is put, and what the error must name.
type Row = (Value, u64, &'static [&'static str]);

/// A string of so many bytes.
fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn in_the_whole() -> Vec<Row> {
    let long_name = long(201);
    vec![
        (json!({"cniVersion": 1}), 6, &["`cniVersion`", "is 1"]),
        (json!({"cniVersion": "1.1"}), 1, &["`cniVersion`", "`1.1`"]),
        (json!({"name": null}), 7, &["`name` is missing"]),
        (json!({"name": 7}), 7, &["`name`", "is 7"]),
        (json!({"name": ""}), 7, &["`name` is empty"]),
        (json!({"name": "../etc"}), 7, &["`name`", "`../etc`"]),
        (json!({"name": long_name}), 7, &["`name`", "200 bytes"]),
        (json!({"type": null}), 7, &["`type` is missing"]),
        (json!({"type": "../../bin/sh"}), 7, &["`type`", "`../../bin/sh`"]),
        (json!({"mode": "overlay"}), 7, &["`mode`", "`overlay`", "`ptp`"]),
        (json!({"mode": true}), 7, &["`mode`", "true"]),
        (json!({"uplink": "eth0"}), 7, &["`uplink`", "`ptp`"]),
        (json!({"mode": "l2", "uplink": "eth0"}), 7, &["`uplink`", "`l2`"]),
        (json!({"mode": "l2-routed", "uplink": "a/b"}), 7, &["`uplink`", "a/b"]),
        (json!({"mode": "l2-routed", "promiscMode": true}), 7, &["`promiscMode`", "`l2-routed`"]),
        (json!({"mode": "l2", "isGateway": false}), 7, &["`isGateway`", "`gateway`"]),
        (json!({"mode": "l2", "conflictProbeMs": 10_001}), 7, &["`conflictProbeMs`", "10001", "10000"]),
        (json!({"mode": "l2", "localhostPorts": true}), 7, &["`localhostPorts`", "ptp"]),
        (json!({"mode": "l2-routed"}), 7, &["names no gateway", "`nodeAddresses`"]),
        (json!({"bridge": "a-name-of-16-byt"}), 7, &["`bridge`", "a-name-of-16-byt"]),
        (json!({"bridge": "a/b"}), 7, &["`bridge`", "a/b"]),
        (json!({"bridge": 0}), 7, &["`bridge`", "is 0"]),
        (json!({"mtu": 67}), 7, &["`mtu`", "is 67", "68"]),
        (json!({"mtu": 1279}), 7, &["`mtu`", "is 1279", "1280"]),
        (json!({"mtu": 65536}), 7, &["`mtu`", "65536", "65535"]),
        (json!({"mtu": -1}), 7, &["`mtu`", "-1"]),
        (json!({"mtu": "1500"}), 7, &["`mtu`", "`1500`", "without quotes"]),
        (json!({"mtu": 1500.5}), 7, &["`mtu`", "1500.5"]),
        (json!({"hairpin": "yes"}), 7, &["`hairpin`", "`yes`"]),
        (json!({"dns": []}), 7, &["`dns`", "a list"]),
        (json!({"dns": {"nameservers": "10.96.0.10"}}), 7, &["`dns.nameservers`", "`10.96.0.10`"]),
        (json!({"logFile": "log"}), 7, &["`logFile`", "`log`", "absolute"]),
        (json!({"logLevel": "loud"}), 7, &["`logLevel`", "`loud`", "`debug`"]),
        (json!({"readyFile": "ready"}), 7, &["`readyFile`", "`ready`"]),
        (json!({"hostPortListenerCheck": "maybe"}), 7, &["`hostPortListenerCheck`", "`maybe`", "`refuse`"]),
        (json!({"nodeAddresses": "192.0.2.1"}), 7, &["`nodeAddresses`", "`192.0.2.1`"]),
        (json!({"nodeAddresses": ["localhost"]}), 7, &["`nodeAddresses[0]`", "`localhost`"]),
        (json!({"nodeAddresses": ["192.0.2.1", "192.0.2.2"]}), 7, &["`nodeAddresses[1]`", "`192.0.2.2`"]),
        (json!({"nodeAddresses": ["127.0.0.1"]}), 7, &["`nodeAddresses[0]`", "`127.0.0.1`"]),
        (json!({"nodeAddresses": ["::"]}), 7, &["`nodeAddresses[0]`", "`::`"]),
        (json!({"routes": {}}), 7, &["`routes`", "an object"]),
        (json!({"routes": [{}]}), 7, &["`routes[0].dst` is missing"]),
        (json!({"routes": [{"dst": "10.0.0.0"}]}), 7, &["`routes[0].dst`", "`10.0.0.0`"]),
        (json!({"routes": [{"dst": "10.0.0.1/8"}]}), 7, &["`routes[0].dst`", "10.0.0.1/8", "10.0.0.0/8"]),
        (json!({"routes": [{"dst": "10.0.0.0/8", "gw": "fd00::1"}]}), 7, &["`routes[0].gw`", "fd00::1"]),
        (json!({"routes": [{"dst": "10.0.0.0/8", "gw": "0.0.0.0"}]}), 7, &["`routes[0].gw`", "0.0.0.0"]),
        (json!({"routes": [{"dst": "10.0.0.0/8", "mtu": 65536}]}), 7, &["`routes[0].mtu`", "65536"]),
        (json!({"routes": [{"dst": "10.0.0.0/8", "priority": -1}]}), 7, &["`routes[0].priority`", "-1"]),
        (json!({"routes": [{"dst": "10.0.0.0/8"}, {"dst": "10.0.0.0/8"}]}), 7, &["`routes`", "10.0.0.0/8"]),
        (
            json!({"routes": [{"dst": "10.0.0.0/8", "table": 254}, {"dst": "10.0.0.0/8"}]}),
            7,
            &["`routes`", "10.0.0.0/8", "twice"],
        ),
        (
            json!({"routes": [{"dst": "fd01::/64", "table": 0}, {"dst": "fd01::/64", "priority": 1024}]}),
            7,
            &["`routes`", "fd01::/64", "twice"],
        ),
        (
            json!({"mode": "bridge", "routes": [{"dst": "10.244.1.0/24", "gw": "10.244.1.1"}]}),
            7,
            &["`routes`", "10.244.1.0/24", "own subnet", "`gw`"],
        ),
        (
            json!({"routes": [{"dst": "10.244.1.1/32", "gw": "10.244.1.1"}]}),
            7,
            &["`routes`", "10.244.1.1/32", "gateway", "`gw`"],
        ),
        (
            json!({"routes": [{"dst": "10.0.0.0/8", "metric": 5}]}),
            7,
            &["`metric`", "`routes[0]`", "priority"],
        ),
        (json!({"routes": [{"dst": "10.0.0.0/8", "prioritty": 5}]}), 7, &["`prioritty`", "write `priority`"]),
        (
            json!({"dns": {"nameserver": ["10.96.0.10"]}}),
            7,
            &["`nameserver`", "`dns`", "write `nameservers`"],
        ),
        (json!({"bridge": "all"}), 7, &["`bridge`", "`all`", "reserved"]),
        (json!({"routes": vec![json!({"dst": "10.0.0.0/8"}); 1025]}), 7, &["`routes`", "1025", "1024"]),
    ]
}

fn in_ipam() -> Vec<Row> {
    let long_path = format!("/{}", long(4096));
    let ranges = |ranges: Value| json!({"ipam": {"ranges": ranges}});
    let range = |range: Value| json!({"ipam": {"ranges": [[range]]}});
    vec![
        (json!({"ipam": null}), 7, &["`ipam` is missing"]),
        (json!({"ipam": "host-local"}), 7, &["`ipam`", "`host-local`"]),
        (json!({"ipam": {"type": "whereabouts"}}), 2, &["`ipam.type`", "`whereabouts`"]),
        (json!({"ipam": {"dataDir": "run/ipam"}}), 7, &["`ipam.dataDir`", "`run/ipam`"]),
        (json!({"ipam": {"dataDir": 7}}), 7, &["`ipam.dataDir`", "is 7"]),
        (json!({"ipam": {"dataDir": long_path}}), 7, &["`ipam.dataDir`", "4096 bytes"]),
        (json!({"ipam": {"dataDri": "/x"}}), 7, &["`dataDri`", "`ipam`", "write `dataDir`"]),
        (json!({"ipam": {"resolvConf": "/etc/resolv.conf"}}), 2, &["`ipam.resolvConf`", "`dns`"]),
        (
            range(json!({"subnet": "10.1.0.0/24", "rangStart": "10.1.0.9"})),
            7,
            &["`rangStart`", "`rangeStart`"],
        ),
        (range(json!({"subnet": "10.1.0.0/24", "dataDir": "/x"})), 7, &["`dataDir`", "`ipam.ranges[0][0]`"]),
        (range(json!({"subnet": 7})), 7, &["`ipam.ranges[0][0].subnet`", "is 7"]),
        (ranges(json!(null)), 7, &["`ipam.ranges`", "holds no range"]),
        (ranges(json!([])), 7, &["`ipam.ranges`", "holds no range"]),
        (ranges(json!([[]])), 7, &["`ipam.ranges[0]`", "holds no range"]),
        (ranges(json!("10.1.0.0/24")), 7, &["`ipam.ranges`", "`10.1.0.0/24`"]),
        (ranges(json!([{"subnet": "10.1.0.0/24"}])), 7, &["`ipam.ranges[0]`", "an object"]),
        (range(json!({})), 7, &["`ipam.ranges[0][0].subnet` is missing"]),
        (range(json!({"subnet": "10.1.0.0"})), 7, &["`ipam.ranges[0][0].subnet`", "`10.1.0.0`"]),
        (range(json!({"subnet": "10.1.0.0/33"})), 7, &["`ipam.ranges[0][0].subnet`", "`10.1.0.0/33`"]),
        (range(json!({"subnet": "10.1.0.7/24"})), 7, &["`ipam.ranges[0][0].subnet`", "10.1.0.7/24"]),
        (range(json!({"subnet": "10.1.0.0/31"})), 7, &["`ipam.ranges[0][0].subnet`", "10.1.0.0/31"]),
        (range(json!({"subnet": "224.0.0.0/4"})), 7, &["`ipam.ranges[0][0].subnet`", "224.0.0.0/4"]),
        (range(json!({"subnet": "fe80::/64"})), 7, &["`ipam.ranges[0][0].subnet`", "fe80::/64"]),
        (range(json!({"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"})), 7, &["rangeStart`", "10.2.0.1"]),
        (range(json!({"subnet": "10.1.0.0/24", "rangeEnd": "fd00::1"})), 7, &["rangeEnd`", "fd00::1"]),
        (
            range(json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"})),
            7,
            &["rangeEnd`", "10.1.0.8 is before", "10.1.0.9", "swap"],
        ),
        (range(json!({"subnet": "10.1.0.0/24", "gateway": "fd00::1"})), 7, &["gateway`", "fd00::1"]),
        (range(json!({"subnet": "10.1.0.0/24", "gateway": "the-router"})), 7, &["gateway`", "`the-router`"]),
        (
            ranges(json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]])),
            7,
            &["`ipam.ranges[0]`", "10.1.0.1-10.1.0.254", "fd00::1", "two sets"],
        ),
        (
            ranges(json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/16"}]])),
            7,
            &["`ipam.ranges`", "10.1.0.1-10.1.0.254", "overlap"],
        ),
        (
            json!({"cniVersion": "0.2.0", "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}}),
            7,
            &["`ipam.ranges`", "2 IPv4 sets", "0.2.0", "0.3.0"],
        ),
        (
            json!({"mode": "bridge", "ipam": {"ranges": [[{"subnet": "10.1.0.0/24", "gateway": "169.254.1.1"}]]}}),
            7,
            &["`ipam`", "`bridge`", "169.254.1.1 is not in 10.1.0.0/24", "`ptp`"],
        ),
        (
            json!({"mode": "bridge", "ipam": {"ranges": [[{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.255"}]]}}),
            7,
            &["`ipam`", "10.1.0.255", "narrow"],
        ),
        (
            json!({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}]]}, "routes": [{"dst": "::/0"}]}),
            7,
            &["`routes`", "::/0", "IPv6"],
        ),
        (json!({"ipam": {"routes": [{"dst": "x"}]}}), 7, &["`ipam.routes[0].dst`", "`x`"]),
    ]
}

fn in_what_the_runtime_adds() -> Vec<Row> {
    let runtime = |runtime: Value| json!({"runtimeConfig": runtime});
    let port = |mapping: Value| json!({"runtimeConfig": {"portMappings": [mapping]}});
    let limits = |limits: Value| json!({"runtimeConfig": {"bandwidth": limits}});
    let one = json!({"hostPort": 80, "containerPort": 80});
    vec![
        (runtime(json!([])), 7, &["`runtimeConfig`", "a list"]),
        (runtime(json!({"ips": "10.244.1.7"})), 7, &["`runtimeConfig.ips`", "`10.244.1.7`"]),
        (runtime(json!({"ips": ["10.244.1.7/33"]})), 7, &["`runtimeConfig.ips[0]`", "`10.244.1.7/33`"]),
        (runtime(json!({"ips": ["192.0.2.7"]})), 7, &["192.0.2.7", "10.244.1.1-10.244.1.254"]),
        (runtime(json!({"ips": ["10.244.1.1"]})), 7, &["10.244.1.1", "the gateway", "ask for another"]),
        (runtime(json!({"ips": ["10.244.1.7", "10.244.1.8"]})), 7, &["10.244.1.8", "second one"]),
        (json!({"args": {"cni": {"ips": ["x"]}}}), 7, &["`args.cni.ips[0]`", "`x`"]),
        (json!({"args": 7}), 7, &["`args`", "is 7"]),
        (runtime(json!({"mac": "02:00"})), 7, &["`runtimeConfig.mac`", "`02:00`"]),
        (runtime(json!({"mac": "01:00:00:00:00:01"})), 7, &["`runtimeConfig.mac`", "01:00:00:00:00:01"]),
        (runtime(json!({"mac": "00:00:00:00:00:00"})), 7, &["`runtimeConfig.mac`", "00:00:00:00:00:00"]),
        (
            runtime(json!({"ipRanges": [[{"subnet": "x"}]]})),
            7,
            &["`runtimeConfig.ipRanges[0][0].subnet`", "`x`"],
        ),
        (
            runtime(json!({"ipRanges": [[{"subnet": "10.244.0.0/16"}]]})),
            7,
            &["10.244.0.1-10.244.255.254", "10.244.1.1-10.244.1.254", "overlap"],
        ),
        (runtime(json!({"portMappings": {}})), 7, &["`runtimeConfig.portMappings`", "an object"]),
        (port(json!({"hostPort": 65536, "containerPort": 1})), 7, &["portMappings[0].hostPort`", "65536"]),
        (port(json!({"containerPort": 80})), 7, &["portMappings[0].hostPort` is missing"]),
        (port(json!({"hostprot": 80, "containerPort": 80})), 7, &["`hostprot`", "write `hostPort`"]),
        (limits(json!({"ingresRate": 8, "ingressBurst": 8})), 7, &["`ingresRate`", "write `ingressRate`"]),
        (port(json!({"hostPort": 80})), 7, &["portMappings[0].containerPort` is missing"]),
        (port(json!({"hostPort": 80, "containerPort": 0})), 7, &["portMappings[0].containerPort`", "is 0"]),
        (
            port(json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"})),
            7,
            &["[0].protocol`", "`icmp`"],
        ),
        (port(json!({"hostPort": 80, "containerPort": 80, "hostIP": "me"})), 7, &["[0].hostIP`", "`me`"]),
        (
            port(json!({"hostPort": 80, "containerPort": 80, "hostIP": "224.0.0.1"})),
            7,
            &["[0].hostIP`", "`224.0.0.1`"],
        ),
        (
            runtime(json!({"portMappings": [one, one]})),
            7,
            &["portMappings[1].hostPort`", "tcp 80", "remove one"],
        ),
        (
            json!({
                "ipam": {"ranges": [[{"subnet": "fd00::/64"}]]},
                "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "192.0.2.1"}]},
            }),
            7,
            &["192.0.2.1", "tcp 80", "no range"],
        ),
        (limits(json!({"ingressRate": 1000})), 7, &["bandwidth.ingressBurst` is missing"]),
        (limits(json!({"egressBurst": 1000})), 7, &["bandwidth.egressRate` is missing"]),
        (limits(json!({"egressRate": 7, "egressBurst": 1000})), 7, &["bandwidth.egressRate`", "7 bits"]),
        (limits(json!({"egressRate": "1M", "egressBurst": 1000})), 7, &["bandwidth.egressRate`", "`1M`"]),
        (
            limits(json!({"egressRate": 1000, "egressBurst": 34_359_738_360_u64})),
            7,
            &["bandwidth.egressBurst`", "34359738360"],
        ),
    ]
}

/// What is in the environment in the place of what is right; `None` is absent.
type Variable = (&'static str, Option<String>, u64, &'static [&'static str]);

fn in_the_environment() -> Vec<Variable> {
    let given = |value: &str| Some(value.to_owned());
    vec![
        ("CNI_COMMAND", given("add"), 4, &["`CNI_COMMAND`", "`add`", "ADD"]),
        ("CNI_COMMAND", given(""), 4, &["`CNI_COMMAND`", "missing"]),
        ("CNI_CONTAINERID", None, 4, &["`CNI_CONTAINERID`", "missing"]),
        ("CNI_CONTAINERID", given("../x"), 4, &["`CNI_CONTAINERID`", "`../x`"]),
        ("CNI_CONTAINERID", Some(long(201)), 4, &["`CNI_CONTAINERID`", "200 bytes"]),
        ("CNI_NETNS", None, 4, &["`CNI_NETNS`", "missing"]),
        ("CNI_NETNS", given("netns/a"), 4, &["`CNI_NETNS`", "`netns/a`"]),
        ("CNI_NETNS", Some(format!("/{}", long(4096))), 4, &["`CNI_NETNS`", "4096 bytes"]),
        ("CNI_NETNS", given("/run/netns/gone"), 8, &["`CNI_NETNS`", "/run/netns/gone", "the pod is gone"]),
        ("CNI_NETNS", given("/etc/passwd"), 8, &["`CNI_NETNS`", "/etc/passwd", "its mount is missing"]),
        ("CNI_NETNS", given("/etc"), 8, &["`CNI_NETNS`", "/etc"]),
        ("CNI_NETNS", given("/etc/passwd/x"), 8, &["`CNI_NETNS`", "/etc/passwd/x"]),
        ("CNI_NETNS", given("/proc/thread-self/ns/net"), 8, &["`CNI_NETNS`", "the node's own"]),
        ("CNI_IFNAME", None, 4, &["`CNI_IFNAME`", "missing"]),
        ("CNI_IFNAME", given("a-name-of-16-byt"), 4, &["`CNI_IFNAME`", "a-name-of-16-byt", "15 bytes"]),
        ("CNI_IFNAME", given("a:b"), 4, &["`CNI_IFNAME`", "a:b"]),
        ("CNI_IFNAME", given("all"), 4, &["`CNI_IFNAME`", "`all`", "reserved"]),
        ("CNI_IFNAME", given("default"), 4, &["`CNI_IFNAME`", "`default`", "reserved"]),
        ("CNI_IFNAME", given("lo"), 101, &["interface `lo` exists already"]),
        ("CNI_ARGS", given("IP"), 4, &["`CNI_ARGS`", "`IP`"]),
        ("CNI_ARGS", given("FOO=1"), 4, &["`CNI_ARGS`", "`FOO`", "IgnoreUnknown=1"]),
        ("CNI_ARGS", given("IP=10.244.1"), 4, &["`CNI_ARGS`", "IP", "`10.244.1`"]),
        ("CNI_ARGS", given("MAC=x"), 4, &["`CNI_ARGS`", "MAC", "`x`"]),
        ("CNI_ARGS", Some(format!("K8S_POD_NAME={}", long(254))), 4, &["`CNI_ARGS`", "K8S_POD_NAME"]),
        ("CNI_ARGS", given("IP=192.0.2.7"), 7, &["192.0.2.7", "10.244.1.1-10.244.1.254"]),
    ]
}

/// The error's code and message, which must be one that a person can act upon.
fn judged(outcome: &Outcome, code: u64, named: &[&str]) -> String {
    let (found, msg) = outcome.error();
    assert_eq!(found, code, "{msg}");
    for part in named {
        assert!(msg.contains(part), "{part:?} is not in: {msg}");
    }
    assert!(msg.len() < 600 && !msg.contains(char::is_control), "{msg}");
    format!("{code} {msg}")
}

#[test]
fn every_field_of_the_configuration_that_is_wrong_is_named_with_value_and_remedy() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let before = (node.state(), pod.ns.run(observe).unwrap());
    let mut told = String::new();
    for (patch, code, named) in [in_the_whole(), in_ipam(), in_what_the_runtime_adds()].concat() {
        let outcome = Call::about("ADD", &pod, &node.conf_with(patch)).run();
        writeln!(told, "{}", judged(&outcome, code, named)).unwrap();
        assert_eq!((node.state(), pod.ns.run(observe).unwrap()), before, "{told}");
    }
    insta::assert_snapshot!(told);
}

#[test]
fn every_variable_that_is_wrong_is_named_with_value_and_remedy() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let before = (node.state(), pod.ns.run(observe).unwrap());
    let mut told = String::new();
    for (variable, value, code, named) in in_the_environment() {
        let call = Call::about("ADD", &pod, &node.conf("ptp"));
        let call = match value {
            Some(value) => call.with(variable, value),
            None => call.without(variable),
        };
        writeln!(told, "{}", judged(&call.run(), code, named)).unwrap();
        assert_eq!((node.state(), pod.ns.run(observe).unwrap()), before, "{told}");
    }
    insta::assert_snapshot!(told);
}

#[test]
fn bytes_that_are_no_configuration_are_refused_in_short_by_every_verb_that_reads_one() {
    let node = Node::enter();
    let pod = Pod::new("first");
    let right = node.conf("ptp").to_string();
    let deep = format!(r#"{{"name":"n","type":"t","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let large = format!("{right}{}", " ".repeat(2 << 20));
    let inputs: [(&str, Vec<u8>); 8] = [
        ("empty", vec![]),
        ("white space", b" \n".to_vec()),
        ("half", right.as_bytes()[..right.len() / 2].to_vec()),
        ("not UTF-8", b"{\"name\":\"\xff\xfe\",\"type\":\"t\"}".to_vec()),
        ("a list", b"[]".to_vec()),
        ("two objects", format!("{right}{right}").into_bytes()),
        ("deep", deep.into_bytes()),
        ("2 MiB", large.into_bytes()),
    ];
    for (what, input) in inputs {
        for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            let outcome = Call::about(verb, &pod, &json!({})).reading(input.clone()).run();
            let (code, msg) = outcome.error();
            assert_eq!(code, 6, "{what}: {msg}");
            assert!(msg.starts_with("failed to decode the network configuration: "), "{what}: {msg}");
            assert!(msg.ends_with("give one JSON object") && msg.len() < 300, "{what}: {msg}");
        }
    }
    assert!(!node.data_dir().exists());
}

#[test]
fn standard_input_that_is_closed_is_an_empty_configuration() {
    let node = Node::enter();
    let call = Call::about("ADD", &Pod::new("first"), &node.conf("ptp"));
    let output = call.command().stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 6);
}

#[test]
fn a_file_name_that_is_no_plugins_is_named() {
    let node = Node::enter();
    for program in ["calico", "", "/opt/cni/bin/", "hostgw.bak"] {
        let (code, msg) = Call::new("STATUS", &node.conf("ptp")).by_name(program).run().error();
        assert_eq!(code, 4, "{msg}");
        assert!(
            msg.contains(&format!("`{program}`")) && msg.contains("hostgw, hostgw-cni, loopback"),
            "{msg}"
        );
    }
}

#[test]
fn a_person_who_calls_it_is_told_what_it_is() {
    let node = Node::enter();
    let call = Call::new("", &node.conf("ptp")).without("CNI_COMMAND");
    let outcome = call.run();
    let told = outcome.answer();
    assert!(
        told.starts_with("hostgw-cni ") && told.contains("CNI protocol versions supported: 0.1.0"),
        "{told}"
    );
}

#[test]
fn an_error_is_answered_in_the_version_that_was_asked_for() {
    let node = Node::enter();
    for version in ["0.1.0", "0.4.0", "1.0.0"] {
        let conf = node.conf_with(json!({"cniVersion": version, "mtu": "x"}));
        let outcome = Call::about("ADD", &Pod::new("first"), &conf).run();
        assert_eq!(outcome.error().0, 7);
        assert_eq!(outcome.version(), version);
    }
}
