//! The configuration of `type: hostgw`: what is accepted, what is filled in, and how each fault is refused.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test's helper fails by panicking, as the test does")]

use cni_spec::{CniArgs, Command, ErrorCode, ListenerCheck, Mode, NetConf, SpecVersion};
use serde_json::{Value, json};

/// A configuration with one IPv4 and one IPv6 range, and `changes` put over it.
fn conf(changes: Value) -> Value {
    let mut conf = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "hostgw",
        "ipam": {"ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:1::/64"}]]},
    });
    let Value::Object(changes) = changes else { panic!("not an object") };
    for (key, value) in changes {
        conf[key] = value;
    }
    conf
}

fn parse(changes: Value) -> Result<NetConf, cni_spec::CniError> {
    NetConf::parse(conf(changes).to_string().as_bytes())
}

fn refused(changes: Value) -> String {
    let error = parse(changes).unwrap_err();
    format!("{} {}", error.code.number(), error.msg)
}

fn ipam_refused(ipam: &Value) -> String {
    refused(json!({"ipam": ipam}))
}

#[test]
fn a_short_configuration_gets_defaults() {
    let conf = parse(json!({})).unwrap();
    assert_eq!(conf.mode, Mode::Ptp);
    assert_eq!(conf.bridge.as_str(), "cni0");
    assert_eq!(conf.mtu, None);
    assert_eq!(conf.ipam.data_dir.to_str(), Some("/run/hostgw/ipam"));
    assert!(conf.hairpin);
    assert_eq!(conf.host_port_listener_check, ListenerCheck::Refuse);
    let routes: Vec<String> = conf.routes.iter().map(|route| route.dst.to_string()).collect();
    assert_eq!(routes, ["0.0.0.0/0", "::/0"]);
    assert!(conf.routes.iter().all(|route| route.gw.is_none()));
}

#[test]
fn what_the_agent_and_a_runtime_write_is_read() {
    let conf = parse(json!({
        "cniVersion": "1.1.0", "mode": "bridge", "bridge": "br-pods", "mtu": 9000, "hairpin": false,
        "ipam": {
            "type": "host-local", "dataDir": "/var/lib/x",
            "ranges": [[
                {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.20", "gateway": "10.1.0.254"},
                {"subnet": "10.2.0.0/24"},
            ]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
        "routes": [{"dst": "192.168.0.0/16", "gw": "10.1.0.1", "mtu": 1400, "priority": 5, "table": 7, "scope": 0}],
        "dns": {"nameservers": ["10.96.0.10"]},
        "nodeAddresses": ["192.0.2.1", "2001:db8::1"], "readyFile": "/run/hostgw/ready",
        "logFile": "/var/log/hostgw.log", "logLevel": "debug", "hostPortListenerCheck": "warn",
        "capabilities": {"portMappings": true}, "unknown": {"to": "us"},
        "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080}], "unknown": []},
        "prevResult": {"cniVersion": "1.1.0", "ips": []},
    }))
    .unwrap();
    insta::assert_debug_snapshot!(conf);
}

#[test]
fn ranges_come_from_the_runtime_then_the_old_form_then_the_list() {
    let conf = parse(json!({
        "ipam": {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.9", "ranges": [[{"subnet": "10.3.0.0/24"}]]},
        "runtimeConfig": {"ipRanges": [[{"subnet": "10.1.0.0/24"}]]},
    }))
    .unwrap();
    assert_eq!(
        conf.ipam.range_sets.to_string(),
        "10.1.0.1-10.1.0.254, 10.2.0.9-10.2.0.254, 10.3.0.1-10.3.0.254"
    );
}

#[test]
fn each_fault_in_the_ranges_names_field_value_and_remedy() {
    insta::assert_debug_snapshot!([
        ipam_refused(&Value::Null),
        ipam_refused(&json!([])),
        ipam_refused(&json!({})),
        ipam_refused(&json!({"ranges": []})),
        ipam_refused(&json!({"ranges": {}})),
        ipam_refused(&json!({"ranges": [{}]})),
        ipam_refused(&json!({"ranges": [[]]})),
        ipam_refused(&json!({"ranges": [[{}]]})),
        ipam_refused(&json!({"ranges": [[{"subnet": "10.1.0.0"}]]})),
        ipam_refused(&json!({"ranges": [[{"subnet": "10.1.0.5/24"}]]})),
        ipam_refused(&json!({"ranges": [[{"subnet": "10.1.0.0/31"}]]})),
        ipam_refused(&json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/16"}]]})),
        ipam_refused(&json!({"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]})),
        ipam_refused(
            &json!({"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24", "rangeStart": "10.1.0.1"}]]})
        ),
        ipam_refused(&json!({"ranges": [[{"subnet": "10.1.0.0/24", "rangeEnd": "fd00::9"}]]})),
        ipam_refused(
            &json!({"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}]]})
        ),
        ipam_refused(&json!({"ranges": [[{"subnet": "10.1.0.0/24", "gateway": "fe80::1"}]]})),
        ipam_refused(&json!({"rangeStart": "10.1.0.1"})),
        ipam_refused(&json!({"ranges": vec![json!([]); 65]})),
        ipam_refused(&json!({"type": "whereabouts", "ranges": [[{"subnet": "10.1.0.0/24"}]]})),
        ipam_refused(&json!({"subnet": "10.1.0.0/24", "dataDir": "here"})),
        ipam_refused(&json!({"subnet": "10.1.0.0/24", "routes": [{"dst": "::/0"}]})),
        ipam_refused(
            &json!({"subnet": "10.1.0.0/24", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "0.0.0.0/0"}]})
        ),
    ]);
}

#[test]
fn each_fault_elsewhere_names_field_value_and_remedy() {
    insta::assert_debug_snapshot!([
        refused(json!({"name": "a/b"})),
        refused(json!({"cniVersion": "1.2.0"})),
        refused(json!({"mode": "overlay"})),
        refused(json!({"mode": true})),
        refused(json!({"bridge": "a-name-of-16-byt"})),
        refused(json!({"bridge": ""})),
        refused(json!({"mtu": 67})),
        refused(json!({"mtu": 65_536})),
        refused(json!({"mtu": "1500"})),
        refused(json!({"mtu": 1500.5})),
        refused(json!({"mtu": 1279})),
        refused(json!({"hairpin": "yes"})),
        refused(json!({"routes": {}})),
        refused(json!({"routes": [{"dst": "10.0.0.0/8", "gw": "fd00::1"}]})),
        refused(json!({"nodeAddresses": ["192.0.2.1", "192.0.2.2"]})),
        refused(json!({"nodeAddresses": ["127.0.0.1"]})),
        refused(json!({"nodeAddresses": "192.0.2.1"})),
        refused(json!({"readyFile": "ready"})),
        refused(json!({"logFile": "log"})),
        refused(json!({"logLevel": "loud"})),
        refused(json!({"hostPortListenerCheck": false})),
        refused(json!({"localhostPorts": 1})),
        refused(json!({"localhostPorts": true, "mode": "bridge"})),
        refused(json!({
            "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "127.0.0.1"}]},
        })),
        refused(json!({
            "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "::1"}]},
        })),
        refused(json!({"dns": {"nameservers": [7]}})),
        refused(json!({"runtimeConfig": {"portMappings": [{"hostPort": 80}]}})),
        refused(json!({"runtimeConfig": {"portMappings": vec![Value::Null; 4097]}})),
    ]);
}

#[test]
fn a_host_ip_of_a_family_without_range_is_refused() {
    insta::assert_snapshot!(
        refused(json!({
            "ipam": {"subnet": "10.1.0.0/24"},
            "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "2001:db8::1"}]},
        })),
        @"7 `runtimeConfig`: host port tcp 80 of 2001:db8::1 is IPv6, but no range is; use a hostIP of the pod's family"
    );
}

#[test]
fn a_bridge_needs_its_gateway_and_pods_inside_the_subnet() {
    let bridge = |ipam: Value| parse(json!({"mode": "bridge", "ipam": ipam})).map_err(|error| error.msg);
    let ptp = |ipam: Value| parse(json!({"mode": "ptp", "ipam": ipam}));
    let faults = [
        json!({"subnet": "10.1.0.0/24", "gateway": "10.2.0.1"}),
        json!({"subnet": "10.1.0.0/24", "gateway": "10.1.0.255"}),
        json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.0"}),
        json!({"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.255"}),
        json!({"subnet": "fd00::/64", "rangeStart": "fd00::"}),
    ];
    for ipam in &faults {
        assert!(ptp(ipam.clone()).is_ok(), "{ipam}");
    }
    insta::assert_debug_snapshot!(faults.map(|ipam| bridge(ipam).unwrap_err()));
    assert!(bridge(json!({"subnet": "10.10.0.0/16", "gateway": "10.10.1.0"})).is_ok());
}

#[test]
fn old_versions_carry_one_address_a_family() {
    let two = json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]});
    assert!(refused(json!({"cniVersion": "0.2.0", "ipam": two})).contains("one address a family"));
    assert!(parse(json!({"cniVersion": "0.3.0", "ipam": two})).is_ok());
    assert!(parse(json!({"cniVersion": ""})).is_ok());
}

#[test]
fn a_small_mtu_is_fine_without_ipv6() {
    let ipam = json!({"subnet": "10.1.0.0/24"});
    assert_eq!(parse(json!({"ipam": ipam, "mtu": 576})).unwrap().mtu, Some(576));
    assert_eq!(parse(json!({"mtu": 0})).unwrap().mtu, None);
    assert_eq!(parse(json!({"mtu": 1280})).unwrap().mtu, Some(1280));
}

#[test]
fn requests_from_arguments_and_configuration_are_joined() {
    let conf =
        parse(json!({"runtimeConfig": {"ips": ["10.244.1.9", "fd00:1::9"], "mac": "02:00:00:00:00:01"}}));
    let conf = conf.unwrap();
    let args = CniArgs::parse("IP=10.244.1.9/24;MAC=02:00:00:00:00:02").unwrap();
    assert_eq!(conf.requested_ips(&args).len(), 2);
    assert_eq!(conf.requested_mac(&args).unwrap().to_string(), "02:00:00:00:00:01");
}

#[test]
fn check_reads_the_previous_result_in_the_configurations_version() {
    let conf = parse(json!({"prevResult": {"ips": [{"address": "10.244.1.2/24"}]}})).unwrap();
    assert_eq!(Command::Check.check_allowed_in(conf.base.cni_version), Ok(()));
    assert_eq!(conf.base.required_prev_result().unwrap().ips.len(), 1);
    let error = parse(json!({})).unwrap().base.required_prev_result().unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidNetworkConfig);
    assert_eq!(conf.base.cni_version, SpecVersion::V1_0_0);
}
